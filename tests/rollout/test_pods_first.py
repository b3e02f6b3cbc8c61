"""The pods of the next step are made before a step passes: until they are ready it holds as before, and what is found of it counts."""

from dataclasses import replace

import pytest

from backstop.analysis.reading import Breaching, SLOReading, Waiting
from backstop.api.reasons import Reason
from backstop.rollout.observed import Arm, Unresolved
from backstop.rollout.place import CanaryPlace
from tests.rollout.world import BREACHED, HEALTHY, START, UNSEEN, World, in_rollout, is_stable, policy, reading, share, started

STARVED = reading(Waiting(more=7))
MISSING = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v9`, which does not exist; create it")
SLOW = ((5, 20), (50, 60), (100, 60))


def growing(**changes: object) -> World:
    """Version 2 has held its 5 %, and the five pods for 50 % take their time."""
    world = in_rollout(policy=policy(replicas=10, steps=SLOW, **changes))  # type: ignore[arg-type]
    world.pace = 0
    world.run(25)
    assert world.arms["rev2"] == Arm(desired=5, ready=1)
    assert canary(world).step == 0
    return world


def canary(world: World) -> CanaryPlace:
    assert world.place.canary is not None
    return world.place.canary


def test_a_step_passes_when_the_pods_of_the_next_are_ready_and_begins_that_at_once() -> None:
    world = growing()
    assert share(world) == ("rev2", 50)
    assert world.decide().reason is Reason.WAITING_FOR_READY
    world.arms["rev2"] = Arm(desired=5, ready=5)
    world.one_pass()  # the wait is over
    told = len(world.reasons())
    world.one_pass()
    assert world.reasons()[told:] == ["StepStarted"]
    assert share(world) == ("rev2", 500)


@pytest.mark.parametrize("judged", [UNSEEN, reading(Breaching(since=START)), STARVED], ids=["unknown", "breaching", "waiting"])
def test_what_is_found_while_pods_come_up_keeps_the_step_from_passing(judged: object) -> None:
    world = growing()
    world.judged = judged  # type: ignore[assignment]
    world.run(5)
    world.pace = 1000
    world.run(60)
    assert share(world) == ("rev2", 50)
    assert canary(world).step == 0
    if judged is UNSEEN:
        assert world.decide().reason is Reason.METRICS_UNAVAILABLE
        assert UNSEEN.reason in world.reasons()
    world.judged = HEALTHY
    world.run(5)
    assert share(world) == ("rev2", 500)


def test_metrics_that_go_away_in_the_pass_in_which_pods_are_there_keep_the_weight_as_it_is() -> None:
    world = growing()
    world.arms["rev2"] = Arm(desired=5, ready=5)
    world.judged = UNSEEN
    world.run(30)
    assert share(world) == ("rev2", 50)


def test_a_breach_while_pods_come_up_takes_the_canary_back() -> None:
    world = growing()
    world.judged = BREACHED
    world.run(1)
    assert share(world) == (None, 0)
    assert world.place.rejection_of("rev2") is not None


def test_a_dry_run_tells_of_a_breach_while_pods_come_up_and_passes_no_step_beside_it() -> None:
    world = growing(mode="DryRun")
    world.judged = BREACHED
    world.run(1)
    world.pace = 1000
    world.run(60)
    assert share(world) == ("rev2", 50)
    assert world.reasons().count("WouldRollBack") == 1


def test_pods_that_do_not_come_end_the_canary_at_its_deadline() -> None:
    world = growing(deadline=40)
    world.run(50)
    assert world.place.last is not None
    assert world.place.last.reason == Reason.CANARY_UNAVAILABLE
    assert "1 of 5 pods ready after 40 s" in world.place.last.message


def test_a_canary_that_loses_all_its_pods_meanwhile_begins_the_same_step_again() -> None:
    world = growing()
    world.arms["rev2"] = Arm(desired=5, ready=0)
    world.run(1)
    assert (share(world), canary(world).step, canary(world).pods_for) == (("rev2", 0), 0, 0)
    world.pace = 1000
    world.run(5)
    assert share(world) == ("rev2", 50)


def test_the_deadline_of_pods_that_are_lost_does_not_count_the_wait_for_those_of_a_greater_share() -> None:
    world = growing()
    world.run(world.policy.canary.progressDeadlineSeconds - 40)
    world.arms["rev2"] = Arm(desired=5, ready=0)
    world.run(world.policy.canary.progressDeadlineSeconds / 2)
    assert "RolledBack" not in world.reasons()
    assert world.decide().reason is Reason.CANARY_UNREADY
    world.run(world.policy.canary.progressDeadlineSeconds)
    assert "RolledBack" in world.reasons()


def test_its_share_goes_in_the_pass_that_finds_no_pod_though_more_was_found_that_keeps_the_step_from_passing() -> None:
    world = growing()
    world.wanted = MISSING
    world.arms["rev2"] = Arm(desired=5, ready=0)
    world.one_pass()
    assert share(world) == ("rev2", 0)


def test_its_share_goes_in_the_pass_that_finds_its_pods_replaced_by_others_that_are_not_ready() -> None:
    world = started()
    world.want("2")
    world.one_pass()
    world.arms["rev2"] = replace(world.arms["rev2"], exits=2)
    world.run(5)
    assert (share(world), canary(world).exits_before) == (("rev2", 50), 2)
    world.arms["rev2"] = replace(world.arms["rev2"], ready=0, exits=0)
    world.pace = 0
    world.one_pass()
    assert share(world) == ("rev2", 0)
    world.run(2)
    assert canary(world).exits_before == 0


def test_a_person_s_skip_step_goes_on_without_what_is_found_as_soon_as_pods_are_there() -> None:
    world = growing()
    world.judged = UNSEEN
    world.ask(skip_step="1")
    world.run(2)
    assert (share(world), canary(world).step) == (("rev2", 50), 1)
    world.pace = 1000
    world.run(2)
    assert share(world) == ("rev2", 500)


def test_a_step_that_a_person_skipped_asks_for_no_approval_when_its_pods_are_lost_before_the_next() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=SLOW, approval=(5,)))
    world.pace = 0
    world.run(25)
    world.ask(skip_step="1")
    world.run(3)
    world.arms["rev2"] = Arm(desired=5, ready=0)
    world.run(3)
    assert share(world)[1] == 0
    world.pace = 1000
    world.run(40)
    assert "WaitingForApproval" not in world.reasons()[world.reasons().index("StepSkipped") :]
    assert share(world) == ("rev2", 500)


def test_pods_are_not_made_for_a_step_that_waits_for_approval_and_then_are_first() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=SLOW, approval=(5,)))
    world.run(40)
    assert world.arms["rev2"].desired == 1
    world.pace = 0
    world.ask(approve="1")
    world.run(2)
    assert world.arms["rev2"].desired == 5
    world.judged = UNSEEN
    world.run(2)
    world.pace = 1000
    world.run(5)
    assert share(world) == ("rev2", 50)
    world.judged = HEALTHY
    world.run(5)
    assert share(world) == ("rev2", 500), "it was approved of before"


def test_an_approval_is_kept_where_all_pods_are_gone_for_a_moment() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=((5, 60), (50, 60), (100, 60)), approval=(5,)))
    world.ask(approve="1")
    world.run(5)
    world.arms["rev2"] = Arm(desired=1, ready=0)
    world.one_pass()
    assert share(world) == ("rev2", 0)
    world.run(80)
    assert share(world) == ("rev2", 500)


def test_an_approval_is_for_the_step_it_was_given_for() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=((5, 20), (50, 20), (100, 20)), approval=(5, 50)))
    world.ask(approve="1")
    world.run(300, tick=2)
    assert share(world) == ("rev2", 500)


def test_edited_steps_that_raise_the_weight_have_their_pods_first_and_raise_nothing_unseen() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=((5, 600), (50, 60), (100, 60))))
    world.pace = 0
    world.policy = policy(replicas=10, steps=((30, 60), (100, 60)))
    world.run(5)
    assert world.arms["rev2"] == Arm(desired=3, ready=1)
    assert (share(world), canary(world).weight) == (("rev2", 50), 5)
    world.judged = UNSEEN
    world.run(5)
    world.pace = 1000
    world.run(30)
    assert share(world) == ("rev2", 50)
    world.judged = HEALTHY
    world.run(2)
    assert share(world) == ("rev2", 300)
    assert world.reasons()[-3:-1] == ["StepsReplanned", "StepStarted"]


def test_steps_that_are_edited_while_paused_raise_nothing_before_it_is_over() -> None:
    world = in_rollout(policy=policy(replicas=2, steps=((5, 600), (50, 60), (100, 60))))
    world.policy = policy(replicas=2, steps=((30, 60), (100, 60)), paused=True)
    world.run(30)
    assert share(world) == ("rev2", 50)
    world.policy = policy(replicas=2, steps=((30, 60), (100, 60)))
    world.run(2)
    assert share(world) == ("rev2", 300)


@pytest.mark.parametrize(("judged", "ends"), [(HEALTHY, False), (STARVED, True)], ids=["pods", "requests"])
def test_a_wait_for_pods_alone_is_no_hold_that_is_too_long(judged: SLOReading, ends: bool) -> None:
    declared = policy(replicas=10, steps=SLOW, deadline=500)
    analysis = declared.canary.analysis.model_copy(update={"maxHoldSeconds": 60})
    world = in_rollout(policy=declared.model_copy(update={"canary": declared.canary.model_copy(update={"analysis": analysis})}))
    world.pace = 0
    world.run(25)
    world.judged = judged
    world.run(200)
    last = world.place.last
    assert (last is not None and last.reason == Reason.HELD_TOO_LONG) is ends


@pytest.mark.parametrize("what", ["a pause", "no metrics", "a spec that cannot be run", "a route that cannot be read"])
def test_pods_that_nobody_could_use_now_are_not_missed(what: str) -> None:
    world = growing(deadline=40)
    match what:
        case "a pause":
            world.policy = policy(replicas=10, steps=SLOW, deadline=40, paused=True)
        case "no metrics":
            world.judged = UNSEEN
        case "a spec that cannot be run":
            world.wanted = MISSING
        case _:
            world.unread = True
    world.run(100)
    assert share(world) == ("rev2", 50)
    assert not canary(world).awaits_pods
    assert world.arms["rev2"].desired == 5, "what was made stays"
    world.policy, world.judged, world.unread = policy(replicas=10, steps=SLOW, deadline=40), HEALTHY, False
    world.want("2")
    world.run(30)
    assert canary(world).awaits_pods
    world.run(20)
    assert world.place.last is not None
    assert world.place.last.reason == Reason.CANARY_UNAVAILABLE


def test_pods_for_an_early_end_are_not_missed_when_the_evidence_for_it_is_gone() -> None:
    declared = policy(replicas=10, steps=((5, 6000), (50, 600), (100, 600)), deadline=40)
    analysis = declared.canary.analysis.model_copy(update={"promoteEarly": True})
    world = started(policy=declared.model_copy(update={"canary": declared.canary.model_copy(update={"analysis": analysis})}))
    world.want("2")
    world.run(6)
    world.pace = 0
    world.judged = replace(HEALTHY, promotable=True)
    world.run(2)
    assert canary(world).awaits_pods
    world.judged = HEALTHY
    world.run(100)
    assert share(world) == ("rev2", 50)


@pytest.mark.parametrize("what", ["a pause", "a spec that cannot be run", "a route that cannot be read"])
@pytest.mark.parametrize("steps", [((5, 600), (50, 600), (100, 600)), ((100, 600),)], ids=["step", "promotion"])
def test_a_skipped_step_s_next_waits_for_what_every_step_waits_for(what: str, steps: tuple[tuple[int, int], ...]) -> None:
    world = in_rollout(policy=policy(replicas=2, steps=steps))
    before = share(world)
    if what == "a pause":
        world.policy = policy(replicas=2, steps=steps, paused=True)
    elif what == "a spec that cannot be run":
        world.wanted = MISSING
    else:
        world.unread = True
    world.run(3)
    world.ask(skip_step="1")
    world.run(25)
    assert share(world) == before
    assert canary(world).weight == steps[0][0]
    assert canary(world).routed_at is None
    world.policy, world.unread = policy(replicas=2, steps=steps), False
    world.want("2")
    world.run(5)
    assert share(world) == (("rev2", 500) if len(steps) > 1 else (None, 0))


@pytest.mark.parametrize("what", ["a pause", "a spec that cannot be run", "a route that cannot be read"])
def test_pods_after_a_skipped_step_are_not_missed_while_nobody_could_use_them(what: str) -> None:
    declared = {"replicas": 10, "steps": ((5, 600), (50, 600), (100, 600)), "deadline": 40}
    world = in_rollout(policy=policy(**declared))  # type: ignore[arg-type]
    world.pace = 0
    world.ask(skip_step="1")
    world.run(5)
    assert world.arms["rev2"] == Arm(desired=5, ready=1)
    match what:
        case "a pause":
            world.policy = policy(**declared, paused=True)  # type: ignore[arg-type]
        case "a spec that cannot be run":
            world.wanted = MISSING
        case _:
            world.unread = True
    world.run(100)
    assert share(world) == ("rev2", 50)
    assert world.arms["rev2"].desired == 5, "what was made stays"
    world.policy, world.unread = policy(**declared), False  # type: ignore[arg-type]
    world.want("2")
    world.run(30)
    assert canary(world).weight == 5
    world.run(20)
    assert world.place.last is not None
    assert world.place.last.reason == Reason.CANARY_UNAVAILABLE


@pytest.mark.parametrize("paused", [True, False])
def test_a_step_that_is_skipped_while_an_edit_waits_leads_to_the_next_weight_of_the_new_steps(paused: bool) -> None:
    world = in_rollout(policy=policy(replicas=1, steps=((5, 10), (20, 600), (100, 60))))
    world.run(10)
    assert share(world) == ("rev2", 200)
    world.judged = HEALTHY if paused else UNSEEN
    world.policy = policy(replicas=1, steps=((30, 60), (100, 60)), paused=paused)
    world.run(2)
    world.ask(skip_step="1")
    world.run(3)
    assert share(world) == ("rev2", 200 if paused else 300)
    world.policy = policy(replicas=1, steps=((30, 60), (100, 60)))
    world.run(3)
    assert share(world) == ("rev2", 300)


def test_an_approval_while_an_edit_waits_is_of_no_step() -> None:
    world = in_rollout(policy=policy(replicas=1, steps=((5, 600), (100, 600)), approval=(5, 30)))
    world.policy = policy(replicas=1, steps=((30, 10), (100, 60)), approval=(30,), paused=True)
    world.ask(approve="1")
    world.run(2)
    assert world.reasons()[-1] == "TokenWithoutEffect"


def test_an_edit_that_waits_asks_for_no_pods_of_a_step_that_it_is_not_at() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=((5, 20), (20, 600), (100, 60)), deadline=40))
    world.run(60)
    assert share(world) == ("rev2", 200)
    world.pace = 0
    world.policy = policy(replicas=10, steps=((30, 60), (100, 60)), deadline=40, paused=True)
    world.run(100)
    assert (share(world), world.arms["rev2"].desired) == (("rev2", 200), 2)
    world.policy = policy(replicas=10, steps=((30, 60), (100, 60)), deadline=40)
    world.run(3)
    assert world.arms["rev2"].desired == 3


def test_an_edit_that_raises_the_weight_begins_it_in_the_pass_that_plans_it() -> None:
    world = in_rollout(policy=policy(replicas=2, steps=((5, 600), (50, 60), (100, 60))))
    world.policy = policy(replicas=2, steps=((30, 60), (100, 60)))
    told = len(world.reasons())
    world.one_pass()
    assert world.reasons()[told:] == ["StepsReplanned", "StepStarted"]


def test_a_promotion_is_routed_in_the_pass_that_decides_it() -> None:
    world = in_rollout(policy=policy(steps=((100, 25),)))
    while "Promoting" not in world.reasons():
        world.settle()
        world.now += 1
        world.one_pass()
    assert world.shares[-1][1:] == ("rev2", None, 0)


def test_an_edit_of_the_hold_alone_keeps_the_pods_that_were_made() -> None:
    world = growing()
    world.policy = policy(replicas=10, steps=((5, 200), (50, 60), (100, 60)))
    world.run(5)
    assert world.arms["rev2"].desired == 5
    world.policy = policy(replicas=10, steps=((5, 200), (60, 60), (100, 60)))
    world.run(5)
    assert world.arms["rev2"].desired == 1


@pytest.mark.parametrize(
    ("edited", "passes"),
    [(((5, 20), (50, 20), (100, 20)), True), (((2, 20), (5, 20), (50, 20), (100, 20)), True), (((7, 20), (50, 20), (100, 20)), False)],
    ids=["the same", "one more before", "another weight"],
)
def test_an_approval_goes_with_its_weight_when_steps_are_edited(edited: tuple[tuple[int, int], ...], passes: bool) -> None:
    every = tuple(weight for weight, _ in edited)
    world = in_rollout(policy=policy(steps=((5, 60), (50, 60), (100, 60)), approval=(5, 50, 100)))
    world.ask(approve="1")
    world.run(2)
    world.policy = policy(steps=edited, approval=every)
    world.run(60)
    assert (share(world)[1] >= 500) is passes
    world.run(200, tick=2)
    assert share(world)[1] == (500 if passes else 70), "one approval is for one step"


def test_a_promotion_waits_at_full_weight_for_pods_that_were_lost_and_switches_at_once_when_they_are_back() -> None:
    world = in_rollout(policy=policy(steps=((100, 60),)))
    world.arms["rev2"] = Arm(desired=2, ready=1)
    world.pace = 0
    world.run(60)
    assert world.shares[-1][1:] == ("rev1", "rev2", 1000)
    assert "Promoting" not in world.reasons()
    world.pace = 1000
    world.run(15)
    assert is_stable(world, "2")
