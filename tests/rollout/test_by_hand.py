"""What people ask for: approvals, pauses and tokens."""

from dataclasses import replace

import pytest

from backstop.api.condition import ConditionType
from backstop.api.policystatus import Phase
from backstop.api.reasons import Reason
from backstop.controller.changes import changes_told
from backstop.controller.shown import shown_of
from backstop.rollout.decide import decide
from backstop.rollout.observed import Arm, Known
from backstop.rollout.place import Outcome
from backstop.rollout.statusmap import place_of
from tests.rollout.world import BREACHED, HEALTHY, World, breached, in_rollout, is_stable, policy, revision, share, started, until_switched


def test_a04_an_approval_is_waited_for_beyond_every_deadline_and_the_condition_says_so() -> None:
    world = started(policy=policy(approval=(50,), deadline=120))
    world.want("2")
    world.run(1000, tick=5)
    assert share(world) == ("rev2", 500)
    plan = world.decide()
    assert plan.reason is Reason.WAITING_FOR_APPROVAL
    assert "backstop.dev/approve" in next(c.message for c in plan.conditions if c.type is ConditionType.PROGRESSING)


def test_a05_an_approve_token_passes_exactly_one_step() -> None:
    world = started(policy=policy(approval=(5, 50)))
    world.want("2")
    world.run(100)
    assert share(world) == ("rev2", 50)
    world.ask(approve="1")
    world.run(200, tick=2)
    assert share(world) == ("rev2", 500)
    world.ask(approve="2")
    world.run(200, tick=2)
    assert is_stable(world, "2")


def test_an_approval_that_nobody_waits_for_passes_nothing_later() -> None:
    world = started(policy=policy(approval=(50,)))
    world.ask(approve="early")
    world.run(2)
    world.want("2")
    world.run(500, tick=5)
    assert share(world) == ("rev2", 500)
    assert world.reasons().count("TokenWithoutEffect") == 1


@pytest.mark.parametrize("when", ["at an approval", "in analysis", "after an abort"])
def test_a06_a_promote_token_makes_the_wanted_version_stable_without_its_remaining_steps(when: str) -> None:
    world = started(policy=policy(approval=(5,)))
    world.want("2")
    world.run(90 if when == "at an approval" else 20)
    if when == "after an abort":
        world.ask(abort="1")
        world.run(30)
        assert world.place.rejection_of("rev2") is not None
    world.ask(promote="1")
    world.run(30)
    assert is_stable(world, "2")
    assert 500 not in [permille for *_, permille in world.shares]
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.reason) == (Outcome.PROMOTED, "PromotedByHand")
    assert world.place.rejection_of("rev2") is None
    assert world.route is not None
    assert world.route.aborted is None


def test_a07_a_breach_beats_a_pause() -> None:
    world = in_rollout()
    world.policy = policy(paused=True)
    world.run(500, tick=5)
    assert share(world) == ("rev2", 50)
    assert world.decide().reason is Reason.PAUSED
    world.judged = BREACHED
    world.one_pass()
    assert share(world) == (None, 0)


def test_a_pause_that_ends_goes_on_where_it_was() -> None:
    world = in_rollout()
    world.policy = policy(paused=True)
    world.run(500, tick=5)
    world.policy = policy()
    world.run(300, tick=3)
    assert is_stable(world, "2")


def test_a_paused_policy_gives_a_new_canary_no_traffic() -> None:
    world = started(policy=policy(paused=True))
    world.want("2")
    world.run(300, tick=3)
    assert share(world) == ("rev2", 0)
    assert world.arms["rev2"].ready == 1


def test_b09_a_retry_token_tries_a_rejected_version_again_from_step_0_once() -> None:
    world = started()
    world.want("2")
    world.run(80)
    world.judged = BREACHED
    world.run(30)
    world.judged = HEALTHY
    world.ask(retry="1")
    world.run(10)
    assert share(world) == ("rev2", 50)
    world.judged = BREACHED
    world.run(30)
    world.judged = HEALTHY
    world.run(300, tick=3)
    assert share(world) == (None, 0)
    assert world.place.rejection_of("rev2") is not None
    assert world.reasons().count("Retried") == 1


