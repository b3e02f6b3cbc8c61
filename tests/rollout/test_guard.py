"""The guard window: stable is watched after its promotion, and the revision before it is one step away.

In one file although it is long: every way into and out of one state is read beside the others.
"""

from dataclasses import replace

import pytest

from backstop.analysis.reading import Breached, Breaching, Healthy, Unknown, Waiting
from backstop.api.clock import render_time
from backstop.api.condition import ConditionType
from backstop.api.policystatus import FallbackPolicyStatus, GuardStatus
from backstop.api.reasons import Reason, event_type
from backstop.controller.changes import changes_told
from backstop.gateway.split import Forward, route
from backstop.rollout.observed import Unresolved
from backstop.rollout.place import Outcome
from backstop.rollout.plan import Plan
from backstop.rollout.statusmap import place_of, status_of
from tests.rollout.kstatus import agree_with_kstatus
from tests.rollout.world import BREACHED, HEALTHY, START, UNSEEN, World, is_stable, policy, reading, revision, started, until_switched

GUARD = 600
STEPS = ((50, 20), (100, 20))
COMPARED = 30 + 10 + 10 + 5  # `forSeconds`, the trailing window, the warm-up, and some passes


def promoted(*, keep: int = GUARD, **changes: object) -> World:
    """A world in which version 2 has just replaced version 1."""
    world = started(policy=policy(steps=STEPS, guard=GUARD, keep=keep, **changes))  # type: ignore[arg-type]
    world.want("2")
    while world.place.stable is None or world.place.stable.revision != revision("2"):
        world.run(1)
    return world


def condition(plan: Plan, kind: ConditionType) -> tuple[str, Reason, str] | None:
    return next(((c.status, c.reason, c.message) for c in plan.conditions if c.type is kind), None)


def shares(world: World) -> tuple[str, str | None, int]:
    assert world.route is not None
    return world.route.stable, world.route.canary, world.route.permille


def test_b07_a_breach_in_the_guard_window_goes_back_to_the_previous_stable_with_the_first_write() -> None:
    world = promoted()
    assert world.decide().phase == "Guarding"
    world.run(100)
    world.judged = BREACHED
    world.writes.clear()
    plan = world.one_pass()
    assert world.writes[0] == "route"
    assert shares(world) == ("rev1", None, 0)
    assert plan.route is not None
    assert plan.route.state.aborted is not None
    assert plan.route.state.aborted.revision == "rev2"
    world.judged = HEALTHY
    world.run(3)
    assert world.serving == "rev1"
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.revision) == (Outcome.ROLLED_BACK, revision("2"))
    assert world.place.last.shifted_at is not None
    assert condition(world.decide(), ConditionType.READY) is not None
    assert (world.decide().phase, world.decide().reason) == ("RolledBack", Reason.LATENCY_BREACH)
    world.run(1000)
    assert shares(world) == ("rev1", None, 0), "the rejected revision is not tried again"
    assert set(world.arms) == {"rev1"}


def test_the_verdict_on_the_prompt_waits_until_the_previous_stable_is_seen_to_do_better() -> None:
    world = promoted()
    world.judged = BREACHED
    world.one_pass()
    world.judged = HEALTHY
    world.run(COMPARED - 20)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.suspected
    assert world.verdicts == []
    stalled = condition(world.decide(), ConditionType.STALLED)
    assert stalled is not None
    assert "not certain" in stalled[2]
    world.run(25)
    assert "RejectionConfirmed" in world.reasons()
    assert [v.revision.name for v in world.verdicts] == ["rev2"]
    assert world.place.guard is None


@pytest.mark.parametrize(
    "judged",
    [UNSEEN, None, reading(Waiting(more=20)), replace(HEALTHY, over=True)],
    ids=["unknown", "not evaluated", "too few requests", "over the limit, too little evidence"],
)
def test_what_could_not_be_compared_in_the_time_for_that_stays_rejected_for_good(judged: object) -> None:
    world = promoted()
    world.judged = BREACHED
    world.one_pass()
    world.judged = judged  # type: ignore[assignment]
    world.run(GUARD - 10)
    assert world.place.rejected[-1].suspected
    assert world.verdicts == []
    world.run(110)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert not rejection.suspected
    assert [v.revision.name for v in world.verdicts] == ["rev2"]
    assert world.reasons().count("RejectionConfirmed") == 1
    assert world.place.guard is None, "the watch ends"
    assert shares(world) == ("rev1", None, 0)


