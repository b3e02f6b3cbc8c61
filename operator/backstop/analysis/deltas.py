"""Raw counter samples → what each scrape of a target added. No `rate()`, no extrapolation: every event is counted once.

A counter starts at 0: what a series shows when it first appears on a target that was scraped before was all counted since.
A counter of a gateway that falls tells that the process began again, and with it all counters of that target. Of other processes that is
not known: each of their series begins again by itself. That a counter is not there tells nothing: stores that are written to remotely
show the samples of one scrape one by one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from .samples import Counter, Series


@dataclass(frozen=True)
class Scrape:
    """All counters of one target at one time (seconds since the epoch)."""

    at: float
    values: Mapping[Counter, float]


@dataclass(frozen=True)
class Increase:
    """What one scrape of one target added since the one before it."""

    at: float
    target: str
    added: Mapping[Counter, float] = field(hash=False)


def scrapes_by_target(series: Iterable[Series]) -> dict[str, list[Scrape]]:
    """Series → scrapes per target, oldest first. A sample that is there twice is taken once."""
    found: dict[str, dict[float, dict[Counter, float]]] = {}
    for one in series:
        at_times = found.setdefault(one.target, {})
        for at, value in one.points:
            at_times.setdefault(at, {})[one.counter] = value
    return {target: [Scrape(at=at, values=at_times[at]) for at in sorted(at_times)] for target, at_times in sorted(found.items())}


def whole(scrapes: Iterable[Scrape]) -> list[Scrape]:
    """The scrapes, oldest first, without those that lack a counter of a gateway that the one before had: it may come late.

    Where the next scrape lacks it as well, it ended; where another one fell, the process began again.
    """
    seen = list(scrapes)
    known: Mapping[Counter, float] = {}
    result: list[Scrape] = []
    for scrape, later in zip_longest(seen, seen[1:]):
        missing = {counter for counter in known.keys() - scrape.values.keys() if not counter.part}
        comes = later is None or not missing.isdisjoint(later.values)
        if missing and comes and not _began_again(scrape.values, known=known):
            continue
        result.append(scrape)
        known = scrape.values
    return result


def increases(scrapes: list[Scrape], *, target: str, base: float | None) -> list[Increase]:
    """What each scrape after `base` added. `base`: time of the last scrape already counted; None: the target is new, all counts.

    `scrapes`: the target's, oldest first, with the one at `base` among them.
    """
    known: dict[Counter, float] = {}
    newest: Mapping[Counter, float] = {}
    result: list[Increase] = []
    for scrape in scrapes:
        # Against the scrape before alone: one that was away since longer may have begun again when the others did, which are counted.
        if _began_again(scrape.values, known=newest):
            known = {}
        if base is None or scrape.at > base:
            result.append(
                Increase(at=scrape.at, target=target, added={c: _added(v, before=known.get(c)) for c, v in scrape.values.items()})
            )
        known |= scrape.values
        newest = scrape.values
    return result


def _began_again(values: Mapping[Counter, float], *, known: Mapping[Counter, float]) -> bool:
    return any(not counter.part and values.get(counter, value) < value for counter, value in known.items())


def _added(value: float, *, before: float | None) -> float:
    return value if before is None or value < before else value - before
