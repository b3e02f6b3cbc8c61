"""Probes: they run between ready pods and the first weight, once a rollout, and what they come to decides."""

import pytest

from backstop.analysis.reading import Waiting
from backstop.api.condition import ConditionType
from backstop.api.probe import Probe
from backstop.api.reasons import Reason
from backstop.rollout.decide import decide
from backstop.rollout.observed import ProbeState
from backstop.rollout.place import Outcome, awaited_generation
from backstop.rollout.plan import ConditionState
from tests.rollout.world import BREACHED, World, policy, reading, revision, started

PASSED, FAILED, RUNNING = ProbeState.PASSED, ProbeState.FAILED, ProbeState.RUNNING


def canary_at(world: World) -> int:
    """The canary's weight, as gateways are told it."""
    assert world.route is not None
    assert world.route.canary == "rev2"
    return world.route.permille


def probed(*names: str, come_to: dict[str, ProbeState | None], mode: str = "Automatic", seconds: float = 10) -> World:
    """A world in which version 2 meets these probes."""
    world = started(policy=policy(probes=names, mode=mode))
    world.come_to = come_to
    world.want("2")
    world.run(seconds)
    return world


def condition(world: World, kind: ConditionType) -> ConditionState:
    return next(c for c in world.decide().conditions if c.type is kind)


def states(world: World) -> dict[str, ProbeState]:
    return {name: state for (_, _, name), state in world.jobs.items()}


def test_a02_no_weight_before_pods_are_ready_and_every_probe_has_passed() -> None:
    world = started(policy=policy(probes=("golden", "smoke")))
    world.come_to = {"golden": None, "smoke": PASSED}
    world.broken.add("rev2")
    world.want("2")
    world.run(20)
    assert (canary_at(world), world.begun) == (0, [])
    world.broken.clear()
    world.run(500, tick=5)
    assert canary_at(world) == 0
    assert sorted(world.begun) == ["golden", "smoke"]
    assert world.decide().reason is Reason.WAITING_FOR_PROBES
    assert awaited_generation(world.place) is None, "gateways are not asked for as long as a probe takes"
    assert condition(world, ConditionType.PROGRESSING).message == "waiting for probe `golden` to pass"
    assert condition(world, ConditionType.RECONCILING).reason is Reason.WAITING_FOR_PROBES
    world.come_to = {"golden": PASSED}
    world.run(3)
    assert canary_at(world) == 50
    assert world.reasons().count("ProbePassed") == 2
    world.run(300, tick=3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert sorted(world.begun) == ["golden", "smoke"], "each ran once"
    assert world.jobs == {}, "they went with their rollout"


def test_probes_wait_until_every_gateway_knows_the_canary_for_only_then_does_a_pin_reach_it() -> None:
    world = started(policy=policy(probes=("golden",)))
    world.deaf = True
    world.want("2")
    world.run(100)
    assert world.begun == []
    assert world.decide().reason is Reason.WAITING_FOR_PROBES
    assert "every gateway has to know the canary rev2" in condition(world, ConditionType.PROGRESSING).message
    world.deaf = False
    world.run(5)
    assert world.begun == ["golden"]
    assert canary_at(world) == 50


def test_a_failed_probe_rolls_the_canary_back_with_what_it_said() -> None:
    world = probed("golden", "smoke", come_to={"golden": FAILED, "smoke": None})
    last = world.place.last
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.ROLLED_BACK, "ProbeFailed")
    assert last.message.endswith("probe `golden` exited with code 3")
    assert world.place.rejection_of("rev2") is not None
    assert condition(world, ConditionType.ROLLED_BACK).reason is Reason.PROBE_FAILED
    assert {permille for _, _, _, permille in world.shares} == {0}
    assert states(world) == {"golden": FAILED}, "no other is left running; the failed one is left for its log"
    world.run(300, tick=3)
    assert world.begun.count("golden") == 1


def test_a_retry_runs_every_probe_again() -> None:
    world = probed("golden", "smoke", come_to={"golden": FAILED, "smoke": PASSED})
    world.come_to = {}
    world.ask(retry="1")
    world.run(5)
    assert canary_at(world) == 50
    assert sorted(world.begun) == ["golden", "golden", "smoke", "smoke"]


