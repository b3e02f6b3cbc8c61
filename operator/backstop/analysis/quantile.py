"""A latency quantile of one block, for people. No verdict is taken from it: verdicts take the share over a bucket bound."""

import math

from .deltas import Counted
from .indicators import SECONDS_BUCKET, SECONDS_COUNT
from .state import DisplayQuantile


def display_quantile(counted: Counted, *, revision: str, percent: int) -> DisplayQuantile | None:
    """The `percent` quantile of the time to the first byte, interpolated inside its bucket; None without a request.

    Only a few bounds around the limit are read: below the lowest and above the highest it is said so.
    """
    total = sum(n for _, n in counted.get((SECONDS_COUNT, revision), ()))
    if total <= 0:
        return None
    cumulative: dict[float, float] = {}
    for counter, count in counted.get((SECONDS_BUCKET, revision), ()):
        if counter.le is not None and math.isfinite(counter.le):
            cumulative[counter.le] = cumulative.get(counter.le, 0.0) + count
    return interpolated(sorted(cumulative.items()), rank=percent / 100 * total)


def interpolated(buckets: list[tuple[float, float]], *, rank: float) -> DisplayQuantile | None:
    """`buckets`: (upper bound in seconds, requests up to it), rising. `rank`: how many requests are at or below the quantile."""
    lower: tuple[float, float] | None = None
    for bound, below in buckets:
        if below >= rank:
            if lower is None:
                return DisplayQuantile(milliseconds=round(bound * 1000), sign="≤")
            share = (rank - lower[1]) / (below - lower[1])
            return DisplayQuantile(milliseconds=round((lower[0] + (bound - lower[0]) * share) * 1000), sign="≈")
        lower = (bound, below)
    return None if lower is None else DisplayQuantile(milliseconds=round(lower[0] * 1000), sign=">")
