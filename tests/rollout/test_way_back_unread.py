"""An operator dies between the two writes of a way back, and then the route cannot be read: nobody knows of the verdict until it can."""

import pytest

from backstop.api.condition import ConditionType
from backstop.api.policystatus import Phase
from backstop.api.reasons import Reason
from tests.rollout.kstatus import agree_with_kstatus
from tests.rollout.test_guard import GUARD, condition, promoted, shares
from tests.rollout.world import BREACHED, HEALTHY, World, is_stable


def unread(*, keep: int = GUARD, own: bool = False) -> World:
    """Version 2 breached, callers were led back to version 1, and status still says that version 2 serves."""
    world = promoted(keep=keep, own=own)
    world.judged = BREACHED
    world.one_pass(stop_after=1)
    world.judged = HEALTHY
    assert shares(world) == ("rev1", None, 0)
    assert is_stable(world, "2")
    world.unread = True
    world.told.clear()
    return world


def goes_back(world: World) -> None:
    world.unread = False
    world.one_pass()
    assert shares(world) == ("rev1", None, 0)
    assert is_stable(world, "1")
    assert world.place.rejection_of("rev2") is not None
    world.run(300)
    assert "rev2" not in shares(world)


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("version", ["1", "3"])
def test_no_rollout_begins_before_its_verdict_can_be_read(version: str, deleted: bool) -> None:
    world = unread()
    world.want(version)
    written = len(world.shares)
    world.run(30)
    assert world.place.canary is None
    assert len(world.shares) == written
    plan = world.decide()
    assert (plan.phase, plan.reason) == (Phase.STARTING, Reason.TRAFFIC_UNREADABLE)
    said = condition(plan, ConditionType.RECONCILING)
    assert said is not None
    assert said[2] == (
        "no rollout begins: it cannot be read, and the pods of rev1, which served before, are kept; put it right: gateways act on a later "
        "state than `.status` knows of, and if it is deleted, rev2 serves as stable"
    )
    agree_with_kstatus(plan)
    world.deleting = deleted
    world.unread = False
    world.one_pass()
    assert shares(world) == ("rev1", None, 0)
    assert is_stable(world, "1")
    assert world.place.rejection_of("rev2") is not None


def test_without_gateways_nobody_is_told_to_delete_what_callers_reach() -> None:
    world = unread(own=True)
    world.want("3")
    said = condition(world.decide(), ConditionType.RECONCILING)
    assert said is not None
    assert said[2] == "no rollout begins: it cannot be read, and the pods of rev1, which served before, are kept; put it right"
    world.run(5)
    assert shares(world) == ("rev1", None, 0), "what the Service does is left as it is"
    goes_back(world)


@pytest.mark.parametrize("token", ["promote", "retry"])
def test_a_persons_word_begins_none_either_and_does_not_wait(token: str) -> None:
    world = unread()
    world.want("3")
    world.ask(**{token: "1"})
    world.run(5)
    assert world.place.canary is None
    assert world.reasons() == ["TokenWithoutEffect"]
    goes_back(world)


def test_that_it_cannot_be_read_is_said_at_rest_too() -> None:
    world = promoted(keep=GUARD)
    world.run(5)
    world.unread = True
    world.run(5)
    said = condition(world.decide(), ConditionType.PROGRESSING)
    words = "no rollout begins: it cannot be read, and the pods of rev1, which served before, are kept; "
    assert said == ("False", Reason.TRAFFIC_UNREADABLE, words + "delete the traffic object to have it written anew")
    agree_with_kstatus(world.decide())
    world.unread = False
    world.run(5)
    assert condition(world.decide(), ConditionType.PROGRESSING) == ("False", Reason.STABLE, "no rollout is running")


@pytest.mark.parametrize("token", ["promote", "retry"])
def test_a_word_for_what_is_rejected_changes_nothing_and_says_why(token: str) -> None:
    world = promoted()
    world.judged = BREACHED
    world.one_pass()
    world.judged = HEALTHY
    world.unread = True
    world.told.clear()
    world.ask(**{token: "1"})
    world.run(5)
    assert world.place.rejection_of("rev2") is not None
    assert world.place.freed is None
    (told,) = [said for said in world.told if said.reason is Reason.TOKEN_WITHOUT_EFFECT]
    assert told.message == (
        f"the annotation `backstop.dev/{token}` is not acted on, because no rollout begins now: it cannot be read; a new value asks again"
    )


@pytest.mark.parametrize("token", ["promote", "retry"])
def test_a_word_for_what_is_halted_ends_it_which_writes_the_object_anew(token: str) -> None:
    world = promoted(mode="Pause")
    world.judged = BREACHED
    world.run(2)
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    world.judged = HEALTHY
    world.unread = True
    world.ask(**{token: "1"})
    world.run(60)
    assert not world.unread
    assert world.place.rejection_of("rev2") is None
    assert shares(world)[1] == "rev2" or is_stable(world, "2")
    assert "TokenWithoutEffect" not in world.reasons()


def test_what_callers_were_led_back_to_keeps_its_pods_and_the_verdict_is_found_after_the_guard_window() -> None:
    world = unread(keep=15)
    pods = world.arms["rev1"]
    world.run(GUARD + 60)
    assert world.place.guard is None
    assert world.arms["rev1"] == pods, "whoever is served by them is not told otherwise"
    assert condition(world.decide(), ConditionType.READY) is not None
    goes_back(world)


def test_pods_of_what_served_before_go_when_the_route_says_that_nobody_is_led_back() -> None:
    world = promoted(keep=15)
    world.unread = True
    world.run(GUARD + 60)
    assert set(world.arms) == {"rev1", "rev2"}
    world.unread = False
    world.run(30)
    assert set(world.arms) == {"rev2"}
    assert world.place.previous is None


def test_pods_that_were_gone_before_the_route_could_not_be_read_are_not_made_anew() -> None:
    world = promoted(keep=15)
    world.run(60)
    assert set(world.arms) == {"rev2"}
    world.unread = True
    world.run(30)
    assert set(world.arms) == {"rev2"}
    said = condition(world.decide(), ConditionType.PROGRESSING)
    assert said is not None
    assert said[2] == "no rollout begins: it cannot be read; delete the traffic object to have it written anew"
