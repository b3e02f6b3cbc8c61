"""Raw counter samples → what each scrape of a target added. No `rate()`, no extrapolation: every event is counted once.

A counter starts at 0: what a series shows when it first appears on a target that was scraped before was all counted since.
A counter of a gateway that falls tells that the process began again, and with it all counters of that target. Of other processes that is
not known: each of their series begins again by itself. That a counter is not there tells nothing: stores that are written to remotely
show the samples of one scrape one by one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from types import MappingProxyType

from .onegrid import on_one_grid
from .samples import Counter, Series

NOTHING_COUNTED: Mapping[str, float] = MappingProxyType({})
# By metric and revision, the counters with what they counted: so each indicator looks at its own alone.
Counted = Mapping[tuple[str, str], Sequence[tuple[Counter, float]]]


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

    @cached_property
    def counted(self) -> Counted:
        """`added`, by metric and revision."""
        return by_metric(self.added)


def by_metric(added: Mapping[Counter, float]) -> Counted:
    """What was added to each counter → the same by metric and revision."""
    found: dict[tuple[str, str], list[tuple[Counter, float]]] = {}
    for item in added.items():
        counter = item[0]
        found.setdefault((counter.metric, counter.revision), []).append(item)
    return found


def scrapes_by_target(series: Iterable[Series], *, counted: Mapping[str, float] = NOTHING_COUNTED) -> dict[str, list[Scrape]]:
    """Series → scrapes per target, oldest first. A sample that is there twice is taken once.

    `counted`: by target, when its newest scrape was that is counted already. Of those before it nothing but their times is taken, unless
    they have a counter that it lacks: what is added since is told by that one scrape.
    """
    found: dict[str, list[Series]] = {}
    for one in series:
        found.setdefault(one.target, []).append(one)
    scrapes = {}
    for target, mine in sorted(found.items()):
        together = on_one_grid(mine)
        at_times = _values_since(counted.get(target, -math.inf), series=together)
        if at_times is None:
            at_times = _values_since(-math.inf, series=together) or {}
        scrapes[target] = [Scrape(at=at, values=at_times[at]) for at in sorted(at_times)]
    return scrapes


def _values_since(mark: float, *, series: Iterable[Series]) -> dict[float, dict[Counter, float]] | None:
    """The values of one target's scrapes by their times; none of those before `mark`. None where what is at `mark` lacks one of these."""
    at_times: dict[float, dict[Counter, float]] = {}
    for one in series:
        counter, is_older, is_marked = one.counter, False, False
        for at, value in one.points:
            if at < mark:
                is_older = True
                at_times.setdefault(at, {})
            else:
                is_marked = is_marked or at == mark
                at_times.setdefault(at, {})[counter] = value
        if is_older and not is_marked:
            return None
    return at_times


def whole(scrapes: Iterable[Scrape]) -> list[Scrape]:
    """The scrapes, oldest first, without those that lack a counter of a gateway that the one before had: it may come late.

    Where the next scrape lacks it as well, it ended; where another one fell, the process began again.
    """
    seen = list(scrapes)
    known: Mapping[Counter, float] = {}
    result: list[Scrape] = []
    for scrape, later in zip_longest(seen, seen[1:]):
        missing = {counter for counter in set(known).difference(scrape.values) if not counter.part}
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
