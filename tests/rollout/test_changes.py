"""Changes of what is wanted in the middle of a rollout, and of a stable revision that is broken: on a cluster in memory."""

import pytest

from backstop.api.policystatus import CanaryStatus
from backstop.rollout.place import Outcome
from tests.rollout.world import BREACHED, HEALTHY, World, policy, revision, started


def at_40_percent(**changes: object) -> World:
    world = started(policy=policy(steps=((40, 60), (100, 60))), **changes)
    world.want("2")
    world.run(10)
    assert world.route is not None
    assert (world.route.canary, world.route.permille) == ("rev2", 400)
    return world


def test_c01_another_version_in_mid_canary_gets_its_weight_only_after_0_and_against_the_same_stable() -> None:
    world = at_40_percent()
    world.run(40)  # two thirds of the hold, which count for nothing after it
    asked = world.now
    world.want("3")
    world.run(59)
    later = [(canary, permille) for at, _, canary, permille in world.shares if at >= asked]
    assert later[-1] == ("rev3", 400)
    assert later[0][1] == 0
    assert ("rev2", 400) not in later
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    world.run(10)
    assert world.route is not None
    assert world.route.permille == 1000, "its own hold is over, and not before"


def test_c02_a_newer_version_without_a_ready_pod_gets_no_traffic() -> None:
    world = at_40_percent(broken={"rev3"})
    world.want("3")
    world.run(100)
    assert world.place.canary is not None
    assert world.place.canary.revision == revision("3")
    assert all(permille == 0 for _, _, canary, permille in world.shares if canary == "rev3")
    assert world.route is not None
    assert (world.route.stable, world.route.permille) == ("rev1", 0)
    world.broken.clear()
    world.run(5)
    assert world.route.permille == 400


def test_b13_a_fix_is_promoted_by_hand_while_stable_has_no_ready_pod_and_nothing_can_be_measured() -> None:
    world = started(policy=policy(steps=((40, 60), (100, 60))), judged=None)
    world.broken.add("rev1")
    world.settle()
    world.want("2")
    world.run(300)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1"), "nothing is promoted on no evidence"
    world.ask(promote="now")
    world.run(30)
    assert world.place.stable.revision == revision("2")
    assert world.place.last is not None
    assert world.place.last.outcome is Outcome.PROMOTED


def switch_and_wait(world: World) -> None:
    """A promotion up to where only gateways are waited for."""
    world.deaf = True
    world.ask(promote="now")
    while world.place.canary is not None and world.place.canary.routed_at is None:
        world.run(1)


@pytest.mark.parametrize("then", ["1", "3"])
def test_a_promotion_that_is_switched_is_not_taken_back_to_a_stable_that_has_not_all_of_its_pods(then: str) -> None:
    world = started(policy=policy(steps=((40, 60), (100, 60)), guard=600))
    world.want("2")
    world.run(10)
    switch_and_wait(world)
    world.broken.add("rev1")
    world.settle()
    world.want(then)
    world.run(5)
    assert world.route is not None
    assert world.route.stable == "rev2", "callers would reach nobody"
    world.deaf = False
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    world.broken.clear()
    world.run(300)
    assert world.place.stable.revision == revision(then), "what is wanted has begun after it"


def test_a_promotion_that_is_switched_is_taken_back_to_a_stable_that_has_its_pods() -> None:
    world = started(policy=policy(steps=((40, 60), (100, 60))))
    world.want("2")
    world.run(10)
    switch_and_wait(world)
    world.want("1")
    world.one_pass()
    assert world.route is not None
    assert (world.route.stable, world.route.permille) == ("rev1", 0)


def test_b13_a_fix_that_is_no_better_is_rolled_back_and_the_next_one_is_tried() -> None:
    world = at_40_percent()
    world.broken.add("rev1")
    world.judged = BREACHED
    world.run(5)
    assert world.place.rejection_of("rev2") is not None
    world.judged = HEALTHY
    world.want("3")
    world.run(300)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1"), "no step passes by itself beside a stable without a pod"
    world.ask(promote="now")
    world.run(30)
    assert world.place.stable.revision == revision("3")


def test_a_dry_run_that_an_operator_of_an_earlier_version_has_told_of_is_still_known() -> None:
    status = CanaryStatus.model_validate({"revision": "rev2", "promptVersion": "p", "reported": "LatencyBreach"})
    assert status.reported == ["LatencyBreach"]
