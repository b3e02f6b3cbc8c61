"""Which rule judges an objective, and what is asked of its state whichever that is. Knows objectives and rules; no sentences."""

import math
from collections.abc import Iterable

from .objective import Objective
from .reading import Counts
from .rule import ArmBlock, Verdict
from .sequential.mean import Mean, MeanBlock, MeanState
from .sequential.risk import Risk
from .sequential.rule import AtMost, NoMoreThanStable, Sequential
from .sequential.state import SequentialState
from .sequential.window import canary_of
from .sequential.window import stable_of as stable_beside
from .threshold import Threshold, ThresholdState, stable_of, total_of

AnyRule = Threshold | Sequential | Mean
RuleState = ThresholdState | SequentialState | MeanState
AnyBlock = ArmBlock | MeanBlock
PROMOTION_RISK = 0.05  # β: of a hundred canaries that are just not good enough, so many pass a step early at most


def rule_of(objective: Objective, *, tests: int, planned_blocks: int) -> AnyRule:
    """The rule that judges an objective.

    `tests`: of how many objectives there is evidence, the risk being divided among them. `planned_blocks`: of the whole rollout, as it was
    when this objective's tests began.
    """
    test = objective.sequential
    if test is None:
        return Threshold(allowed=objective.allowed, for_seconds=objective.for_seconds, min_requests=objective.min_requests)
    allowed = float(objective.allowed)
    for_seconds = objective.for_seconds if test.sustained else 0
    risk, planned_blocks = Risk(share=float(test.risk), tests=max(1, tests)), max(1, planned_blocks)
    if objective.mean is not None:
        return Mean(target=allowed, for_seconds=for_seconds, risk=risk, planned_blocks=planned_blocks)
    return Sequential(
        limit=NoMoreThanStable(allowed) if objective.above_stable else AtMost(allowed),
        for_seconds=for_seconds,
        risk=risk,
        planned_blocks=planned_blocks,
        comparisons=1 + len(objective.bounds_beside),
        weighs_promotion=test.promotes,
        declared_margin=None if objective.margin is None else float(objective.margin),
    )


def tests_among(objectives: Iterable[Objective]) -> int:
    """How many of them are judged by evidence."""
    return sum(objective.sequential is not None for objective in objectives)


def blocks_in(seconds: float, *, scrape_interval: float) -> int:
    """How many blocks there are in so many seconds, at least one."""
    return max(1, math.ceil(seconds / scrape_interval))


def observed(rule: AnyRule, state: RuleState, *, block: AnyBlock) -> RuleState:
    """The state, which is one of this rule, after one more block, which is one for it."""
    match rule:
        case Threshold():
            assert isinstance(state, ThresholdState), "a state goes on under the rule that it began with"
            assert isinstance(block, ArmBlock), "a share is of counts"
            return rule.observe(state, block=block)
        case Sequential():
            assert isinstance(state, SequentialState), "a state goes on under the rule that it began with"
            assert isinstance(block, ArmBlock), "a share is of counts"
            return rule.observe(state, block=block)
        case Mean():
            assert isinstance(state, MeanState), "a state goes on under the rule that it began with"
            assert isinstance(block, MeanBlock), "a mean is of sums"
            return rule.observe(state, block=block)


def judged(rule: AnyRule, state: RuleState) -> Verdict:
    """The verdict on the state, which is one of this rule."""
    match rule:
        case Threshold():
            assert isinstance(state, ThresholdState), "a state goes on under the rule that it began with"
            return rule.judge(state)
        case Sequential():
            assert isinstance(state, SequentialState), "a state goes on under the rule that it began with"
            return rule.judge(state)
        case Mean():
            assert isinstance(state, MeanState), "a state goes on under the rule that it began with"
            return rule.judge(state)


def is_promotable(rule: AnyRule, state: RuleState) -> bool:
    """Whether there is evidence that the canary is good enough, at the risk of PROMOTION_RISK."""
    if not isinstance(rule, Sequential) or not rule.weighs_promotion:
        return False
    assert isinstance(state, SequentialState), "a state goes on under the rule that it began with"
    return rule.promotable(state) >= -math.log(PROMOTION_RISK)


def fits(rule: AnyRule, state: RuleState) -> bool:
    """Whether the state is one of this rule."""
    match rule:
        case Threshold():
            return isinstance(state, ThresholdState)
        case Sequential():
            return isinstance(state, SequentialState) and len(state.relatives) == rule.comparisons
        case Mean():
            return isinstance(state, MeanState)


def counts_in(state: RuleState) -> tuple[Counts, Counts | None]:
    """Requests of the canary and of stable by which the running episode is told, or else in the window; None where stable has none.

    Of a mean, none is bad; what they came to is in the state.
    """
    if isinstance(state, MeanState):
        judged, others = state.told
        return Counts(total=judged.requests), Counts(total=others.requests) if others.requests else None
    if state.episode is not None:
        return state.episode.canary, state.episode.stable
    match state:
        case ThresholdState():
            return total_of(state.window), stable_of(state.window)
        case SequentialState():
            beside = stable_beside(state.window)
            return canary_of(state.window), beside if beside.total else None
