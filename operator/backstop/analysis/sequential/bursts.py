"""How much bad requests come in bursts, from stable alone: the correlation inside a block, and from one block to the next.

ρ̂ = max(0, Σ[(k − n·p̂)² − n·p̂(1 − p̂)] / Σ n(n − 1)·p̂(1 − p̂)) over stable's blocks of each pod, p̂ = (Σk + ½)/(Σn + 1): by moments.
A burst of n requests is worth n / (1 + (n − 1)·ρ) independent ones; the counts of each arm are divided by that design effect with its
own n, and with 1.5·ρ̂, as ρ̂ itself is uncertain. Where a burst goes on from block to block, with r the correlation of two blocks' shares
once the chance of counting is taken off, T blocks hold no more than T/τ of them, τ = (1 + r)/(1 − r): ρ̂ is multiplied by τ, up to
what is left of a minute. So no block waits for others: an outage is told by the blocks in which it is.

Counts that are divided before a test divide its logarithms too: with independent requests it stays an e-value (Jensen's inequality),
whatever they are divided by, as long as that is known from past blocks, since the projection of `twosample` is made with the divided
counts. With dependent ones it is one approximately, as far as the variance of sums tells.
Sums are kept, not blocks: five figures for ρ̂, six for r.

Symbols: k bad of n requests of one pod in one block; ρ, r, τ see above.
Source: L. Kish, "Survey Sampling" (1965), the design effect; M. S. Ridout, C. G. B. Demétrio and D. Firth, "Estimating intraclass
correlation for binary data", Biometrics 55 (1999), section 2, the moment estimator; M. S. Bartlett, "Some aspects of the time-correlation
problem in regard to tests of significance", J. R. Stat. Soc. 98 (1935), the sum of a series in which each follows from the one before.
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
# Below it a variance of shares is what floats leave of none.
VARIES = 1e-15
# Bursts are taken to last so long at most.
LONGEST_SECONDS = 60.0


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
    """Blocks, Σx, Σx², Σx·x_before and the newest x, of stable's shares x; Σ1/n of their requests.

    `runs`: how many rows of blocks that follow on each other these are.
    """

    blocks: int = 0
    sum: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    newest: float = 0.0
    inverses: float = 0.0
    runs: int = 1


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
    """The block's counts, each arm's divided by its design effect. `correlation`: ρ̂, times τ where bursts go on."""
    most = min(1.0, SAFETY * correlation)
    canary = design_effect(block.canary_total, correlation=most)
    stable = design_effect(block.stable_total, correlation=most)
    return Pair(
        canary_bad=block.canary_bad / canary,
        canary_total=block.canary_total / canary,
        stable_bad=block.stable_bad / stable,
        stable_total=block.stable_total / stable,
    )


def with_share(state: Succession, *, bad: float, total: float) -> Succession:
    """The next block's share; it has a request."""
    share = bad / total
    return Succession(
        blocks=state.blocks + 1,
        sum=state.sum + share,
        squares=state.squares + share * share,
        products=state.products + (share * state.newest if state.blocks else 0.0),
        newest=share,
        inverses=state.inverses + 1 / total,
    )


def joined(one: Bursts, other: Bursts) -> Bursts:
    """The sums over the blocks of both."""
    return Bursts(
        bad=one.bad + other.bad,
        total=one.total + other.total,
        bad_squares=one.bad_squares + other.bad_squares,
        products=one.products + other.products,
        total_squares=one.total_squares + other.total_squares,
    )


def joined_succession(one: Succession, other: Succession) -> Succession:
    """The sums over the blocks of both, which do not follow on each other."""
    if other.blocks == 0:
        return one
    return Succession(
        blocks=one.blocks + other.blocks,
        sum=one.sum + other.sum,
        squares=one.squares + other.squares,
        products=one.products + other.products,
        newest=other.newest,
        inverses=one.inverses + other.inverses,
        runs=one.runs + other.runs,
    )


def independent(state: Bursts, *, succession: Succession, seconds: float) -> float:
    """How many independent requests tell as much of the share as these, which have come in blocks of so many seconds.

    Bursts are taken to be of all pods at once, and to last as long as they may where these are too few to tell.
    """
    if state.total <= 0 or succession.blocks == 0:
        return 0.0
    lasting = duration(succession, seconds=seconds) if succession.blocks >= ENOUGH_BLOCKS else _longest(seconds)
    # The mean size of the block that a request finds itself in, by which a mean over all requests varies; of all pods at least the mean.
    size = max(state.total_squares / state.total, state.total / succession.blocks)
    return state.total / (1 + max(0.0, size - 1) * SAFETY * correlation(state) * lasting)


def duration(state: Succession, *, seconds: float) -> float:
    """τ, 1 or more: how many blocks of so many seconds a burst lasts; 1 where what shares have in common could be chance."""
    if state.blocks < ENOUGH_BLOCKS:
        return 1.0
    mean = state.sum / state.blocks
    variance = state.squares / state.blocks - mean * mean
    if not variance > VARIES:
        return 1.0
    common = state.products / (state.blocks - state.runs) - mean * mean
    if common < max(AUTOCORRELATED, CERTAIN_ERRORS / math.sqrt(state.blocks)) * variance:
        return 1.0
    most = _longest(seconds)
    of_bursts = variance - mean * (1 - mean) * state.inverses / state.blocks
    return min(most, (of_bursts + common) / (of_bursts - common)) if of_bursts > common else most


def _longest(seconds: float) -> float:
    """How many blocks of so many seconds a burst lasts at most."""
    return max(1.0, LONGEST_SECONDS / seconds) if seconds > 0 else 1.0
