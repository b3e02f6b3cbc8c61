"""A clock that is set back, or an operator whose clock is behind the one's before it: nothing waits for a time to come again."""

import pytest

from backstop.rollout.judged import judged
from backstop.rollout.progress import VERIFY_SECONDS
from backstop.rollout.setback import AHEAD_SECONDS
from tests.rollout.test_guard import promoted
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN, World, in_rollout, policy, share

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
