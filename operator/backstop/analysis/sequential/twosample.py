"""One block's e-value of "the canary's bad share is at most stable's plus δ", whatever stable's share is.

(a/c*)^k_c · ((1−a)/(1−c*))^(n_c−k_c) · (b/s*)^k_s · ((1−b)/(1−s*))^(n_s−k_s), where a and b are guesses of the two shares that were
made before the block, and (c*, s*), c* = s* + δ, is the point of the null next to them in Kullback-Leibler divergence, weighted by
the two counts: the root of  n_c·(s+δ−a)/((s+δ)(1−s−δ)) + n_s·(s−b)/(s(1−s)) = 0. For δ = 0 it is the mean of both, weighted by n.
With a > b + δ it is an e-value of "≤ stable + δ"; with a < b + δ of "≥ stable + δ" (promotion).

Symbols: n, k requests and bad ones; index c canary, s stable; δ allowed difference of shares.
Source: R. Turner, A. Ly and P. Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping",
J. Statist. Plann. Inference 230 (2024), theorem 1 (growth-rate-optimal for two Bernoulli streams, δ = 0); R. Turner and P. Grünwald,
"Exact anytime-valid confidence intervals for contingency tables and beyond", Statist. Probab. Lett. 198 (2023), nulls with δ ≠ 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from .logspace import scale_of
from .odds import LEAST, MOST

ITERATIONS = 60
# Relative size of the last step; Newton's method squares the error: what is left is below 1e-6, and what it adds to the mean of an
# e-value the square of that again, as the mean is 1 at any point of the null that is taken for the nearest.
LAST_STEP = 3e-4


@dataclass(frozen=True)
class Pair:
    """Requests of both arms in one block; not necessarily whole where a burst was divided out."""

    canary_bad: float
    canary_total: float
    stable_bad: float
    stable_total: float


def log_e(block: Pair, *, a: float, b: float, delta: float) -> float:
    """ln of the block's e-value; 0 where either arm has no request, or b + δ is no share. `a`, `b` inside (0, 1)."""
    return log_es(block, guesses=(a,), b=b, delta=delta)[0]


def log_es(block: Pair, *, guesses: Sequence[float], b: float, delta: float) -> list[float]:
    """`log_e` of several guesses of the canary's share. Written out, as nine tenths of the time of an analysis are spent here."""
    if block.canary_total <= 0 or block.stable_total <= 0 or not LEAST <= b + delta <= MOST:
        return [0.0] * len(guesses)
    of_canary, of_stable = scale_of(block.canary_total), scale_of(block.stable_total)
    n_c, k_c = of_canary * block.canary_total, of_canary * block.canary_bad
    n_s, k_s = of_stable * block.stable_total, of_stable * block.stable_bad
    g_c, g_s = n_c - k_c, n_s - k_s
    part = n_c / (n_c + n_s)
    stable = k_s * log(b) + g_s * log(1 - b)
    found = []
    for a in guesses:
        s = part * a + (1 - part) * b if delta == 0 else _root(a, b=b, part=part, delta=delta)
        c = s + delta
        found.append(k_c * log(a / c) + g_c * log((1 - a) / (1 - c)) + stable - k_s * log(s) - g_s * log(1 - s))
    return found


def projected(a: float, *, b: float, canary_total: float, stable_total: float, delta: float) -> float:
    """s*: stable's share at the point of the null that is nearest to (a, b)."""
    part = canary_total / (canary_total + stable_total)
    return part * a + (1 - part) * b if delta == 0 else _root(a, b=b, part=part, delta=delta)


def _root(a: float, *, b: float, part: float, delta: float) -> float:
    """s* by Newton's method on the equation without its denominators, which is a cubic; `part` of all requests are the canary's.

    The sum of the two divergences is convex in s, and each has its minimum at one end of [b, a − δ]: the root is between them, and a
    step that would leave what is known to hold it goes to the middle of that.
    """
    near = a - delta
    left, right = (b, near) if b < near else (near, b)
    low, high = (LEAST, MOST - delta) if delta > 0 else (LEAST - delta, MOST)
    if left < low:
        left = low
    if right > high:
        right = high
    rest = 1 - part
    s = part * near + rest * b
    if not left <= s <= right:
        s = (left + right) / 2
    for _ in range(ITERATIONS):
        c = s + delta
        f, g = part * s * (1 - s), rest * c * (1 - c)
        from_a, from_b = c - a, s - b
        value = from_a * f + from_b * g
        if value > 0:
            right = s
        else:
            left = s
        slope = f + g + part * from_a * (1 - s - s) + rest * from_b * (1 - c - c)
        new = s - value / slope if slope > 0 else left - 1
        if not left <= new <= right:
            new = (left + right) / 2
        least = new if delta > 0 else new + delta  # of s and c; the two shares' distances from 0 and 1 are the scale
        if abs(new - s) <= LAST_STEP * least * (1 - least - abs(delta)):
            return new
        s = new
    return s