@pytest.mark.parametrize("how", ["named", "promoted"])
def test_a_rollout_that_begins_before_the_comparison_ends_leaves_the_rejection_for_good(how: str) -> None:
    world = promoted()
    world.judged = BREACHED
    world.one_pass()
    world.judged = HEALTHY
    world.run(5)
    assert world.place.rejected[-1].suspected
    world.want("3")
    if how == "promoted":
        world.ask(promote="1")
    world.run(2)
    assert is_stable(world, "3") is (how == "promoted")
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert not rejection.suspected
    assert [v.revision.name for v in world.verdicts] == ["rev2"]
    assert world.reasons().count("RejectionConfirmed") == 1
    world.run(900)
    assert is_stable(world, "3")
    assert [v.revision.name for v in world.verdicts] == ["rev2"]


def test_a_suspect_that_a_person_has_tried_again_is_not_rejected_for_that() -> None:
    world = promoted()
    world.judged = BREACHED
    world.one_pass()
    world.judged = HEALTHY
    world.run(5)
    world.ask(retry="1")
    world.run(900)
    assert is_stable(world, "2")
    assert world.verdicts == []
    assert "RejectionConfirmed" not in world.reasons()


@pytest.mark.parametrize("dies", [False, True])
def test_a_policy_that_is_deleted_while_it_compares_leaves_the_rejection_for_good(dies: bool) -> None:
    world = promoted()
    world.judged = BREACHED
    world.one_pass()
    world.judged = HEALTHY
    world.run(10)
    world.delete()
    if dies:
        world.one_pass(stop_after=1)
    world.run(5)
    assert not world.exists
    world.create_anew()
    world.kept = None  # a day later
    world.run(30)
    assert world.place.stable is None
    assert world.place.rejection_of("rev2") is not None


def test_b15_a_breach_that_the_previous_stable_shares_is_an_incident_and_nothing_moves_again() -> None:
    world = promoted()
    world.judged = BREACHED
    world.run(COMPARED)
    assert world.reasons().count("SharedIncident") == 1
    assert world.place.rejection_of("rev2") is None
    assert world.verdicts == []
    assert shares(world) == ("rev1", None, 0)
    assert world.route is not None
    assert world.route.aborted is None, "the verdict is withdrawn from the traffic object too"
    generation = world.route.generation
    plan = world.decide()
    assert plan.reason is Reason.SHARED_INCIDENT
    for kind, status in ((ConditionType.STALLED, "True"), (ConditionType.READY, "False"), (ConditionType.PROGRESSING, "False")):
        found = condition(plan, kind)
        assert found is not None
        assert found[0] == status
    assert condition(plan, ConditionType.RECONCILING) is None
    world.judged = HEALTHY
    world.run(2000)
    assert world.route.generation == generation, "no second move, whatever becomes of the incident"


def test_after_a_shared_incident_a_person_or_the_spec_goes_on() -> None:
    for go_on in ("retry", "promote", "spec"):
        world = promoted()
        world.judged = BREACHED
        world.run(COMPARED)
        world.judged = HEALTHY
        if go_on == "spec":
            world.want("3")
        else:
            world.ask(**{go_on: "now"})
        world.run(100)
        assert world.place.stable is not None
        assert world.place.stable.revision == revision("3" if go_on == "spec" else "2")
        assert world.place.incident is None


def test_a_spec_that_asks_for_the_stable_of_an_incident_is_ready() -> None:
    world = promoted()
    world.judged = BREACHED
    world.run(COMPARED)
    world.want("1")
    world.run(2)
    ready = condition(world.decide(), ConditionType.READY)
    assert ready is not None
    assert ready[0] == "True"
    assert world.place.incident is None


