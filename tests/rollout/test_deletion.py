"""Policies that are deleted, in mid-canary too, and policies of a name that was used before."""

import pytest

from backstop.api.condition import ConditionType
from backstop.api.policystatus import Phase
from backstop.api.reasons import Reason
from backstop.rollout.observed import Arm
from backstop.rollout.place import Outcome
from tests.rollout.world import BREACHED, HEALTHY, World, policy, revision, started


def in_mid_canary(**changes: object) -> World:
    world = started(**changes)
    world.want("2")
    world.run(5)
    assert world.route is not None
    assert (world.route.canary, world.route.permille) == ("rev2", 50)
    return world


def rolled_back() -> World:
    """Version 2 was rolled back; version 1 serves."""
    world = in_mid_canary()
    world.judged = BREACHED
    world.rest()
    world.run(30)
    world.judged = HEALTHY
    assert [rejection.revision.name for rejection in world.place.rejected] == ["rev2"]
    return world


def test_the_finalizer_is_there_before_the_first_weight_and_goes_when_the_rollout_has_ended() -> None:
    world = started()
    assert not world.finalizer
    assert "finalizer" not in world.writes
    world.want("2")
    world.run(300)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert not world.finalizer
    weights = [position for position, name in enumerate(world.writes) if name == "route"]
    assert world.writes.count("finalizer") == world.writes.count("release") == 1
    # The first write of the route is that of the first revision.
    assert weights[0] < world.writes.index("finalizer") < weights[1]
    assert weights[-1] < world.writes.index("release")


def test_an_operator_that_dies_before_it_took_the_finalizer_off_takes_it_off_later() -> None:
    world = in_mid_canary()
    world.judged = BREACHED
    while "release" not in (names := world.write_names()):
        world.one_pass()
        world.settle()
    world.one_pass(stop_after=names.index("release"))
    assert world.place.canary is None
    assert world.finalizer
    world.one_pass()
    assert not world.finalizer


def test_the_finalizer_goes_when_the_end_of_a_rollout_was_watched_for_a_minute() -> None:
    world = in_mid_canary()
    world.deaf = True
    world.want("1")
    world.run(55)
    assert world.finalizer
    world.run(10)
    assert not world.finalizer


def test_g07_a_policy_that_is_deleted_in_mid_canary_goes_when_its_gateways_serve_stable_alone() -> None:
    world = in_mid_canary()
    world.deaf = True
    world.delete()
    plan = world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert plan.phase is Phase.LEAVING
    assert plan.place.last is not None
    assert (plan.place.last.outcome, plan.place.last.reason) == (Outcome.SUPERSEDED, Reason.POLICY_DELETED)
    world.run(20)
    assert world.exists, "it went though a gateway may still give the canary traffic"
    assert "rev2" in world.arms
    assert [c.reason for c in world.decide().conditions if c.type is ConditionType.RECONCILING] == [Reason.POLICY_DELETED]
    world.deaf = False
    world.run(3)
    assert not world.exists
    assert world.reasons().count("PolicyDeleted") == 1


def test_g07_the_route_is_the_first_write_of_a_deletion() -> None:
    world = in_mid_canary()
    world.delete()
    assert world.write_names()[:2] == ["route", "status"]


def test_g07_a_gateway_that_never_says_what_it_acts_on_delays_a_deletion_for_a_minute() -> None:
    world = in_mid_canary()
    world.deaf = True
    world.delete()
    world.run(55)
    assert world.exists
    world.run(10)
    assert not world.exists


def test_a_policy_without_a_rollout_is_not_held() -> None:
    world = started()
    world.delete()
    world.run(1)
    assert not world.exists


@pytest.mark.parametrize("dies_after", range(6))
def test_a_breach_at_the_moment_of_a_deletion_still_rejects_the_revision(dies_after: int) -> None:
    world = in_mid_canary()
    world.judged = BREACHED
    world.delete()
    world.one_pass(stop_after=dies_after)
    world.run(5)
    assert not world.exists
    assert [verdict.revision.name for verdict in world.verdicts] == ["rev2"]
    assert world.kept is not None
    assert world.kept[0] == revision("1")
    assert [rejection.revision.name for rejection in world.kept[1]] == ["rev2"]


