"""A state that is `ahead`, as clocks were set back: it is taken for now, as the rollout takes what was written of its steps. Pure.

Each target is counted on from its first scrape after now. How long nothing was counted is not known, so that it is a gap: no window and no
episode goes on across it. Not as long as the source has samples of then: as time goes on they come again, among newer ones or in their
place, and what they tell is counted already.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from .ahead import AHEAD_SECONDS
from .folding import rule_for
from .objective import Objective
from .policy import LivePolicy
from .reading import Counts
from .rule import ArmBlock
from .rules import RuleState, observed
from .samples import Fetched, NoData, NotANumber, Sample, Unread
from .sequential.mean import MeanBlock, MeanState, Sum
from .sequential.state import SequentialState
from .state import AnalysisState, ObjectiveState
from .threshold import ThresholdState


def blind(fetched: Fetched, *, seconds: float, now: float) -> Unread:
    """Why nothing is counted of what was answered to a question about the time up to which a state that is so far ahead was counted."""
    counted = f"What was counted last is of {seconds:.0f} s from now by the operator's clock"
    if can_go_on(fetched, now=now):
        return NotANumber(f"{counted}, so clocks were set back; requests are counted anew from now on.")
    if isinstance(fetched, Sample):
        until = "nothing can be counted before that time comes, unless the operator's clock is set, or they are deleted there"
        return NotANumber(f"{counted}, and the metrics source has samples of then: {until}.")
    return fetched


def can_go_on(fetched: Fetched, *, now: float) -> bool:
    """Whether the source has nothing left of a time that is yet to come (seconds since the epoch)."""
    if isinstance(fetched, Sample):
        readable = all(isinstance(why, NoData) for why in fetched.unread.values())
        return readable and all(at <= now + AHEAD_SECONDS for _, _, at in fetched.newest)
    return isinstance(fetched, NoData)


def taken_for_now(state: AnalysisState, *, policy: LivePolicy, now: float) -> AnalysisState:
    """The state, which has what is kept of each of the policy's objectives, with no time after now."""
    return replace(
        state,
        block_end=_past(state.block_end, now=now),
        watermarks={target: min(at, now) for target, at in state.watermarks.items()},
        silence=None if state.silence is None else replace(state.silence, since=min(state.silence.since, now)),
        objectives=dict(_each(policy.objectives, policy=policy, state=state, now=now)),
    )


def _each(objectives: Iterable[Objective], *, policy: LivePolicy, state: AnalysisState, now: float) -> Iterable[tuple[str, ObjectiveState]]:
    for one in objectives:
        kept = state.objectives[one.fingerprint]
        history = kept.history
        if history is not None:
            history = replace(history, before=min(history.before, now), again=_past(history.again, now=now))
        yield one.fingerprint, replace(kept, rule=_after_gap(one, policy=policy, kept=kept, now=now), history=history)


def _after_gap(objective: Objective, *, policy: LivePolicy, kept: ObjectiveState, now: float) -> RuleState:
    rule = rule_for(objective, policy=policy, kept=kept)
    if objective.mean is not None:
        after = observed(rule, kept.rule, block=MeanBlock(start=now, end=now, canary=Sum(), after_gap=True))
    else:
        after = observed(rule, kept.rule, block=ArmBlock(start=now, end=now, canary=Counts(), stable=None, after_gap=True))
    match after:
        case ThresholdState():
            return after
        case SequentialState() | MeanState():
            return replace(after, seen_until=min(after.seen_until, now))
    assert_never(after)


def _past(at: float | None, *, now: float) -> float | None:
    return None if at is None else min(at, now)
