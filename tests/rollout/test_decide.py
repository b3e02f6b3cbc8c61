"""The rollout engine's rows, one by one, on a cluster in memory.

In one file although it is long: it is read beside the design's table, row for row.
"""

from dataclasses import replace

import pytest

from backstop.analysis.reading import Breaching, Waiting
from backstop.api.condition import ConditionType
from backstop.api.reasons import Reason
from backstop.rollout.observed import Known, Unknown, Unresolved
from backstop.rollout.place import Outcome
from backstop.rollout.plan import Plan
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN, World, in_rollout, policy, reading, revision, share, started


def condition(plan: Plan, kind: ConditionType) -> str | None:
    return next((c.status for c in plan.conditions if c.type is kind), None)


def test_a01_the_first_revision_becomes_stable_without_a_canary() -> None:
    world = World()
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert "CanaryStarted" not in world.reasons()
    assert world.route is not None
    assert (world.route.stable, world.route.canary, world.route.permille) == ("rev1", None, 0)
    assert condition(world.decide(), ConditionType.READY) == "True"


def test_a_first_revision_that_never_gets_ready_can_be_replaced() -> None:
    world = World(broken={"rev1"})
    world.run(5)
    assert world.place.stable is None
    world.want("2")
    world.run(3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_a02_the_weight_stays_0_until_a_pod_of_the_canary_is_ready() -> None:
    world = started(broken={"rev2"})
    world.want("2")
    world.run(60)
    assert world.arms["rev2"].desired == 1
    assert all(permille == 0 for _, _, _, permille in world.shares)
    world.broken.clear()
    world.run(2)
    assert world.route is not None
    assert world.route.permille == 50


def test_a03_steps_are_taken_in_order_with_one_announcement_each_and_end_in_promotion() -> None:
    world = started()
    world.want("2")
    world.run(300, tick=3)
    weights = [(canary, permille) for _, _, canary, permille in world.shares if permille]
    assert weights == [("rev2", 50), ("rev2", 500), ("rev2", 1000)]
    assert world.reasons().count("StepStarted") == 3
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.serving == "rev2"
    assert world.place.last is not None
    assert world.place.last.outcome is Outcome.PROMOTED


def test_a_step_is_held_for_its_time_from_when_the_weight_was_verified() -> None:
    world = started(deaf=True)
    world.want("2")
    world.run(10)
    assert world.place.canary is not None
    assert world.place.canary.verified_at is None
    world.deaf = False
    world.run(59)
    assert [permille for *_, permille in world.shares if permille] == [50]
    world.run(5)
    assert [permille for *_, permille in world.shares if permille] == [50, 500]


def test_canary_pods_are_at_the_size_of_a_step_before_its_weight_rises() -> None:
    world = started(policy=policy(replicas=10, steps=((5, 10), (25, 10), (100, 10))))
    world.pace = 1
    world.want("2")
    for _ in range(120):
        world.one_pass()
        if world.route is not None and world.route.canary:
            needed = -(-10 * world.route.permille // 1000)
            assert world.arms["rev2"].ready >= needed
        world.settle()
        world.now += 1
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_b01_a_breach_shifts_the_route_before_any_other_write() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.writes.clear()
    plan = world.one_pass()
    assert world.writes[0] == "route"
    assert plan.route is not None
    assert plan.route.state.aborted is not None
    assert plan.route.state.aborted.revision == "rev2"
    assert (plan.route.state.canary, plan.route.state.permille) == (None, 0)
    world.run(5)
    assert world.place.rejection_of("rev2") is not None
    assert [v.revision.name for v in world.verdicts] == ["rev2"]
    plan = world.decide()
    assert condition(plan, ConditionType.STALLED) == "True"
    assert condition(plan, ConditionType.READY) == "False"
    assert world.place.last is not None
    assert world.place.last.shifted_at is not None
    assert world.route is not None
    assert world.route.aborted is not None, "the verdict stays on record"


def test_b05_canary_pods_stay_until_the_route_is_back_and_are_then_scaled_away() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.run(5)
    assert world.arms["rev2"].desired == 1
    world.run(15)
    assert "rev2" not in world.arms


def test_b06_a_canary_that_never_gets_ready_is_rolled_back_at_its_deadline() -> None:
    world = started(broken={"rev2"})
    world.want("2")
    world.run(119)
    assert world.place.canary is not None
    world.run(3)
    assert world.place.canary is None
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.reason == "CanaryUnavailable"
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_b08_two_failed_versions_leave_the_first_stable() -> None:
    world = started()
    for version in ("2", "3"):
        world.judged = HEALTHY
        world.want(version)
        world.run(20)
        world.judged = BREACHED
        world.run(30)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert [r.revision.name for r in world.place.rejected] == ["rev2", "rev3"]


def test_b08_the_first_of_two_failed_versions_is_not_tried_again_either() -> None:
    world = started()
    for version in ("2", "3"):
        world.judged = HEALTHY
        world.want(version)
        world.run(20)
        world.judged = BREACHED
        world.run(30)
    world.judged = HEALTHY
    written = len(world.shares)
    world.want("2")
    world.run(300, tick=3)
    assert all(permille == 0 for *_, permille in world.shares[written:])
    assert world.decide().phase == "RolledBack"


def test_b14_a_crash_between_the_route_write_of_an_abort_and_status_loses_nothing() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.one_pass(stop_after=1)
    assert world.place.rejection_of("rev2") is None
    world.judged = HEALTHY
    world.run(200, tick=2)
    assert world.place.rejection_of("rev2") is not None
    assert world.place.canary is None
    assert world.shares[-1][3] == 0


def test_b16_a_chain_only_change_that_breaches_does_not_reject_the_prompt() -> None:
    world = started()
    chain_only = revision("1").__class__("rev1b", prompt_version="1", prompt_digest=revision("1").prompt_digest)
    world.wanted = Known(chain_only)
    world.run(20)
    world.judged = BREACHED
    world.run(5)
    assert world.place.rejection_of("rev1b") is not None
    assert world.verdicts == []


def test_c01_another_version_in_mid_canary_starts_at_step_0_after_the_weight_is_0() -> None:
    world = started()
    world.want("2")
    world.run(80)
    assert world.shares[-1][2:] == ("rev2", 500)
    world.broken.add("rev3")
    world.want("3")
    world.run(20)
    assert world.shares[-1][3] == 0
    assert world.place.canary is not None
    assert (world.place.canary.revision, world.place.canary.step) == (revision("3"), 0)
    world.broken.clear()
    world.run(3)
    assert world.shares[-1][2:] == ("rev3", 50)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")


def test_c02_a_version_without_a_ready_pod_gets_no_traffic_though_the_one_before_it_had_some() -> None:
    world = started()
    world.want("2")
    world.run(80)
    assert world.shares[-1][2:] == ("rev2", 500)
    written = len(world.shares)
    world.broken.add("rev3")
    world.want("3")
    world.run(300, tick=3)
    assert {permille for *_, permille in world.shares[written:]} == {0}
    rejection = world.place.rejection_of("rev3")
    assert rejection is not None
    assert rejection.reason == "CanaryUnavailable"


def test_c03_returning_to_stable_is_immediate() -> None:
    world = started()
    world.want("2")
    world.run(80)
    world.want("1")
    world.writes.clear()
    world.one_pass()
    assert world.writes[0] == "route"
    world.run(2)
    plan = world.decide()
    assert condition(plan, ConditionType.READY) == "True"
    assert world.place.last is not None
    assert world.place.last.outcome is Outcome.SUPERSEDED
    assert world.place.rejected == ()


def test_a_rejected_version_is_not_tried_again_until_the_spec_names_another() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.run(5)
    world.judged = HEALTHY
    written = len(world.shares)
    world.want("1")
    world.run(30)
    world.want("2")
    world.run(200, tick=2)
    assert all(permille == 0 for *_, permille in world.shares[written:])
    assert world.decide().phase == "RolledBack"


def test_m01_metrics_that_cannot_be_seen_hold_the_step_and_its_clock() -> None:
    world = in_rollout()
    world.judged = UNSEEN
    world.run(500, tick=5)
    assert world.shares[-1][2:] == ("rev2", 50)
    assert condition(world.decide(), ConditionType.METRICS_AVAILABLE) == "False"
    world.judged = HEALTHY
    world.run(30)
    assert world.shares[-1][2:] == ("rev2", 50)
    world.run(20)
    assert world.shares[-1][2:] == ("rev2", 500)
    assert world.reasons().count("MetricsUnavailable") == 1


@pytest.mark.parametrize("judged", [None, reading(Waiting(more=12))], ids=["no reading", "too few requests"])
def test_too_little_data_never_advances_and_never_rolls_back(judged) -> None:  # type: ignore[no-untyped-def]
    world = started(judged=judged)
    world.want("2")
    world.run(1000)
    assert world.shares[-1][2:] == ("rev2", 50)
    assert world.decide().reason is Reason.WAITING_FOR_SAMPLES


def without_requirement(world: World) -> World:
    world.policy = world.policy.model_copy(update={"slos": [world.policy.slos[0].model_copy(update={"required": False})]})
    return world


def test_an_slo_that_is_not_required_is_not_waited_for() -> None:
    world = without_requirement(started(judged=reading(Waiting(more=12))))
    world.want("2")
    world.run(300, tick=3)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


@pytest.mark.parametrize("judged", [None, UNSEEN, reading(Breaching(since=1.0))], ids=["no reading", "unknown", "over the limit"])
def test_an_slo_that_is_not_required_holds_all_the_same_while_it_is_not_seen_or_over_its_limit(judged) -> None:  # type: ignore[no-untyped-def]
    world = without_requirement(started(judged=judged))
    world.want("2")
    world.run(1000)
    assert world.shares[-1][2:] == ("rev2", 50)


def test_requests_without_an_answer_hold_whether_the_slo_is_required_or_not_and_are_said() -> None:
    silent = replace(reading(Waiting(more=20)), reason=Reason.NO_TRAFFIC, evidence="latency: 36 requests were sent, none was answered")
    world = without_requirement(started(judged=silent))
    world.want("2")
    world.run(1000)
    assert world.shares[-1][2:] == ("rev2", 50)
    assert world.decide().reason is Reason.NO_TRAFFIC
    (progressing,) = [c for c in world.decide().conditions if c.type is ConditionType.PROGRESSING]
    assert progressing.message.endswith("5 %: latency: 36 requests were sent, none was answered")


def test_requests_without_an_answer_that_are_a_breach_are_rolled_back_for_that() -> None:
    world = started()
    world.want("2")
    world.run(30)
    world.judged = replace(BREACHED, reason=Reason.NO_TRAFFIC)
    world.run(30)
    assert world.place.last is not None
    assert (world.place.last.outcome, world.place.last.reason) == (Outcome.ROLLED_BACK, "NoTraffic")


def test_a_weight_that_is_not_seen_on_every_gateway_goes_back_to_the_last_that_was() -> None:
    world = started()
    world.want("2")
    world.run(50)
    world.deaf = True
    world.run(55)
    assert "WeightNotVerified" in world.reasons()
    assert world.shares[-1][2:] == ("rev2", 50)


@pytest.mark.parametrize("step", [0, 1])
def test_an_operator_that_dies_before_it_writes_a_weight_and_comes_back_late_goes_on(step: int) -> None:
    world = started()
    world.want("2")
    for _ in range(500):
        plan = world.decide()
        canary = plan.place.canary
        if canary is not None and canary.step == step and canary.step_started_at is not None and plan.route is not None:
            break
        world.one_pass()
        world.settle()
        world.now += 0.5
    world.one_pass(stop_after=1)
    assert world.place.canary is not None
    assert world.place.canary.step_started_at is not None, "the weight stands in status, and not in the traffic object"
    world.now += 100
    world.run(400)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")


def test_a_canary_without_ready_pods_gets_no_traffic_and_resumes_the_same_step() -> None:
    world = started()
    world.want("2")
    world.run(80)
    world.broken.add("rev2")
    world.run(3)
    assert world.shares[-1][3] == 0
    world.broken.clear()
    world.run(3)
    assert world.shares[-1][2:] == ("rev2", 500)


def test_a_canary_that_crashes_three_times_under_requests_is_rolled_back_though_it_is_ready_in_between() -> None:
    world = started()
    world.want("2")
    world.run(10)
    for _ in range(2):
        world.crash("2")
        world.run(10)
    assert world.place.canary is not None
    world.crash("2")
    world.run(3)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert rejection.reason == "CanaryUnavailable"
    assert "exited 3 times" in rejection.message
    assert world.shares[-1][3] == 0


def test_exits_from_before_callers_reached_a_canary_do_not_count_against_it() -> None:
    world = started(broken={"rev2"})
    world.want("2")
    world.run(10)
    for _ in range(5):
        world.crash("2")
    world.broken.clear()
    world.run(30)
    assert world.shares[-1][2:] == ("rev2", 50)
    world.crash("2")
    world.crash("2")
    world.run(10)
    assert world.shares[-1][2:] == ("rev2", 50)


def test_pods_that_are_made_anew_take_their_failed_exits_with_them() -> None:
    world = started(broken={"rev2"})
    world.want("2")
    world.run(10)
    for _ in range(5):
        world.crash("2")
    world.broken.clear()
    world.run(10)
    world.arms["rev2"] = replace(world.arms["rev2"], exits=0)
    world.run(3)
    for _ in range(3):
        world.crash("2")
    world.run(3)
    assert world.place.rejection_of("rev2") is not None


def test_a_breach_during_promotion_returns_to_the_old_stable() -> None:
    world = started(policy=policy(steps=((100, 10),)))
    world.want("2")
    world.run(11)
    world.deaf = True
    world.run(3)
    assert world.shares[-1][1] == "rev2"
    assert world.arms["rev1"].desired == 2, "the way back stays open"
    world.judged = BREACHED
    world.writes.clear()
    world.one_pass()
    assert world.writes[0] == "route"
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.arms["rev1"].desired == 2


def test_the_previous_stable_is_kept_at_full_size_for_its_time() -> None:
    world = in_rollout(policy=policy(steps=((100, 10),)))
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert world.arms["rev1"].desired == 2
    world.run(61)
    assert set(world.arms) == {"rev2"}


def test_an_unresolved_spec_holds_a_running_canary() -> None:
    world = in_rollout()
    world.wanted = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v2`, which does not exist; create it")
    world.run(300, tick=3)
    assert world.shares[-1][2:] == ("rev2", 50)
    assert condition(world.decide(), ConditionType.RESOLVED_REFS) == "False"


def test_an_unreadable_traffic_object_holds_but_a_breach_still_leaves() -> None:
    from backstop.rollout.decide import decide

    world = in_rollout()
    observed = replace(world.observe(), route=Unknown("`permille` is not a whole number in the traffic object"))
    plan = decide(observed, policy=world.policy, now=world.now + 500)
    assert plan.route is None
    assert plan.place == world.place
    plan = decide(replace(observed, readings=(BREACHED,)), policy=world.policy, now=world.now)
    assert plan.route is not None
    assert plan.route.falling
    assert plan.route.state.permille == 0
    assert world.route is not None
    assert plan.route.state.generation > world.route.generation


def test_a_missing_traffic_object_is_written_anew_ahead_of_every_former_generation() -> None:
    world = in_rollout()
    assert world.route is not None
    former = world.route.generation
    world.traffic = None
    world.deaf = True
    world.run(2)
    assert world.route is not None
    assert world.route.generation > former
    assert world.route.permille == 50
    assert world.place.canary is not None
    assert world.place.canary.verified_at is None, "a weight that is written anew has to be seen anew"


def test_edited_steps_go_on_at_the_first_that_is_not_below_the_weight() -> None:
    world = started()
    world.want("2")
    world.run(80)
    assert world.shares[-1][3] == 500
    world.policy = policy(steps=((10, 60), (60, 60), (100, 60)))
    world.run(3)
    assert world.shares[-1][2:] == ("rev2", 600)


def test_an_idle_policy_asks_for_no_write() -> None:
    world = started()
    world.run(5)
    world.writes.clear()
    world.run(600, tick=10)
    assert set(world.writes) <= {"events"}
    assert world.decide().wake_at is None


def test_fewer_steps_in_mid_canary_go_on_at_the_first_that_is_not_below_the_weight() -> None:
    world = started(policy=policy(steps=((5, 20), (25, 20), (50, 600), (100, 20))))
    world.want("2")
    world.run(50)
    assert world.shares[-1][3] == 500
    world.policy = policy(steps=((50, 60), (100, 60)))
    world.run(5)
    assert world.shares[-1][3] == 500
    world.run(70)
    assert world.shares[-1][3] == 1000


def test_a_gateway_that_never_says_what_it_acts_on_is_waited_for_at_weight_0() -> None:
    world = started(deaf=True)
    world.want("2")
    world.run(1800, tick=5)
    assert [permille for *_, permille in world.shares if permille] == [50], "no weight is tried again before all gateways are seen"
    assert world.shares[-1][3] == 0
    assert world.decide().reason is Reason.WEIGHT_NOT_VERIFIED
    world.deaf = False
    world.run(5)
    assert world.shares[-1][2:] == ("rev2", 50)


def test_a_breach_while_the_traffic_object_is_missing_writes_it_first() -> None:
    world = in_rollout()
    world.traffic = None
    world.judged = BREACHED
    world.writes.clear()
    world.one_pass()
    assert world.writes[0] == "route"


def test_the_evidence_is_kept_when_only_the_status_write_of_an_abort_failed() -> None:
    world = in_rollout()
    world.judged = BREACHED
    world.one_pass(stop_after=1)
    world.run(2)
    rejection = world.place.rejection_of("rev2")
    assert rejection is not None
    assert "61 of 412" in rejection.message


@pytest.mark.parametrize("ready", [0, 1])
def test_a_breach_leaves_at_once_though_stable_is_short_of_pods_and_says_so(ready: int) -> None:
    world = in_rollout()
    world.arms["rev1"] = replace(world.arms["rev1"], ready=ready)
    world.judged = BREACHED
    world.one_pass()
    assert world.shares[-1][1:] == ("rev1", None, 0)
    assert world.place.last is not None
    assert f"stable has {ready} of 2 pods ready" in world.place.last.message


def test_a_stable_deployment_that_is_gone_is_made_anew_and_the_canary_is_not_promoted_for_it() -> None:
    world = in_rollout()
    canary = world.place.canary
    del world.arms["rev1"]
    world.broken.add("rev1")
    world.judged = reading(Waiting(20))  # callers enter through stable's pods
    world.run(300, tick=3)
    assert world.arms["rev1"].desired == world.policy.serving.replicas
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    assert canary is not None
    assert world.place.canary is not None
    assert replace(world.place.canary, held_since=canary.held_since) == canary, "it holds"


@pytest.mark.parametrize("slos", ["not required", "none"])
def test_beside_a_stable_without_a_ready_pod_no_step_passes_whatever_is_declared_of_slos(slos: str) -> None:
    world = in_rollout()
    declared = world.policy.slos[0].model_copy(update={"required": False})
    world.policy = world.policy.model_copy(update={"slos": [declared] if slos == "not required" else []})
    world.judged = reading(Waiting(more=20)) if slos == "not required" else None
    del world.arms["rev1"]
    world.broken.add("rev1")
    world.run(900, tick=5)
    assert share(world) == ("rev2", 50)
    progressing = next(c for c in world.decide().conditions if c.type is ConditionType.PROGRESSING)
    assert progressing.reason is Reason.STABLE_UNREADY
    assert "no step is passed before stable has a ready pod" in progressing.message
    world.broken.clear()
    world.run(60)
    assert share(world) == ("rev2", 500)