def test_a_canary_that_waits_for_a_person_is_rejected_when_its_policy_is_deleted() -> None:
    world = in_mid_canary(policy=policy(mode="Pause"))
    world.judged = BREACHED
    world.rest()
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    world.delete()
    world.run(5)
    assert not world.exists
    assert [verdict.revision.name for verdict in world.verdicts] == ["rev2"]


@pytest.mark.parametrize("token", ["promote", "approve", "skip_step", "retry"])
def test_nothing_is_begun_for_a_policy_that_is_being_deleted(token: str) -> None:
    world = in_mid_canary()
    world.deaf = True
    world.delete()
    world.ask(**{token: "now"})
    world.run(10)
    assert world.exists
    assert world.place.canary is None
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_what_was_rolled_back_is_not_the_first_revision_of_a_policy_that_is_created_anew() -> None:
    world = rolled_back()
    world.delete()
    world.run(1)
    world.create_anew()
    world.run(60)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1"), "the last accepted revision serves"
    assert world.serving == "rev1"
    assert "rev2" not in world.arms
    plan = world.decide()
    stalled = next(c for c in plan.conditions if c.type is ConditionType.STALLED)
    assert stalled.reason is Reason.ROLLED_BACK
    assert "`backstop.dev/retry`" in stalled.message
    assert plan.phase is Phase.ROLLED_BACK
    assert world.reasons()[-2:] == ["RejectedBefore", "LastAccepted"]
    world.want("3")
    world.run(5)
    assert world.place.canary is not None
    assert world.place.canary.revision == revision("3")


def test_a_revision_with_the_prompt_of_stable_stays_rejected_too() -> None:
    """Its prompt version carries no rejection, since the prompt is not at fault: the kept record does."""
    world = rolled_back()
    world.verdicts.clear()
    world.delete()
    world.run(1)
    world.create_anew()
    world.run(60)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.place.rejection_of("rev2") is not None


def recreated_without_a_record() -> World:
    world = rolled_back()
    world.delete()
    world.run(1)
    world.kept = None
    world.create_anew()
    world.run(60)
    return world


def test_without_a_kept_record_nothing_serves_and_a_person_is_asked() -> None:
    world = recreated_without_a_record()
    assert world.place.stable is None
    assert (world.route, world.serving, world.arms) == (None, None, {})
    stalled = next(c for c in world.decide().conditions if c.type is ConditionType.STALLED)
    assert "`backstop.dev/retry`, which makes it the first stable revision" in stalled.message


def test_a_rejected_revision_whose_pods_are_ready_does_not_become_stable_for_that() -> None:
    world = recreated_without_a_record()
    world.arms["rev2"] = Arm(desired=2, ready=2)
    world.run(5)
    assert world.place.stable is None
    assert world.serving is None


@pytest.mark.parametrize("token", ["retry", "promote"])
def test_a_person_can_make_it_the_first_stable_revision_nevertheless(token: str) -> None:
    world = recreated_without_a_record()
    world.judged = None
    world.ask(**{token: "now"})
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.place.rejected == ()
    assert world.verdicts == []
    assert world.place.canary is None


def test_another_version_than_the_rejected_one_becomes_stable_as_the_first() -> None:
    world = recreated_without_a_record()
    world.want("3")
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("3")
    assert world.place.rejection_of("rev2") is not None, "what was rolled back is remembered"
    world.want("2")
    world.run(60)
    assert world.place.canary is None


@pytest.mark.parametrize("kept", [True, False])
def test_a_token_that_was_meant_for_the_former_policy_does_nothing(kept: bool) -> None:
    world = rolled_back()
    world.delete()
    world.run(1)
    if not kept:
        world.kept = None
    world.create_anew()
    world.ask(retry="long ago", promote="long ago")
    world.run(60)
    assert world.place.rejection_of("rev2") is not None
    assert "rev2" not in world.arms
    world.ask(retry="now")
    world.run(5)
    assert "rev2" in world.arms


def test_a_policy_that_is_created_anew_with_a_good_version_begins_with_it() -> None:
    world = rolled_back()
    world.want("3")
    world.delete()
    world.run(1)
    world.create_anew()
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("3")
    assert world.place.rejection_of("rev2") is not None
