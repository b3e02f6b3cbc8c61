"""The sentence that says why: counts of both arms, the evidence and what it must reach, when it began, and what is still needed.

Knows figures and words; not which revision it is about, nor what a verdict leads to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ...api.clock import render_time
from ..evidence import percent_of
from ..reading import Breached, Breaching, Counts, Healthy
from ..rule import Verdict
from .betting import log_bets_at
from .bursts import thinned
from .following import evidence_at_bounds
from .likelihood import log_ratios
from .logspace import log_mean
from .memory import burst_correlation, seen_before
from .odds import inside
from .promotion import growth_against_limit, growth_against_stable, more_needed
from .relative import together
from .risk import Risk
from .rule import AtMost, NoMoreThanStable, Sequential
from .state import SequentialState
from .twosample import Pair, log_e
from .window import canary_of, stable_of

# Beyond this an e-value is written as a power of ten.
WRITTEN_OUT = math.log(1e9)


# No breach goes on, and evidence outlives it: where it is only told of, as in a dry run, or it was nearly one.
WON_BEFORE = "won by requests before these"

# More requests than that are not told.
MOST_MORE = 10**9


class NotShown(Enum):
    """What requests as they come now would never show of a canary, however many."""

    WITHIN_LIMIT = auto()
    NO_WORSE = auto()
    NO_STABLE = auto()  # there is nothing to compare with
    NO_CANARY = auto()


@dataclass(frozen=True)
class Need:
    """About so many more canary requests, and how long they take at the present rate (None: none come)."""

    requests: int
    seconds: float | None


def explained(
    name: str,
    *,
    bad: str,
    rule: Sequential,
    state: SequentialState,
    verdict: Verdict,
    now: float,
    canary: str = "canary",
    stable: str = "stable",
    bounds: Sequence[str] = (),
) -> str:
    """`latency: 61 of 412 canary requests over 150 ms (14.8 %, allowed 5 %) against …; evidence e = 4,072 ≥ 1,000 (…); began ≈ …`.

    `bad`: what makes a request bad, as in "over 150 ms", at the bound that the state follows. `now`: of the decision, seconds since the
    epoch. `bounds`: what does at each of the latency bounds beside the limit.
    """
    text = f"{name}: {_counted(rule, state=state, bad=bad, canary=canary, stable=stable)}; {_evidence(rule, state=state)}"
    text += _beside_limit(rule, state=state, verdict=verdict, bounds=bounds, arms=(canary, stable))
    match verdict:
        case Breached(since=since, suspected=suspected):
            text += f"; {WON_BEFORE}" if state.episode is None else began_at(since, now=now)
            return f"{text}; only suspected, as {stable} had too few requests to compare with" if suspected else text
        case Breaching(since=since, shared=True):
            text += f"; {stable} breaks the limit too and the {canary} is no worse, so that a rollback cannot help"
            return f"{text}; since {render_time(since)}"
        case Breaching() if state.episode is None:
            return text + held_by_what_was(rule.risk)
        case Breaching(since=since):
            text += f"; since {render_time(since)}{_lasting(rule, state=state)}"
            need = needed_for_verdict(rule, state=state)
            return text if need is None else text + needs(need)
    return text


def began_at(since: float, *, now: float) -> str:
    """When the breach that is decided began; seconds since the epoch."""
    return f"; began ≈ {render_time(since)}, {max(0.0, now - since):.0f} s before the decision"


def held_by_what_was(risk: Risk) -> str:
    """Why it is not healthy while what comes now is good, and until when: no step is passed meanwhile."""
    return f"; {WON_BEFORE}, and counts until e ≤ {written(risk.ln_pass)}"


def lasting(seconds: float, *, of: int) -> str:
    """How much of the time that a breach must last is over; past it, evidence alone is missing."""
    return f", {seconds:.0f} of the {of} s that it must last" if seconds < of else f", at least the {of} s that it must last"


def needs(need: Need) -> str:
    """What is missing for a verdict."""
    seconds = "" if need.seconds is None else f" (≈ {need.seconds:,.0f} s)"
    return f"; needs ≈ {need.requests:,} more requests{seconds} like these"


def needed_for_verdict(rule: Sequential, *, state: SequentialState) -> Need | None:
    """How many more requests like those of the running episode decide; None without an episode, or where they never would."""
    episode, evidence = state.episode, rule.evidence(state)
    if episode is None or episode.canary.total == 0 or evidence.decisive >= rule.risk.ln_threshold:
        return None
    block = _block_like(state, canary=episode.canary, stable=episode.stable or Counts())
    thin = _thinned(block, state=state)
    tests = []
    if isinstance(rule.limit, AtMost) and evidence.absolute is not None:
        if evidence.by_blocks:
            ratios = log_bets_at(share=block.canary_bad / block.canary_total, allowed=rule.limit.share)
        else:
            ratios = log_ratios(bad=thin.canary_bad, total=thin.canary_total, allowed=rule.limit.share)
        tests.append((evidence.absolute, max(ratios)))
    if block.stable_total and not evidence.suspected:
        a, b = inside(block.canary_bad / block.canary_total), inside((block.stable_bad + 0.5) / (block.stable_total + 1))
        tests.append((evidence.relative, log_e(thin, a=a, b=b, delta=rule.tolerated) if a > b + rule.tolerated else 0.0))
    open_tests = [(rule.risk.ln_threshold - ln_e, growth) for ln_e, growth in tests if ln_e < rule.risk.ln_threshold]
    if not open_tests or min(growth for _, growth in open_tests) <= 0:
        return None
    return _need(max(gap / growth for gap, growth in open_tests) * block.canary_total, state=state)


def needed_for_promotion(rule: Sequential, *, state: SequentialState, share: float, risk: float) -> Need | NotShown:
    """How many more requests with the bad share `share`, beside stable as it was, show that the canary is good enough, at the risk β."""
    seen, beside = canary_of(state.window), stable_of(state.window)
    if seen.total == 0:
        return NotShown.NO_CANARY
    b = rule.expected(state)
    of_canary, of_stable = seen.total / len(state.window), beside.total / len(state.window)
    block = Pair(canary_bad=share * of_canary, canary_total=of_canary, stable_bad=b * of_stable, stable_total=of_stable)
    thin, promotion = _thinned(block, state=state), state.promotion
    most = 0.0
    if rule.allowed is not None:
        blocks = more_needed(promotion.ln_absolute, growth=growth_against_limit(thin, allowed=rule.allowed), risk=risk)
        if blocks is None:
            return NotShown.WITHIN_LIMIT
        most = blocks
    blocks = more_needed(promotion.ln_relative, growth=growth_against_stable(thin, b=b, margin=rule.margin), risk=risk)
    # Where it has to be better, a stable without a bad request leaves nothing to be better by, whatever is guessed of it.
    if blocks is None or (rule.margin == 0 and share * beside.total >= beside.bad):
        return NotShown.NO_WORSE if beside.total else NotShown.NO_STABLE
    return _need(max(most, blocks) * of_canary, state=state)


def written(ln_e: float) -> str:
    """An e-value for people: `4,072`, `10.3`, `0.31`, `10^14`."""
    if ln_e == -math.inf:
        return "0"
    if ln_e > WRITTEN_OUT or ln_e < -WRITTEN_OUT:
        return f"10^{ln_e / math.log(10):.0f}"
    value = math.exp(ln_e)
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 10 else f"{value:.2g}"  # which tells 10.3 from 10


def _counted(rule: Sequential, *, state: SequentialState, bad: str, canary: str, stable: str) -> str:
    episode = state.episode
    mine = episode.canary if episode else canary_of(state.window)
    beside = (episode.stable or Counts()) if episode else stable_of(state.window)
    match rule.limit:
        case AtMost(share=share):
            allowed = f"allowed {100 * share:.10g} %"
        case NoMoreThanStable(plus=plus):
            allowed = f"allowed {stable} + {100 * plus:.10g} points"
    if mine.total == 0:
        when = "since scrapes were missing" if state.seen_until else "yet"
        return f"no {canary} request counted {when} ({allowed})"
    text = f"{mine.bad:,} of {mine.total:,} {canary} requests {bad} ({percent_of(mine)} %, {allowed})"
    if beside.total == 0:
        return f"{text}, none on {stable} to compare with"
    return f"{text} against {beside.bad:,} of {beside.total:,} on {stable} ({percent_of(beside)} %)"


def _evidence(rule: Sequential, *, state: SequentialState) -> str:
    evidence, threshold = rule.evidence(state), rule.risk.ln_threshold
    ln_e = evidence.decisive
    form = ", counted by blocks as too little is known of bursts," if evidence.by_blocks else ""
    sign = "≥" if ln_e >= threshold else "of"
    risk = f"{100 * rule.risk.share:.10g} %"
    return f"evidence{form} e = {written(ln_e)} {sign} {written(threshold)} (false-rollback risk of the whole rollout ≤ {risk})"


def _beside_limit(rule: Sequential, *, state: SequentialState, verdict: Verdict, bounds: Sequence[str], arms: tuple[str, str]) -> str:
    """Where there is a limit and another latency bound alone makes the canary worse than stable: which, and the shares there so far."""
    shared = isinstance(verdict, Breaching) and verdict.shared
    if not bounds or not isinstance(rule.limit, AtMost) or isinstance(verdict, Healthy) or shared or rule.evidence(state).suspected:
        return ""
    each = evidence_at_bounds(state, planned=rule.planned_blocks)
    needed = rule.risk.ln_threshold if isinstance(verdict, Breached) else rule.risk.ln_pass
    strongest = max(range(len(each)), key=each.__getitem__)
    if strongest == 0 or not each[0] < needed <= log_mean(each):
        return ""
    seen = together(tuple(seen_before(state))[strongest], state.relatives[strongest].seen)
    if seen.canary_total <= 0 or seen.stable_total <= 0:
        return ""
    mine, beside = seen.canary_bad / seen.canary_total, seen.stable_bad / seen.stable_total
    # A regression that began late is outvoted by what was seen before it.
    shares = f", {100 * mine:.3g} % against {100 * beside:.3g} %" if mine > beside else ""
    return f"; {arms[0]} is worse than {arms[1]} {bounds[strongest - 1]}{shares}"


def _lasting(rule: Sequential, *, state: SequentialState) -> str:
    """How much of the time it must last is over; empty where evidence decides at once."""
    if not rule.for_seconds or state.episode is None:
        return ""
    return lasting(state.episode.newest_bad - state.episode.first_bad, of=rule.for_seconds)


def _block_like(state: SequentialState, *, canary: Counts, stable: Counts) -> Pair:
    """A block as long as those of the window, with the shares of these counts."""
    part = canary_of(state.window).total / len(state.window) / canary.total if state.window else 1.0
    return Pair(
        canary_bad=part * canary.bad, canary_total=part * canary.total, stable_bad=part * stable.bad, stable_total=part * stable.total
    )


def _thinned(block: Pair, *, state: SequentialState) -> Pair:
    """What the block counts for, as bad requests come in bursts."""
    seconds = sum(span.seconds for span in state.window) / len(state.window) if state.window else 0.0
    return thinned(block, correlation=burst_correlation(state, seconds=seconds))


def _need(requests: float, *, state: SequentialState) -> Need:
    more = min(MOST_MORE, math.ceil(requests - 1e-6))
    total, seconds = canary_of(state.window).total, sum(span.seconds for span in state.window)
    return Need(requests=more, seconds=more * seconds / total if total else None)