@pytest.mark.parametrize("again", range(4))
@pytest.mark.parametrize("writes", range(6))
def test_b09_a_retry_survives_deaths_after_any_two_writes(writes: int, again: int) -> None:
    world = breached()
    world.ask(retry="1")
    world.one_pass(stop_after=writes)
    world.one_pass(stop_after=again)
    world.run(10)
    assert share(world) == ("rev2", 50)


def test_b10_an_abort_during_a_promotion_wins() -> None:
    world = started(policy=policy(steps=((100, 10),)))
    world.want("2")
    world.run(11)
    world.deaf = True
    world.run(3)
    assert world.shares[-1][1] == "rev2"
    world.ask(promote="1")
    world.ask(abort="1")
    world.deaf = False
    world.run(20)
    assert is_stable(world, "1")
    assert world.shares[-1][1:] == ("rev1", None, 0)


def test_b11_an_abort_without_a_canary_changes_nothing() -> None:
    world = started()
    before = world.place
    world.ask(abort="1")
    world.run(5)
    assert world.place.stable == before.stable
    assert world.place.rejected == ()
    world.want("2")
    world.run(300, tick=3)
    assert is_stable(world, "2")


def test_a_skip_token_ends_the_present_step_at_once_and_no_other() -> None:
    world = started()
    world.want("2")
    world.run(10)
    world.ask(skip_step="1")
    world.run(40)
    assert share(world) == ("rev2", 500)


def test_a_promote_token_beats_a_pause() -> None:
    world = started(policy=policy(paused=True))
    world.want("2")
    world.run(10)
    world.ask(promote="1")
    world.run(30)
    assert is_stable(world, "2")


def test_a_breach_beats_a_promotion_by_hand_that_waits_for_pods() -> None:
    world = in_rollout()
    world.pace = 0
    world.ask(promote="1")
    world.run(5)
    world.judged = BREACHED
    world.one_pass()
    assert share(world) == (None, 0)
    assert world.place.rejection_of("rev2") is not None


@pytest.mark.parametrize("again", range(4))
@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("before", ["rejected", "halted"])
def test_a06_a_promotion_after_a_verdict_survives_deaths_after_any_two_writes(before: str, writes: int, again: int) -> None:
    world = breached(mode="Pause" if before == "halted" else "Automatic")
    world.ask(promote="1")
    world.one_pass(stop_after=writes)
    world.one_pass(stop_after=again)
    world.run(60)
    assert is_stable(world, "2")
    assert world.reasons().count("TokenWithoutEffect") == 0


def test_an_abort_without_traffic_whose_route_was_not_written_any_more_is_written_again_and_seen() -> None:
    world = in_rollout()
    world.ask(abort="1")
    world.run(30)
    world.want("3")
    while world.place.canary is None:
        world.one_pass(stop_after=1)
    world.ask(abort="2")
    assert world.write_names()[0] == "status", "there is no traffic to take away"
    world.one_pass(stop_after=1)
    world.told.clear()
    world.run(5)
    last = world.place.last
    assert last is not None
    assert (last.revision, last.reason) == (revision("3"), Reason.ABORTED)
    assert last.shifted_at is not None
    assert world.reasons() == ["TrafficShifted"]
    assert world.route is not None
    assert world.route.aborted is not None
    assert world.route.aborted.revision == "rev3", "a status that is lost then finds it again"
    generation = world.route.generation
    world.run(200, tick=2)
    assert world.route.generation == generation


def test_an_abort_that_an_operator_died_in_is_finished_without_asking_what_for() -> None:
    world = in_rollout()
    world.ask(abort="1")
    world.one_pass(stop_after=1)
    world.run(10)
    assert world.place.rejection_of("rev2") is not None
    assert world.reasons().count("TokenWithoutEffect") == 0