def test_pause_lets_a_person_decide_about_a_failed_probe() -> None:
    world = probed("golden", come_to={"golden": FAILED}, mode="Pause")
    canary = world.place.canary
    assert canary is not None
    assert canary.halted is not None
    assert (canary.halted.reason, canary.halted.message) == ("ProbeFailed", "probe `golden` exited with code 3")
    world.run(100)
    assert world.begun == ["golden"]
    world.come_to = {}
    world.ask(retry="1")
    world.run(5)
    assert canary_at(world) == 50


def test_dry_run_tells_of_a_failed_probe_and_gives_no_weight_until_a_person_decides() -> None:
    world = probed("golden", come_to={"golden": FAILED}, mode="DryRun", seconds=100)
    assert canary_at(world) == 0
    assert world.reasons().count("WouldRollBack") == 1
    assert "`spec.rollback.mode` is `DryRun`" in condition(world, ConditionType.PROGRESSING).message
    world.jobs.clear()  # its time to live is over: nothing to run again
    world.run(100)
    assert world.begun == ["golden"]
    world.come_to = {}
    world.ask(retry="1")
    world.run(5)
    assert (world.begun, canary_at(world)) == (["golden", "golden"], 50)


def test_a_probe_that_failed_in_a_dry_run_is_run_anew_when_it_is_edited() -> None:
    world = probed("golden", "smoke", come_to={"golden": FAILED, "smoke": None}, mode="DryRun", seconds=100)
    assert condition(world, ConditionType.STALLED).reason is Reason.PROBE_FAILED
    assert "probe `golden` did not pass" in condition(world, ConditionType.STALLED).message
    edited(world, "smoke")
    world.run(30)
    assert world.begun.count("golden") == 1, "the one that failed is as it was"
    edited(world, "golden", least=90)
    world.run(30)
    assert (world.begun.count("golden"), world.reasons().count("WouldRollBack")) == (2, 2), "it failed again, and that is told"
    edited(world, "golden", least=85)
    world.run(30)
    edited(world, "golden", least=90)
    world.run(30)
    assert world.begun.count("golden") == 3, "as it is declared now it has failed before"
    assert condition(world, ConditionType.STALLED).reason is Reason.PROBE_FAILED
    world.come_to = {"golden": None}
    edited(world, "golden", least=80)
    world.run(5)
    assert condition(world, ConditionType.RECONCILING).reason is Reason.WAITING_FOR_PROBES
    world.come_to = {}
    world.run(5)
    assert (world.begun.count("golden"), canary_at(world)) == (4, 50)


def test_a_probe_of_which_an_earlier_operator_wrote_only_that_one_failed_holds_until_a_person_decides() -> None:
    world = probed("golden", come_to={"golden": FAILED}, mode="DryRun", seconds=100)
    assert world.status.canary is not None
    world.status = world.status.model_copy(update={"canary": world.status.canary.model_copy(update={"probesFailed": []})})
    world.jobs.clear()
    world.come_to = {}
    world.run(100)
    assert (world.begun, canary_at(world)) == (["golden"], 0)
    assert condition(world, ConditionType.STALLED).reason is Reason.PROBE_FAILED
    world.ask(retry="1")
    world.run(5)
    assert (world.begun, canary_at(world)) == (["golden", "golden"], 50)


def test_a_person_promotes_without_waiting_for_a_probe() -> None:
    world = probed("golden", come_to={"golden": None})
    world.ask(promote="1")
    world.run(60)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.jobs == {}


def test_what_passed_stays_passed_when_its_job_is_cleaned_up() -> None:
    world = probed("golden", "smoke", come_to={"golden": PASSED, "smoke": None})
    del world.jobs["rev2", next(iter(world.jobs))[1], "golden"]
    world.run(60)
    assert sorted(world.begun) == ["golden", "smoke"]
    world.come_to = {}
    world.run(3)
    assert canary_at(world) == 50


def test_a_job_that_vanishes_before_it_ended_is_run_again() -> None:
    world = probed("golden", come_to={"golden": None})
    world.jobs.clear()
    world.run(3)
    assert world.begun == ["golden", "golden"]
    assert canary_at(world) == 0


def test_a_probe_that_cannot_be_seen_neither_passes_nor_fails() -> None:
    world = probed("golden", come_to={"golden": None})
    world.unseen, world.come_to = {"golden"}, {"golden": FAILED}
    world.run(100)
    assert canary_at(world) == 0
    assert "`golden` cannot be seen: it belongs to something else" in condition(world, ConditionType.PROGRESSING).message
    world.jobs = dict.fromkeys(world.jobs, PASSED)
    world.run(100)
    assert canary_at(world) == 0


