"""A canary that has passed a step and waits for the pods of the next one: it is given more only while it can be seen to be well."""

from dataclasses import replace

import pytest

from backstop.analysis.reading import Breaching, SLOReading, Waiting
from backstop.api.reasons import Reason
from backstop.rollout.observed import Arm
from tests.rollout.world import HEALTHY, START, UNSEEN, World, policy, reading, revision, share, started

STEPS = ((5, 20), (50, 20), (100, 20))
SILENT = replace(reading(Waiting(20)), reason=Reason.NO_TRAFFIC)


def waiting_for_pods(**changes: object) -> World:
    """Version 2 has passed its first step, and has one of the two pods that it needs for the second."""
    world = started(policy=policy(steps=STEPS, replicas=4, deadline=600, **changes))  # type: ignore[arg-type]  # of `policy`
    world.want("2")
    world.run(3)
    world.pace = 0
    if changes.get("approval"):
        world.ask(approve="1")
    world.run(30)
    canary = world.place.canary
    assert canary is not None
    assert (canary.step, canary.step_started_at, share(world)) == (1, None, ("rev2", 50))
    return world


@pytest.mark.parametrize("approval", [(), (5,)])
@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        (UNSEEN, Reason.METRICS_UNAVAILABLE),
        (reading(Breaching(since=START)), Reason.WAITING_FOR_SAMPLES),
        (replace(reading(Breaching(since=START, shared=True)), reason=Reason.SHARED_BREACH), Reason.SHARED_BREACH),
        (SILENT, Reason.NO_TRAFFIC),
        (None, Reason.WAITING_FOR_SAMPLES),
    ],
    ids=["unknown", "over the limit", "as stable", "without answers", "unread"],
)
def test_what_has_become_of_its_metrics_meanwhile_keeps_the_next_step_from_beginning(
    judged: SLOReading | None, reason: Reason, approval: tuple[int, ...]
) -> None:
    world = waiting_for_pods(approval=approval)
    world.judged = judged
    world.run(1)
    world.pace = 1000
    world.run(300)
    assert share(world) == ("rev2", 50)
    assert world.decide().reason is reason
    world.judged = HEALTHY
    world.run(3)
    assert share(world) == ("rev2", 500)


def test_one_that_waits_for_more_requests_has_shown_what_it_had_to() -> None:
    world = waiting_for_pods()
    world.judged = reading(Waiting(3))
    world.pace = 1000
    world.run(3)
    assert share(world) == ("rev2", 500)


def test_no_step_begins_beside_a_stable_without_pods() -> None:
    world = waiting_for_pods()
    world.broken.add("rev1")
    world.run(1)
    world.pace = 1000
    world.run(30)
    assert share(world) == ("rev2", 50)
    assert world.decide().reason is Reason.STABLE_UNREADY
    world.broken.clear()
    world.run(3)
    assert share(world) == ("rev2", 500)


def test_a_person_who_skips_a_step_goes_on_without_metrics() -> None:
    world = started(policy=policy(steps=STEPS, replicas=4, deadline=600))
    world.want("2")
    world.run(10)
    world.pace, world.judged = 0, UNSEEN
    world.ask(skip_step="1")
    world.run(10)
    assert share(world) == ("rev2", 50)
    world.pace = 1000
    world.run(3)
    assert share(world) == ("rev2", 500)
    world.run(120)
    assert share(world) == ("rev2", 500), "one step was skipped"


def test_pods_that_go_meanwhile_take_it_back_to_the_step_that_it_had() -> None:
    world = waiting_for_pods()
    world.arms["rev2"] = Arm(desired=2, ready=0)
    world.run(1)
    assert share(world) == ("rev2", 0)
    world.pace = 1000
    world.run(2)
    assert share(world) == ("rev2", 50)
    canary = world.place.canary
    assert canary is not None
    assert canary.step == 0


def test_pods_that_go_after_a_person_skipped_the_step_do_not_take_that_back() -> None:
    world = waiting_for_pods()
    world.judged = UNSEEN
    world.status = world.status.model_copy(update={"canary": world.status.canary.model_copy(update={"approved": True})})  # type: ignore[union-attr]  # it has one
    world.arms["rev2"] = Arm(desired=2, ready=0)
    world.run(1)
    world.pace = 1000
    world.run(2)
    assert share(world) == ("rev2", 500)


def test_what_cannot_be_seen_any_more_is_not_switched_to() -> None:
    world = started(policy=policy(steps=STEPS))
    world.want("2")
    while world.place.canary is None or world.place.canary.promoting_since is None:
        world.settle()
        world.one_pass()
        world.now += 1
    world.judged = UNSEEN
    world.run(100)
    assert share(world) == ("rev2", 1000)
    assert world.decide().reason is Reason.METRICS_UNAVAILABLE
    world.judged = HEALTHY
    world.run(15)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_a_stable_without_pods_keeps_nothing_from_being_promoted_that_has_all_requests() -> None:
    world = started(policy=policy(steps=STEPS))
    world.want("2")
    while world.place.canary is None or world.place.canary.promoting_since is None:
        world.settle()
        world.one_pass()
        world.now += 1
    world.arms["rev1"] = replace(world.arms["rev1"], ready=0)
    world.broken.add("rev1")
    world.run(15)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
