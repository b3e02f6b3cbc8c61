"""A clock that is set back, or an operator whose clock is behind the one's before it: nothing waits for a time to come again."""

from dataclasses import replace

import pytest

from backstop.rollout.guard import RETURN_SECONDS
from backstop.rollout.judged import WATCH_SHIFT_SECONDS, judged
from backstop.rollout.move import RETIRE_SECONDS
from backstop.rollout.progress import VERIFY_SECONDS
from backstop.rollout.setback import AHEAD_SECONDS
from tests.rollout.test_guard import GUARD, promoted
from tests.rollout.test_holding import HOLD, MOST, starving
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN, World, in_rollout, is_stable, policy, share

HOUR = 3600.0
STEPS = ((5, 600), (100, 60))


def since(world: World) -> float:
    """From when on requests are judged."""
    subject = judged(world.place, policy=world.policy)
    assert subject is not None
    assert subject.since is not None
    return subject.since


def told_of_clocks(world: World) -> list[str]:
    return [one.message for one in world.told if one.reason == "ClockSetBack"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_canarys_requests_are_judged_from_now_on_and_its_hold_begins_anew(paused: bool) -> None:
    world = in_rollout(policy=policy(steps=STEPS))
    world.policy = policy(steps=STEPS, paused=paused)
    world.now -= HOUR
    began = world.now
    world.run(2)
    assert since(world) <= began + 2 + world.policy.canary.analysis.warmUpSeconds
    assert share(world) == ("rev2", 50), "it keeps what it has"
    (message,) = told_of_clocks(world)
    assert message.endswith("s from now by the operator's clock; its hold begins anew, and requests are judged from now on")
    if not paused:
        world.run(590)
        assert share(world) == ("rev2", 50)
        world.run(20)
        assert share(world) == ("rev2", 1000)
    assert len(told_of_clocks(world)) == 1


def test_a_breach_that_is_known_does_not_wait_for_it() -> None:
    world = in_rollout(policy=policy(steps=STEPS))
    world.now -= HOUR
    world.judged = BREACHED
    world.one_pass()
    assert share(world) == (None, 0)


def test_clocks_that_differ_by_less_move_nothing() -> None:
    world = in_rollout(policy=policy(steps=STEPS))
    before = since(world)
    world.now = before - world.policy.canary.analysis.warmUpSeconds - AHEAD_SECONDS
    world.run(2)
    assert since(world) == before
    assert told_of_clocks(world) == []


def test_blind_time_that_began_at_a_time_to_come_is_not_taken_off_the_hold() -> None:
    world = in_rollout(policy=policy(steps=STEPS))
    world.now += HOUR  # the clock goes ahead: samples are an hour old
    world.judged = UNSEEN
    world.run(5)
    world.now -= HOUR
    world.judged = HEALTHY
    world.run(60)
    canary = world.place.canary
    assert canary is not None
    assert canary.blind_seconds >= 0
    assert share(world) == ("rev2", 50), "its hold of 600 s is not over"


def test_a_stable_that_is_watched_is_judged_from_now_on() -> None:
    world = promoted()
    world.run(5)
    world.now -= HOUR
    began = world.now
    world.run(2)
    assert since(world) <= began + 2
    assert len(told_of_clocks(world)) == 1


def test_a_weight_that_is_not_seen_has_its_time_from_now_on() -> None:
    world = in_rollout(policy=policy(steps=((5, 60), (100, 60))))
    world.deaf = True
    while share(world) != ("rev2", 1000):
        world.run(1)
    world.now -= HOUR
    world.run(VERIFY_SECONDS - 5)
    assert "WeightNotVerified" not in world.reasons()
    world.run(10)
    assert "WeightNotVerified" in world.reasons()


def test_a_way_back_goes_on_with_the_pods_that_there_are() -> None:
    world = promoted(keep=15)
    world.run(30)
    world.pace = 0
    world.judged = BREACHED
    world.run(3)
    assert world.reasons()[-1] == "Returning"
    world.now -= HOUR
    world.arms["rev1"] = replace(world.arms["rev1"], ready=1)
    world.run(RETURN_SECONDS + 5)
    assert is_stable(world, "1")


@pytest.mark.parametrize("own", [False, True])
def test_pods_of_a_former_canary_go_and_the_next_one_does_not_wait_for_them_longer(own: bool) -> None:
    world = in_rollout(policy=policy(own=own, steps=((5, 600), (100, 60))))
    world.judged = BREACHED
    world.run(3)
    world.judged = HEALTHY
    world.now -= HOUR
    world.want("3")
    world.run(RETIRE_SECONDS + 15)
    assert "rev2" not in world.arms
    assert world.place.canary is not None
    assert world.place.canary.weight == 5


def test_a_first_revision_that_does_not_come_is_told_in_its_time() -> None:
    world = World(policy=policy(deadline=40), pace=0)
    world.run(5)
    world.now -= HOUR
    world.run(30)
    assert "FirstUnavailable" not in world.reasons()
    world.run(15)
    assert world.reasons().count("FirstUnavailable") == 1


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
def test_gateways_are_not_watched_for_longer(mode: str) -> None:
    world = in_rollout(policy=policy(steps=STEPS, mode=mode))
    world.deaf = True
    world.judged = BREACHED
    world.run(2)
    world.now -= HOUR
    world.run(WATCH_SHIFT_SECONDS + 5)
    assert "WeightNotVerified" in world.reasons()
    assert len(told_of_clocks(world)) == 1


@pytest.mark.parametrize("ended", [False, True])
def test_pods_of_what_was_halted_go_in_their_time_and_do_not_come_back(ended: bool) -> None:
    world = in_rollout(policy=policy(own=True, steps=STEPS, mode="Pause"))
    world.judged = BREACHED
    world.run(RETIRE_SECONDS + 1 if ended else 2)
    canary = world.place.canary
    assert canary is not None
    assert canary.halted is not None
    assert canary.halted.generation is None, "it was seen"
    assert (world.arms["rev2"].desired == 0) is ended
    world.now -= HOUR
    for _ in range(2):
        world.run(1)
        assert (world.arms["rev2"].desired == 0) is ended
    world.run(RETIRE_SECONDS)
    assert world.arms["rev2"].desired == 0
    assert len(told_of_clocks(world)) == 1


def test_an_end_that_nobody_watches_any_more_keeps_its_time() -> None:
    world = in_rollout(policy=policy(steps=STEPS))
    world.deaf = True
    world.judged = BREACHED
    world.run(WATCH_SHIFT_SECONDS + 5)
    assert world.place.last is not None
    assert world.place.last.generation is None
    before = world.place.last
    world.now -= HOUR
    world.run(5)
    assert len(told_of_clocks(world)) == 1, "stable's begin is of a time to come"
    assert world.place.last == before


def test_what_was_promoted_unseen_is_judged_in_its_guard_window() -> None:
    world = in_rollout(policy=policy(steps=STEPS, guard=GUARD))
    while world.place.canary is None or world.place.canary.routed_at is None:
        world.run(1)
    world.deaf = True
    world.run(2 * WATCH_SHIFT_SECONDS + 10)
    assert world.place.canary is None
    assert world.place.last is not None
    assert world.place.last.generation is None
    world.now -= HOUR
    world.run(WATCH_SHIFT_SECONDS + 5)
    assert since(world) <= world.now + world.policy.canary.analysis.warmUpSeconds


def test_the_guard_window_and_pods_to_go_back_to_end_as_long_after_the_promotion_as_declared() -> None:
    world = promoted(keep=100)
    world.run(5)
    world.now -= HOUR
    world.run(85)
    assert "rev1" in world.arms
    world.run(25)
    assert "rev1" not in world.arms
    assert world.place.guard is not None
    world.run(GUARD - 100)
    after = world.place
    assert (after.guard, after.previous) == (None, None)


def test_a_step_that_has_waited_does_not_wait_for_longer_than_it_may() -> None:
    world = starving()
    world.run(HOLD + 100)
    world.now -= HOUR
    world.run(HOLD + MOST + 15)
    assert "RolledBack" in world.reasons()
