"""A status that was lost: what serves goes on serving, and a canary that nobody judges any more has no traffic."""

from dataclasses import replace

import pytest

from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.reasons import Reason
from backstop.rollout.observed import Arm, Known, Unresolved
from backstop.rollout.place import Outcome
from tests.rollout.world import BREACHED, HEALTHY, World, in_rollout, policy, revision, started

STEPS = ((50, 20), (100, 600))


def in_mid_canary(*, of_pods: bool, weight: int, **changes: object) -> World:
    """Version 2 beside stable version 1, with this weight."""
    world = started(policy=policy(steps=STEPS, own=of_pods, **changes))  # type: ignore[arg-type]  # of `policy`, given by the test
    world.want("2")
    while world.place.canary is None or world.place.canary.weight != weight:
        world.run(5)
    world.run(3)
    return world


def lose_status(world: World) -> None:
    """As a backup that is restored without it does."""
    world.status = FallbackPolicyStatus()
    world.told.clear()


@pytest.mark.parametrize("of_pods", [False, True])
@pytest.mark.parametrize("weight", [50, 100])
def test_a_canary_whose_status_is_lost_loses_its_traffic_in_the_next_pass_and_begins_anew(of_pods: bool, weight: int) -> None:
    world = in_mid_canary(of_pods=of_pods, weight=weight)
    lose_status(world)
    assert world.write_names()[:2] == ["route", "status"]
    world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.reasons() == ["StatusLost"]
    assert "canary rev2" in world.told[0].message
    world.run(10)
    assert world.place.canary is not None
    assert (world.place.canary.revision, world.place.canary.step, world.shares[-1][3]) == (revision("2"), 0, 500)
    world.run(1200, tick=5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


@pytest.mark.parametrize("of_pods", [False, True])
def test_a_canary_beside_a_stable_that_status_does_not_name_any_more_has_no_traffic_and_begins_anew(of_pods: bool) -> None:
    world = in_mid_canary(of_pods=of_pods, weight=50)
    world.status = world.status.model_copy(update={"stable": None})
    world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.place.stable is not None
    assert (world.place.stable.revision, world.place.canary) == (revision("1"), None)
    world.run(1200, tick=5)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_a_canary_that_status_names_without_a_stable_ends_though_the_route_does_not_name_it_yet() -> None:
    world = started(policy=policy(steps=STEPS))
    world.want("2")
    world.one_pass(stop_after=1)
    assert world.place.canary is not None
    assert world.route is not None
    assert world.route.canary is None
    world.status = world.status.model_copy(update={"stable": None})
    world.one_pass()
    assert [retiring.revision for retiring in world.place.retiring] == ["rev2"]


@pytest.mark.parametrize("of_pods", [False, True])
@pytest.mark.parametrize("writes", range(4))
def test_a_death_after_any_write_of_the_recovery_ends_in_the_same_place(of_pods: bool, writes: int) -> None:
    world = in_mid_canary(of_pods=of_pods, weight=50)
    lose_status(world)
    world.one_pass(stop_after=writes)
    before = len(world.shares)
    if writes < 2:  # else it is in status, and the next pass goes on from there
        world.one_pass()
        assert [retiring.revision for retiring in world.place.retiring] == ["rev2"], "callers may hold connections to its pods"
    world.run(3)
    assert all(permille in (0, 500) for *_, permille in world.shares[before:])
    assert world.shares[before if writes == 0 else before - 1][1:] == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_a_canary_goes_although_nobody_knows_which_version_serves_or_what_is_asked_for() -> None:
    world = in_mid_canary(of_pods=True, weight=50)
    lose_status(world)
    world.kept = None
    world.wanted = Unresolved(Reason.METRICS_SOURCE_NOT_FOUND, "there is none")
    world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision.name == "rev1"


@pytest.mark.parametrize("of_pods", [False, True])
@pytest.mark.parametrize("ready", [0, 2])
@pytest.mark.parametrize("dies_after", [None, 1])
def test_a_deletion_without_a_status_takes_the_canarys_traffic_first_and_waits_until_that_is_seen(
    of_pods: bool, ready: int, dies_after: int | None
) -> None:
    world = in_mid_canary(of_pods=of_pods, weight=50)
    lose_status(world)
    world.arms["rev1"] = Arm(desired=2, ready=ready)
    world.deaf = True
    world.delete()
    assert world.write_names()[:2] == ["route", "status"]
    world.one_pass(stop_after=dies_after)
    assert world.shares[-1][1:] == ("rev1", None, 0)
    world.one_pass()
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.reason) == (Outcome.SUPERSEDED, Reason.POLICY_DELETED)
    world.run(20)
    assert world.exists, "it went though a gateway may still give the canary traffic"
    world.deaf = False
    world.run(3)
    assert not world.exists


@pytest.mark.parametrize("of_pods", [False, True])
def test_a_policy_without_a_status_is_held_as_long_as_its_route_has_a_canary(of_pods: bool) -> None:
    """Also while what the route calls stable has no pod that could take everything back."""
    world = in_mid_canary(of_pods=of_pods, weight=50)
    lose_status(world)
    world.broken.add("rev1")
    world.arms["rev1"] = Arm(desired=2, ready=0)
    world.run(30)
    assert world.place.stable is None
    assert world.finalizer
    world.delete()
    assert world.exists
    world.run(5)
    assert not world.exists
    assert world.left is not None
    acted, _ = world.left
    assert acted is not None
    assert acted.permille == 0


def test_a_deletion_without_a_status_waits_a_minute_at_most() -> None:
    world = in_mid_canary(of_pods=False, weight=50)
    lose_status(world)
    world.deaf = True
    world.delete()
    world.run(55)
    assert world.exists
    world.run(10)
    assert not world.exists


