"""Alternatives as multiples of the odds of a bad request, so that they stay shares between 0 and 1. Knows no counts."""

import math

# Ω: from a regression of one half to a total outage.
WORSE = (1.5, 2.0, 3.0, 4.5, 7.0, 12.0, 20.0, 40.0, 100.0, 400.0, 2000.0, 1e5)
# Weights of Ω in the relative test: most on what is seen most, regressions of two to ten times.
WORSE_WEIGHTS = tuple(weight / 23 for weight in (2, 4, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1))
BETTER = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.03)

LN_WORSE_WEIGHTS = tuple(math.log(weight) for weight in WORSE_WEIGHTS)

# Estimates are kept off 0 and 1, where a logarithm has no value.
LEAST = 1e-12
MOST = 1 - 1e-9


def share_at(multiplier: float, *, of: float) -> float:
    """The share whose odds are `multiplier` × the odds of the share `of`: m·p / (1 − p + m·p)."""
    return multiplier * of / (1 - of + multiplier * of)


def inside(share: float) -> float:
    """The share, a hair away from 0 and 1."""
    return min(MOST, max(LEAST, share))
