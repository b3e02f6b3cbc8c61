"""Edits in the middle of a rollout, of the policy and of the traffic object: the weight stays, and nothing is taken for seen."""

from dataclasses import replace

import pytest

from backstop.api.reasons import Reason
from backstop.rollout.decide import decide
from backstop.rollout.observed import Known, Unknown, Unresolved
from backstop.rollout.place import Halt, awaited_generation
from backstop.rollout.plan import Plan
from backstop.rollout.progress import VERIFY_SECONDS
from backstop.rollout.route import SWITCH_SECONDS
from tests.rollout.world import ASKED_AFTER, BREACHED, HEALTHY, World, in_rollout, policy, share, started

LONG = ((5, 300), (50, 300), (100, 60))


def test_a_traffic_object_that_is_made_anew_in_mid_step_has_its_time_to_be_seen() -> None:
    world = in_rollout(policy=policy(steps=LONG))
    world.run(VERIFY_SECONDS + 60)
    world.traffic, world.deaf = None, True
    world.run(VERIFY_SECONDS - 5)
    assert (share(world), world.reasons().count(Reason.WEIGHT_NOT_VERIFIED)) == (("rev2", 50), 0)
    world.deaf = False
    world.run(5)
    assert world.place.canary is not None
    assert world.place.canary.verified_at is not None
    assert Reason.WEIGHT_NOT_VERIFIED not in world.reasons()


def test_steps_that_are_edited_while_pods_of_the_next_one_come_up_leave_the_weight_as_it_is() -> None:
    world = in_rollout(policy=policy(replicas=10, steps=((5, 20), (50, 20), (100, 20))))
    world.pace = 0
    world.run(30)
    assert world.place.canary is not None
    assert (world.place.canary.pods_for, world.place.canary.weight) == (50, 5)
    world.policy = policy(replicas=10, steps=((5, 30), (50, 20), (100, 20)))
    world.run(VERIFY_SECONDS + 10)
    assert share(world) == ("rev2", 50)
    assert Reason.WEIGHT_NOT_VERIFIED not in world.reasons()


@pytest.mark.parametrize("behind", [1, 3])
def test_a_route_that_somebody_put_an_older_one_in_the_place_of_is_acted_on_again(behind: int) -> None:
    world = in_rollout(policy=policy(steps=LONG))
    assert world.route is not None
    world.put_older_route(world.route.generation - behind)
    world.run(5)
    assert world.route.generation == world.acting
    world.judged = BREACHED
    world.run(5)
    assert world.acted is not None
    assert (world.acted.canary, world.acted.permille) == (None, 0)
    assert world.place.last is not None
    assert world.place.last.shifted_at is not None


def test_an_older_route_in_the_place_of_one_that_took_traffic_away_unread_is_replaced_by_one_write() -> None:
    world = in_rollout(policy=policy(steps=LONG))
    world.run(100)
    assert world.route is not None
    before = world.route.generation
    world.unread, world.judged = True, BREACHED
    world.one_pass(stop_after=1)  # over what cannot be read, with a generation that is ahead of any that was decided
    world.unread = False
    assert world.route.generation > before + 50
    world.one_pass()
    assert world.place.last is not None
    world.put_older_route(before)
    writes = len(world.writes)
    world.rest()
    assert world.writes[writes:].count("route") == 1
    assert world.route.generation == world.place.last.generation


def test_what_gateways_act_on_is_followed_by_a_later_generation_though_nobody_could_read_it_and_the_clock_was_set_back() -> None:
    """Written over an unreadable object by an operator that died before it wrote status, and unreadable again."""
    world = in_rollout(policy=policy(steps=LONG))
    world.run(100)
    world.now -= 3600
    for _ in range(2):
        world.unread, world.judged = True, BREACHED
        before = world.acting
        world.one_pass(stop_after=1)
        assert world.route is not None
        assert world.route.generation > before
        world.settle()
        assert world.acting == world.route.generation
        assert world.acted is not None
        assert world.acted.permille == 0


