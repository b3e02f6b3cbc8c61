"""Verdicts that know of stable: one that could not compare with it is a suspicion, and an incident that stable shares is held."""

from dataclasses import replace

import pytest

from backstop.analysis.reading import Breached, Breaching
from backstop.api.condition import ConditionType
from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.reasons import Reason
from tests.rollout.test_guard import COMPARED, condition, shares
from tests.rollout.world import HEALTHY, START, World, policy, reading, started

SUSPECTED = reading(Breached(since=START, suspected=True))
SHARED = replace(reading(Breaching(since=START, shared=True)), reason=Reason.SHARED_BREACH)


def in_a_step(**changes: object) -> World:
    """Version 2 is at 50 %."""
    world = started(policy=policy(steps=((50, 20), (100, 20)), **changes))  # type: ignore[arg-type]
    world.want("2")
    while world.place.canary is None or world.place.canary.verified_at is None:
        world.run(1)
    return world


def test_a_breach_without_enough_of_stable_beside_it_takes_the_canary_back_and_stays_a_suspicion_until_stable_does_better() -> None:
    world = in_a_step()
    world.judged = SUSPECTED
    world.one_pass()
    assert shares(world) == ("rev1", None, 0)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.suspected
    assert world.verdicts == []
    world.judged = HEALTHY
    world.run(COMPARED)
    assert "RejectionConfirmed" in world.reasons()
    assert [verdict.revision.name for verdict in world.verdicts] == ["rev2"]


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
def test_a_suspicion_stays_one_when_the_operator_dies_after_the_write_of_the_route(mode: str) -> None:
    world = in_a_step(mode=mode)
    world.judged = SUSPECTED
    world.one_pass(stop_after=1)
    assert world.writes[-1] == "route"
    world.judged = None
    world.one_pass()
    rejection, canary = world.place.rejection_of("rev2"), world.place.canary
    if mode == "Automatic":
        assert rejection is not None
        assert rejection.suspected
    else:
        assert canary is not None
        assert canary.halted is not None


def test_a_suspicion_that_the_route_alone_remembers_stays_one() -> None:
    world = in_a_step()
    world.judged = SUSPECTED
    world.one_pass(stop_after=1)
    assert world.writes[-1] == "route"
    world.status, world.judged = FallbackPolicyStatus(), None
    world.run(5)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.suspected
    assert world.verdicts == []


def test_of_two_breaches_the_one_that_stable_was_compared_for_decides() -> None:
    world = in_a_step()
    observed = replace(
        world.observe(), readings=(SUSPECTED, replace(reading(Breached(since=START)), name="errors", evidence="errors: 9 of 9"))
    )
    world.observe = lambda: observed  # type: ignore[method-assign]  # two SLOs at once
    plan = world.decide()
    (rejection,) = plan.place.rejected
    assert not rejection.suspected
    assert "errors: 9 of 9" in rejection.message


def test_a_verdict_that_is_finished_is_told_with_the_evidence_for_that_verdict() -> None:
    world = in_a_step()
    errors = replace(reading(Breached(since=START)), name="errors", reason=Reason.ERROR_RATE_BREACH, evidence="errors: 9 of 9")
    world.judged = errors
    world.one_pass(stop_after=1)  # the operator dies before it writes status
    observed = replace(world.observe(), readings=(SUSPECTED, errors))
    world.observe = lambda: observed  # type: ignore[method-assign]  # two SLOs at once
    (rejection,) = world.decide().place.rejected
    assert rejection.reason == Reason.ERROR_RATE_BREACH
    assert "errors: 9 of 9" in rejection.message


def test_an_incident_that_stable_shares_is_held_and_told_once_and_the_rollout_goes_on_after_it() -> None:
    world = in_a_step()
    world.judged = SHARED
    world.run(600)
    assert shares(world) == ("rev1", "rev2", 500)
    assert world.reasons().count("SharedBreach") == 1
    assert world.place.rejected == ()
    progressing = condition(world.decide(), ConditionType.PROGRESSING)
    assert progressing is not None
    assert progressing[1] is Reason.SHARED_BREACH
    assert "stable breaks the limit of latency too" in progressing[2]
    world.judged = HEALTHY
    world.run(120)
    assert world.place.stable is not None
    assert world.place.stable.revision.name == "rev2"


def test_time_in_which_an_incident_is_shared_is_not_held_against_the_canary() -> None:
    declared = policy(steps=((50, 20), (100, 20)))
    analysis = declared.canary.analysis.model_copy(update={"maxHoldSeconds": 60})
    world = started(policy=declared.model_copy(update={"canary": declared.canary.model_copy(update={"analysis": analysis})}))
    world.want("2")
    world.run(10)
    world.judged = SHARED
    world.run(300)
    assert shares(world) == ("rev1", "rev2", 500)
    assert world.place.rejected == ()
