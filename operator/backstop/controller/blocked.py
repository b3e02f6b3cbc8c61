"""What is said of a policy whose spec or status cannot be read: conditions, and nothing else. Pure."""

from ..api.condition import Condition, ConditionType
from ..api.policystatus import FallbackPolicyStatus, Phase
from ..api.reasons import Reason
from ..rollout.observed import Unresolved
from ..rollout.plan import ConditionState
from ..rollout.statusmap import conditions_after
from .subject import Problem

PROBLEMS = (Reason.OBJECT_NOT_OURS, Reason.OBJECT_REFUSED, Reason.RECORD_MISSING)
TOUCHED = (ConditionType.ACCEPTED, ConditionType.READY, ConditionType.STALLED, ConditionType.RECONCILING)


def blocked_status(before: FallbackPolicyStatus, *, why: Unresolved, generation: int, now: float) -> FallbackPolicyStatus:
    """The status as it was, with the reason why nothing is decided."""
    states = blocked_states(why)
    kept = [c for c in before.conditions if c.type not in TOUCHED]
    conditions = [*kept, *conditions_after(before.conditions, states=states, generation=generation, now=now)]
    return before.model_copy(
        update={"observedGeneration": generation, "phase": Phase.BLOCKED.value, "reason": why.reason.value, "conditions": conditions}
    )


def blocked_states(why: Unresolved) -> tuple[ConditionState, ...]:
    """What is said of it."""
    return (
        ConditionState(ConditionType.ACCEPTED, "False", why.reason, why.message),
        ConditionState(ConditionType.READY, "False", why.reason, why.message),
        ConditionState(ConditionType.STALLED, "True", why.reason, why.message),
    )


def with_problem(
    conditions: list[Condition], *, problem: Problem | None, previous: list[Condition], generation: int, now: float, served: bool = False
) -> list[Condition]:
    """The conditions, with `Accepted` false for what could not be written.

    Nothing is on its way as long as that is so: `Stalled`, and not `Reconciling`. Not where the wanted revision is stable and ready:
    what tools wait for has come, and `Accepted` and the event say what is missing. `served`: callers still reach what they should not;
    then nothing is ready.
    """
    if problem is None:
        return conditions
    states = [ConditionState(ConditionType.ACCEPTED, "False", problem.reason, problem.message)]
    if served:
        states.append(ConditionState(ConditionType.READY, "False", problem.reason, problem.message))
    if served or not any(c.type == ConditionType.READY and c.status == "True" for c in conditions):
        states.append(ConditionState(ConditionType.STALLED, "True", problem.reason, problem.message))
    replaced = {ConditionType.ACCEPTED, ConditionType.STALLED, ConditionType.RECONCILING, *(state.type for state in states)}
    return [
        *(c for c in conditions if c.type not in replaced),
        *conditions_after(previous, states=tuple(states), generation=generation, now=now),
    ]


def problem_in(status: FallbackPolicyStatus) -> Problem | None:
    """The problem that a status tells of."""
    for condition in status.conditions:
        if condition.type == ConditionType.ACCEPTED and condition.reason in PROBLEMS:
            return Problem(Reason(condition.reason), condition.message)
    return None