def test_a_promotion_from_weight_0_waits_for_every_gateway() -> None:
    world = in_rollout()
    world.ask(abort="1")
    world.run(30)
    world.ask(promote="1")
    world.deaf = True
    world.run(5)
    assert world.place.canary is not None
    assert world.place.canary.routed_at is not None
    assert not is_stable(world, "2")
    world.deaf = False
    world.run(2)
    assert is_stable(world, "2")


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
def test_what_is_promoted_by_hand_between_the_switch_and_the_end_of_its_promotion_stays(mode: str) -> None:
    world = started(policy=policy(guard=600, keep=600, mode=mode))
    world.want("2")
    until_switched(world)
    world.deaf = True
    world.ask(promote="1")
    world.one_pass()
    assert world.reasons()[-1] == "PromotedByHand"
    assert "no breach in its guard window takes it back" in world.told[-1].message
    world.deaf = False
    world.run(10)
    world.judged = BREACHED
    world.run(30)
    assert is_stable(world, "2")
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.reason) == (Outcome.PROMOTED, "PromotedByHand")
    assert world.reasons().count("WouldRollBack") == 1
    assert "TokenWithoutEffect" not in world.reasons()
    world.ask(promote="2")
    world.run(5)
    assert world.reasons()[-1] == "TokenWithoutEffect", "it stays already"


def test_a_former_stable_that_steps_have_led_back_to_is_watched_also_where_a_person_promotes_it() -> None:
    world = started(policy=policy(guard=30, keep=6000))
    world.want("2")
    world.run(360)
    assert is_stable(world, "2")
    world.want("1")
    until_switched(world)
    world.ask(promote="1")
    world.run(5)
    assert is_stable(world, "1")
    assert world.place.last is not None
    assert world.place.last.reason == "PromotedByHand"
    world.judged = BREACHED
    world.run(5)
    assert world.reasons()[-1] == "WouldRollBack"


def test_a_former_stable_that_was_halted_on_its_way_back_is_watched_when_a_person_promotes_it() -> None:
    world = started(policy=policy(guard=30, keep=6000, mode="Pause"))
    world.want("2")
    world.run(360)
    assert is_stable(world, "2")
    world.want("1")
    world.run(30)
    world.judged = BREACHED
    world.run(5)
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    world.judged = HEALTHY
    world.ask(promote="1")
    world.run(10)
    assert is_stable(world, "1")
    assert world.place.last is not None
    assert (world.place.last.reason, world.place.guard is not None) == ("PromotedByHand", True)


def test_a_promotion_by_hand_says_that_all_requests_go_to_it_as_soon_as_they_do() -> None:
    world = in_rollout()
    world.ask(promote="1")
    while world.route is not None and world.route.stable == "rev1":
        assert world.status.canary is None or world.status.canary.weight == 5
        world.run(1)
        world.deaf = True
    canary = world.place.canary
    assert canary is not None
    assert world.status.canary is not None
    assert (canary.weight, canary.given, world.status.canary.weight) == (5, 100, 100)
    assert shown_of(world.place, phase=Phase.PROMOTING).weight == 100
    older = world.status.canary.model_copy(update={"weight": 5, "weightBefore": None})
    assert place_of(world.status.model_copy(update={"canary": older})) == world.place, "as an earlier version wrote it"


def test_no_status_says_of_what_is_stable_that_it_is_the_revision_that_a_refresh_asks_for() -> None:
    world = started()
    world.ask(refresh="1")
    plan = world.one_pass()
    assert plan.place.acknowledged.refresh == "1"
    states = {c.type: (c.status, c.reason) for c in plan.conditions}
    assert states[ConditionType.READY] == ("False", Reason.REFRESHED)
    assert states[ConditionType.PROGRESSING] == states[ConditionType.RECONCILING] == ("True", Reason.REFRESHED)
    world.one_pass()
    assert next(c for c in world.status.conditions if c.type == "Ready").reason != "Refreshed"


def test_refresh_rolls_the_same_version_out_as_a_new_revision_once() -> None:
    world = started()
    world.ask(refresh="1")
    world.run(10)
    assert world.place.canary is not None
    assert (world.place.canary.revision.name, world.place.canary.revision.prompt_version) == ("rev1-1", "1")
    world.run(200, tick=2)
    assert world.place.stable is not None
    assert world.place.stable.revision.name == "rev1-1"
    assert world.reasons().count("Refreshed") == 1
    world.ask(refresh=None)  # type: ignore[arg-type]
    world.run(100)
    assert world.place.stable.revision.name == "rev1-1", "taking the annotation away asks for nothing"


