"""Which changes of conditions are told: each once, on coming and on going."""

from backstop.api.condition import Condition, ConditionType
from backstop.api.reasons import Reason
from backstop.controller.changes import changes_told
from backstop.controller.subject import Problem
from backstop.rollout.plan import Announcement, ConditionState

ACCEPTED = ConditionState(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "the spec is valid")
INVALID = ConditionState(ConditionType.ACCEPTED, "False", Reason.INVALID, "`spec.x` is not a known field")
MISSING = ConditionState(ConditionType.RESOLVED_REFS, "False", Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names nothing")
RESOLVED = ConditionState(ConditionType.RESOLVED_REFS, "True", Reason.RESOLVED, "everything exists")
UNREADY = ConditionState(ConditionType.READY, "False", Reason.STABLE_UNREADY, "no pod is ready")
READY = ConditionState(ConditionType.READY, "True", Reason.STABLE, "it serves")
WAITING = ConditionState(ConditionType.READY, "False", Reason.WAITING_FOR_READY, "waiting for a pod")
REFUSED = Problem(Reason.OBJECT_REFUSED, "a quota is full")


def written(*states: ConditionState, problem: Problem | None = None) -> list[Condition]:
    """The conditions as status has them."""
    after = [s for s in states if problem is None or s.type is not ConditionType.ACCEPTED]
    if problem is not None:
        after.append(ConditionState(ConditionType.ACCEPTED, "False", problem.reason, problem.message))
    time = "2026-01-31T09:30:00.000Z"
    return [Condition(type=s.type, status=s.status, reason=s.reason, message=s.message, lastTransitionTime=time) for s in after]


def told(before: list[Condition], *after: ConditionState, problem: Problem | None = None) -> list[Announcement]:
    return list(changes_told(before, after=after, problem=problem))


def test_what_is_well_from_the_start_is_not_told() -> None:
    assert told([], ACCEPTED, RESOLVED, WAITING) == []
    assert told(written(WAITING), READY) == []


def test_a_spec_that_cannot_be_run_is_told_when_it_comes_and_when_it_can_be_again() -> None:
    for bad, good in ((INVALID, ACCEPTED), (MISSING, RESOLVED), (UNREADY, READY)):
        assert told([], bad) == [Announcement(bad.reason, bad.message)]
        assert told(written(good), bad) == [Announcement(bad.reason, bad.message)]
        assert told(written(bad), bad) == [], "not again"
        assert told(written(bad), good) == [Announcement(good.reason, good.message)]


def test_stable_that_is_replaced_while_it_is_unready_is_not_told_to_be_well() -> None:
    assert told(written(UNREADY), WAITING) == []


def test_a_problem_is_told_by_whoever_met_it_and_here_when_it_is_over() -> None:
    assert told(written(ACCEPTED), ACCEPTED, problem=REFUSED) == []
    assert told(written(ACCEPTED, problem=REFUSED), ACCEPTED, problem=REFUSED) == []
    assert told(written(ACCEPTED, problem=REFUSED), ACCEPTED) == [Announcement(Reason.ACCEPTED, "the spec is valid")]
