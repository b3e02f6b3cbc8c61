"""A workload of its author's own: numbers of ready pods make the shares, and every ready pod of the policy is reached by them."""

import pytest

from backstop.api.policystatus import FallbackPolicyStatus, Router
from backstop.api.reasons import Reason
from backstop.rollout.look import pods_for_share
from backstop.rollout.observed import Arm
from tests.rollout.world import BREACHED, HEALTHY, World, policy, revision, started

STEPS = ((10, 60), (50, 60), (100, 60))


def own(**changes: object) -> World:
    """Version 1 is stable, with two pods."""
    return started(policy=policy(steps=STEPS, own=True, **changes))  # type: ignore[arg-type]  # of `policy`, given by the test


def at(world: World, percent: int) -> World:
    """The canary holds at this weight."""
    for _ in range(400):
        canary = world.place.canary
        if canary is not None and canary.weight == percent and canary.verified_at is not None:
            return world
        world.run(1)
    raise AssertionError(f"no canary at {percent} %; {world.reasons()}")


def sizes(world: World) -> dict[str, int]:
    return {name: arm.desired for name, arm in world.arms.items() if arm.desired}


@pytest.mark.parametrize(
    ("weight", "beside", "pods"),
    [
        (5, 2, 1),
        (50, 2, 2),
        (100, 2, 2),
        (5, 19, 1),
        (5, 38, 2),
        (5, 37, 1),
        (25, 9, 3),
        (25, 10, 3),
        (1, 500, 5),
        (50, 1, 1),
        (49, 100, 96),
    ],
)
def test_a_canary_has_the_pods_whose_share_is_nearest_to_its_weight_from_below(weight: int, beside: int, pods: int) -> None:
    assert pods_for_share(weight, beside=beside) == pods
    if weight < 100 and pods > 1:
        assert 100 * pods / (pods + beside) <= weight < 100 * (pods + 1) / (pods + 1 + beside)


def test_status_names_the_share_that_pods_really_make() -> None:
    world = own()
    assert world.status.router is Router.REPLICAS
    world.want("2")
    at(world, 10)
    assert sizes(world) == {"rev1": 2, "rev2": 1}
    assert world.status.canary is not None
    assert (world.status.canary.weight, world.status.canary.sharePercent) == (10, "33.3")
    said = next(a.message for a in world.told if a.reason.value == "StepStarted")
    assert "10 %, which pods make 33.3 % of new connections, to 2 (rev2)" in said
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.rest()
    assert world.status.canary is not None
    assert world.status.canary.sharePercent == "50.0"
    at(world, 100)
    assert world.status.canary is not None
    assert (sizes(world), world.status.canary.sharePercent) == ({"rev1": 2, "rev2": 2}, "100")


def test_with_gateways_a_weight_is_exact_and_status_names_no_other_share() -> None:
    world = started()
    world.want("2")
    at(world, 5)
    assert world.status.canary is not None
    assert (world.status.router, world.status.canary.sharePercent) == (Router.BUILTIN, None)


def test_the_former_stable_gives_up_its_pods_before_the_next_canary_is_reached() -> None:
    world = own(keep=86_400)
    world.want("2")
    at(world, 100)
    world.run(70)
    assert sizes(world) == {"rev1": 2, "rev2": 2}, "kept to return to"
    world.linger = True
    world.want("3")
    world.run(20)
    assert world.place.canary is not None
    assert (world.place.canary.weight, world.lingering) == (0, {"rev1"})
    progressing = next(c for c in world.status.conditions if c.type == "Progressing")
    assert progressing.message.startswith("waiting for the pods of rev1 to go")
    world.linger = False
    at(world, 10)
    assert sizes(world) == {"rev2": 2, "rev3": 1}


def test_c01_the_canary_before_is_gone_before_the_next_one_is_reached() -> None:
    world = own()
    world.want("2")
    at(world, 50)
    world.want("3")
    world.one_pass()
    assert world.route is not None
    assert (world.route.stable, world.route.permille) == ("rev1", 0)
    world.run(10)
    assert "rev2" in world.arms, "its pods finish what they have"
    assert world.route.permille == 0
    at(world, 10)
    assert sizes(world) == {"rev1": 2, "rev3": 1}


def test_pods_of_a_third_revision_take_the_share_back_until_they_are_gone() -> None:
    world = own()
    world.want("2")
    at(world, 10)
    world.lingering, world.linger = {"rev9"}, True
    world.rest()
    assert world.route is not None
    assert world.route.permille == 0
    assert "pods of rev9, which is neither stable nor canary" in world.told[-1].message
    world.run(5)
    assert world.route.permille == 0
    world.linger = False
    at(world, 10)


def test_b07_a_way_back_waits_for_pods_that_a_canary_has_cost() -> None:
    world = own(guard=3600, keep=3600)
    world.want("2")
    at(world, 100)
    world.run(70)
    assert world.place.canary is None
    world.want("3")
    at(world, 10)
    assert "rev1" not in sizes(world)
    world.want("2")
    world.run(20)
    assert sizes(world) == {"rev1": 2, "rev2": 2}, "the former stable is there again"
    world.judged = BREACHED
    world.run(3)
    world.judged = HEALTHY
    assert world.route is not None
    assert world.route.stable == "rev1"
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


@pytest.mark.parametrize("writes", range(1, 8))
def test_a_promotion_by_hand_that_dies_anywhere_lets_nobody_share_with_the_former_stable(writes: int) -> None:
    world = own(keep=86_400)
    world.want("2")
    at(world, 100)
    world.run(70)
    world.want("3")
    at(world, 10)
    world.ask(promote="now")
    for _ in range(20):
        world.one_pass(stop_after=writes)
        world.settle()
        assert world.route is not None
        if 0 < world.route.permille < 1000:
            assert set(sizes(world)) <= {"rev2", "rev3"}
        world.now += 1
    world.run(20)
    assert world.route is not None
    assert world.route.stable == "rev3"


def test_a_route_that_does_not_do_what_it_says_is_written_again_with_the_same_words() -> None:
    world = own()
    before, writes = world.traffic, len(world.writes)
    world.strays = True
    world.rest()
    assert (world.traffic, world.strays) == (before, False)
    assert [name for name in world.writes[writes:] if name != "events"] == ["route"]


def test_nobody_is_told_to_delete_the_service_that_callers_reach() -> None:
    world = own()
    world.status = FallbackPolicyStatus()
    world.want("2")
    world.run(3)
    plan = world.decide()
    assert plan.reason is Reason.STATUS_LOST
    said = [c.message for c in plan.conditions if c.reason is Reason.STATUS_LOST]
    assert said
    assert all("apply the version of that revision" in message and "delete" not in message for message in said)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_halt_is_told_in_the_words_of_a_service(deaf: bool) -> None:
    world = own(mode="Pause")
    world.want("2")
    at(world, 10)
    world.told.clear()
    world.judged, world.deaf = BREACHED, deaf
    world.run(70)
    said = next(a.message for a in world.told if "the halt of rev2" in a.message)
    assert "the endpoints of the Service" in said
    assert "gateway" not in said
