"""A way back to pods that are gone: it comes before what the spec asks for meanwhile, and one that cannot end is told and can be ended."""

import pytest

from backstop.api.clock import parse_time
from backstop.api.condition import ConditionType
from backstop.api.fallbackpolicy import RollbackMode
from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.reasons import Reason
from backstop.api.rolloutreport import RolloutReportSpec
from backstop.rollout.look import Look
from backstop.rollout.place import Outcome
from backstop.rollout.wake import wake_at
from tests.rollout.test_guard import COMPARED, condition, promoted, shares
from tests.rollout.world import BREACHED, HEALTHY, World, revision

DEADLINE = 120


def waiting(*, seconds: float = 5, **changes: object) -> World:
    """Version 2 breaches in its guard window; the pods of version 1 are gone, and new ones do not get ready."""
    world = promoted(keep=15, **changes)
    world.run(100)
    world.broken.add("rev1")
    world.judged = BREACHED
    world.run(seconds)
    assert world.place.guard is not None
    assert world.place.guard.returning is not None
    return world


def test_a_new_version_waits_for_a_way_back_and_then_runs_against_what_traffic_went_back_to() -> None:
    world = waiting()
    world.want("3")
    world.run(20)
    assert world.place.canary is None
    assert world.place.guard is not None
    assert world.place.guard.returning is not None, "the breach is not forgotten"
    world.broken.clear()
    world.judged = HEALTHY
    world.run(3)
    assert world.place.rejection_of("rev2") is not None
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.revision) == (Outcome.ROLLED_BACK, revision("2"))
    world.run(3)
    assert shares(world) == ("rev1", "rev3", 500)


def test_a_wish_for_the_former_version_does_not_take_the_verdict_off_its_way_back() -> None:
    world = waiting()
    world.want("1")
    world.run(10)
    world.broken.clear()
    world.judged = HEALTHY
    world.run(3)
    assert shares(world) == ("rev1", None, 0)
    assert world.place.rejection_of("rev2") is not None


def in_mode(world: World, mode: str) -> None:
    world.policy = world.policy.model_copy(update={"rollback": world.policy.rollback.model_copy(update={"mode": RollbackMode(mode)})})


def test_an_edit_to_a_dry_run_while_a_way_back_waits_has_stable_stay() -> None:
    world = waiting()
    in_mode(world, "DryRun")
    world.run(5)
    world.broken.clear()
    world.run(100)
    assert shares(world) == ("rev2", None, 0)
    assert world.place.rejected == ()
    assert world.reasons().count("WouldRollBack") == 1
    in_mode(world, "Automatic")
    world.run(30)
    assert shares(world) == ("rev1", None, 0), "a breach is one again"


def test_a_way_back_that_was_begun_is_finished_in_a_dry_run_too() -> None:
    world = waiting()
    world.broken.clear()
    world.settle()
    world.one_pass(stop_after=1)
    assert shares(world) == ("rev1", None, 0)
    in_mode(world, "DryRun")
    world.judged = HEALTHY
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.place.rejection_of("rev2") is not None


def test_a_way_back_that_never_gets_its_pods_is_told_once_at_the_progress_deadline() -> None:
    world = waiting(seconds=DEADLINE - 5)
    assert "ReturnUnavailable" not in world.reasons()
    world.run(1000)
    assert world.reasons().count("ReturnUnavailable") == 1
    assert shares(world)[0] == "rev2"
    ready = condition(world.decide(), ConditionType.READY)
    assert ready is not None
    assert ready[1] is Reason.RETURN_UNAVAILABLE
    assert "`backstop.dev/promote`" in ready[2]
    assert f"{DEADLINE} s (`spec.canary.progressDeadlineSeconds`)" in ready[2]
    world.broken.clear()
    world.run(3)
    assert shares(world) == ("rev1", None, 0), "it is gone as soon as it can be"


def test_a_way_back_at_its_deadline_holds_up_no_other_version() -> None:
    world = waiting(seconds=DEADLINE + 5)
    world.judged = HEALTHY
    world.want("3")
    world.run(100)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("3")


def test_a_person_keeps_what_serves_by_promoting_it() -> None:
    world = waiting()
    world.ask(promote="we stay")
    world.run(2)
    assert world.reasons().count("PromotedByHand") == 1
    world.broken.clear()
    world.run(100)
    assert shares(world) == ("rev2", None, 0)
    assert world.reasons().count("WouldRollBack") == 1, "the breach goes on, and is told"
    assert world.place.rejected == ()
    assert set(world.arms) == {"rev2"}, "nothing is held ready for a way back"


def test_a_way_back_that_took_long_was_decided_when_the_breach_was_seen() -> None:
    world = waiting(seconds=80)
    breached = world.place.guard.returning.at if world.place.guard and world.place.guard.returning else 0.0
    world.broken.clear()
    world.judged = HEALTHY
    back = world.now
    world.run(5)
    last = world.place.last
    assert last is not None
    assert last.detected_at == breached
    assert last.shifted_at is not None
    assert last.shifted_at >= back, "gateways were watched from the way back on"
    world.run(COMPARED)
    assert "RejectionConfirmed" in world.reasons()
    report = RolloutReportSpec.model_validate(list(world.reports.values())[-1])
    assert parse_time(report.detectedAt) == breached
    assert parse_time(report.endedAt) >= back


def test_a_way_back_is_looked_at_again_when_few_pods_are_enough_and_when_it_is_late() -> None:
    def due(world: World) -> float | None:
        return wake_at(Look(world.observe(), world.policy, world.now))

    world = waiting()
    guard = world.place.guard
    assert guard is not None
    assert guard.returning is not None
    assert due(world) == guard.returning.at + 30
    world.run(35)
    assert due(world) == guard.returning.at + DEADLINE
    world.run(DEADLINE)
    assert due(world) == guard.until, "then only a change can matter"


@pytest.mark.parametrize("unread", [False, True])
def test_a_status_that_is_lost_on_the_way_back_leaves_what_serves_and_tells_its_breach_again(unread: bool) -> None:
    world = waiting()
    there = list(world.shares)
    world.status, world.unread = FallbackPolicyStatus(), unread
    world.told.clear()
    world.run(10)
    if unread:  # two revisions have pods, and nothing says which of them serves
        assert world.place.stable is None
        world.unread = False
        world.run(10)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.reasons()[:2] == ["StatusLost", "NothingToReturnTo"]
    world.broken.clear()
    world.run(60)
    assert world.shares == there, "what is breached on both ways is not left for what nobody knows to be better"
    assert "rev1" not in world.arms