def test_a_pause_leaves_no_probe_running_and_goes_on_with_those_that_have_not_passed() -> None:
    world = probed("golden", "smoke", come_to={"golden": PASSED, "smoke": None})
    calm = world.policy
    world.policy = calm.model_copy(update={"canary": calm.canary.model_copy(update={"paused": True})})
    world.run(10)
    assert RUNNING not in states(world).values()
    world.policy, world.come_to = calm, {}
    world.run(5)
    assert canary_at(world) == 50
    assert world.begun.count("golden") == 1


def edited(world: World, name: str, *, least: int = 95) -> None:
    """Somebody edits what this probe runs."""
    spec = world.policy
    probes = [
        p.model_copy(update={"job": p.job.model_copy(update={"args": ["--at-least", str(least)]})}) if p.name == name and p.job else p
        for p in spec.canary.probes
    ]
    world.policy = spec.model_copy(update={"canary": spec.canary.model_copy(update={"probes": probes})})


@pytest.mark.parametrize("before", [None, PASSED], ids=["running", "passed"])
def test_a_probe_that_is_edited_before_the_first_weight_is_run_anew(before: ProbeState | None) -> None:
    world = probed("golden", "smoke", come_to={"golden": before, "smoke": None})
    edited(world, "golden")
    world.run(5)
    assert world.begun.count("golden") == 2
    assert world.begun.count("smoke") == 1
    assert canary_at(world) == 0
    world.come_to = {}
    world.run(5)
    assert canary_at(world) == 50
    assert (world.begun.count("golden"), world.begun.count("smoke")) == (2, 1)


def test_what_a_probe_came_to_before_it_was_edited_says_nothing() -> None:
    world = probed("golden", come_to={"golden": None})
    edited(world, "golden")
    world.jobs = dict.fromkeys(world.jobs, FAILED)
    world.one_pass()
    assert world.place.canary is not None
    assert world.place.rejected == ()
    world.come_to = {}
    world.run(5)
    assert canary_at(world) == 50


def test_a_probe_that_is_edited_under_traffic_is_for_the_next_rollout() -> None:
    world = probed("golden", come_to={"golden": PASSED})
    assert canary_at(world) == 50
    edited(world, "golden")
    world.run(5)
    assert world.begun == ["golden"]
    assert canary_at(world) == 50


def test_requests_beside_callers_that_are_edited_are_sent_as_they_are_asked_for_now() -> None:
    world = trickling()
    world.run(5)
    assert world.begun == ["synthetic"]
    spec = world.policy
    faster = [p.model_copy(update={"requestsPerSecond": 5}) for p in spec.canary.probes]
    world.policy = spec.model_copy(update={"canary": spec.canary.model_copy(update={"probes": faster})})
    world.run(3)
    assert world.begun == ["synthetic", "synthetic"]
    assert set(world.made_of.values()) == {faster[0].mark}


@pytest.mark.parametrize("wanted", ["1", "3"])
def test_another_wish_ends_the_probes_of_the_canary(wanted: str) -> None:
    world = probed("golden", come_to={"golden": None})
    world.want(wanted)
    world.run(1)
    assert all(rev != "rev2" for (rev, _, _), state in world.jobs.items() if state is RUNNING)


def test_a_canary_that_had_weight_and_lost_it_meets_no_probes_again() -> None:
    world = probed("golden", come_to={})
    assert canary_at(world) == 50
    world.broken.add("rev2")
    world.run(5)
    assert canary_at(world) == 0
    world.broken.clear()
    world.run(10)
    assert canary_at(world) == 50
    assert world.begun == ["golden"]


def test_a_probe_that_is_declared_after_the_first_weight_is_for_the_next_rollout() -> None:
    world = started()
    world.want("2")
    world.run(5)
    assert canary_at(world) == 50
    world.policy = policy(probes=("golden",))
    world.run(300, tick=3)
    assert world.place.stable is not None
    assert (world.place.stable.revision, world.begun) == (revision("2"), [])


