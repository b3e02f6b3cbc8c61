"""Mixture over the time at which a regression begins, so that a late one is found as fast as an early one.

R_t = (R_{t−1} + π_t)·e_t and E_t = R_t + (1 − Σ_{s≤t} π_s) = Σ_s π_s·Π_{s≤u≤t} e_u, for each member of a mixture by itself. E is the
mean, weighted π_s, of the e-processes that begin at block s (before it: 1), and so an e-process. Empty blocks have e = 1 and use up their
π_t all the same.

The prior π never ends, as a canary may live longer than planned: π_1 = ½, and with u = (t − 1)/planned what has not been put to work
after block t is ½·(1 − u) up to u = ½ (π_t = ½ / planned), and 1/(8u) from there on, which has the same value and slope at u = ½. So
Σπ = 1 over all time: the mixture's mean stays at most 1 however long it goes on, and Ville's bound holds for the canary's whole life. A
start at the end of the plan has a quarter of an even prior's weight; one at ten plans a four-hundredth, ln 400 of evidence more.

Between blocks capital may be given away, never added: with `settled` E_t is a non-negative supermartingale from 1 all the same,
and by Ville's inequality, P(E ever ≥ 1/α) ≤ α, the bound is on all episodes of a canary together.

Symbols: R capital at work, π_t prior weight of a start at block t, e_t the block's e-value, w weight of a member.
Source: A. N. Shiryaev, "On optimum methods in quickest detection problems", Theory Probab. Appl. 8 (1963), the recursion;
J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", New Engl. J. Statist.
Data Sci. 2 (2024), its use with e-processes; J. Ville, "Étude critique de la notion de collectif" (1939), the inequality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log1p

from .logspace import log_sum

FIRST = 0.5
# The part of the plan over which starts are equally likely; then ever less, without an end.
EVEN = 0.5


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
    start = idle_weight(state.blocks, planned=planned) - idle_weight(state.blocks + 1, planned=planned)
    capital = state.ln_capital
    if start > 0:
        new = math.log(start)
        # ln (R + π): the smaller of the two is added to the greater.
        capital = tuple([(r + log1p(exp(new - r))) if r > new else (new + log1p(exp(r - new))) for r in capital])
    return Restarts(ln_capital=tuple([r + e for r, e in zip(capital, ln_e, strict=True)]), blocks=state.blocks + 1)


def settled(state: Restarts, *, planned: int) -> Restarts:
    """R := min(R, Σπ): what was won is given up, and what was put in goes on, so that evidence is 1 at most."""
    stake = 1 - idle_weight(state.blocks, planned=planned)
    most = math.log(stake) if stake > 0 else -math.inf
    return Restarts(ln_capital=tuple([min(r, most) for r in state.ln_capital]), blocks=state.blocks)


def log_value(state: Restarts, *, ln_weights: Sequence[float], planned: int) -> float:
    """ln E of the weighted mixture."""
    terms = list(map(float.__add__, state.ln_capital, ln_weights))
    terms.append(math.log(idle_weight(state.blocks, planned=planned)))
    return log_sum(terms)


def idle_weight(blocks: int, *, planned: int) -> float:
    """1 − Σπ: what has not been put to work after so many blocks; never 0."""
    if blocks == 0:
        return 1.0
    elapsed = (blocks - 1) / planned
    return (1 - FIRST) * (1 - elapsed) if elapsed <= EVEN else (1 - FIRST) * (1 - EVEN) * EVEN / elapsed
