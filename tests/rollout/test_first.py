"""The first revision of a policy: it becomes stable without a canary, once the probes that are declared have passed."""

import pytest

from backstop.api.condition import ConditionType
from backstop.api.policystatus import Phase
from backstop.api.reasons import Reason
from backstop.rollout.observed import ProbeState
from backstop.rollout.plan import ConditionState
from tests.rollout.test_probes import edited
from tests.rollout.world import World, policy, revision

PASSED, FAILED = ProbeState.PASSED, ProbeState.FAILED


def condition(world: World, kind: ConditionType) -> ConditionState | None:
    return next((c for c in world.decide().conditions if c.type is kind), None)


def first(*names: str, come_to: dict[str, ProbeState | None], seconds: float = 5) -> World:
    """A policy is new, and its first revision meets these probes."""
    world = World(policy=policy(probes=names))
    world.come_to = come_to
    world.run(seconds)
    return world


def test_a01_a_first_revision_is_stable_when_its_probes_have_passed_and_is_called_by_nobody_before() -> None:
    world = first("golden", "smoke", come_to={"golden": None, "smoke": PASSED}, seconds=100)
    assert (world.place.stable, world.serving, world.route) == (None, None, None)
    assert sorted(world.begun) == ["golden", "smoke"]
    assert world.arms["rev1"].ready == 2
    plan = world.decide()
    assert (plan.phase, plan.reason) == (Phase.STARTING, Reason.WAITING_FOR_PROBES)
    for kind in (ConditionType.READY, ConditionType.RECONCILING, ConditionType.PROGRESSING):
        found = condition(world, kind)
        assert found is not None
        assert (found.reason, found.message) == (Reason.WAITING_FOR_PROBES, "waiting for probe `golden` to pass")
    world.come_to = {}
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.serving == "rev1"
    assert world.place.first is None
    assert (sorted(world.begun), world.jobs) == (["golden", "smoke"], {})
    assert world.reasons().count("ProbePassed") == 2


def test_probes_wait_for_a_ready_pod() -> None:
    world = World(policy=policy(probes=("golden",)), broken={"rev1"})
    world.run(20)
    assert (world.begun, world.decide().reason) == ([], Reason.WAITING_FOR_READY)


def test_a_first_revision_whose_probe_fails_is_not_stable_and_stalled_with_what_the_probe_said() -> None:
    world = first("golden", "smoke", come_to={"golden": FAILED, "smoke": None})
    assert (world.place.stable, world.serving) == (None, None)
    stalled = condition(world, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason is Reason.PROBE_FAILED
    assert "probe `golden` exited with code 3; change the spec" in stalled.message
    assert condition(world, ConditionType.RECONCILING) is None
    progressing = condition(world, ConditionType.PROGRESSING)
    assert progressing is not None
    assert progressing.status == "False"
    assert world.decide().phase is Phase.BLOCKED
    assert world.reasons().count("ProbeFailed") == 1
    assert ProbeState.RUNNING not in world.jobs.values()
    world.jobs.clear()  # its time to live is over
    world.run(300, tick=3)
    assert sorted(world.begun) == ["golden", "smoke"], "it is not tried again by itself"


@pytest.mark.parametrize("go_on", ["retry", "spec", "probe", "promote"])
def test_after_a_failed_probe_a_person_or_the_spec_goes_on(go_on: str) -> None:
    world = first("golden", come_to={"golden": FAILED})
    world.come_to = {"golden": FAILED if go_on == "promote" else PASSED}
    match go_on:
        case "spec":
            world.want("2")
        case "probe":
            edited(world, "golden")
        case token:
            world.ask(**{token: "now"})
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2" if go_on == "spec" else "1")
    assert world.begun == (["golden"] if go_on == "promote" else ["golden", "golden"])
    assert world.place.rejected == ()
    assert condition(world, ConditionType.STALLED) is None


def test_a_first_revision_whose_probes_are_no_longer_asked_for_is_stable() -> None:
    world = first("golden", come_to={"golden": FAILED})
    world.policy = policy()
    world.run(2)
    assert world.place.stable is not None


def test_a_second_version_that_is_wanted_before_the_first_has_passed_meets_the_probes_itself() -> None:
    world = first("golden", come_to={"golden": None})
    world.want("2")
    world.run(3)
    assert world.begun == ["golden", "golden"]
    world.come_to = {}
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_a_probe_that_cannot_be_seen_neither_passes_nor_fails() -> None:
    world = first("golden", come_to={"golden": None})
    world.unseen = {"golden"}
    world.jobs = dict.fromkeys(world.jobs, FAILED)
    world.run(50)
    assert world.place.stable is None
    found = condition(world, ConditionType.PROGRESSING)
    assert found is not None
    assert "`golden` cannot be seen: it belongs to something else" in found.message


@pytest.mark.long
@pytest.mark.parametrize("come_to", [PASSED, FAILED])
def test_wherever_an_operator_dies_a_first_probe_runs_once_and_its_end_is_the_same(come_to: ProbeState) -> None:
    for writes in range(30):
        world = World(policy=policy(probes=("golden",)))
        world.come_to = {"golden": come_to}
        done = 0
        while done < writes:
            left = writes - done
            count = world.write_count()
            world.one_pass(stop_after=min(left, count))
            done += max(1, min(left, count))
            world.settle()
            world.now += 1
        world.run(10)
        assert world.begun == ["golden"]
        assert (world.place.stable is not None) is (come_to is PASSED)


def test_a_lost_status_does_not_make_what_serves_pass_its_probes_again() -> None:
    world = first("golden", come_to={"golden": PASSED})
    assert world.place.stable is not None
    world.status = type(world.status)()
    world.come_to = {"golden": FAILED}
    world.run(3)
    assert world.place.stable is not None
    assert world.serving == "rev1"
    assert world.begun == ["golden"]


def test_a_policy_that_is_deleted_before_it_is_stable_goes_at_once() -> None:
    world = first("golden", come_to={"golden": None})
    world.delete()
    assert not world.exists


def test_a_first_revision_that_is_not_ready_by_its_deadline_is_told_once_and_goes_on_being_tried() -> None:
    world = World(policy=policy(deadline=120), broken={"rev1"})
    world.run(100)
    assert "FirstUnavailable" not in world.reasons()
    assert condition(world, ConditionType.RECONCILING) is not None
    assert world.decide().wake_at == world.place.waiting.since + 120 if world.place.waiting else False
    world.run(5000, tick=10)
    assert world.reasons().count("FirstUnavailable") == 1
    stalled = condition(world, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason is Reason.FIRST_UNAVAILABLE
    assert "see to its pods, or change the spec" in stalled.message
    assert condition(world, ConditionType.RECONCILING) is None
    assert world.decide().phase is Phase.BLOCKED
    world.want("2")
    world.broken = {"rev2"}
    world.run(60)
    assert condition(world, ConditionType.STALLED) is None, "another revision has its own time"
    world.run(120)
    assert world.reasons().count("FirstUnavailable") == 2
    world.broken.clear()
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.place.waiting is None
    assert condition(world, ConditionType.STALLED) is None
