"""Which changes of conditions are told: each once, on coming and on going."""

from backstop.api.condition import Condition, ConditionType
from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.reasons import Reason
from backstop.controller.blocked import problem_in, with_problem
from backstop.controller.changes import changes_told, prompt_changes_told
from backstop.controller.prompts import REJECTIONS_KEPT, rejected_status, withdrawn_status
from backstop.controller.subject import Problem, refusal
from backstop.kube.errors import Rejected
from backstop.kube.resources import DEPLOYMENTS, Body
from backstop.rollout.plan import Announcement, ConditionState

from .test_prompts import SPEC, judged_status, prompt, verdict

ACCEPTED = ConditionState(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "the spec is valid")
INVALID = ConditionState(ConditionType.ACCEPTED, "False", Reason.INVALID, "`spec.x` is not a known field")
MISSING = ConditionState(ConditionType.RESOLVED_REFS, "False", Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names nothing")
RESOLVED = ConditionState(ConditionType.RESOLVED_REFS, "True", Reason.RESOLVED, "everything exists")
UNREADY = ConditionState(ConditionType.READY, "False", Reason.STABLE_UNREADY, "no pod is ready")
READY = ConditionState(ConditionType.READY, "True", Reason.STABLE, "it serves")
CONFLICT = ConditionState(ConditionType.ACCEPTED, "False", Reason.VERSION_CONFLICT, "version 1.0.0 is another one")
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
    for bad, good in ((INVALID, ACCEPTED), (CONFLICT, ACCEPTED), (MISSING, RESOLVED), (UNREADY, READY)):
        assert told([], bad) == [Announcement(bad.reason, bad.message)]
        assert told(written(good), bad) == [Announcement(bad.reason, bad.message)]
        assert told(written(bad), bad) == [], "not again"
        assert told(written(bad), good) == [Announcement(good.reason, good.message)]


def test_stable_that_is_replaced_while_it_is_unready_is_not_told_to_be_well() -> None:
    assert told(written(UNREADY), WAITING) == []


def test_one_reason_is_told_once_in_a_pass_whichever_conditions_change_for_it() -> None:
    paused = ConditionState(ConditionType.PROGRESSING, "True", Reason.PAUSED, "`spec.canary.paused`")
    held = ConditionState(ConditionType.PROGRESSING, "True", MISSING.reason, "goes no further")
    assert told(written(paused, RESOLVED), held, MISSING) == [Announcement(MISSING.reason, MISSING.message)]
    begun = ConditionState(ConditionType.PROGRESSING, "True", Reason.STEP_STARTED, "waiting for it to be seen on every gateway")
    move = Announcement(Reason.STEP_STARTED, "step 1 of 3: 5 % to v2")
    assert list(changes_told(written(paused), after=(begun,), problem=None, moves=(move,))) == []
    assert told(written(paused), begun) == [Announcement(begun.reason, begun.message)], "a pause that ends in a step that goes on"


def test_a_problem_is_told_by_whoever_met_it_and_here_when_it_is_over() -> None:
    assert told(written(ACCEPTED), ACCEPTED, problem=REFUSED) == []
    assert told(written(ACCEPTED, problem=REFUSED), ACCEPTED, problem=REFUSED) == []
    assert told(written(ACCEPTED, problem=REFUSED), ACCEPTED) == [Announcement(Reason.ACCEPTED, "the spec is valid")]


def reasons_told(before: Body, after: Body) -> list[Reason]:
    return [change.reason for change in prompt_changes_told(before, after=after)]


def test_a_prompt_version_is_told_to_be_accepted_or_why_not_when_that_changes() -> None:
    good = judged_status(prompt(), now=1000.0)
    bad = judged_status(prompt(SPEC | {"messages": [{"role": "system", "content": "Hello {{who}}"}]}, status=good), now=2000.0)
    assert reasons_told({}, good) == [Reason.ACCEPTED]
    assert reasons_told(good, bad) == [Reason.TEMPLATE_INVALID]
    assert reasons_told(bad, judged_status(prompt(status=bad), now=3000.0)) == [Reason.ACCEPTED]
    assert reasons_told(good, judged_status(prompt(status=good), now=2000.0)) == []


def test_each_rejection_of_a_prompt_version_is_told_and_its_withdrawal() -> None:
    first = rejected_status(prompt(), policy="one", verdict=verdict(), now=1000.0)
    both = rejected_status(prompt(status=first), policy="two", verdict=verdict(), now=2000.0)
    assert list(prompt_changes_told({}, after=first)) == [Announcement(Reason.ROLLED_BACK, "policy `one`: too slow")]
    assert list(prompt_changes_told(first, after=both)) == [Announcement(Reason.ROLLED_BACK, "policy `two`: too slow")]
    assert reasons_told(both, both) == []
    left = withdrawn_status(prompt(status=both), policy="one", revision="abc", now=3000.0)
    withdrawn = "policy `one` no longer rejects it: revision abc runs again"
    assert list(prompt_changes_told(both, after=left)) == [Announcement(Reason.RETRIED, withdrawn)]


def test_a_rejection_that_a_newer_one_pushes_out_is_not_told_to_be_withdrawn() -> None:
    full: Body = {}
    for number in range(REJECTIONS_KEPT):
        full = rejected_status(prompt(status=full), policy=f"p{number}", verdict=verdict(at=2000.0 + number), now=2000.0)
    newer = rejected_status(prompt(status=full), policy="newer", verdict=verdict(at=9000.0), now=9000.0)
    assert reasons_told(full, newer) == [Reason.ROLLED_BACK]


def test_a_refusal_in_other_words_is_the_same_problem_and_one_of_another_object_or_of_another_kind_is_not() -> None:
    def refused(name: str, *, words: str, answer: str = "403 to PATCH") -> Problem:
        return refusal(DEPLOYMENTS, name=name, why=Rejected(f"PATCH /apis/apps: {words}", answer=answer))

    first = refused("support-r1", words="denied, request 1: no")
    assert first == refused("support-r1", words="denied, request 2: no")
    assert first != refused("support-r2", words="denied, request 1: no")
    assert first != refused("support-r1", words="denied, request 1: no", answer="403 to DELETE")
    assert first != refused("support-r1", words="denied, request 1: no", answer="422 to PATCH")
    said = with_problem([], problem=first, previous=[], generation=1, now=0.0)
    assert problem_in(FallbackPolicyStatus(conditions=said)) == first, "also for an operator that has just begun"
