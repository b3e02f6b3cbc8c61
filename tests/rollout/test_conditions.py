"""What status says of a policy at each turn, as `kubectl wait` and kstatus read it."""

from collections.abc import Callable

import pytest

from backstop.api.condition import ConditionType
from backstop.api.reasons import Reason
from backstop.controller.blocked import with_problem
from backstop.rollout.observed import Unresolved
from backstop.rollout.plan import Plan
from backstop.rollout.statusmap import conditions_after
from tests.rollout.kstatus import REFUSED, agree_with_kstatus
from tests.rollout.world import BREACHED, World, in_rollout, policy, started

from .test_guard import promoted

MISSING = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v9`, which does not exist; create it")


def rolled_back() -> World:
    world = in_rollout()
    world.judged = BREACHED
    world.run(5)
    return world


def halted() -> World:
    world = in_rollout(policy=policy(mode="Pause"))
    world.judged = BREACHED
    world.run(5)
    return world


def unready() -> World:
    world = started()
    world.broken.add("rev1")
    world.arms.clear()
    world.settle()
    return world


def leaving() -> World:
    world = in_rollout()
    world.delete()
    return world


@pytest.mark.parametrize("missing", [False, True], ids=["spec resolved", "spec not resolved"])
@pytest.mark.parametrize("begin", [World, started, in_rollout, promoted, rolled_back, halted, unready, leaving])
def test_g06_wait_and_kstatus_agree_and_nothing_is_both_on_its_way_and_stuck(begin: Callable[[], World], missing: bool) -> None:
    world = begin()
    if missing:
        world.wanted = MISSING
    agree_with_kstatus(world.decide())


def said(plan: Plan, kind: ConditionType) -> tuple[str, Reason, str] | None:
    return next(((c.status, c.reason, c.message) for c in plan.conditions if c.type is kind), None)


def test_a_canary_whose_spec_cannot_be_resolved_is_stalled_and_says_why_it_goes_no_further() -> None:
    world = in_rollout()
    world.wanted = MISSING
    world.run(5)
    plan = world.decide()
    assert said(plan, ConditionType.STALLED) == ("True", MISSING.reason, MISSING.message)
    assert said(plan, ConditionType.RECONCILING) is None
    progressing = said(plan, ConditionType.PROGRESSING)
    assert progressing == (
        "True",
        MISSING.reason,
        f"step 1 of 3, 5 %: goes no further, because the spec cannot be followed: {MISSING.message}",
    )


def with_refusal(world: World, *, served: bool = False) -> dict[str, str]:
    conditions = conditions_after([], states=world.decide().conditions, generation=1, now=0.0)
    conditions = with_problem(conditions, problem=REFUSED, previous=[], generation=1, now=0.0, served=served)
    return {c.type: c.status for c in conditions if c.type in ("Ready", "Accepted", "Stalled", "Reconciling")}


def test_a_refused_child_of_a_stable_that_serves_is_said_in_accepted_and_does_not_make_it_failed() -> None:
    assert with_refusal(started()) == {"Ready": "True", "Accepted": "False"}


def test_a_refused_child_of_a_rollout_stalls_it() -> None:
    assert with_refusal(in_rollout()) == {"Ready": "False", "Accepted": "False", "Stalled": "True"}


def test_a_stable_that_is_to_be_left_and_cannot_be_is_not_ready() -> None:
    assert with_refusal(promoted(), served=True) == {"Ready": "False", "Accepted": "False", "Stalled": "True"}


def test_resolved_refs_names_what_was_looked_for_and_claims_no_more() -> None:
    resolved = said(started().decide(), ConditionType.RESOLVED_REFS)
    assert resolved is not None
    assert (
        resolved[2]
        == "every PromptVersion, ConfigMap and metrics source that the spec names exists; Secrets and claims are left to the pods"
    )
