"""A workload of its author's own: numbers of ready pods make the shares, and every ready pod of the policy is reached by them."""

from dataclasses import replace
from itertools import pairwise

import pytest

from backstop.analysis.reading import Breaching, SLOReading
from backstop.api.policystatus import Router
from backstop.api.reasons import Reason, advice_for
from backstop.rollout.decide import decide
from backstop.rollout.look import pods_for_share
from backstop.rollout.observed import Arm, Unknown, Unresolved
from backstop.rollout.plan import Plan
from tests.rollout.kstatus import agree_with_kstatus
from tests.rollout.world import BREACHED, HEALTHY, START, UNSEEN, World, is_stable, policy, reading, revision, share, started

STEPS = ((10, 60), (50, 60), (100, 60))
PODS_AGAIN = 120  # seconds
MISSING = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v9`, which does not exist; create it")


def own(**changes: object) -> World:
    """Version 1 is stable, with two pods."""
    return started(policy=policy(steps=STEPS, own=True, **changes))  # type: ignore[arg-type]  # of `policy`, given by the test


def at(world: World, percent: int) -> World:
    """The canary holds at this weight."""
    for _ in range(400):
        canary = world.place.canary
        if canary is not None and canary.weight == percent and canary.verified_at is not None:
            return world
        world.run(1)
    raise AssertionError(f"no canary at {percent} %; {world.reasons()}")


def alone(percent: int, **changes: object) -> World:
    """Version 2 has this share, and callers reach it alone: stable has lost its pods, and gets no other ones yet."""
    world = own(**changes)
    world.want("2")
    at(world, percent)
    world.pace = 0
    world.arms["rev1"] = Arm(desired=2, ready=0)
    return world


def with_a_pod_to_come() -> World:
    """10 % would pass, and of the two pods for 50 % one is still to come."""
    world = own()
    world.want("2")
    at(world, 10)
    world.pace = 0
    while sizes(world)["rev2"] == 1:
        world.run(1)
    return world


def sizes(world: World) -> dict[str, int]:
    return {name: arm.desired for name, arm in world.arms.items() if arm.desired}


@pytest.mark.parametrize(
    ("weight", "beside", "pods"),
    [
        (5, 2, 1),
        (50, 2, 2),
        (100, 2, 2),
        (5, 19, 1),
        (5, 38, 2),
        (5, 37, 1),
        (25, 9, 3),
        (25, 10, 3),
        (1, 500, 5),
        (50, 1, 1),
        (49, 100, 96),
    ],
)
def test_a_canary_has_the_pods_whose_share_is_nearest_to_its_weight_from_below(weight: int, beside: int, pods: int) -> None:
    assert pods_for_share(weight, beside=beside) == pods
    if weight < 100 and pods > 1:
        assert 100 * pods / (pods + beside) <= weight < 100 * (pods + 1) / (pods + 1 + beside)


def test_status_names_the_share_that_pods_really_make() -> None:
    world = own()
    assert world.status.router is Router.REPLICAS
    world.want("2")
    at(world, 10)
    assert sizes(world) == {"rev1": 2, "rev2": 1}
    assert world.status.canary is not None
    assert (world.status.canary.weight, world.status.canary.sharePercent) == (10, "33.3")
    said = next(a.message for a in world.told if a.reason.value == "StepStarted")
    assert "10 %, which pods make 33.3 % of new connections, to 2 (rev2)" in said
    said = next(a.message for a in world.told if a.reason.value == "WeightVerified")
    assert said.startswith("the endpoints of the Service are those of 10 %, which pods make 33.3 % of new connections: step 1 of 3")
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.rest()
    assert world.status.canary is not None
    assert world.status.canary.sharePercent == "50.0"
    at(world, 100)
    assert world.status.canary is not None
    assert (sizes(world), world.status.canary.sharePercent) == ({"rev1": 2, "rev2": 2}, "100")


def test_with_gateways_a_weight_is_exact_and_status_names_no_other_share() -> None:
    world = started()
    world.want("2")
    at(world, 5)
    assert world.status.canary is not None
    assert (world.status.router, world.status.canary.sharePercent) == (Router.BUILTIN, None)


def test_the_former_stable_gives_up_its_pods_before_the_next_canary_is_reached() -> None:
    world = own(keep=86_400)
    world.want("2")
    at(world, 100)
    world.run(70)
    assert sizes(world) == {"rev1": 2, "rev2": 2}, "kept to return to"
    world.linger = True
    world.want("3")
    world.run(20)
    assert world.place.canary is not None
    assert (world.place.canary.weight, world.lingering) == (0, {"rev1"})
    progressing = next(c for c in world.status.conditions if c.type == "Progressing")
    assert progressing.message.startswith("waiting for the pods of rev1 to go")
    world.linger = False
    at(world, 10)
    assert sizes(world) == {"rev2": 2, "rev3": 1}


def test_c01_the_canary_before_is_gone_before_the_next_one_is_reached() -> None:
    world = own()
    world.want("2")
    at(world, 50)
    world.want("3")
    world.one_pass()
    assert world.route is not None
    assert (world.route.stable, world.route.permille) == ("rev1", 0)
    world.run(10)
    assert "rev2" in world.arms, "its pods finish what they have"
    assert world.route.permille == 0
    at(world, 10)
    assert sizes(world) == {"rev1": 2, "rev3": 1}


def test_pods_of_a_third_revision_take_the_share_back_until_they_are_gone() -> None:
    world = own()
    world.want("2")
    at(world, 10)
    world.lingering, world.linger = {"rev9"}, True
    world.rest()
    assert world.route is not None
    assert world.route.permille == 0
    assert "pods of rev9, which is neither stable nor canary" in world.told[-1].message
    world.run(5)
    assert world.route.permille == 0
    world.linger = False
    at(world, 10)


@pytest.mark.parametrize("why", ["pods of a third revision", "it is not seen"])
def test_a_share_is_taken_back_only_where_stable_has_a_ready_pod(why: str) -> None:
    world = own()
    world.deaf = why == "it is not seen"
    world.want("2")
    while share(world)[1] != 100:
        world.run(1)
    world.pace, pods = 0, world.arms["rev1"]
    world.arms["rev1"] = replace(pods, ready=0)
    if not world.deaf:
        world.lingering, world.linger = {"rev9"}, True
    world.run(60)
    assert share(world) == ("rev2", 100), "callers would be led to nobody"
    world.arms["rev1"] = pods
    world.one_pass()
    assert share(world)[1] == 0


@pytest.mark.parametrize("ended_by", ["lost pods", "pods of a third revision"])
def test_without_traffic_a_canary_goes_on_with_the_step_whose_share_it_had_and_not_with_the_next(ended_by: str) -> None:
    world = with_a_pod_to_come()
    world.ask(skip_step="1")  # which passes the step before the pods of the next one are there
    world.run(1)
    assert world.place.canary is not None
    assert (world.place.canary.step, world.place.canary.weight) == (1, 10)
    if ended_by == "lost pods":
        world.arms["rev2"] = Arm(desired=2, ready=0)
    else:
        world.lingering, world.linger = {"rev9"}, True
    world.rest()
    assert world.route is not None
    assert world.route.permille == 0
    world.pace, world.linger = 1000, False
    while world.route.permille == 0:
        world.run(1, tick=0.5)
    assert world.route.permille == 100
    at(world, 50)


def test_b07_a_way_back_waits_for_pods_that_a_canary_has_cost() -> None:
    world = own(guard=3600, keep=3600)
    world.want("2")
    at(world, 100)
    world.run(70)
    assert world.place.canary is None
    world.want("3")
    at(world, 10)
    assert "rev1" not in sizes(world)
    world.want("2")
    world.run(20)
    assert sizes(world) == {"rev1": 2, "rev2": 2}, "the former stable is there again"
    world.judged = BREACHED
    world.run(3)
    world.judged = HEALTHY
    assert world.route is not None
    assert world.route.stable == "rev1"
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


@pytest.mark.parametrize("writes", range(1, 8))
def test_a_promotion_by_hand_that_dies_anywhere_lets_nobody_share_with_the_former_stable(writes: int) -> None:
    world = own(keep=86_400)
    world.want("2")
    at(world, 100)
    world.run(70)
    world.want("3")
    at(world, 10)
    world.ask(promote="now")
    for _ in range(20):
        world.one_pass(stop_after=writes)
        world.settle()
        assert world.route is not None
        if 0 < world.route.permille < 1000:
            assert set(sizes(world)) <= {"rev2", "rev3"}
        world.now += 1
    world.run(20)
    assert world.route is not None
    assert world.route.stable == "rev3"


def test_a_route_that_does_not_do_what_it_says_is_written_again_with_the_same_words() -> None:
    world = own()
    before, writes = world.traffic, len(world.writes)
    world.strays = True
    assert world.decide().wake_at is None, "what others go on editing is not written over and over"
    world.rest()
    assert (world.traffic, world.strays) == (before, False)
    assert [name for name in world.writes[writes:] if name != "events"] == ["route"]


def unreadable(world: World, *, ours: bool) -> Plan:
    observed = replace(world.observe(), route=Unknown("`generation` is missing"), strays=ours)
    return decide(observed, policy=world.policy, now=world.now)


def test_a_service_of_ours_that_cannot_be_read_is_written_from_the_place_unless_a_canary_is_held_by_it() -> None:
    world = own()
    written = unreadable(world, ours=True).route
    assert written is not None
    assert world.route is not None
    assert (written.state.stable, written.state.permille, written.falling) == ("rev1", 0, False)
    assert written.state.generation >= int(world.now)
    assert unreadable(world, ours=False).route is None, "of something else"
    world.want("2")
    at(world, 10)
    assert unreadable(world, ours=True).route is None
    assert unreadable(world, ours=True).reason is Reason.TRAFFIC_UNREADABLE


def test_a_service_that_cannot_be_read_is_written_from_the_place_of_what_was_halted() -> None:
    world = own(mode="Pause")
    world.want("2")
    at(world, 50)
    world.judged = BREACHED
    world.run(5)
    written = unreadable(world, ours=True).route
    assert written is not None
    assert (written.state.stable, written.state.canary, written.falling) == ("rev1", None, False)


@pytest.mark.parametrize("promoted", [False, True])
def test_the_pods_of_what_was_halted_go_and_with_them_the_connections_that_are_kept_alive(promoted: bool) -> None:
    world = own(mode="Pause", guard=600)
    world.want("2")
    at(world, 100 if promoted else 50)
    if promoted:
        world.run(70)
        assert world.place.canary is None
    world.judged = BREACHED
    world.one_pass()
    halted_at = world.now
    world.judged = HEALTHY
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    world.rest()
    assert sizes(world) == {"rev1": 2, "rev2": 2}, "it has a moment to finish what it has"
    wake = world.decide().wake_at
    assert wake is not None
    assert wake <= halted_at + 15
    world.run(16)
    assert sizes(world) == {"rev1": 2}
    world.ask(retry="now")
    at(world, 10)
    assert sizes(world) == {"rev1": 2, "rev2": 1}


def test_with_gateways_what_was_halted_keeps_its_pods() -> None:
    world = started(policy=policy(steps=STEPS, mode="Pause"))
    world.want("2")
    at(world, 50)
    world.judged = BREACHED
    world.run(60)
    assert sizes(world) == {"rev1": 2, "rev2": 1}


def test_c05_a_canary_that_serves_alone_is_what_the_autoscaler_scales_and_stable_can_take_it_all_back() -> None:
    world = own(replicas=4, autoscaling={"minReplicas": 2, "maxReplicas": 50})
    world.want("2")
    at(world, 50)
    assert world.decide().autoscaled == "rev1"
    at(world, 100)
    plan = world.decide()
    assert (plan.serving, plan.autoscaled, plan.may_shrink) == ("rev1", "rev2", False)
    world.scale("2", replicas=9)
    world.run(3)
    assert sizes(world) == {"rev1": 9, "rev2": 9}
    world.judged = BREACHED
    world.one_pass()
    assert world.decide().autoscaled == "rev1"
    world.run(3)
    assert world.arms["rev1"] == Arm(desired=9, ready=9)


@pytest.mark.parametrize("before", [True, False])
def test_a_canary_does_not_wait_for_ever_for_pods_of_a_third_revision_to_go(before: bool) -> None:
    """Such as those that are left of a Deployment that somebody deleted with `--cascade=orphan`."""
    world = own(deadline=120)
    if not before:
        world.want("2")
        at(world, 50)
    world.lingering, world.linger = {"rev9"}, True
    world.want("2")
    world.run(100)
    progressing = next(c for c in world.status.conditions if c.type == "Progressing")
    assert progressing.message.startswith("waiting for the pods of rev9 to go")
    assert world.place.canary is not None
    world.run(25)
    assert world.place.canary is None
    (rejection,) = world.place.rejected
    assert rejection.reason == Reason.CANARY_UNAVAILABLE
    assert "pods of rev9, which is neither stable nor canary, are still there after 120 s" in rejection.message
    world.linger = False
    world.ask(retry="now")
    at(world, 10)


def test_the_deadline_does_not_count_for_pods_that_are_given_time_to_finish() -> None:
    world = own(deadline=10)
    world.want("2")
    at(world, 50)
    world.want("3")
    at(world, 10)
    assert world.place.rejected == ()


def test_the_time_of_a_canarys_own_pods_and_that_of_a_former_stables_are_counted_apart() -> None:
    world = own(keep=86_400, deadline=120)
    world.want("2")
    at(world, 100)
    world.run(70)
    world.want("3")
    at(world, 10)
    world.want("2")
    world.run(20)
    assert sizes(world) == {"rev1": 2, "rev2": 2}, "the former stable was called back"
    world.pace, world.linger = 0, True
    world.want("4")
    world.run(100)
    world.pace = 1000
    world.run(60)
    assert world.place.canary is not None, "of its own pods it waited for 100 s, of the others for 60"
    world.lingering.clear()
    world.arms["rev4"], world.pace = replace(world.arms["rev4"], ready=0), 0
    world.run(100)
    assert world.place.canary is not None, "its own are to come again, and nothing else is waited for: they have their time anew"
    world.run(25)
    assert world.place.canary is None
    assert world.place.rejected[-1].message.endswith("0 of 1 pods ready after 120 s (`spec.canary.progressDeadlineSeconds`)")


def test_a_canary_whose_pod_comes_and_goes_beside_others_that_stay_does_not_wait_for_ever() -> None:
    world = own(deadline=120)
    world.lingering, world.linger = {"rev9"}, True
    world.want("2")
    for _ in range(6):
        world.pace = 1000
        world.run(10)
        assert world.place.canary is not None
        world.arms["rev2"], world.pace = replace(world.arms["rev2"], ready=0), 0
        world.run(10)
    world.run(5)
    assert world.place.canary is None
    assert "pods of rev9, which is neither stable nor canary, are still there after 120 s" in world.place.rejected[-1].message


def test_a_canary_whose_pods_and_others_come_and_go_by_turns_does_not_wait_for_ever() -> None:
    world = own(deadline=120)
    world.pace, world.linger = 0, True
    world.want("2")
    for _ in range(6):
        world.arms["rev2"], world.lingering = Arm(desired=1, ready=1), {"rev9"}
        world.run(30)
        assert world.place.canary is not None
        assert (world.place.canary.weight, said_of(world)[0]) == (0, "WaitingForReady")
        world.arms["rev2"], world.lingering = Arm(desired=1, ready=0), set()
        world.run(29)
    assert world.place.canary is not None, "of 360 s in all, for either, 354 are over"
    world.run(8)
    assert world.place.canary is None
    message = world.place.rejected[-1].message
    assert message.endswith(
        "0 of 1 pods ready: it has waited for the one or the other for 360 s (three times `spec.canary.progressDeadlineSeconds`)"
    )


def said_of(world: World) -> tuple[str, str]:
    progressing = next(c for c in world.status.conditions if c.type == "Progressing")
    return progressing.reason, progressing.message


def test_pods_that_stable_loses_are_said_and_no_step_passes_while_it_has_none() -> None:
    world = own(replicas=10)
    world.want("2")
    at(world, 10)
    assert "stable" not in said_of(world)[1]
    world.arms["rev1"] = Arm(desired=10, ready=1)
    world.rest()
    assert "10 %, which pods make 50.0 % of new connections (stable has 1 of 10 pods ready)" in said_of(world)[1]
    world.pace = 0
    world.arms["rev1"] = Arm(desired=10, ready=0)
    world.run(100)
    assert world.status.canary is not None
    assert (world.status.canary.weight, world.status.canary.sharePercent) == (10, "100.0")
    reason, message = said_of(world)
    assert reason == "StableUnready"
    assert message.endswith("(stable has 0 of 10 pods ready): no step is passed before stable has a ready pod")
    world.pace = 1000
    at(world, 50)
    assert "(stable has" not in said_of(world)[1]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_halt_is_told_in_the_words_of_a_service(deaf: bool) -> None:
    world = own(mode="Pause")
    world.want("2")
    at(world, 10)
    world.told.clear()
    world.judged, world.deaf = BREACHED, deaf
    world.run(70)
    said = next(a.message for a in world.told if "the halt of rev2" in a.message)
    assert "the endpoints of the Service" in said
    assert "gateway" not in said


@pytest.mark.parametrize("reason", [Reason.REFRESHED, Reason.WEIGHT_NOT_VERIFIED, Reason.METRICS_UNAVAILABLE])
def test_nothing_that_is_told_of_an_own_workload_with_its_advice_speaks_of_gateways(reason: Reason) -> None:
    world = own()
    match reason:
        case Reason.REFRESHED:
            world.ask(refresh="now")
        case Reason.WEIGHT_NOT_VERIFIED:
            world.want("2")
            world.deaf = True
        case _:
            world.want("2")
            at(world, 10)
            world.judged = UNSEEN
    world.run(60)
    said = next(a.message + advice_for(a.reason) for a in world.told if a.reason is reason)
    assert "gateway" not in said


@pytest.mark.parametrize("wish", ["1", "3"])
@pytest.mark.parametrize("weight", [10, 100])
def test_a_canary_that_serves_alone_is_not_left_by_a_wish_for_a_stable_without_a_pod(weight: int, wish: str) -> None:
    world = alone(weight)
    world.want(wish)
    world.run(30)
    assert world.route is not None
    assert (world.route.canary, world.route.permille) == ("rev2", weight * 10)
    assert "stable has 0 of 2 pods ready" in said_of(world)[1]
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.rest()
    assert world.route.permille == 0


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
@pytest.mark.parametrize("weight", [10, 100])
def test_a_canary_that_serves_alone_and_breaches_is_left_as_soon_as_stable_has_a_pod(mode: str, weight: int) -> None:
    world = alone(weight, mode=mode)
    world.judged = BREACHED
    world.run(30)
    assert share(world) == ("rev2", weight * 10), "nobody else could serve"
    assert said_of(world) == ("Returning", "rev2 serves alone and breaches latency: left as soon as stable has a ready pod")
    assert world.reasons().count("Returning") == 1
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.one_pass()
    assert share(world) == (None, 0)
    assert world.route is not None
    assert world.route.aborted is not None


def test_pods_to_come_are_not_made_and_ended_with_every_evaluation() -> None:
    world = with_a_pod_to_come()
    made = []
    for turn in range(60):
        world.judged = reading(Breaching(since=START)) if turn % 2 == 0 else HEALTHY
        world.run(10)
        made.append(sizes(world)["rev2"])
    changes = sum(1 for before, after in pairwise(made) if before != after)
    assert 8 <= changes <= 20, "twice in two minutes they are made and ended, where without a pause that were 59 changes"
    world.judged, world.pace = HEALTHY, 1000
    world.run(125)
    assert max(permille for _, _, _, permille in world.shares) >= 500


@pytest.mark.parametrize(("seconds", "every"), [(60, 140), (60, 150), (100, 180), (30, 125), (30, 70)])
def test_pods_that_take_long_come_between_moments_that_end_them(seconds: int, every: int) -> None:
    world = with_a_pod_to_come()
    lacking = 0
    for second in range(1, 2 * every + 2 * PODS_AGAIN):
        world.judged = UNSEEN if second % every < 5 else HEALTHY
        lacking = lacking + 1 if sizes(world)["rev2"] > world.arms["rev2"].ready else 0
        if lacking > seconds:
            world.arms["rev2"] = Arm(desired=2, ready=2)
        world.run(1)
    assert max(permille for _, _, _, permille in world.shares) >= 500, (
        "a pause before pods are made anew is not met by what ended them each time"
    )


def test_time_in_which_stable_is_as_short_of_pods_is_no_time_by_turns() -> None:
    world = own(deadline=120)
    world.linger, world.pace = True, 0
    world.want("2")
    world.rest()
    world.policy = policy(steps=((50, 60), (100, 60)), own=True, deadline=120)
    world.arms |= {"rev1": Arm(desired=2, ready=1), "rev2": Arm(desired=2, ready=1)}
    world.lingering = {"rev9"}
    world.run(1000)
    world.arms |= {"rev1": Arm(desired=2, ready=2), "rev2": Arm(desired=2, ready=2)}
    world.run(100)
    assert world.place.canary is not None, "others' pods have their time from when its own were there"
    world.linger = False
    at(world, 50)


def test_others_that_come_after_a_shortage_that_stable_shares_have_their_time() -> None:
    world = with_a_pod_to_come()
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.run(1000)
    world.linger, world.lingering = True, {"rev9"}
    world.run(100)
    assert world.place.canary is not None
    world.linger = False
    at(world, 10)


def test_a_promotion_by_hand_has_its_time_for_pods_whatever_was_waited_for_before() -> None:
    world = own(deadline=120)
    world.pace, world.linger = 0, True
    world.want("2")
    for _ in range(6):
        world.arms["rev2"], world.lingering = Arm(desired=1, ready=1), {"rev9"}
        world.run(27)
        world.arms["rev2"], world.lingering = Arm(desired=1, ready=0), set()
        world.run(27)
    world.ask(promote="1")
    world.run(100)
    assert world.place.canary is not None
    world.pace = 1000
    world.run(20)
    assert is_stable(world, "2")


def test_a_wait_that_an_earlier_version_wrote_counts_from_now_on() -> None:
    world = own(deadline=120)
    world.pace = 0
    world.want("2")
    world.run(20)
    assert world.status.canary is not None
    world.status = world.status.model_copy(update={"canary": world.status.canary.model_copy(update={"waitingSince": None})})
    world.run(1)
    assert world.place.canary is not None
    assert world.place.canary.waiting_since == pytest.approx(world.now, abs=1.5)
    world.run(105)
    assert world.place.canary is None, "the deadline of its own pods has gone on"


@pytest.mark.parametrize("beside", ["spec", "route"])
def test_that_what_serves_alone_is_left_is_said_beside_a_spec_or_a_route_that_cannot_be_followed(beside: str) -> None:
    world = alone(100)
    world.judged = BREACHED
    world.rest()
    if beside == "spec":
        world.wanted = MISSING
    else:
        world.unread = True
    world.run(5)
    assert (world.status.phase, world.status.reason) == ("Progressing", "Returning")
    why = "rev2 serves alone and breaches latency: left as soon as stable has a ready pod"
    expected = ("Returning", why) if beside == "spec" else ("TrafficUnreadable", f"{why}; it cannot be read; put it right")
    assert said_of(world) == expected, "nobody is told to end what serves alone"
    agree_with_kstatus(world.decide())
    if beside == "spec":
        said = {c.type: (c.status, c.reason) for c in world.status.conditions}
        assert said["ResolvedRefs"] == ("False", MISSING.reason)
        assert said["Stalled"] == ("True", MISSING.reason)
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.one_pass()
    assert share(world) == (None, 0)


@pytest.mark.parametrize("beside", ["nothing", "a pause", "a spec that cannot be followed", "a switch", "a breach"])
def test_where_neither_has_a_ready_pod_the_one_that_has_one_first_serves(beside: str) -> None:
    world = own()
    if beside == "a switch":
        switched(world, stable=0)
    else:
        world.want("2")
        at(world, 100)
    if beside == "a pause":
        world.policy = policy(steps=STEPS, own=True, paused=True)
    elif beside == "a spec that cannot be followed":
        world.wanted = MISSING
    elif beside == "a breach":
        world.judged = BREACHED
    world.pace = 0
    world.arms["rev1"] = Arm(desired=2, ready=0)
    world.arms["rev2"] = Arm(desired=2, ready=0)
    world.deaf = False
    world.run(20)
    assert world.reasons().count("CanaryUnready") == 1
    assert world.status.reason == ("Paused" if beside == "a pause" else MISSING.reason if world.wanted is MISSING else "CanaryUnready")
    for ready in (1, 0, 1):
        world.arms["rev2"] = Arm(desired=2, ready=ready)
        world.run(5)
        assert is_stable(world, "2") if beside == "a switch" else share(world) == ("rev2", 1000)
    assert world.route is not None
    assert (world.route.stable == "rev2") == (beside == "a switch")


def test_a_canary_without_a_ready_pod_loses_its_share_as_soon_as_stable_has_one_again() -> None:
    world = switched(own(), stable=0)
    world.arms["rev2"] = Arm(desired=2, ready=0)
    world.run(30)
    assert world.place.canary is not None, "nobody becomes stable without a pod"
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.one_pass()
    assert world.route is not None
    assert (world.route.stable, share(world)) == ("rev1", ("rev2", 0))


def test_a_canary_that_is_not_wanted_any_more_goes_no_further_by_a_skipped_step() -> None:
    world = alone(10)
    world.want("3")
    world.ask(skip_step="1")
    world.run(20)
    assert share(world) == ("rev2", 100)
    assert "TokenWithoutEffect" in world.reasons()


@pytest.mark.parametrize("why", ["metrics", "exits"])
def test_a_canary_that_serves_alone_is_not_left_for_nobody_whatever_speaks_against_it(why: str) -> None:
    world = alone(100, blind={"action": "Rollback", "afterSeconds": 60})
    if why == "metrics":
        world.judged = UNSEEN
    else:
        world.arms["rev2"] = replace(world.arms["rev2"], exits=3)
    world.run(100)
    assert share(world) == ("rev2", 1000), "nobody else could serve"
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.one_pass()
    assert share(world) == (None, 0)


def switched(world: World, *, stable: int) -> World:
    """The promotion is switched and waits to be seen, and of stable so many pods are ready."""
    world.want("2")
    at(world, 100)
    world.deaf = True
    while world.place.canary is None or world.place.canary.routed_at is None:
        world.run(1)
    world.pace = 0
    world.arms["rev1"] = Arm(desired=2, ready=stable)
    return world


@pytest.mark.parametrize("guard", [0, 600])
def test_a_breach_after_the_switch_of_a_promotion_leads_nobody_to_a_stable_without_a_pod_and_is_not_forgotten(guard: int) -> None:
    world = switched(own(guard=guard), stable=0)
    world.judged = BREACHED
    world.run(15)
    assert world.route is not None
    assert (world.route.stable, world.route.aborted) == ("rev2", None), "nobody else could serve"
    assert is_stable(world, "2")
    assert said_of(world)[0] == "Stable"
    assert next(c for c in world.status.conditions if c.type == "Ready").reason == "Returning"
    assert world.reasons().count("Returning") == 1
    watch = world.place.guard
    assert watch is not None
    assert watch.returning is not None
    assert watch.until - watch.returning.at == guard
    world.judged = HEALTHY  # nobody asks any more
    world.run(100)
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.one_pass()
    assert (world.route.stable, share(world)) == ("rev1", (None, 0))
    assert world.place.rejection_of("rev2") is not None


@pytest.mark.parametrize("then", [None, UNSEEN, HEALTHY])
def test_a_breach_that_was_told_of_after_the_switch_and_cannot_be_seen_at_its_end_is_looked_for_again(then: SLOReading | None) -> None:
    world = switched(own(guard=0), stable=0)
    world.judged = BREACHED
    world.run(3)
    assert world.reasons()[-1] == "Returning"
    world.judged = then  # where nothing is read, another operator has begun
    world.run(12)
    assert is_stable(world, "2")
    world.judged = BREACHED
    world.arms["rev1"] = Arm(desired=2, ready=2)
    world.run(5)
    assert is_stable(world, "2" if then is HEALTHY else "1")


@pytest.mark.parametrize("ready", [0, 1])
def test_exits_after_the_switch_of_a_promotion_lead_callers_back_where_stable_has_a_pod(ready: int) -> None:
    world = switched(own(), stable=ready)
    world.arms["rev2"] = replace(world.arms["rev2"], exits=3)
    world.run(15)
    assert is_stable(world, "1" if ready else "2")
    assert world.route is not None
    assert world.route.stable == ("rev1" if ready else "rev2")


def test_a_person_keeps_what_serves_alone_and_breaches_where_stable_has_no_pod() -> None:
    world = own()
    world.want("2")
    at(world, 100)
    world.broken.add("rev1")
    world.settle()
    world.judged = BREACHED
    world.run(3)
    world.ask(promote="now")
    world.run(15)
    assert is_stable(world, "2")


def test_a_person_who_promotes_it_keeps_it_only_if_its_pods_are_there_before_one_of_stable() -> None:
    world = own()
    world.want("2")
    at(world, 10)
    world.pace, world.judged = 0, BREACHED
    world.arms["rev1"] = Arm(desired=2, ready=0)
    world.ask(promote="now")
    world.run(30)
    assert share(world) == ("rev2", 100), "one of its two pods is still to come"
    world.arms["rev1"] = Arm(desired=2, ready=1)
    world.one_pass()
    assert share(world) == (None, 0)


@pytest.mark.parametrize("why", ["a dry run", "no breach any more", "deletion"])
def test_nothing_waits_for_a_pod_of_stable_where_a_canary_that_serves_alone_is_not_to_be_left_for_a_breach(why: str) -> None:
    world = alone(100, mode="DryRun" if why == "a dry run" else "Automatic")
    world.judged = BREACHED
    world.rest()
    match why:
        case "a dry run":
            assert "WouldRollBack" in world.reasons()
        case "no breach any more":
            world.judged = HEALTHY
        case _:
            world.delete()
    world.rest()
    assert world.route is not None
    assert world.route.permille == (0 if why == "deletion" else 1000)
    if why != "deletion":
        assert said_of(world)[0] == "StableUnready"


@pytest.mark.parametrize("held", ["pause", "route", "spec", "unknown", "breaching"])
def test_while_something_keeps_the_step_from_passing_no_pod_is_added_to_its_share(held: str) -> None:
    world = with_a_pod_to_come()
    assert sizes(world) == {"rev1": 2, "rev2": 2}
    match held:
        case "pause":
            world.policy = policy(steps=STEPS, own=True, paused=True)
        case "route":
            world.unread = True
        case "spec":
            world.wanted = MISSING
        case "unknown":
            world.judged = UNSEEN
        case _:
            world.judged = reading(Breaching(since=START))
    world.rest()
    assert sizes(world) == {"rev1": 2, "rev2": 1}
    world.pace = 1000
    world.run(30)
    assert (share(world), sizes(world)["rev2"]) == (("rev2", 100), 1)
    if held == "unknown":
        assert said_of(world)[0] == "MetricsUnavailable"
    world.policy, world.unread, world.judged = policy(steps=STEPS, own=True), False, HEALTHY
    world.want("2")
    if held != "pause":  # which is a person's; anything else may come back at once
        world.run(85)
        assert (share(world), sizes(world)["rev2"]) == (("rev2", 100), 1)
        assert said_of(world)[1].endswith("something else kept this one from passing, are made again 120 s after that")
    world.run(8)
    assert share(world) == ("rev2", 500)
    assert sizes(world) == {"rev1": 2, "rev2": 2}


def test_pods_that_serve_already_stay_while_something_keeps_the_step_from_passing() -> None:
    world = started(policy=policy(steps=STEPS, own=True, replicas=10))
    world.want("2")
    at(world, 10)
    world.pace = 0
    while sizes(world)["rev2"] == 1:
        world.run(1)
    world.arms["rev2"] = Arm(desired=10, ready=4)
    world.judged = UNSEEN
    world.rest()
    assert (world.arms["rev2"], share(world)) == (Arm(desired=4, ready=4), ("rev2", 100))


def test_pods_that_are_there_when_metrics_are_not_begin_no_step() -> None:
    world = with_a_pod_to_come()
    world.arms["rev2"], world.judged = Arm(desired=2, ready=2), UNSEEN
    world.run(30)
    assert share(world) == ("rev2", 100)
    world.judged = HEALTHY
    world.run(5)
    assert share(world) == ("rev2", 500)
