"""How many pods each revision has, while its size is declared and while an autoscaler sets it."""

import math
from dataclasses import replace

import pytest

from tests.rollout.world import BREACHED, World, is_stable, policy, revision, started

STEPS = ((40, 60), (80, 60), (100, 60))
AUTOSCALING = {"minReplicas": 4, "maxReplicas": 50}


def at_weight(percent: int, *, replicas: int = 10, autoscaling: dict[str, int] | None = None) -> World:
    """Version 2 is the canary, and holds at this weight."""
    world = started(policy=policy(replicas=replicas, steps=STEPS, autoscaling=autoscaling))
    world.want("2")
    while (canary := world.place.canary) is None or canary.weight != percent or canary.verified_at is None:
        assert world.place.stable == world.decide().place.stable, "promoted before"
        world.run(1)
    return world


def sizes(world: World) -> dict[str, int]:
    return {name: arm.desired for name, arm in world.arms.items()}


@pytest.mark.parametrize("percent", [40, 80, 100])
@pytest.mark.parametrize("replicas", [1, 3, 20])
def test_c05_both_keep_their_share_when_replicas_are_edited_during_a_hold(percent: int, replicas: int) -> None:
    world = at_weight(percent)
    before = len(world.shares)
    world.policy = policy(replicas=replicas, steps=STEPS)
    world.run(5)
    assert sizes(world) == {"rev1": replicas, "rev2": max(1, math.ceil(replicas * percent / 100))}
    assert len(world.shares) == before, "the weight did not move"
    assert world.place.canary is not None
    assert world.place.canary.weight == percent


@pytest.mark.parametrize("percent", [40, 80, 100])
def test_c05_the_canary_grows_with_a_stable_that_an_autoscaler_sizes_and_is_not_cut_while_it_has_a_share(percent: int) -> None:
    world = at_weight(percent, autoscaling=AUTOSCALING)
    for replicas in (25, 7):  # the autoscaler takes no pods away meanwhile, but a person may
        world.scale("1", replicas=replicas)
        world.run(5)
        assert sizes(world) == {"rev1": replicas, "rev2": math.ceil(25 * percent / 100)}
    assert world.place.canary is not None
    assert world.place.canary.weight == percent


def test_c05_a_canary_that_has_lost_its_share_is_made_anew_for_the_stable_that_there_is() -> None:
    world = at_weight(40, autoscaling=AUTOSCALING)
    for replicas in (25, 7):
        world.scale("1", replicas=replicas)
        world.run(5)
    assert sizes(world) == {"rev1": 7, "rev2": 10}
    world.pace = 0
    world.arms["rev2"] = replace(world.arms["rev2"], ready=0)
    world.run(2)
    assert world.place.canary is not None
    assert world.place.canary.weight == 0
    assert sizes(world) == {"rev1": 7, "rev2": 3}


def test_c05_a_step_is_not_passed_before_the_canary_has_grown_with_stable() -> None:
    world = at_weight(40, autoscaling=AUTOSCALING)
    world.pace = 0
    world.scale("1", replicas=25)
    world.run(100)
    assert world.place.canary is not None
    assert (world.place.canary.step, world.place.canary.weight) == (0, 40)
    world.pace = 1000
    world.run(10)
    assert world.route is not None
    assert world.route.permille == 800


def test_what_an_autoscaler_scales_is_never_written_and_what_takes_over_is_as_large_as_what_it_replaces() -> None:
    world = at_weight(40, autoscaling=AUTOSCALING)
    world.scale("1", replicas=25)
    served: list[tuple[str, int, int]] = []
    for _ in range(200):
        plan = world.decide()
        assert plan.serving is not None
        assert plan.autoscaled == plan.serving
        world.run(1)
        if world.serving is not None:
            served.append((world.serving, sizes(world)[world.serving], world.arms[world.serving].ready))
    assert {name for name, *_ in served} == {"rev1", "rev2"}
    assert {(size, ready) for name, size, ready in served if name == "rev2"} == {(25, 25)}


