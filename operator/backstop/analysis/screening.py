"""Scrapes that cannot be counted with are left out; if the newest one of a target is such, nothing is said of what it is a part of."""

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .deltas import Scrape, scrapes_by_target, whole
from .indicators import SECONDS_BUCKET, SECONDS_COUNT
from .samples import Counter, NotANumber, Series

# Far above any count of requests, far below where sums would overflow.
LARGEST_COUNT = 1e19


def screened(series: Iterable[Series], *, counted: Mapping[str, float]) -> dict[str, list[Scrape]] | NotANumber:
    """Usable scrapes per target, oldest first; of those before the one that is `counted` already, see `scrapes_by_target`.

    A scrape that is skipped loses nothing: counters add up, so the next one covers its time too.
    """
    scrapes = scrapes_by_target(series, counted=counted)
    for target, seen in scrapes.items():
        chains = _chains(set[Counter]().union(*(scrape.values for scrape in seen)))
        why = _unusable(seen[-1], chains=chains)
        if why is not None:
            return NotANumber(f"{why} (scrape target {target}); it is judged again when the pod exports counts.")
        scrapes[target] = whole(scrape for scrape in seen if _unusable(scrape, chains=chains) is None)
    return scrapes


@dataclass(frozen=True)
class _Chain:
    """The buckets of one histogram, in the order in which they must not fall; and the count of all, which none may exceed."""

    buckets: tuple[Counter, ...]
    count: Counter


def _chains(counters: Iterable[Counter]) -> list[_Chain]:
    """One for each histogram of a target: its scrapes have the same ones."""
    found: dict[tuple[str, str, str], list[Counter]] = {}
    for counter in counters:
        if counter.metric == SECONDS_BUCKET:
            found.setdefault((counter.revision, counter.cache, counter.first_tier), []).append(counter)
    return [
        _Chain(buckets=tuple(sorted(buckets, key=_bound_of)), count=buckets[0]._replace(metric=SECONDS_COUNT, le=None))
        for buckets in found.values()
    ]


def _bound_of(bucket: Counter) -> float:
    return math.inf if bucket.le is None else bucket.le


def _unusable(scrape: Scrape, *, chains: Iterable[_Chain]) -> str | None:
    values = scrape.values
    for counter, value in values.items():
        if not 0 <= value <= LARGEST_COUNT:  # nor is NaN
            return f"`{counter.metric}` of revision {counter.revision} is {value}, which is not a count"
    for chain in chains:
        rising = [value for value in map(values.get, chain.buckets) if value is not None]
        if rising and max(rising) > values.get(chain.count, math.inf):
            return f"`{SECONDS_BUCKET}` of revision {chain.count.revision} has a bucket above its count"
        if any(map(operator.gt, rising, rising[1:])):
            return f"`{SECONDS_BUCKET}` of revision {chain.count.revision} has buckets that are not cumulative"
    return None
