"""The sentence that says why: counts of both arms, the evidence and what it must reach, when it began, and what is still needed.

Knows figures and words; not which revision it is about, nor what a verdict leads to.
"""

import math
from dataclasses import dataclass

from ...api.clock import render_time
from ..evidence import percent_of
from ..reading import Breached, Breaching, Counts
from ..rule import Verdict
from .likelihood import log_ratios
from .odds import inside
from .promotion import more_needed
from .rule import AtMost, NoMoreThanStable, Sequential
from .state import SequentialState
from .twosample import Pair, log_e
from .window import canary_of, stable_of

# Beyond this an e-value is written as a power of ten.
WRITTEN_OUT = math.log(1e9)


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
) -> str:
    """`latency: 61 of 412 canary requests over 150 ms (14.8 %, allowed 5 %) against …; evidence e = 4,072 ≥ 1,000 (…); began ≈ …`.

    `bad`: what makes a request bad, as in "over 150 ms". `now`: of the decision, seconds since the epoch.
    """
    text = f"{name}: {_counted(rule, state=state, bad=bad, canary=canary, stable=stable)}; {_evidence(rule, state=state)}"
    match verdict:
        case Breached(since=since, suspected=suspected):
            text += f"; began ≈ {render_time(since)}, {max(0.0, now - since):.0f} s before the decision"
            return f"{text}; only suspected, as {stable} had too few requests to compare with" if suspected else text
        case Breaching(since=since, shared=True):
            text += f"; {stable} breaks the limit too and the {canary} is no worse, so that a rollback cannot help"
            return f"{text}; since {render_time(since)}"
        case Breaching(since=since):
            return f"{text}; since {render_time(since)}{_lasting(rule, state=state)}{_needed(rule, state=state)}"
    return text


def needed_for_verdict(rule: Sequential, *, state: SequentialState) -> Need | None:
    """How many more requests like those of the running episode decide; None without an episode, or where they never would."""
    episode, evidence = state.episode, rule.evidence(state)
    gap = rule.risk.ln_threshold - evidence.decisive
    if episode is None or episode.canary.total == 0 or gap <= 0:
        return None
    total = episode.canary.total
    growths = []
    if isinstance(rule.limit, AtMost):
        ratios = log_ratios(bad=episode.canary.bad, total=total, allowed=rule.limit.share)
        growths.append(max(ratios) / total)
    beside = episode.stable or Counts()
    if beside.total and not evidence.suspected:
        pair = Pair(canary_bad=episode.canary.bad, canary_total=total, stable_bad=beside.bad, stable_total=beside.total)
        a, b = inside(episode.canary.bad / total), inside((beside.bad + 0.5) / (beside.total + 1))
        growths.append(log_e(pair, a=a, b=b, delta=rule.tolerated) / total if a > b + rule.tolerated else 0.0)
    growth = min(growths, default=0.0)
    return None if growth <= 0 else _need(math.ceil(gap / growth), state=state)


def needed_for_promotion(rule: Sequential, *, state: SequentialState, share: float, risk: float) -> Need | None:
    """How many more requests with the bad share `share` show that the canary is within its limit, at the risk β."""
    if rule.allowed is None:
        return None
    more = more_needed(state.promotion, allowed=rule.allowed, share=share, risk=risk)
    return None if more is None else _need(more, state=state)


def written(ln_e: float) -> str:
    """An e-value for people: `4,072`, `0.31`, `10^14`."""
    if ln_e == -math.inf:
        return "0"
    if ln_e > WRITTEN_OUT or ln_e < -WRITTEN_OUT:
        return f"10^{ln_e / math.log(10):.0f}"
    value = math.exp(ln_e)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


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
        return f"no {canary} request counted yet ({allowed})"
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


def _lasting(rule: Sequential, *, state: SequentialState) -> str:
    """How much of the time it must last is over; empty where evidence decides at once."""
    if not rule.for_seconds or state.episode is None:
        return ""
    return f", {state.episode.newest_bad - state.episode.first_bad:.0f} of the {rule.for_seconds} s that it must last"


def _needed(rule: Sequential, *, state: SequentialState) -> str:
    need = needed_for_verdict(rule, state=state)
    if need is None:
        return ""
    seconds = "" if need.seconds is None else f" (≈ {need.seconds:,.0f} s)"
    return f"; needs ≈ {need.requests:,} more requests{seconds}"


def _need(requests: int, *, state: SequentialState) -> Need:
    total, seconds = canary_of(state.window).total, sum(span.seconds for span in state.window)
    return Need(requests=requests, seconds=requests * seconds / total if total else None)
