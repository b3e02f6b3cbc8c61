"""Metrics that cannot be seen: told once, on a canary and in the guard window; a window that could never judge says so."""

import pytest

from backstop.analysis.reading import Unknown, Waiting
from backstop.rollout.blindness import OWN_FINDING_SECONDS, SEEN_SECONDS, deadlines
from backstop.rollout.look import Look
from backstop.rollout.wake import wake_at
from tests.rollout.world import HEALTHY, UNSEEN, World, in_rollout, policy, reading

from .test_guard import GUARD, promoted


def told(world: World, *reasons: str) -> list[str]:
    """What was told of these reasons, in order."""
    return [announcement.reason for announcement in world.told if announcement.reason in reasons]


def test_metrics_that_cannot_be_seen_in_the_guard_window_are_told_once_and_that_they_can_be_again() -> None:
    world = promoted()
    world.run(20)
    world.judged = UNSEEN
    world.run(60, tick=2)
    assert told(world, "MetricsUnavailable", "MetricsAvailable") == ["MetricsUnavailable"]
    assert "guard window" in world.told[-1].message
    world.judged = HEALTHY
    world.run(SEEN_SECONDS + 10, tick=5)
    assert told(world, "MetricsUnavailable", "MetricsAvailable") == ["MetricsUnavailable", "MetricsAvailable"]


@pytest.mark.parametrize("judged", [UNSEEN, reading(Waiting(more=12)), None], ids=["unseen", "too few requests", "no reading"])
def test_a_guard_window_that_could_never_judge_says_so_at_its_end(judged) -> None:  # type: ignore[no-untyped-def]
    world = promoted()
    world.judged = judged
    world.run(GUARD - 30, tick=5)
    assert told(world, "NeverJudged") == []
    world.run(60, tick=5)
    assert told(world, "NeverJudged") == ["NeverJudged"]
    assert "could never judge it: latency (" in world.told[-1].message
    assert world.place.guard is None


def test_a_guard_window_that_could_judge_once_ends_without_a_word() -> None:
    world = promoted()
    world.run(OWN_FINDING_SECONDS + 5)
    world.judged = UNSEEN
    world.run(GUARD, tick=5)
    assert world.place.guard is None
    assert told(world, "NeverJudged") == []


def test_metrics_that_come_and_go_are_told_once_and_their_blind_time_is_counted_each_time() -> None:
    world = in_rollout(policy=policy(steps=((5, 600), (100, 60))))
    for _ in range(30):
        world.judged = UNSEEN
        world.run(5)
        world.judged = HEALTHY
        world.run(5)
    assert told(world, "MetricsUnavailable", "MetricsAvailable") == ["MetricsUnavailable"]
    canary = world.place.canary
    assert canary is not None
    assert canary.blind_seconds == pytest.approx(150, abs=35), "what is decided waits for nothing"
    world.run(SEEN_SECONDS + 5)
    assert told(world, "MetricsUnavailable", "MetricsAvailable") == ["MetricsUnavailable", "MetricsAvailable"]
    world.judged = UNSEEN
    world.run(5)
    assert told(world, "MetricsUnavailable") == ["MetricsUnavailable"] * 2, "another blindness is told again"


def test_metrics_that_come_and_go_in_the_guard_window_are_told_once() -> None:
    world = promoted()
    for _ in range(20):
        world.judged = reading(Unknown("no answer"))
        world.run(5)
        world.judged = HEALTHY
        world.run(5)
    assert told(world, "MetricsUnavailable", "MetricsAvailable") == ["MetricsUnavailable"]


@pytest.mark.parametrize("begin", [lambda: in_rollout(policy=policy(steps=((5, 600), (100, 60)))), promoted], ids=["canary", "guard"])
def test_it_is_looked_again_when_metrics_have_stayed(begin) -> None:  # type: ignore[no-untyped-def]
    world = begin()
    world.judged = UNSEEN
    world.run(10)
    world.judged = HEALTHY
    world.run(30)
    look = Look(world.observe(), world.policy, world.now)
    subject = look.place.canary or look.place.guard
    assert subject is not None
    assert subject.seeing_since is not None
    assert wake_at(look) == subject.seeing_since + SEEN_SECONDS


def test_it_is_looked_when_a_watch_has_a_finding_of_its_own() -> None:
    world = promoted()
    look = Look(world.observe(), world.policy, world.now)
    last = look.place.last
    assert last is not None
    assert last.shifted_at is not None
    assert last.shifted_at + OWN_FINDING_SECONDS in deadlines(look)
    world.run(OWN_FINDING_SECONDS + 2)
    assert deadlines(Look(world.observe(), world.policy, world.now)) == []


def test_a_rollout_whose_slos_are_taken_out_while_metrics_are_away_goes_on() -> None:
    world = in_rollout()
    world.judged = UNSEEN
    world.run(30)
    world.policy = world.policy.model_copy(update={"slos": []})
    world.run(200)
    assert world.place.stable is not None
    assert world.place.stable.revision.name == "rev2"
