"""Scrapes that cannot be counted with are left out; if the newest one of a target is such, nothing is said of what it is a part of."""

import math
from collections.abc import Iterable
from itertools import pairwise

from .deltas import Scrape, scrapes_by_target, whole
from .indicators import SECONDS_BUCKET, SECONDS_COUNT
from .samples import Counter, NotANumber, Series

# Far above any count of requests, far below where sums would overflow.
LARGEST_COUNT = 1e19


def screened(series: Iterable[Series]) -> dict[str, list[Scrape]] | NotANumber:
    """Usable scrapes per target, oldest first.

    A scrape that is skipped loses nothing: counters add up, so the next one covers its time too.
    """
    scrapes = scrapes_by_target(series)
    for target, seen in scrapes.items():
        why = _unusable(seen[-1])
        if why is not None:
            return NotANumber(f"{why} (scrape target {target}); it is judged again when the pod exports counts.")
        scrapes[target] = whole(scrape for scrape in seen if _unusable(scrape) is None)
    return scrapes


def _unusable(scrape: Scrape) -> str | None:
    for counter, value in scrape.values.items():
        if not math.isfinite(value) or not 0 <= value <= LARGEST_COUNT:
            return f"`{counter.metric}` of revision {counter.revision} is {value}, which is not a count"
        if counter.metric == SECONDS_BUCKET and value > scrape.values.get(_count_of(counter), math.inf):
            return f"`{counter.metric}` of revision {counter.revision} has a bucket above its count"
    return _not_cumulative(scrape)


def _not_cumulative(scrape: Scrape) -> str | None:
    buckets: dict[Counter, list[tuple[float, float]]] = {}
    for counter, value in scrape.values.items():
        if counter.metric == SECONDS_BUCKET and counter.le is not None:
            buckets.setdefault(_count_of(counter), []).append((counter.le, value))
    for of, found in buckets.items():
        rising = [value for _, value in sorted(found)]
        if any(later < one for one, later in pairwise(rising)):
            return f"`{SECONDS_BUCKET}` of revision {of.revision} has buckets that are not cumulative"
    return None


def _count_of(bucket: Counter) -> Counter:
    return Counter(metric=SECONDS_COUNT, revision=bucket.revision, cache=bucket.cache, outcome=bucket.outcome, first_tier=bucket.first_tier)
