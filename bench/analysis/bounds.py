"""Wald's bound: the requests that no test with the same risk can do without on average.

ln(1/α)/I, where I is what one canary request tells: the least divergence from the null that the truth has.
Source: A. Wald, "Sequential Analysis" (1947), appendix A.
"""

import math

from backstop.analysis.sequential.twosample import projected


def divergence(p: float, *, q: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(q), in nats."""
    return (p * math.log(p / q) if p > 0 else 0.0) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def information(a: float, *, b: float, ratio: float, delta: float) -> float:
    """Nats per canary request at the shares a (canary) and b (stable) with `ratio` stable requests for each, against "≤ stable + δ"."""
    s = projected(a, b=b, canary_total=1.0, stable_total=ratio, delta=delta)
    return divergence(a, q=s + delta) + ratio * divergence(b, q=s)