def test_the_end_of_a_canary_is_seen_although_another_version_follows_at_once() -> None:
    world = in_rollout(policy=policy(steps=LONG))
    world.broken.add("rev3")
    world.want("3")
    world.one_pass()
    decided = world.now
    world.run(10)
    assert world.place.canary is not None
    assert world.place.canary.revision.name == "rev3"
    assert world.place.last is not None
    assert world.place.last.shifted_at is not None
    assert world.place.last.shifted_at <= decided + 2
    world.run(90)
    assert Reason.WEIGHT_NOT_VERIFIED not in world.reasons()


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
def test_traffic_has_shifted_when_gateways_said_so_and_not_when_a_pass_had_time_to_note_it(mode: str) -> None:
    world = in_rollout(policy=policy(steps=LONG, mode=mode))
    world.judged = BREACHED
    world.one_pass()
    decided = world.now
    world.settle()
    world.now += 7
    world.run(2)
    canary = world.place.canary
    ended = canary.halted if canary is not None else world.place.last
    assert ended is not None
    assert ended.shifted_at == decided + ASKED_AFTER
    (told,) = [a.message for a in world.told if a.reason is Reason.TRAFFIC_SHIFTED]
    assert "0.2 s after it was decided" in told


@pytest.mark.parametrize("set_by", [-3600, 3600])
def test_a_clock_that_was_set_after_gateways_answered_does_not_say_when(set_by: float) -> None:
    world = in_rollout(policy=policy(steps=LONG))
    world.judged = BREACHED
    world.one_pass()
    world.settle()
    assert world.acting_since is not None
    world.acting_since += set_by
    world.run(2)
    assert world.place.last is not None
    assert world.place.last.shifted_at is not None
    assert world.place.last.detected_at <= world.place.last.shifted_at <= world.now


def test_an_abort_of_what_was_halted_keeps_what_it_was_halted_for_and_when() -> None:
    world = in_rollout(policy=policy(mode="Pause"))
    world.judged = BREACHED
    world.run(60)
    assert world.place.canary is not None
    halt = world.place.canary.halted
    assert isinstance(halt, Halt)
    assert halt.shifted_at is not None
    world.run(200)
    world.ask(abort="now")
    world.run(5)
    last, (rejection,) = world.place.last, world.place.rejected
    assert last is not None
    assert (last.reason, last.detected_at, last.shifted_at) == (halt.reason, halt.at, halt.shifted_at)
    assert last.ended_at is not None
    assert "61 of 412 canary requests over 150 ms" in rejection.message
    assert "rejected by hand (`backstop.dev/abort`)" in rejection.message
    assert not rejection.suspected