def test_a_refreshed_revision_that_breaches_is_rolled_back_and_the_former_value_goes_back() -> None:
    world = started()
    world.ask(refresh="1")
    world.run(10)
    world.judged = BREACHED
    world.run(5)
    assert world.place.rejection_of("rev1-1") is not None
    assert world.verdicts == [], "the prompt is the one that stable runs"
    world.judged = HEALTHY
    world.run(100)
    assert world.decide().phase == "RolledBack"
    world.ask(refresh="")
    world.run(5)
    assert world.decide().phase == "Idle"
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_an_empty_refresh_from_the_start_asks_for_nothing() -> None:
    world = started()
    world.ask(refresh="")
    world.run(10)
    assert "Refreshed" not in world.reasons()


def told_by_conditions(world: World, seconds: int) -> list[str]:
    """The reasons that changes of conditions tell in this time."""
    told: list[str] = []
    for _ in range(seconds):
        for _ in range(3):
            before = world.status.conditions
            plan = world.one_pass()
            told += [change.reason.value for change in changes_told(before, after=plan.conditions, problem=None)]
        world.settle()
        world.now += 1
    return told


def test_a04_what_waits_for_a_person_is_told_once_and_so_is_that_it_goes_on() -> None:
    world = in_rollout(policy=policy(approval=(5,)))
    assert told_by_conditions(world, 90) == ["WaitingForApproval"]
    world.ask(approve="1")
    assert told_by_conditions(world, 5) == [], "the move tells it"
    assert world.reasons().count("Approved") == 1
    world = in_rollout()
    world.policy = policy(paused=True)
    assert told_by_conditions(world, 30) == ["Paused"]
    world.policy = policy()
    assert told_by_conditions(world, 5) == ["Holding"]


def test_a_pause_is_told_once_whatever_becomes_of_pods_meanwhile() -> None:
    world = started(policy=policy(replicas=2))
    world.pace = 0
    world.want("2")
    world.run(2)
    world.policy = policy(replicas=2, paused=True)
    assert told_by_conditions(world, 5) == ["Paused"], "also before there is any pod"
    assert said_of_progress(world) == "step 1 of 3, 0 %: `spec.canary.paused`; waiting for 1 ready pods of rev2"
    world.pace = 1000
    assert told_by_conditions(world, 5) == []
    assert said_of_progress(world) == "step 1 of 3, 0 %: `spec.canary.paused`"
    world.policy = policy(replicas=2)
    world.run(10)
    assert share(world) == ("rev2", 50)
    world.policy = policy(replicas=2, paused=True)
    assert told_by_conditions(world, 5) == ["Paused"]
    world.pace, world.arms["rev2"] = 0, Arm(desired=1, ready=0)
    assert told_by_conditions(world, 5) == [], "a move tells that the weight is 0"
    assert world.reasons()[-1] == "CanaryUnready"


def said_of_progress(world: World) -> str:
    return next(c.message for c in world.decide().conditions if c.type is ConditionType.PROGRESSING)


@pytest.mark.parametrize("ends", [True, False])
def test_a_verdict_that_a_person_overruled_is_not_taken_up_again_from_an_older_traffic_object(ends: bool) -> None:
    world = started()
    world.want("2")
    world.run(20)
    world.judged = BREACHED
    world.run(10)
    old = world.route
    assert old is not None
    assert old.aborted is not None
    world.judged = HEALTHY
    world.ask(**({"promote": "1"} if ends else {"retry": "1"}))
    world.run(30)
    assert is_stable(world, "2") is ends
    # As another operator sees it, whose cache lags behind.
    seen = replace(world.observe(), route=Known(old))
    plan = decide(seen, policy=world.policy, now=world.now)
    assert plan.place.rejection_of("rev2") is None
    assert (plan.place.stable, plan.place.canary is None) == (world.place.stable, ends)
