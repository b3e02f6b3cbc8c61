"""Which latency bounds are compared beside the limit: a slow-down shows at all bounds near it, and most at the fullest.

The e-values at the bounds are averaged, E = (1/B)·Σ_b E_b (`relative`): its mean is at most 1 where that of each is, however they depend
on each other, as one slow request may be over several bounds. With an absolute limit the bounds reach from the limit to three times it;
where an increase over stable is judged, from 0.6 times it.

Symbols: E_b evidence at bound b, B how many bounds there are, the limit among them.
Source: V. Vovk and R. Wang, "E-values: calibration, combination and applications", Ann. Statist. 49 (2021), theorem 3.2: every
admissible symmetric way to make one e-value of several is their mean, or a mean of that and 1.
"""

from collections.abc import Iterable

from .state import MOST_COMPARISONS

LOWEST_OF_INCREASE, HIGHEST = 0.6, 3.0


def further_bounds(limit: float, *, available: Iterable[float], absolute: bool) -> tuple[float, ...]:
    """Bucket bounds (seconds, rising) that are compared beside `limit`; where there are too many, evenly chosen ones."""
    lowest = limit if absolute else LOWEST_OF_INCREASE * limit
    highest = HIGHEST * limit * (1 + 1e-9)  # three times the limit is one of them, and no exact number
    found = sorted({bound for bound in available if lowest <= bound <= highest and bound != limit})
    most = MOST_COMPARISONS - 1
    if len(found) <= most:
        return tuple(found)
    return tuple(found[round(index * (len(found) - 1) / (most - 1))] for index in range(most))
