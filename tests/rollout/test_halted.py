"""What becomes of a revision that waits for a person after a breach (`rollback.mode: Pause`), when its policy goes on without one."""

import pytest

from backstop.api.clock import parse_time
from backstop.api.reasons import Reason
from backstop.api.rolloutreport import RolloutReportSpec
from backstop.rollout.place import Rejection
from tests.rollout.test_guard import promoted, shares
from tests.rollout.world import BREACHED, HEALTHY, World, policy, started


def halted(*, at: int) -> World:
    """Version 2 was halted at this weight: half of the traffic, all of it, or after it was promoted (1000)."""
    if at == 1000:
        world = promoted(mode="Pause")
    else:
        world = started(policy=policy(steps=((50, 20), (100, 20)), mode="Pause", guard=600))
        world.want("2")
        while world.route is None or world.route.permille != at * 10:
            world.run(1)
    world.judged = BREACHED
    world.run(2)
    world.judged = HEALTHY
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    return world


def test_the_report_of_a_halted_revision_that_is_left_counts_from_its_breach() -> None:
    world = halted(at=50)
    at = world.place.canary.halted.at if world.place.canary and world.place.canary.halted else 0.0
    world.run(300)
    left = world.now
    world.want("3")
    world.run(5)
    report = RolloutReportSpec.model_validate(list(world.reports.values())[-1])
    assert (report.outcome, report.revision, report.reason) == ("RolledBack", "rev2", "LatencyBreach")
    assert parse_time(report.detectedAt) == at
    assert report.detectionToShiftMilliseconds == 250, "its traffic was gone long before it was left"
    assert parse_time(report.endedAt) == left


def test_a_halt_is_watched_until_every_gateway_acts_on_it() -> None:
    world = halted(at=50)
    assert world.reasons().count("TrafficShifted") == 1
    world.run(200)
    assert world.reasons().count("TrafficShifted") == 1


def test_a_halt_that_is_not_seen_on_every_gateway_is_told_and_not_watched_for_ever() -> None:
    world = started(policy=policy(steps=((50, 20), (100, 20)), mode="Pause"))
    world.want("2")
    world.run(5)
    world.judged, world.deaf = BREACHED, True
    world.run(200)
    assert world.reasons().count("WeightNotVerified") == 1
    world.deaf = False
    world.want("3")
    world.run(5)
    report = RolloutReportSpec.model_validate(list(world.reports.values())[-1])
    assert report.revision == "rev2"
    assert report.detectionToShiftMilliseconds is None, "nobody has seen when it shifted"


@pytest.mark.parametrize("at", [50, 100, 1000])
@pytest.mark.parametrize("how", ["deleted", "left"])
def test_what_was_halted_and_is_left_is_rejected_for_good_also_with_nothing_beside_it(how: str, at: int) -> None:
    world = halted(at=at)
    if how == "deleted":
        world.delete()
        world.run(5)
        assert not world.exists
        assert world.kept is not None
        rejected: tuple[Rejection, ...] = world.kept[1]
    else:
        world.want("3")
        world.run(3)
        rejected = world.place.rejected
    (rejection,) = rejected
    assert rejection.revision.name == "rev2"
    assert rejection.reason == Reason.LATENCY_BREACH
    assert not rejection.suspected
    assert [v.revision.name for v in world.verdicts] == ["rev2"]


def test_what_a_person_rejects_after_a_halt_is_certain() -> None:
    world = halted(at=1000)
    world.ask(abort="no")
    world.run(3)
    assert not world.place.rejected[-1].suspected
    assert shares(world) == ("rev1", None, 0)