@pytest.mark.long
@pytest.mark.parametrize("come_to", [PASSED, FAILED])
def test_wherever_an_operator_dies_a_probe_runs_once_and_its_end_is_the_same(come_to: ProbeState) -> None:
    for dies_in in range(1, 40):
        world = started(policy=policy(probes=("golden",)))
        world.come_to = {"golden": come_to}
        world.want("2")
        writes = 0
        for _ in range(30):
            count = world.write_count()
            world.one_pass(stop_after=dies_in - writes if writes < dies_in <= writes + count else None)
            writes += count
            world.settle()
            world.now += 1
        assert world.begun == ["golden"]
        if come_to is FAILED:
            assert world.place.rejection_of("rev2") is not None
        else:
            assert canary_at(world) == 50


def test_deciding_twice_is_deciding_once() -> None:
    world = probed("golden", come_to={"golden": None})
    assert decide(world.observe(), policy=world.policy, now=world.now) == world.decide()


def trickling(*, deadline: int = 120) -> World:
    """Version 2 at 5 %, with requests of a probe beside callers'."""
    calm = policy(steps=((5, 60), (100, 60)), deadline=deadline)
    synthetic = Probe.model_validate({"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 2})
    world = started(policy=calm.model_copy(update={"canary": calm.canary.model_copy(update={"probes": [synthetic]})}))
    world.come_to = {"synthetic": None}
    world.want("2")
    return world


def test_requests_beside_callers_begin_with_the_first_weight_and_end_with_the_promotion() -> None:
    world = trickling()
    world.broken.add("rev2")
    world.run(5)
    assert (canary_at(world), world.jobs) == (0, {})
    world.broken.clear()
    world.run(5)
    assert (canary_at(world), states(world)) == (50, {"synthetic": RUNNING})
    world.run(300, tick=3)
    assert world.place.stable is not None
    assert (world.place.stable.revision, world.jobs) == (revision("2"), {})
    assert world.begun == ["synthetic"]


def test_requests_beside_callers_stop_while_the_canary_has_no_weight_and_in_a_pause() -> None:
    world = trickling()
    world.run(5)
    world.broken.add("rev2")
    world.run(5)
    assert (canary_at(world), world.jobs) == (0, {})
    world.broken.clear()
    world.run(5)
    assert states(world) == {"synthetic": RUNNING}
    paused = world.policy.model_copy(update={"canary": world.policy.canary.model_copy(update={"paused": True})})
    world.policy = paused
    world.run(5)
    assert (canary_at(world), world.jobs) == (50, {})


def test_requests_beside_callers_that_end_are_told_once_and_decide_nothing() -> None:
    world = trickling()
    world.run(5)
    world.judged = reading(Waiting(more=7))
    world.come_to = {"synthetic": FAILED}
    world.run(200, tick=2)
    assert world.reasons().count("ProbeEnded") == 1
    message = next(said.message for said in world.told if said.reason is Reason.PROBE_ENDED)
    assert message == "probe `synthetic` sends nothing to rev2 any more: it exited with code 3"
    assert canary_at(world) == 50
    assert "; probe `synthetic` sent requests and ended" in condition(world, ConditionType.PROGRESSING).message
    assert world.begun == ["synthetic"]


def test_requests_beside_callers_that_are_sent_again_are_told_of_when_they_end_again() -> None:
    world = trickling()
    world.run(5)
    world.judged = reading(Waiting(more=7))
    world.come_to = {"synthetic": FAILED}
    world.run(5)
    world.come_to = {"synthetic": None}
    world.jobs.clear()  # an hour later
    world.run(5)
    assert states(world) == {"synthetic": RUNNING}
    assert "sent requests and ended" not in condition(world, ConditionType.PROGRESSING).message
    world.come_to = {"synthetic": FAILED}
    world.run(5)
    assert world.reasons().count("ProbeEnded") == 2


def test_requests_beside_callers_end_with_a_rollback() -> None:
    world = trickling()
    world.run(5)
    world.judged = BREACHED
    world.run(5)
    assert world.place.rejection_of("rev2") is not None
    assert world.jobs == {}


def test_of_several_probes_that_failed_each_is_told_as_many_as_anybody_reads() -> None:
    names = ("one", "two", "three", "four")
    world = started(policy=policy(probes=names))
    world.come_to = dict.fromkeys(names)
    world.want("2")
    world.run(10)
    world.jobs = dict.fromkeys(world.jobs, FAILED)
    world.one_pass()
    last = world.place.last
    assert last is not None
    said = "; ".join(f"probe `{name}` exited with code 3" for name in names[:3])
    assert last.message.endswith(f"{said}; and 1 more failed")