def test_a_way_back_to_pods_that_are_gone_follows_their_readiness() -> None:
    world = promoted(keep=15)
    world.run(100)
    assert set(world.arms) == {"rev2"}, "the previous stable is scaled away after keepPreviousSeconds"
    world.broken.add("rev1")
    world.judged = BREACHED
    world.run(50)
    assert shares(world)[0] == "rev2", "nothing else can serve"
    assert world.arms["rev1"].desired == 2
    assert world.reasons().count("Returning") == 1
    ready = condition(world.decide(), ConditionType.READY)
    assert ready is not None
    assert (ready[1], "rev1" in ready[2]) == (Reason.RETURNING, True)
    world.broken.clear()
    world.judged = HEALTHY
    world.run(3)
    assert shares(world) == ("rev1", None, 0)


@pytest.mark.parametrize(("wanted", "seconds"), [("2", 5), ("2", 300), ("4", 5)])
def test_that_nobody_serves_is_said_though_stable_is_to_be_left(wanted: str, seconds: int) -> None:
    world = promoted(keep=15)
    world.run(100)
    world.broken |= {"rev1", "rev2", "rev4"}
    world.judged = BREACHED
    world.want(wanted)
    world.run(5)
    assert world.place.guard is not None
    assert world.place.guard.returning is not None
    world.run(seconds)
    plan = world.decide()
    assert (plan.phase, plan.reason) == ("Guarding", Reason.STABLE_UNREADY)
    if wanted == "4":
        why = "no pod of stable rev2 is ready: it is left for rev1 as soon as that has its pods: "
        assert condition(plan, ConditionType.PROGRESSING) == ("True", Reason.STABLE_UNREADY, f"{why}{BREACHED.evidence}")
    agree_with_kstatus(plan)


def test_a_late_way_back_goes_on_where_the_spec_asks_for_what_it_leads_to() -> None:
    world = promoted(keep=15)
    world.run(100)
    world.broken.add("rev1")
    world.judged = BREACHED
    world.run(5)
    world.want("1")
    world.run(world.policy.canary.progressDeadlineSeconds * 3)
    assert (world.status.phase, world.status.reason) == ("Guarding", "ReturnUnavailable")
    assert world.place.rejected == ()
    world.broken.clear()
    world.settle()
    world.rest()
    assert shares(world) == ("rev1", None, 0)
    assert world.place.rejection_of("rev2") is not None


