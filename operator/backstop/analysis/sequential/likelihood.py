"""The request form of the absolute test: each request is a Bernoulli trial, the canary's bad share at most `allowed`.

E = mean over m in Ω of Π_t (p_m/p0)^k_t · ((1 − p_m)/(1 − p0))^(n_t − k_t), where p_m has m × the odds of p0. With
D_m = 1 + (m − 1)·p0 both ratios are m/D_m and 1/D_m, so that ln e_m = k·ln m − n·ln D_m: exact also where p0 is 0 or 1.

Symbols: p0 allowed share, k bad of n requests in a block, m odds multiplier.
Source: A. Wald, "Sequential Tests of Statistical Hypotheses", Ann. Math. Statist. 16 (1945), the likelihood ratio as a martingale;
H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41 (1970), mixtures of them; J. Ville,
"Étude critique de la notion de collectif" (1939), the inequality that lets one look after every block: P(E ever ≥ 1/α) ≤ α. For
m > 1 the ratio's mean falls with the true share, so that it is an e-value for every share up to p0; for m < 1 for every share from p0 on.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import log, log1p

from .logspace import log_mean, scale_of
from .odds import WORSE


def log_ratio(*, bad: float, total: float, null: float, alternative: float) -> float:
    """ln of the likelihood ratio of two shares, both inside (0, 1)."""
    return bad * log(alternative / null) + (total - bad) * (log1p(-alternative) - log1p(-null))


def log_ratios(*, bad: float, total: float, allowed: float, multipliers: Sequence[float] = WORSE) -> tuple[float, ...]:
    """ln e_m of one block for each multiplier. Counts are finite and 0 ≤ bad ≤ total; `allowed` from 0 to 1."""
    scale = scale_of(total)
    bad, total = bad * scale, total * scale
    return tuple([bad * of_bad - total * of_all for of_bad, of_all in _slopes(allowed, tuple(multipliers))])


def log_mixture(*, bad: float, total: float, allowed: float, multipliers: Sequence[float] = WORSE) -> float:
    """ln E of all requests at once: the mixture with equal weights, without restarts."""
    return log_mean(log_ratios(bad=bad, total=total, allowed=allowed, multipliers=multipliers))


@lru_cache(maxsize=256)
def _slopes(allowed: float, multipliers: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """ln m and ln D_m of each multiplier: a limit is the same for all blocks of an objective."""
    return tuple([(log(m), log1p((m - 1) * allowed)) for m in multipliers])
