"""Sums and products of figures that are far too large or small for a float, as logarithms. Knows nothing of requests."""

import math
from collections.abc import Iterable

# A block's counts are scaled down to this: beyond it, k·ln(a/c) and n·ln(…) cancel to noise in double precision. Scaling divides
# the logarithm of an e-value, which only makes it weaker (Jensen's inequality).
EXACT_REQUESTS = 1e9


def log_sum(terms: Iterable[float]) -> float:
    """ln Σ exp(term); -inf of nothing, or where every term is -inf."""
    terms = tuple(terms)
    top = max(terms, default=-math.inf)
    if math.isinf(top):
        return top
    exp = math.exp
    return top + math.log(sum([exp(term - top) for term in terms]))


def log_mean(terms: Iterable[float]) -> float:
    """ln of the mean of exp(term) of at least one term: a mixture of e-values with equal weights."""
    terms = tuple(terms)
    return log_sum(terms) - math.log(len(terms)) if len(terms) > 1 else terms[0]


def scale_of(total: float) -> float:
    """What a block of `total` requests is multiplied by, so that its logarithms are exact."""
    return EXACT_REQUESTS / total if total > EXACT_REQUESTS else 1.0
