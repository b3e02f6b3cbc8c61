"""Status is lost, and the route cannot be read either: nothing says what serves, so nothing moves, and a person is asked."""

from dataclasses import replace

import pytest

from backstop.api.condition import ConditionType
from backstop.api.policystatus import FallbackPolicyStatus, Phase
from backstop.api.reasons import Reason
from backstop.rollout.decide import decide
from backstop.rollout.observed import Foreign, Unknown
from backstop.rollout.place import Place
from tests.rollout.kstatus import agree_with_kstatus
from tests.rollout.world import BREACHED, World, policy, revision, started

STEPS = ((50, 20), (100, 600))


def damaged(version: str = "2", *, of_pods: bool = False, autoscaling: dict[str, int] | None = None) -> World:
    """Version 2 had half of the requests beside version 1; the spec names this one."""
    world = started(policy=policy(steps=STEPS, own=of_pods, autoscaling=autoscaling))
    world.want("2")
    while world.place.canary is None or world.place.canary.weight != 50:
        world.run(5)
    world.want(version)
    world.status, world.unread = FallbackPolicyStatus(), True
    world.told.clear()
    return world


@pytest.mark.parametrize("autoscaling", [None, {"maxReplicas": 4}])
@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_nothing_becomes_stable_and_nothing_is_changed(version: str, autoscaling: dict[str, int] | None) -> None:
    world = damaged(version, autoscaling=autoscaling)
    shares, arms, serving = list(world.shares), dict(world.arms), world.serving
    world.run(120)
    assert world.place == Place()
    assert (world.shares, world.arms) == (shares, arms)
    assert serving == "rev1"
    plan = world.decide()
    assert (plan.serving, plan.sizes, plan.route) == (None, {}, None), "what is there is left as it is"
    assert (plan.phase, plan.reason) == (Phase.BLOCKED, Reason.TRAFFIC_UNREADABLE)
    states = {c.type: c for c in plan.conditions}
    assert {states[t].status for t in (ConditionType.READY, ConditionType.PROGRESSING)} == {"False"}
    assert "status was lost, and it cannot be read" in states[ConditionType.STALLED].message
    agree_with_kstatus(plan)


def test_when_the_route_can_be_read_again_it_says_what_serves() -> None:
    world = damaged()
    world.run(30)
    world.unread = False
    world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_when_the_route_is_gone_what_was_accepted_last_serves() -> None:
    world = damaged()
    world.run(30)
    world.traffic, world.unread = None, False
    world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.reasons() == ["StatusLost"]


@pytest.mark.parametrize("token", ["promote", "retry", "skip_step", "approve", "abort"])
def test_a_word_of_a_person_that_may_be_an_old_one_moves_nothing(token: str) -> None:
    world = damaged()
    world.ask(**{token: "once"})
    world.run(30)
    assert world.place.stable is None
    assert getattr(world.place.acknowledged, token) == "once", "it does not wait for a rollout that its author has never seen"


def test_a_version_that_was_rejected_gets_nothing_and_is_not_freed_by_an_old_word() -> None:
    world = started(policy=policy(steps=STEPS))
    world.want("2")
    world.run(10)
    world.judged = BREACHED
    world.run(10)
    assert world.place.rejection_of("rev2") is not None
    world.status, world.unread = FallbackPolicyStatus(), True
    world.ask(promote="once", retry="once")
    shares = list(world.shares)
    world.run(120)
    assert (world.shares, world.place.stable) == (shares, None)
    assert world.decide().phase is Phase.BLOCKED
    world.unread = False
    world.run(120)
    assert world.shares == shares
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.place.rejection_of("rev2") is not None


def test_where_only_what_is_wanted_runs_it_is_what_serves() -> None:
    world = started()
    world.status, world.unread = FallbackPolicyStatus(), True
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_of_an_object_that_is_somebody_elses_it_is_said_so() -> None:
    world = damaged()
    observed = replace(world.observe(), route=Foreign("ConfigMap `support-traffic` belongs to something else"))
    plan = decide(observed, policy=world.policy, now=world.now)
    assert (plan.place, plan.reason) == (Place(), Reason.OBJECT_NOT_OURS)
    (stalled,) = [c.message for c in plan.conditions if c.type is ConditionType.STALLED]
    assert stalled.endswith("nothing is changed; take that object away, or give it its labels back")


def test_of_an_own_workload_nobody_is_told_to_delete_what_callers_reach() -> None:
    world = damaged(of_pods=True)
    world.strays = True
    plan = world.decide()
    assert (plan.place, plan.route, plan.serving) == (Place(), None, None)
    (stalled,) = [c.message for c in plan.conditions if c.type is ConditionType.STALLED]
    assert stalled.endswith("nothing is changed; put it right")


@pytest.mark.parametrize("foreign", [False, True])
def test_a_first_version_that_never_served_is_replaced_though_the_route_says_nothing(foreign: bool) -> None:
    world = World(policy=policy(deadline=60))
    world.broken.add("rev1")
    world.run(5)
    assert world.place.waiting is not None
    world.want("2")
    route = Foreign("it belongs to something else") if foreign else Unknown("it cannot be read")
    plan = decide(replace(world.observe(), route=route), policy=world.policy, now=world.now)
    assert "rev2" in plan.sizes, "status is there, and says that nothing has served"
    assert not [c for c in plan.conditions if "lost" in c.message]


def test_a_route_that_cannot_be_read_for_a_moment_is_no_new_start_for_a_first_revision() -> None:
    world = World(policy=policy(deadline=60))
    world.broken |= {"rev1", "rev2"}
    world.run(5)
    world.want("2")
    world.run(30)
    waiting = world.place.waiting
    world.unread = True
    world.run(2)
    world.unread = False
    world.run(2)
    assert waiting is not None
    assert world.place.waiting == waiting
