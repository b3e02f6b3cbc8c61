"""How much bad requests come in bursts, from stable alone: the correlation inside a block, and from one block to the next.

ρ̂ = max(0, Σ[(k − n·p̂)² − n·p̂(1 − p̂)] / Σ n(n − 1)·p̂(1 − p̂)) over stable's blocks of each pod, p̂ = (Σk + ½)/(Σn + 1): by moments.
A burst of n requests is worth n / (1 + (n − 1)·ρ) independent ones; the counts of each arm are divided by that design effect with its
own n, and with 1.5·ρ̂, as ρ̂ itself is uncertain. Counts that are divided before a test divide its logarithms too: with independent
requests it stays an e-value (Jensen's inequality), as the projection of `twosample` is made with the divided counts.
Sums are kept, not blocks: five figures for ρ̂, five for the correlation of a block's share with the next one's.

Symbols: k bad of n requests of one pod in one block.
Source: L. Kish, "Survey Sampling" (1965), the design effect; M. S. Ridout, C. G. B. Demétrio and D. Firth, "Estimating intraclass
correlation for binary data", Biometrics 55 (1999), section 2, the moment estimator.
"""

import math
from dataclasses import dataclass

from .logspace import scale_of
from .twosample import Pair

SAFETY = 1.5
AUTOCORRELATED = 0.2
# The shares of independent blocks are correlated by chance, with a standard error of about 1/√blocks.
ENOUGH_BLOCKS = 60
CERTAIN_ERRORS = 3.0


@dataclass(frozen=True)
class Bursts:
    """Σk, Σn, Σk², Σkn, Σn² over the pods' blocks."""

    bad: float = 0.0
    total: float = 0.0
    bad_squares: float = 0.0
    products: float = 0.0
    total_squares: float = 0.0


@dataclass(frozen=True)
class Succession:
    """Blocks, Σx, Σx², Σx·x_before and the newest x, of stable's shares x."""

    blocks: int = 0
    sum: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    newest: float = 0.0


def with_pod_block(state: Bursts, *, bad: float, total: float) -> Bursts:
    """One pod's block more; the order does not matter."""
    scale = scale_of(total)
    k, n = bad * scale, total * scale
    return Bursts(
        bad=state.bad + k,
        total=state.total + n,
        bad_squares=state.bad_squares + k * k,
        products=state.products + k * n,
        total_squares=state.total_squares + n * n,
    )


def correlation(state: Bursts) -> float:
    """ρ̂, from 0 to 1; 0 where nothing can be told."""
    p = (state.bad + 0.5) / (state.total + 1)
    spread = p * (1 - p)
    pairs = (state.total_squares - state.total) * spread
    if pairs <= 0:
        return 0.0
    deviation = state.bad_squares - 2 * p * state.products + p * p * state.total_squares
    return min(1.0, max(0.0, (deviation - state.total * spread) / pairs))


def design_effect(total: float, *, correlation: float) -> float:
    """1 + (n − 1)·ρ, at least 1."""
    return 1 + max(0.0, total - 1) * correlation


def thinned(block: Pair, *, correlation: float) -> Pair:
    """The block's counts, each arm's divided by its design effect."""
    canary = design_effect(block.canary_total, correlation=SAFETY * correlation)
    stable = design_effect(block.stable_total, correlation=SAFETY * correlation)
    return Pair(
        canary_bad=block.canary_bad / canary,
        canary_total=block.canary_total / canary,
        stable_bad=block.stable_bad / stable,
        stable_total=block.stable_total / stable,
    )


def with_share(state: Succession, *, share: float) -> Succession:
    """The next block's share."""
    return Succession(
        blocks=state.blocks + 1,
        sum=state.sum + share,
        squares=state.squares + share * share,
        products=state.products + (share * state.newest if state.blocks else 0.0),
        newest=share,
    )


def autocorrelation(state: Succession) -> float:
    """The correlation of a block's share with the one before; 0 where it could be chance, or all are the same."""
    if state.blocks < ENOUGH_BLOCKS:
        return 0.0
    mean = state.sum / state.blocks
    variance = state.squares / state.blocks - mean * mean
    if not math.isfinite(variance) or variance <= 1e-15:
        return 0.0
    found = (state.products / (state.blocks - 1) - mean * mean) / variance
    return found if found >= CERTAIN_ERRORS / math.sqrt(state.blocks) else 0.0