def test_a_promotion_waits_until_the_canary_has_as_many_ready_pods_as_stable_has_by_then() -> None:
    world = at_weight(40, autoscaling=AUTOSCALING)
    world.pace = 0
    world.ask(promote="now")
    world.run(5)
    world.scale("1", replicas=25)
    world.run(5)
    assert sizes(world) == {"rev1": 25, "rev2": 25}
    assert world.serving == "rev1"
    world.pace = 5
    while world.serving == "rev1":
        world.run(1)
    assert world.arms["rev2"].ready == 25


def test_after_a_promotion_the_previous_revision_can_take_everything_back_at_any_time() -> None:
    world = at_weight(100, autoscaling=AUTOSCALING)
    while world.place.stable is None or world.place.stable.revision != revision("2"):
        world.run(1)
    world.scale("2", replicas=5)
    world.run(2)
    assert sizes(world) == {"rev1": 10, "rev2": 5}, "the autoscaler does not know it"
    world.scale("2", replicas=40)
    world.run(2)
    assert sizes(world) == {"rev1": 40, "rev2": 40}
    del world.arms["rev1"]
    world.run(2)
    assert sizes(world) == {"rev1": 40, "rev2": 40}, "one that was deleted comes back at full size"


def test_b07_a_return_in_the_guard_window_goes_to_as_many_pods_as_the_autoscaler_had_given() -> None:
    world = started(policy=policy(replicas=4, steps=((100, 5),), autoscaling=AUTOSCALING, guard=300))
    world.want("2")
    while world.place.stable is None or world.place.stable.revision != revision("2"):
        world.run(1)
    world.run(5)
    world.scale("2", replicas=30)
    world.run(5)
    world.judged = BREACHED
    world.run(5)
    assert world.place.stable.revision == revision("1")
    plan = world.decide()
    assert (plan.serving, plan.autoscaled) == ("rev1", "rev1")
    assert sizes(world)["rev1"] == 30


def test_a_canary_has_no_pods_too_few_while_stable_is_below_its_least() -> None:
    world = at_weight(40, autoscaling=AUTOSCALING)
    world.scale("1", replicas=1)  # somebody's `kubectl scale`; the autoscaler is about to correct it
    world.run(2)
    assert sizes(world) == {"rev1": 1, "rev2": 4}


