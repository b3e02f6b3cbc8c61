"""The relative test over many blocks: is the canary worse than stable by more than δ, the base rate free to drift?

E = ½·Π_t e_t(a_t, b_t) + ½·(restarts over odds multipliers), each block's e-value from `twosample`, with guesses from past blocks only:
b = (K_s + ½)/(N_s + ½/p0), seeded with stable's history; plug-in a = min(1 − 1e−9, max((K_c + 1)/(N_c + 1/q₈), q₁.₂)), where q_m has
m × the odds of b + δ; the members of the mixture guess a = q_m. Guesses are updated after the block. Over several latency bounds the
e-values are averaged, E = (1/B)·Σ_b E_b, which is an e-value of "no worse at any of them" however they depend on each other.

Symbols: K, N bad and all requests so far; index c canary, s stable; p0 prior share; δ allowed difference; q_m see above;
B how many latency bounds are compared, E_b the evidence at one.
Source: as `twosample` (Turner, Ly and Grünwald 2024, section 3: predictable plug-in estimates keep the product an e-process); V. Vovk and
R. Wang, "E-values: calibration, combination and applications", Ann. Statist. 49 (2021), section 3, means of e-values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .logspace import log_mean, log_sum
from .odds import LN_WORSE_WEIGHTS, MOST, WORSE, inside, share_at
from .restarts import Restarts, log_value, settled, started, with_block
from .twosample import Pair, log_es

LN_HALF = math.log(0.5)


@dataclass(frozen=True)
class Seen:
    """Requests that the guesses come from (`memory`), `stable` ones with the history; bursts divided out."""

    canary_bad: float = 0.0
    canary_total: float = 0.0
    stable_bad: float = 0.0
    stable_total: float = 0.0


NOTHING_SEEN = Seen()


def together(one: Seen, other: Seen) -> Seen:
    """What both saw."""
    return Seen(
        canary_bad=one.canary_bad + other.canary_bad,
        canary_total=one.canary_total + other.canary_total,
        stable_bad=one.stable_bad + other.stable_bad,
        stable_total=one.stable_total + other.stable_total,
    )


@dataclass(frozen=True)
class Relative:
    """State of one comparison: ln of the plug-in product, the restarts, and what was seen."""

    ln_plug_in: float
    restarts: Restarts
    seen: Seen


def compared(*, history_bad: float = 0.0, history_total: float = 0.0) -> Relative:
    """Before the first block; the history is stable's, of before the canary."""
    return Relative(
        ln_plug_in=0.0, restarts=started(len(WORSE)), seen=Seen(stable_bad=float(history_bad), stable_total=float(history_total))
    )


def stable_share(seen: Seen, *, prior: float) -> float:
    """b: the guess of stable's bad share."""
    return inside((seen.stable_bad + 0.5) / (seen.stable_total + 0.5 / inside(prior)))


def canary_share(seen: Seen, *, null: float) -> float:
    """The plug-in a against the share `null` = b + δ."""
    guess = (seen.canary_bad + 1) / (seen.canary_total + 1 / share_at(8, of=null))
    return min(MOST, max(guess, share_at(1.2, of=null)))


def with_pair(state: Relative, *, block: Pair, prior: float, delta: float, planned: int, before: Seen = NOTHING_SEEN) -> Relative:
    """One more block; bursts are divided out of its counts already. `before`: what was seen and is remembered beside the state's own."""
    seen = state.seen
    if block.canary_total > 0 and block.stable_total > 0:
        known = together(before, seen)
        b = stable_share(known, prior=prior)
        null = inside(b + delta)
        good = 1 - null
        guesses = [canary_share(known, null=null), *[min(m * null / (good + m * null), MOST) for m in WORSE]]
        ln_plug_in, *ln_members = log_es(block, guesses=guesses, b=b, delta=delta)
    else:
        ln_plug_in, ln_members = 0.0, [0.0] * len(WORSE)
    return Relative(
        ln_plug_in=state.ln_plug_in + ln_plug_in,
        restarts=with_block(state.restarts, ln_e=ln_members, planned=planned),
        seen=together(seen, Seen(block.canary_bad, block.canary_total, block.stable_bad, block.stable_total)),
    )


def with_history(state: Relative, *, block: Pair) -> Relative:
    """What stable did before the canary came: the guess of its share begins there."""
    seen = state.seen
    return replace(
        state, seen=replace(seen, stable_bad=seen.stable_bad + block.stable_bad, stable_total=seen.stable_total + block.stable_total)
    )


def given_up(state: Relative, *, planned: int) -> Relative:
    """What was won so far is given up, in both halves; what was put in goes on, and the guesses stay."""
    return replace(state, ln_plug_in=min(0.0, state.ln_plug_in), restarts=settled(state.restarts, planned=planned))


def log_relative(state: Relative, *, planned: int) -> float:
    """ln E of one comparison."""
    mixture = log_value(state.restarts, ln_weights=LN_WORSE_WEIGHTS, planned=planned)
    return log_sum((LN_HALF + state.ln_plug_in, LN_HALF + mixture))


def log_average(states: Sequence[Relative], *, planned: int) -> float:
    """ln of the mean e-value of comparisons at several latency bounds."""
    return log_mean(log_relative(state, planned=planned) for state in states)
