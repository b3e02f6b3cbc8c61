"""A step that would have ended and does not pass: told after an hour, and with `maxHoldSeconds` not for ever."""

import pytest

from backstop.analysis.reading import Waiting
from backstop.api.condition import ConditionType
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.reasons import Reason
from tests.rollout.test_guard import condition, shares
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN, World, policy, reading, started

HOLD, MOST = 60, 300
STARVED = reading(Waiting(more=7))


def bounded(*, most: int | None = MOST, **changes: object) -> FallbackPolicySpec:
    """Steps of 50 and 100 %, and this much patience."""
    declared = policy(steps=((50, HOLD), (100, HOLD)), **changes)  # type: ignore[arg-type]
    analysis = declared.canary.analysis.model_copy(update={"maxHoldSeconds": most})
    return declared.model_copy(update={"canary": declared.canary.model_copy(update={"analysis": analysis})})


def starving(*, most: int | None = MOST, **changes: object) -> World:
    """Version 2 is at 50 %, and nobody calls. Its hold begins now."""
    world = started(policy=bounded(most=most, **changes))
    world.judged = STARVED
    world.want("2")
    while world.place.canary is None or world.place.canary.verified_at is None:
        world.run(1)
    return world


def test_a_step_that_does_not_pass_in_time_is_rolled_back_with_what_it_waited_for() -> None:
    world = starving()
    world.run(HOLD + MOST - 3)
    assert shares(world) == ("rev1", "rev2", 500)
    world.run(6)
    assert shares(world) == ("rev1", None, 0)
    last = world.place.last
    assert last is not None
    assert last.reason == Reason.HELD_TOO_LONG
    assert "step 1 of 2 (50 %)" in last.message
    assert f"{MOST} s after its hold (`spec.canary.analysis.maxHoldSeconds`)" in last.message
    assert "not healthy: latency (latency: 61 of 412" in last.message
    assert world.place.rejection_of("rev2") is not None
    assert not world.place.rejected[-1].suspected


@pytest.mark.parametrize("mode", ["Pause", "DryRun"])
def test_what_has_waited_too_long_is_treated_by_the_policy_s_mode(mode: str) -> None:
    world = starving(mode=mode)
    world.run(HOLD + MOST + 100)
    assert shares(world) == (("rev1", None, 0) if mode == "Pause" else ("rev1", "rev2", 500))
    assert world.reasons().count("Halted" if mode == "Pause" else "WouldRollBack") == 1
    assert world.place.rejected == ()


def test_of_two_reasons_that_hold_at_once_each_is_told_once_in_a_dry_run() -> None:
    world = starving(mode="DryRun")
    world.judged = BREACHED
    world.run(HOLD + MOST + 100)
    assert world.reasons().count("WouldRollBack") == 2
    assert shares(world) == ("rev1", "rev2", 500)


@pytest.mark.long
def test_without_a_limit_it_holds_for_ever_and_is_told_once_after_an_hour() -> None:
    world = starving(most=None)
    world.run(HOLD + 3590, tick=5)
    assert "HoldingLong" not in world.reasons()
    world.run(2 * 3600, tick=5)
    assert world.reasons().count("HoldingLong") == 1
    assert shares(world) == ("rev1", "rev2", 500)
    progressing = condition(world.decide(), ConditionType.PROGRESSING)
    assert progressing is not None
    assert progressing[1] is Reason.HOLDING_LONG
    assert "latency" in progressing[2]


def test_a_step_that_gets_healthy_before_its_time_is_over_passes_and_the_next_counts_anew() -> None:
    world = starving()
    world.run(HOLD + MOST - 20)
    world.judged = HEALTHY
    world.run(5)
    world.judged = STARVED
    world.run(HOLD + MOST - 20)
    assert shares(world) == ("rev1", "rev2", 1000)
    world.run(30)
    assert shares(world) == ("rev1", None, 0)


def test_time_that_something_else_takes_does_not_count() -> None:
    world = starving()
    world.run(HOLD + 100)
    calm = world.policy
    world.policy = calm.model_copy(update={"canary": calm.canary.model_copy(update={"paused": True})})
    world.run(1000, tick=5)
    world.policy = calm
    world.run(100)
    world.judged = UNSEEN
    world.run(1000, tick=5)
    assert shares(world) == ("rev1", "rev2", 500)
    world.judged = STARVED
    world.run(80)
    assert shares(world) == ("rev1", "rev2", 500), "200 s before, and the time in which metrics could not be seen is held longer"
    world.run(50)
    assert shares(world) == ("rev1", None, 0)


def test_what_was_never_evaluated_is_not_held_against_the_canary() -> None:
    world = starving()
    world.judged = None
    world.run(HOLD + 3 * MOST)
    assert shares(world) == ("rev1", "rev2", 500)
    world.judged = STARVED
    world.run(MOST - 10)
    assert shares(world) == ("rev1", "rev2", 500)
    world.run(20)
    assert shares(world) == ("rev1", None, 0)


def test_time_in_which_no_operator_ran_is_not_held_against_the_canary() -> None:
    world = starving()
    world.run(HOLD + 100)
    assert world.place.canary is not None
    assert world.place.canary.held_since is not None
    world.judged = None  # nothing is evaluated before the first look
    world.now += 2 * MOST
    world.run(5)
    assert shares(world) == ("rev1", "rev2", 500)
    world.judged = STARVED
    world.run(MOST - 10)
    assert shares(world) == ("rev1", "rev2", 500)
    world.run(20)
    assert shares(world) == ("rev1", None, 0)


def test_the_time_of_a_step_is_counted_from_when_its_warm_up_is_over() -> None:
    world = starving()
    analysis = world.policy.canary.analysis.model_copy(update={"warmUpSeconds": HOLD + 2 * MOST})
    world.policy = world.policy.model_copy(update={"canary": world.policy.canary.model_copy(update={"analysis": analysis})})
    world.run(HOLD + 3 * MOST - 10)
    assert shares(world) == ("rev1", "rev2", 500)
    world.run(20)
    assert shares(world) == ("rev1", None, 0)


def test_an_approval_is_waited_for_for_ever() -> None:
    world = starving(approval=(50,))
    world.judged = HEALTHY
    world.run(HOLD + 3 * MOST)
    assert shares(world) == ("rev1", "rev2", 500)
    assert world.decide().reason is Reason.WAITING_FOR_APPROVAL
    world.ask(approve="now")
    world.run(5)
    assert shares(world) == ("rev1", "rev2", 1000)


def test_a_breach_is_a_breach_however_long_it_was_waited() -> None:
    world = starving()
    world.run(HOLD + 100)
    world.judged = BREACHED
    world.run(2)
    assert world.place.last is not None
    assert world.place.last.reason == Reason.LATENCY_BREACH


def test_the_clock_of_a_hold_goes_on_over_a_restart_and_wakes_the_next_operator() -> None:
    world = starving()
    world.run(HOLD + 100)
    canary = world.place.canary
    assert canary is not None
    assert canary.held_since is not None
    world.status = type(world.status).model_validate_json(world.status.model_dump_json())
    plan = world.decide()
    assert plan.wake_at == canary.held_since + MOST