def test_a_refresh_of_what_cannot_be_told_now_is_done_and_said_as_soon_as_it_can() -> None:
    world = started()
    wanted, world.wanted = world.wanted, Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v1`")
    world.ask(refresh="now")
    world.run(3)
    assert [a.reason for a in world.told[-1:]] == [Reason.REFRESHED]
    assert "as soon as it can" in world.told[-1].message
    world.wanted = wanted
    world.run(3)
    assert world.place.canary is not None
    assert world.place.canary.revision.name == "rev1-now"


def test_a_promotion_whose_switch_an_operator_died_before_waits_for_gateways_that_could_know_of_it() -> None:
    world = in_rollout(policy=policy(steps=((5, 30), (100, 20)), keep=15))
    while not _switches(world):
        world.one_pass()
        world.settle()
        world.now += 1
    world.one_pass(stop_after=1 + world.write_names().index("status"))
    assert world.route is not None
    assert world.route.stable == "rev1"
    world.deaf = True
    world.now += 60
    world.one_pass()
    assert world.route.stable == "rev2"
    written = world.now
    world.run(SWITCH_SECONDS - 2)
    assert world.place.stable is not None
    assert world.place.stable.revision.name == "rev1", "no gateway has been seen, and it has its time from the write"
    assert world.arms["rev1"].desired > 0
    world.run(4)
    assert world.place.stable.revision.name == "rev2"
    assert world.place.stable.since >= written + SWITCH_SECONDS


def _switches(world: World) -> bool:
    """Whether the next pass gives the canary all of the traffic, as what is stable."""
    canary = world.decide().place.canary
    return canary is not None and canary.routed_at is not None


def test_an_older_traffic_object_is_seen_to_be_one_by_what_gateways_act_on_though_status_does_not_know() -> None:
    world = in_rollout()
    assert world.route is not None
    # An operator wrote it anew over what could not be read, and died before status; then somebody put back the one from before.
    world.acting = world.route.generation + 100
    world.acted = replace(world.route, generation=world.acting, canary=None, permille=0)
    world.put_back = True
    assert world.place.canary is not None
    world.status = world.status.model_copy(
        update={"canary": world.status.canary.model_copy(update={"weightVerifiedAt": None})}  # type: ignore[union-attr]  # as asserted
    )
    world.one_pass()
    assert world.place.canary.verified_at is None, "no gateway acts on it"
    assert world.route.generation == world.acting + 1
    world.run(3)
    assert world.acted == world.route
    assert world.place.canary.verified_at is not None


@pytest.mark.parametrize("gone", [False, True], ids=["unreadable", "gone"])
def test_b14_a_verdict_that_is_written_over_what_cannot_be_read_stands_in_it(gone: bool) -> None:
    world = in_rollout(policy=policy(steps=LONG))
    world.unread, world.traffic = not gone, None if gone else world.traffic
    world.judged = BREACHED
    world.one_pass(stop_after=1)  # whoever comes next knows no other word of it
    world.unread = False
    assert world.route is not None
    assert world.route.aborted is not None
    assert (world.route.aborted.revision, world.route.permille) == ("rev2", 0)


def two_looks(world: World) -> tuple[Plan, Plan]:
    """A namespace was restored, with the object from before: beside a gateway that acts on a later one, a pod has read nothing else. One
    look at that, and the next one, when neither has read yet what the first wrote.
    """
    assert world.route is not None
    generation = world.route.generation
    seen = replace(world.observe(), acting=Known(generation), newest=generation + 100)
    first = decide(seen, policy=world.policy, now=world.now)
    assert first.route is not None
    assert first.route.state.generation == generation + 101
    again = replace(seen, place=first.place, route=Known(first.route.state))
    return first, decide(again, policy=world.policy, now=world.now + 0.3)


def told(*plans: Plan) -> set[Reason]:
    return {announcement.reason for plan in plans for announcement in plan.announcements}


def test_one_gateway_that_acts_on_a_later_object_than_there_is_keeps_a_weight_from_being_verified() -> None:
    world = in_rollout()
    canary = world.status.canary
    assert canary is not None
    world.status = world.status.model_copy(update={"canary": canary.model_copy(update={"weightVerifiedAt": None})})
    assert Reason.WEIGHT_VERIFIED not in told(*two_looks(world))


def test_it_keeps_a_weight_that_was_not_seen_in_time_and_fell_to_0_from_rising_again() -> None:
    world = started()
    world.deaf = True
    world.want("2")
    world.run(VERIFY_SECONDS + 20)
    assert world.place.canary is not None
    assert world.place.canary.weight == 0
    first, second = two_looks(world)
    assert first.place.canary is not None
    assert second.place.canary is not None
    assert (first.place.canary.weight, second.place.canary.weight) == (0, 0)


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
def test_it_keeps_an_end_and_a_halt_from_being_seen(mode: str) -> None:
    world = in_rollout(policy=policy(mode=mode))
    world.deaf, world.judged = True, BREACHED
    world.one_pass()
    first, second = two_looks(world)
    assert Reason.TRAFFIC_SHIFTED not in told(first, second)
    for place in (first.place, second.place):
        waits = place.canary.halted if place.canary is not None else place.last
        assert waits is not None
        assert waits.shifted_at is None
    assert first.route is not None
    assert awaited_generation(second.place) == first.route.state.generation


def test_what_cannot_be_read_is_written_newer_than_any_gateway_acts_on_though_another_does_not_say() -> None:
    world = in_rollout()
    world.unread, world.judged = True, BREACHED
    ahead = int(world.now * 1000) + 1000
    seen = replace(world.observe(), acting=Unknown("a new pod has not read it yet"), newest=ahead)
    plan = decide(seen, policy=world.policy, now=world.now)
    assert plan.route is not None
    assert (plan.route.state.canary, plan.route.state.generation) == (None, ahead + 1)


def test_an_object_that_is_made_anew_twice_within_a_second_is_another_one_for_gateways() -> None:
    world = in_rollout(policy=policy(steps=LONG))
    world.run(10)
    world.unread, world.judged = True, BREACHED
    world.one_pass(stop_after=1)
    assert world.route is not None
    world.settle()
    anew = world.route.generation
    assert world.acting == anew
    # The operator died before status, and somebody deleted what it had written.
    world.traffic, world.judged = None, HEALTHY
    world.one_pass()
    assert world.route.generation > anew
    world.run(5)
    assert world.acted == world.route
