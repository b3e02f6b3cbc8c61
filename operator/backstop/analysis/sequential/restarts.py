"""Mixture over the time at which a regression begins, so that a late one is found as fast as an early one.

R_t = (R_{t−1} + π_t)·e_t and E_t = R_t + (1 − Σ_{s≤t} π_s), for each member of a mixture by itself. π_1 = ½; π_t = ½ / planned from
block 2 on, until the plan is used up. E is the mixture, weighted π_s, of the e-processes that begin at block s (before it: 1), and
so an e-process. Empty blocks have e = 1 and use up their π_t all the same.

Symbols: R capital at work, π_t prior weight of a start at block t, e_t the block's e-value, w weight of a member.
Source: A. N. Shiryaev, "On optimum methods in quickest detection problems", Theory Probab. Appl. 8 (1963), the recursion;
J. Shin, A. Ramdas and A. Rinaldo, "E-detectors", New Engl. J. Statist. Data Sci. 2 (2024), its use with e-processes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log1p

from .logspace import log_sum

FIRST = 0.5


@dataclass(frozen=True)
class Restarts:
    """ln R of each member, and how many blocks have been added."""

    ln_capital: tuple[float, ...]
    blocks: int = 0


def started(members: int) -> Restarts:
    """Nothing is at work yet."""
    return Restarts(ln_capital=(-math.inf,) * members)


def with_block(state: Restarts, *, ln_e: Sequence[float], planned: int) -> Restarts:
    """One more block, of which each member has `ln_e`."""
    start = _weight(state.blocks + 1, planned=planned)
    capital = state.ln_capital
    if start > 0:
        new = math.log(start)
        # ln (R + π): the smaller of the two is added to the greater.
        capital = tuple([(r + log1p(exp(new - r))) if r > new else (new + log1p(exp(r - new))) for r in capital])
    return Restarts(ln_capital=tuple([r + e for r, e in zip(capital, ln_e, strict=True)]), blocks=state.blocks + 1)


def dropped(state: Restarts) -> Restarts:
    """R := 0: what was at work is given up, and only what starts later counts. The bound is not spent twice."""
    return Restarts(ln_capital=(-math.inf,) * len(state.ln_capital), blocks=state.blocks)


def log_value(state: Restarts, *, ln_weights: Sequence[float], planned: int) -> float:
    """ln E of the weighted mixture."""
    idle = idle_weight(state.blocks, planned=planned)
    terms = list(map(float.__add__, state.ln_capital, ln_weights))
    if idle > 0:
        terms.append(math.log(idle))
    return log_sum(terms)


def idle_weight(blocks: int, *, planned: int) -> float:
    """1 − Σπ: what has not been put to work after so many blocks."""
    return 1.0 if blocks == 0 else FIRST * (1 - min(blocks - 1, planned) / planned)


def _weight(block: int, *, planned: int) -> float:
    if block == 1:
        return FIRST
    return (1 - FIRST) / planned if block - 1 <= planned else 0.0