def test_the_pods_of_a_canary_that_is_ended_finish_what_they_have() -> None:
    world = in_mid_canary(of_pods=False, weight=50)
    lose_status(world)
    world.want("1")
    world.one_pass()
    assert world.arms["rev2"].desired == 1
    world.run(30)
    assert "rev2" not in world.arms


def test_a_verdict_survives_a_status_that_is_lost() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.run(5)
    world.judged = HEALTHY
    lose_status(world)
    world.arms["rev2"] = Arm(desired=2, ready=2)
    world.run(60)
    assert world.place.stable is not None
    assert (world.place.stable.revision, world.serving) == (revision("1"), "rev1")
    assert world.decide().phase == "RolledBack"
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.revision == revision("2")
    assert world.shares[-1][1:] == ("rev1", None, 0)


def test_a_canary_that_was_halted_stays_rejected_when_status_is_lost() -> None:
    world = in_mid_canary(of_pods=False, weight=50, mode="Pause")
    world.judged = BREACHED
    world.run(3)
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    world.judged = HEALTHY
    lose_status(world)
    world.run(120)
    assert world.place.rejection_of("rev2") is not None
    assert world.shares[-1][3] == 0


def test_tokens_that_were_acted_on_are_not_acted_on_again() -> None:
    world = in_mid_canary(of_pods=False, weight=50)
    world.ask(promote="once")
    world.run(200)
    world.want("3")
    world.run(3)
    lose_status(world)
    world.run(3)
    assert world.place.acknowledged.promote == "once"
    assert world.place.canary is not None
    assert not world.place.canary.by_hand


def test_a_lost_status_makes_no_other_revision_stable_because_its_pods_are_ready() -> None:
    world = started()
    lose_status(world)
    world.want("2")
    world.arms["rev2"] = Arm(desired=2, ready=2)
    place = world.one_pass().place
    assert place.stable is not None
    assert place.stable.revision == revision("1")


@pytest.mark.parametrize("world", [started(), started(policy=policy(own=True, steps=STEPS))], ids=["gateways", "own"])
def test_while_what_serves_has_no_pod_it_is_waited_for_and_nobody_is_told_to_delete_what_callers_reach(world: World) -> None:
    lose_status(world)
    world.want("2")
    world.broken.add("rev1")
    world.arms["rev1"] = replace(world.arms["rev1"], ready=0)
    world.arms["rev2"] = Arm(desired=2, ready=2)
    world.run(60)
    assert world.place.stable is None
    assert world.serving == "rev1"
    plan = world.decide()
    assert plan.reason is Reason.STATUS_LOST
    said = [c.message for c in plan.conditions if c.reason is Reason.STATUS_LOST]
    assert said
    assert all("waiting for a ready pod" in message for message in said)
    assert ("delete the traffic object" in said[0]) is not (world.policy.serving.workload is not None)
    world.broken.clear()
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_who_does_what_the_condition_says_gets_the_wanted_version_though_what_served_never_comes_back() -> None:
    world = started()
    lose_status(world)
    world.want("2")
    world.broken.add("rev1")
    world.arms["rev1"] = replace(world.arms["rev1"], ready=0)
    world.arms["rev2"] = Arm(desired=2, ready=2)
    world.run(3)
    (said, *_) = (c.message for c in world.decide().conditions if c.reason is Reason.STATUS_LOST)
    assert said.endswith("delete the traffic object and then the Deployment of rev1 to make rev2 stable without a canary")
    world.traffic = None
    world.run(3)
    (said, *_) = (c.message for c in world.decide().conditions if c.reason is Reason.STATUS_LOST)
    assert "rev1 was accepted last" in said
    assert said.endswith("delete the Deployment of rev1 to make rev2 stable without a canary")
    del world.arms["rev1"]
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_a_route_that_was_written_right_before_the_status_was_lost_is_believed() -> None:
    world = in_mid_canary(of_pods=True, weight=100)
    while world.place.stable is None or world.place.stable.revision != revision("2"):
        world.run(5)
    lose_status(world)
    world.wanted = Known(revision("1"))
    world.one_pass()
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_what_was_accepted_last_goes_on_serving_where_the_route_was_lost_too() -> None:
    world = started()
    lose_status(world)
    world.traffic = None
    world.want("2")
    world.arms["rev2"] = Arm(desired=2, ready=2)
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.place.canary is not None
    assert "which was accepted last" in world.told[0].message


def test_a_new_policy_of_the_name_does_not_take_the_pods_of_a_former_one_for_its_own() -> None:
    world = started()
    world.delete()
    world.create_anew()
    world.want("2")
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert "StatusLost" not in world.reasons()


def test_a_verdict_of_which_only_the_revision_is_known_has_its_name_when_that_is_asked_for() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.run(3)
    world.judged = HEALTHY
    world.want("1")
    lose_status(world)
    world.verdicts.clear()
    world.kept = None
    world.run(3)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.revision.prompt_version == ""
    world.want("2")
    world.run(3)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.revision == revision("2")
    assert world.place.canary is None
    assert world.serving == "rev1"


def test_a_stable_that_was_found_again_has_its_name_as_soon_as_the_spec_can_be_resolved() -> None:
    world = started()
    world.kept = None  # the operator died before it wrote down what was accepted
    world.status, world.wanted = FallbackPolicyStatus(), Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`v1` does not exist")
    world.run(5)
    assert world.place.stable is not None
    assert world.place.stable.revision.prompt_version == "rev1", "nothing else says what it is"
    world.want("1")
    world.run(5)
    assert world.place.stable.revision == revision("1")
    assert world.reasons().count("CanaryStarted") == 0