@pytest.mark.parametrize("beside", ["spec", "rejected", "another"])
@pytest.mark.parametrize("unread", [False, True])
def test_that_stable_is_to_be_left_is_said_whatever_the_spec_asks_for_and_the_route_says(beside: str, unread: bool) -> None:
    world = promoted(keep=15)
    if beside == "rejected":
        world.want("3")
        world.run(5)
        world.ask(abort="now")
    world.run(100)
    world.broken.add("rev1")
    world.judged = BREACHED
    world.rest()
    if beside == "spec":
        world.wanted = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v9`, which does not exist; create it")
    elif beside == "another":
        world.want("4")
    world.unread, before = unread, list(world.status.conditions)
    world.run(5)
    plan = world.decide()
    assert (plan.phase, plan.reason) == ("Blocked" if beside == "spec" else "Guarding", Reason.RETURNING), "the alert goes by the phase"
    why = "2 (rev2) is left for 1 (rev1) as soon as that has its pods: latency: 61 of 412 canary requests over 150 ms"
    said = (Reason.RETURNING, why)
    if unread:
        said = Reason.TRAFFIC_UNREADABLE, f"{why}; it cannot be read; delete the traffic object to have it written anew"
    assert condition(plan, ConditionType.PROGRESSING) == ("True", *said)
    told = changes_told(before, after=plan.conditions, problem=None)
    assert (Reason.TRAFFIC_UNREADABLE in {change.reason for change in told}) == unread
    stalled = condition(plan, ConditionType.STALLED)
    assert (stalled[1] if stalled is not None else None) == {
        "spec": Reason.PROMPT_VERSION_NOT_FOUND,
        "rejected": Reason.ROLLED_BACK,
        "another": None,
    }[beside]
    agree_with_kstatus(plan)
    world.broken.clear()
    world.settle()
    world.rest()
    assert shares(world)[0] == "rev1"


def test_a_breach_with_nothing_to_return_to_is_told_once_and_moves_nothing() -> None:
    world = started(policy=policy(guard=GUARD))
    world.judged = BREACHED
    world.run(100)
    assert world.reasons().count("NothingToReturnTo") == 1
    assert shares(world) == ("rev1", None, 0)
    ready = condition(world.decide(), ConditionType.READY)
    assert ready is not None
    assert ready[:2] == ("True", Reason.LATENCY_BREACH)


def test_after_the_guard_window_stable_is_not_judged_any_more() -> None:
    world = promoted()
    world.run(GUARD)
    assert world.place.guard is None
    assert world.place.previous is None
    assert world.decide().phase == "Idle"
    world.judged = BREACHED
    world.run(100)
    assert shares(world) == ("rev2", None, 0)


def test_guard_seconds_of_0_means_no_watch() -> None:
    world = started(policy=policy(steps=STEPS, guard=0))
    world.want("2")
    world.run(60)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.place.guard is None


def test_c04_a_return_to_the_previous_version_inside_the_guard_window_needs_no_analysis() -> None:
    world = promoted()
    world.judged = None
    world.want("1")
    world.run(3)
    assert shares(world) == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert world.serving == "rev1"
    assert world.place.rejected == ()
    assert world.place.last is not None
    assert world.place.last.reason == Reason.RETURNED_TO_PREVIOUS
    # Asked for, so nothing to be warned of.
    assert event_type(next(told.reason for told in world.told if "asks for 1 (rev1) again" in told.message)) == "Normal"
    assert not any(permille for _, stable, _, permille in world.shares if stable == "rev2")
    assert world.place.guard is None


def test_c04_outside_of_the_guard_window_it_is_a_rollout_like_any_other() -> None:
    world = promoted(keep=2 * GUARD)
    world.run(GUARD)
    world.want("1")
    world.run(5)
    assert shares(world) == ("rev2", "rev1", 500)


def test_a_return_that_is_asked_for_waits_for_pods_at_full_size() -> None:
    world = promoted(keep=15)
    world.run(100)
    world.broken.add("rev1")
    world.want("1")
    world.run(20)
    assert shares(world)[0] == "rev2"
    world.broken.clear()
    world.run(3)
    assert shares(world) == ("rev1", None, 0)


@pytest.mark.parametrize("writes", range(8))
def test_an_operator_that_dies_in_the_way_back_finishes_it(writes: int) -> None:
    world = promoted()
    world.run(20)
    world.judged = BREACHED
    world.one_pass(stop_after=writes)
    if writes == 0:
        world.one_pass()
    world.judged = HEALTHY
    world.run(COMPARED)
    assert shares(world) == ("rev1", None, 0)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert [v.revision.name for v in world.verdicts] == ["rev2"]
    assert world.serving == "rev1"


def test_with_mode_pause_the_revision_that_was_left_waits_for_a_person() -> None:
    world = promoted(mode="Pause")
    world.judged = BREACHED
    world.run(3)
    assert shares(world) == ("rev1", None, 0), "its pods pass on what still reaches them"
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    assert world.place.rejected == ()
    world.judged = HEALTHY
    world.ask(retry="again")
    world.run(100)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_what_is_halted_in_its_guard_window_serves_nobody_who_is_still_connected_to_it() -> None:
    world = promoted(mode="Pause", replicas=10)
    world.judged = BREACHED
    world.one_pass()
    assert isinstance(route("rev2", state=world.route, draw=0.5), Forward)
    assert world.arms["rev2"].desired == 10, "its pods are still the entry, until the Services point elsewhere"


def test_what_is_halted_in_its_promotion_serves_nobody_who_is_still_connected_to_it() -> None:
    world = started(policy=policy(steps=STEPS, guard=GUARD, mode="Pause"))
    world.want("2")
    until_switched(world)
    world.deaf = True
    world.judged = BREACHED
    world.one_pass()
    assert world.place.canary is not None
    assert world.place.canary.halted is not None
    assert isinstance(route("rev2", state=world.route, draw=0.5), Forward)


def test_a_way_back_to_pods_that_are_made_anew_waits_for_all_of_them_for_a_while() -> None:
    world = promoted(keep=15, replicas=10)
    world.run(100)
    world.pace = 1
    world.judged = BREACHED
    world.run(8)
    assert world.arms["rev1"].ready < 10
    assert shares(world)[0] == "rev2"
    world.pace = 0
    world.run(30)
    assert 0 < world.arms["rev1"].ready < 10
    assert shares(world)[0] == "rev1"


def test_nothing_goes_back_to_a_revision_that_was_rejected_on_its_way_back() -> None:
    world = promoted()
    world.deaf = True
    world.want("1")
    world.rest()
    world.ask(abort="never mind")
    world.rest()
    assert world.place.rejection_of("rev1") is not None
    world.judged = BREACHED
    world.run(20)
    assert shares(world)[0] == "rev2"
    assert world.reasons().count("NothingToReturnTo") == 1


def test_a_policy_that_is_deleted_in_its_way_back_goes_on_with_the_way_back() -> None:
    world = promoted()
    world.deaf = True
    world.judged = BREACHED
    world.one_pass(stop_after=1)
    world.finalizer = True  # as while a promotion is not yet seen on every gateway
    world.delete()
    world.one_pass()
    assert shares(world)[0] == "rev1"
    assert world.route is not None
    assert world.route.aborted is not None


def test_with_mode_dry_run_a_breach_in_the_guard_window_is_told_once() -> None:
    world = promoted(mode="DryRun")
    world.judged = BREACHED
    world.run(100)
    assert world.reasons().count("WouldRollBack") == 1
    assert shares(world) == ("rev2", None, 0)


@pytest.mark.parametrize("told", ["WouldRollBack", "NothingToReturnTo"])
def test_slos_that_are_breached_in_turns_in_the_guard_window_are_told_of_once_each(told: str) -> None:
    world = promoted(mode="DryRun") if told == "WouldRollBack" else started(policy=policy(guard=GUARD))
    for reason in (Reason.LATENCY_BREACH, Reason.TOKENS_BREACH, Reason.COST_BREACH) * 3:
        world.judged = replace(BREACHED, reason=reason)
        world.run(5)
    assert world.reasons().count(told) == 3
    assert world.place.guard is not None
    assert world.place.guard.reported == ("LatencyBreach", "TokensBreach", "CostBreach")


def test_a_breach_of_stable_that_an_operator_of_an_earlier_version_has_told_of_is_still_known() -> None:
    status = GuardStatus.model_validate({"until": render_time(START + GUARD), "reported": "LatencyBreach"})
    place = place_of(FallbackPolicyStatus(guard=status))
    assert place.guard is not None
    assert place.guard.reported == ("LatencyBreach",)


def test_a_way_back_that_was_late_before_a_dry_run_is_told_of_again_when_it_is_late_after_it() -> None:
    world = promoted(keep=15)
    world.broken = {"rev1"}
    world.run(60)
    for mode in ("Automatic", "DryRun", "Automatic"):
        world.policy = policy(steps=STEPS, guard=GUARD, keep=15, mode=mode)
        world.judged = BREACHED
        world.run(150)
    assert world.reasons().count("ReturnUnavailable") == 2
    assert world.reasons().count("WouldRollBack") == 1


def test_what_a_person_had_promoted_is_watched_and_stays() -> None:
    world = started(policy=policy(steps=STEPS, guard=GUARD, keep=GUARD))
    world.want("2")
    world.judged = BREACHED
    world.run(10)
    assert world.place.rejection_of("rev2") is not None
    world.ask(promote="I know better")
    world.run(100)
    assert shares(world) == ("rev2", None, 0)
    assert world.reasons().count("WouldRollBack") == 1


@pytest.mark.parametrize("reason", [Reason.LATENCY_BREACH, Reason.TOKENS_BREACH, Reason.COST_BREACH])
def test_a_breach_at_100_percent_is_a_suspicion_until_stable_is_seen_to_do_better(reason: Reason) -> None:
    world = started(policy=policy(steps=STEPS, guard=GUARD))
    world.want("2")
    while world.route is None or world.route.permille != 1000:
        world.run(1)
    world.judged = replace(BREACHED, reason=reason)
    world.one_pass()
    assert shares(world) == ("rev1", None, 0)
    assert world.place.rejected[-1].suspected
    world.judged = HEALTHY
    world.run(COMPARED)
    assert [v.revision.name for v in world.verdicts] == ["rev2"]


def test_a_suspicion_stays_one_when_status_is_lost_and_is_compared_then() -> None:
    world = started(policy=policy(steps=STEPS, guard=GUARD))
    world.want("2")
    while world.route is None or world.route.permille != 1000:
        world.run(1)
    world.judged = BREACHED
    world.one_pass()
    world.settle()
    world.status = FallbackPolicyStatus()
    world.one_pass()
    (rejection,) = world.place.rejected
    assert rejection.suspected
    assert world.place.guard is not None
    assert world.place.guard.suspect == "rev2"
    assert world.verdicts == []
    world.judged = HEALTHY
    world.run(COMPARED)
    assert [r.suspected for r in world.place.rejected] == [False]


def test_a_breach_below_100_percent_was_compared_with_stable_and_is_certain() -> None:
    world = started(policy=policy(steps=STEPS, guard=GUARD))
    world.want("2")
    world.run(10)
    world.judged = BREACHED
    world.run(2)
    assert not world.place.rejected[-1].suspected
    assert [v.revision.name for v in world.verdicts] == ["rev2"]


def test_a_canary_in_the_guard_window_leaves_the_way_back_open() -> None:
    world = promoted()
    world.want("3")
    world.run(5)
    assert shares(world) == ("rev2", "rev3", 500)
    world.judged = BREACHED
    world.one_pass()
    assert shares(world) == ("rev2", None, 0)
    world.judged = HEALTHY
    world.run(10)
    assert world.place.guard is not None, "what became stable before is watched on"
    world.judged = BREACHED
    world.run(2)
    assert shares(world) == ("rev1", None, 0)


@pytest.mark.parametrize("weight", [50, 1000], ids=["a canary", "stable"])
def test_b03_what_a_rollback_was_decided_from_stays_in_status_while_stable_is_watched(weight: int) -> None:
    world = promoted()
    if weight == 50:
        world.want("3")
        world.run(5)
    world.judged = BREACHED
    world.one_pass()
    assert [slo.state for slo in world.status.slos] == ["Breached"]
    world.judged = HEALTHY
    world.run(COMPARED)
    assert world.place.stable is not None
    assert [slo.state for slo in world.status.slos] == ["Breached"]
    assert world.status.decidingSLO == "latency"
    world.want("4")
    world.run(5)
    assert [slo.state for slo in world.status.slos] == ["Healthy"]
    assert world.status.decidingSLO is None


def test_b03_b04_of_several_slos_the_one_that_breached_is_named_before_those_that_cannot_be_seen() -> None:
    def decides(*states: Healthy | Breaching | Breached | Waiting | Unknown) -> str | None:
        world = promoted()
        names = ["Suspected" if isinstance(state, Breached) and state.suspected else type(state).__name__ for state in states]
        readings = tuple(replace(reading(state), name=name) for name, state in zip(names, states, strict=True))
        return status_of(
            world.decide(), previous=world.status, generation=1, readings=readings, analysis=None, arms=world.arms, now=world.now
        ).decidingSLO

    since = START
    assert decides(Healthy(), Waiting(3), Unknown("no answer"), Breaching(since=since), Breached(since=since)) == "Breached"
    assert decides(Breached(since=since, suspected=True), Breached(since=since)) == "Breached"
    assert decides(Breaching(since=since), Breached(since=since, suspected=True)) == "Suspected"
    assert decides(Healthy(), Waiting(3), Unknown("no answer"), Breaching(since=since)) == "Breaching"
    assert decides(Healthy(), Waiting(3), Unknown("no answer")) == "Unknown"
    assert decides(Healthy(), Waiting(3)) == "Waiting"
    assert decides(Healthy()) is None


def test_unknown_never_goes_back() -> None:
    world = promoted()
    world.judged = UNSEEN
    world.run(GUARD - 50)
    assert shares(world) == ("rev2", None, 0)
    found = condition(world.decide(), ConditionType.METRICS_AVAILABLE)
    assert found is not None
    assert found[0] == "False"


@pytest.mark.parametrize("mode", ["Automatic", "Pause", "DryRun"])
def test_a_stable_without_a_ready_pod_for_half_a_minute_is_left_for_the_revision_before_it(mode: str) -> None:
    world = promoted(mode=mode)
    world.run(30)
    world.broken.add("rev2")
    world.judged = UNSEEN  # nothing is left that could be scraped
    world.run(25)
    assert shares(world) == ("rev2", None, 0), "its pods may be back in a moment"
    world.run(10)
    assert shares(world) == ("rev1", None, 0)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert (rejection.reason, rejection.suspected) == (Reason.CANARY_UNAVAILABLE, False)
    assert "no pod of it was ready for 30 s, while rev1 has 2" in rejection.message
    world.broken.clear()
    world.judged = HEALTHY
    world.run(300)
    assert shares(world) == ("rev1", None, 0), "nor is it tried again"


def test_pods_of_stable_that_are_back_in_time_begin_the_half_minute_anew() -> None:
    world = promoted()
    for _ in range(3):
        world.broken.add("rev2")
        world.run(25)
        world.broken.clear()
        world.run(2)
    assert shares(world) == ("rev2", None, 0)
    assert world.status.guard is not None
    assert world.status.guard.unreadySince is None


def test_a_stable_without_a_ready_pod_stays_where_nothing_could_serve_in_its_place() -> None:
    world = promoted()
    world.broken |= {"rev1", "rev2"}
    world.run(120)
    assert shares(world) == ("rev2", None, 0)
    world.broken -= {"rev2"}
    world.run(60)
    assert (shares(world), world.place.rejected) == (("rev2", None, 0), ())


def test_a_stable_without_a_ready_pod_that_a_person_had_promoted_stays() -> None:
    world = started(policy=policy(steps=STEPS, guard=GUARD, keep=GUARD))
    world.want("2")
    world.run(3)
    world.ask(promote="now")
    world.run(30)
    assert is_stable(world, "2")
    world.broken.add("rev2")
    world.run(120)
    assert shares(world) == ("rev2", None, 0)
    ready = condition(world.decide(), ConditionType.READY)
    assert ready is not None
    assert ready[:2] == ("False", Reason.STABLE_UNREADY)


@pytest.mark.parametrize("wish", ["3", "1"])
def test_a_wish_does_not_keep_callers_with_a_stable_without_a_ready_pod(wish: str) -> None:
    world = promoted()
    world.broken.add("rev2")
    world.pace = 0
    world.settle()
    world.arms["rev1"] = replace(world.arms["rev1"], ready=1)
    world.run(5)
    world.want(wish)
    world.run(3)
    progressing = condition(world.decide(), ConditionType.PROGRESSING)
    assert progressing is not None
    assert progressing[1] is Reason.STABLE_UNREADY
    world.run(30)
    assert (shares(world)[0], shares(world)[2]) == ("rev1", 0)
    world.arms["rev1"], world.pace = replace(world.arms["rev1"], ready=2), 1000
    world.run(120)
    assert is_stable(world, wish)


@pytest.mark.parametrize("halted", [False, True])
def test_a_stable_without_a_ready_pod_is_left_beside_a_canary_too(halted: bool) -> None:
    world = promoted(mode="Pause")
    world.run(30)
    world.want("3")
    world.run(8)
    if halted:
        world.judged = BREACHED
        world.run(5)
    world.judged = UNSEEN
    world.broken.add("rev2")
    world.settle()
    world.run(25)
    assert world.place.canary is not None
    assert world.place.canary.revision.name == "rev3"
    world.run(8)
    assert shares(world)[0] == "rev1"
    assert [r.revision.name for r in world.place.rejected] == (["rev3", "rev2"] if halted else ["rev2"])
    world.judged = HEALTHY
    world.run(120)
    assert is_stable(world, "1" if halted else "3")


@pytest.mark.parametrize("stop_after", range(1, 9))
@pytest.mark.parametrize("later", [0, 1])
def test_an_operator_that_dies_as_it_ends_a_canary_beside_a_stable_without_pods_leaves_that_too(stop_after: int, later: int) -> None:
    world = promoted()
    world.run(30)
    world.want("3")
    world.run(8)
    world.broken.add("rev2")
    world.settle()
    world.run(10)
    world.set_back(3600)
    world.run(29)
    world.now += 2
    for _ in range(later):
        world.one_pass()
    world.one_pass(stop_after=stop_after)
    world.run(5)
    assert shares(world)[0] == "rev1"
    assert [r.revision.name for r in world.place.rejected] == ["rev2"]


def test_a_stable_without_a_ready_pod_stays_beside_what_a_person_promotes() -> None:
    world = promoted()
    world.want("3")
    world.run(3)
    world.broken |= {"rev2"}
    world.pace = 0
    world.settle()
    world.ask(promote="now")
    world.run(60)
    assert world.place.canary is not None
    assert (shares(world)[0], world.place.canary.by_hand) == ("rev2", True)


def test_a_person_keeps_a_stable_that_is_about_to_be_left_for_want_of_pods() -> None:
    world = promoted()
    world.broken.add("rev2")
    world.run(5)
    ready = condition(world.decide(), ConditionType.READY)
    assert ready == ("False", Reason.STABLE_UNREADY, "no pod of stable rev2 is ready: when that lasts, it is left for rev1")
    world.ask(promote="now")
    world.run(120)
    assert shares(world) == ("rev2", None, 0)
    assert (world.status.guard is not None and world.status.guard.byHand, "TokenWithoutEffect" in world.reasons()) == (True, False)


def test_a_wish_for_the_former_stable_with_all_of_its_pods_does_not_wait_for_the_half_minute() -> None:
    world = promoted()
    world.broken.add("rev2")
    world.run(5)
    world.want("1")
    world.run(5)
    assert (shares(world), world.place.rejected) == (("rev1", None, 0), ())


def without_pods_as_kept_ones_end() -> World:
    """Stable loses its pods ten seconds before those of the former one end."""
    world = promoted(keep=60)
    assert world.place.previous is not None
    until = world.place.previous.until
    while until - world.now > 10:
        world.run(1)
    world.broken.add("rev2")
    return world


def test_pods_whose_time_ends_in_the_half_minute_are_there_for_the_way_back() -> None:
    world = without_pods_as_kept_ones_end()
    world.run(40)
    assert shares(world) == ("rev1", None, 0)


def test_pods_that_were_kept_for_the_half_minute_go_when_stable_has_its_own_again() -> None:
    world = without_pods_as_kept_ones_end()
    world.run(20)
    assert set(world.arms) == {"rev1", "rev2"}
    world.broken.clear()
    world.run(3)
    assert (shares(world), set(world.arms)) == (("rev2", None, 0), {"rev2"})


def test_the_half_minute_begins_anew_after_a_canary() -> None:
    world = promoted()
    world.broken.add("rev2")
    world.run(5)
    world.want("3")
    world.ask(promote="now")
    world.pace = 0
    world.run(2)
    assert world.status.guard is not None
    assert (world.place.canary is not None, world.status.guard.unreadySince) == (True, None)


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_operator_that_dies_as_it_leaves_a_stable_without_pods_finishes_it(stop_after: int) -> None:
    world = promoted(mode="Pause")
    world.broken.add("rev2")
    world.run(29)
    world.now += 2
    world.one_pass(stop_after=stop_after)
    world.run(3)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert (shares(world), rejection.suspected) == (("rev1", None, 0), False)


def test_a_clock_that_is_set_back_keeps_no_stable_without_pods() -> None:
    world = promoted()
    world.broken.add("rev2")
    world.run(10)
    world.set_back(7200)
    world.run(35)
    assert shares(world) == ("rev1", None, 0)