@pytest.mark.parametrize("percent", [5, 50])
def test_c05_a_stable_whose_deployment_is_lost_comes_back_at_the_size_that_an_autoscaler_gave_it(percent: int) -> None:
    steps = ((percent, 600), (100, 60))
    world = started(policy=policy(replicas=2, steps=steps, autoscaling={"maxReplicas": 40}))
    world.scale("1", replicas=20)
    world.run(5)
    del world.arms["rev1"]
    world.run(5)
    assert sizes(world) == {"rev1": 20}
    world.want("2")
    world.run(30)
    assert sizes(world) == {"rev1": 20, "rev2": percent // 5}
    del world.arms["rev1"]
    world.broken.add("rev1")
    world.run(20)
    assert sizes(world) == {"rev1": 20, "rev2": percent // 5}
    assert world.place.canary is not None
    assert world.place.canary.weight == percent


def test_what_is_remembered_of_an_autoscaled_stable_is_bounded_by_what_is_declared_now_and_costs_no_write_of_its_own() -> None:
    world = started(policy=policy(replicas=2, autoscaling={"maxReplicas": 40}))
    world.pace = 3
    world.scale("1", replicas=8)
    before = len(world.writes)
    world.run(10)
    assert [write for write in world.writes[before:] if write != "events"] == ["status"] * 2, "with the pods that got ready"
    assert world.status.stable is not None
    assert (world.status.stable.readyReplicas, world.status.stable.fullSize) == (8, 8)
    world.policy = policy(replicas=2, autoscaling={"maxReplicas": 6})
    del world.arms["rev1"]
    world.run(2)
    assert sizes(world) == {"rev1": 6}
    world.policy = policy(replicas=2)
    world.run(2)
    assert world.status.stable.fullSize is None


def test_a_stable_that_was_deleted_or_scaled_to_nothing_comes_back() -> None:
    """An autoscaler leaves alone what has no pods."""
    world = started(policy=policy(replicas=6, autoscaling=AUTOSCALING))
    world.scale("1", replicas=0)
    world.run(2)
    assert sizes(world) == {"rev1": 6}
    del world.arms["rev1"]
    world.run(2)
    assert sizes(world) == {"rev1": 6}


def test_while_a_canary_has_a_share_stable_does_not_lose_the_pods_it_needs_to_take_it_back() -> None:
    world = started(policy=policy(replicas=10, steps=STEPS, autoscaling=AUTOSCALING), broken={"rev2"})
    world.want("2")
    world.run(5)
    assert world.decide().may_shrink
    world.broken.clear()
    world.run(5)
    assert not world.decide().may_shrink
    world.judged = BREACHED
    world.run(5)
    assert world.decide().may_shrink


def test_turning_an_autoscaler_on_or_off_begins_no_rollout_and_ends_none() -> None:
    world = at_weight(40)
    world.policy = policy(replicas=10, steps=STEPS, autoscaling=AUTOSCALING)
    world.run(5)
    assert world.decide().autoscaled == "rev1"
    world.scale("1", replicas=20)
    world.run(5)
    world.policy = policy(replicas=10, steps=STEPS)
    world.run(5)
    assert world.decide().autoscaled is None
    assert sizes(world) == {"rev1": 10, "rev2": 4}
    assert world.reasons().count("CanaryStarted") == 1


def short_of_room() -> World:
    """Version 2 has half of the requests, and nobody has room for the pods that both are to have from now on."""
    world = started(policy=policy(replicas=2, steps=((50, 600), (100, 60))))
    world.want("2")
    world.run(20)
    world.pace = 0
    world.policy = policy(replicas=20, steps=((50, 600), (100, 60)))
    world.run(100)
    assert "StableUnready" not in world.reasons(), "it has its time"
    return world


def test_what_stable_lacks_too_is_no_reason_to_reject_a_canary_that_runs() -> None:
    world = short_of_room()
    world.run(2000, tick=5)
    assert {name: (arm.ready, arm.desired) for name, arm in world.arms.items()} == {"rev1": (2, 20), "rev2": (1, 10)}
    assert world.place.rejected == ()
    assert world.place.canary is not None
    assert (world.place.canary.step, world.place.canary.weight) == (0, 50)
    assert world.reasons().count("StableUnready") == 1
    assert "1 of 10 pods" in next(a.message for a in world.told if a.reason == "StableUnready")
    progressing = next(c for c in world.decide().conditions if c.type == "Progressing")
    assert "what both lack says nothing of the revision" in progressing.message
    world.pace = 1000
    world.run(400)
    assert is_stable(world, "2")


def test_a_canary_that_is_short_alone_when_stable_has_its_pods_again_has_its_deadline_and_no_more() -> None:
    world = short_of_room()
    world.run(300)
    world.arms["rev1"] = replace(world.arms["rev1"], ready=20)
    world.run(100)
    assert not world.place.rejected
    world.run(30)
    assert [r.reason for r in world.place.rejected] == ["CanaryUnavailable"]


@pytest.mark.parametrize(("stable", "canary"), [(20, 1), (19, 1), (2, 0)])
def test_a_canary_that_lacks_more_than_stable_or_has_no_pod_at_all_is_rolled_back_at_its_deadline(stable: int, canary: int) -> None:
    world = short_of_room()
    world.arms["rev1"] = replace(world.arms["rev1"], ready=stable)
    world.arms["rev2"] = replace(world.arms["rev2"], ready=canary)
    world.run(130)
    assert [r.reason for r in world.place.rejected] == ["CanaryUnavailable"]
