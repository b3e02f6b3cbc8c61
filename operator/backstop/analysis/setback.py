"""A state that was counted up to a time that is yet to come: the clocks were ahead then, and were set back. Pure.

Waiting for that time to come again, nothing would be counted for as long. So it is taken for now, as the rollout takes what was written of
its steps (`rollout.setback`): each target is counted on from its first scrape after now. How long nothing was counted is not known, so that
it is a gap: no window and no episode goes on across it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

from .folding import rule_for
from .objective import Objective
from .policy import LivePolicy
from .reading import Counts
from .rule import ArmBlock
from .rules import RuleState, observed
from .sequential.mean import MeanBlock, MeanState, Sum
from .sequential.state import SequentialState
from .state import AnalysisState, ObjectiveState
from .threshold import ThresholdState

# Clocks that are kept differ by far less. Samples that are as far ahead are not counted.
AHEAD_SECONDS: Final = 30.0


def ahead(state: AnalysisState, *, now: float) -> float:
    """By how many seconds what was counted last is ahead of now (seconds since the epoch), where one of them was set back; else 0."""
    by = max(state.watermarks.values(), default=now) - now
    return by if by > AHEAD_SECONDS else 0.0


def said(seconds: float) -> str:
    """Why nothing can be said of what came since."""
    return f"What was counted last is of {seconds:.0f} s from now, so clocks were set back; requests are counted anew from now on."


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
