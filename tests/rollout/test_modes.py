"""What `spec.rollback` declares instead of a rollback: a breach that waits for a person, a dry run, and metrics that stay away."""

import pytest

from backstop.api.condition import ConditionType
from backstop.api.reasons import Reason
from backstop.rollout.observed import Unresolved
from backstop.rollout.place import Outcome
from tests.rollout.test_decide import condition
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN, breached, in_rollout, is_stable, policy, share, started


def test_in_pause_mode_a_breach_takes_the_traffic_away_and_waits() -> None:
    world = started(policy=policy(mode="Pause"))
    world.want("2")
    world.run(80)
    world.judged = BREACHED
    world.one_pass()
    assert share(world) == (None, 0)
    world.run(1000)
    assert share(world) == (None, 0)
    plan = world.decide()
    assert (plan.phase, plan.reason) == ("Halted", Reason.HALTED)
    assert condition(plan, ConditionType.STALLED) == "True"
    assert condition(plan, ConditionType.RECONCILING) is None
    assert world.place.rejected == ()
    assert world.verdicts == []
    assert world.route is not None
    assert world.route.aborted is not None, "gateways let nobody pin it"


def test_a_halted_canary_whose_spec_cannot_be_resolved_has_each_condition_once() -> None:
    world = breached(mode="Pause")
    world.wanted = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "it is gone")
    world.run(5)
    types = [c.type for c in world.decide().conditions]
    assert len(types) == len(set(types)), "the API server refuses a status with two of a type"
    assert condition(world.decide(), ConditionType.STALLED) == "True"


def test_in_pause_mode_retry_begins_anew_and_abort_rejects() -> None:
    world = started(policy=policy(mode="Pause"))
    world.want("2")
    world.run(80)
    world.judged = BREACHED
    world.run(10)
    world.judged = HEALTHY
    world.ask(retry="1")
    world.run(10)
    assert share(world) == ("rev2", 50)
    assert world.route is not None
    assert world.route.aborted is None
    world.judged = BREACHED
    world.run(10)
    world.ask(abort="1")
    world.run(5)
    assert world.place.canary is None
    assert world.place.rejection_of("rev2") is not None


def test_in_pause_mode_a_version_that_was_left_halted_does_not_come_back_by_itself() -> None:
    world = started(policy=policy(mode="Pause"))
    world.want("2")
    world.run(80)
    world.judged = BREACHED
    world.run(10)
    world.judged = HEALTHY
    world.want("1")
    world.run(20)
    assert is_stable(world, "1")
    world.want("2")
    world.run(300)
    assert share(world) == (None, 0)
    assert world.decide().phase == "RolledBack"


def test_in_pause_mode_a_death_after_the_route_write_still_waits_for_a_person() -> None:
    world = in_rollout(policy=policy(mode="Pause"))
    world.judged = BREACHED
    world.one_pass(stop_after=1)
    world.judged = HEALTHY
    world.run(500)
    assert share(world) == (None, 0)
    assert world.decide().phase == "Halted"


@pytest.mark.parametrize("version", ["1", "3"], ids=["stable again", "another one"])
def test_in_pause_mode_a_version_that_its_spec_leaves_was_rolled_back_and_its_prompt_hears_of_it(version: str) -> None:
    world = breached(mode="Pause")
    world.judged = HEALTHY
    world.want(version)
    world.run(2)
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.reason) == (Outcome.ROLLED_BACK, "LatencyBreach")
    assert [v.revision.name for v in world.verdicts] == ["rev2"]


def test_m07_in_a_dry_run_a_breach_is_told_once_and_changes_nothing() -> None:
    world = in_rollout(policy=policy(mode="DryRun"))
    world.judged = BREACHED
    world.run(500)
    assert share(world) == ("rev2", 50)
    assert world.reasons().count("WouldRollBack") == 1
    assert world.place.rejected == ()


@pytest.mark.parametrize(("action", "left"), [("Hold", ("rev2", 50)), ("Rollback", (None, 0))])
def test_m02_metrics_that_stay_away_lead_to_what_was_declared(action: str, left: tuple[str | None, int]) -> None:
    world = in_rollout(policy=policy(blind={"afterSeconds": 60, "action": action}))
    world.judged = UNSEEN
    world.run(55)
    assert share(world) == ("rev2", 50)
    world.run(30)
    assert share(world) == left


@pytest.mark.parametrize("again", range(4))
@pytest.mark.parametrize("writes", range(6))
def test_in_pause_mode_a_retry_survives_deaths_after_any_two_writes(writes: int, again: int) -> None:
    world = breached(mode="Pause")
    world.ask(retry="1")
    world.one_pass(stop_after=writes)
    world.one_pass(stop_after=again)
    world.run(20)
    assert share(world) == ("rev2", 50)


def test_m02_metrics_that_stay_away_are_counted_also_while_the_spec_cannot_be_resolved() -> None:
    world = in_rollout(policy=policy(blind={"afterSeconds": 60, "action": "Rollback"}))
    world.wanted = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "it is gone")
    world.judged = UNSEEN
    world.run(90)
    assert share(world) == (None, 0)


def test_in_a_dry_run_each_reason_is_told_once() -> None:
    world = in_rollout(policy=policy(mode="DryRun", blind={"afterSeconds": 30, "action": "Rollback"}))
    world.judged = UNSEEN
    world.run(60)
    world.judged = BREACHED
    world.run(60)
    assert share(world) == ("rev2", 50)
    assert world.reasons().count("WouldRollBack") == 2
