"""What is kept of a running rollout, and the report that is made of it: once for each, whatever dies in between."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from backstop.analysis.reading import Counts
from backstop.api.clock import parse_time
from backstop.api.reasons import Reason
from backstop.api.rolloutreport import RolloutReportSpec
from backstop.api.traffic import render
from backstop.rollout.decide import decide
from backstop.rollout.look import Look
from backstop.rollout.observed import Failed
from backstop.rollout.plan import Announcement
from backstop.rollout.statusmap import status_of
from backstop.rollout.timeline import followed
from tests.rollout.test_guard import COMPARED, promoted
from tests.rollout.test_invariants import THOROUGH, Rollouts
from tests.rollout.world import BREACHED, HEALTHY, START, World, policy, revision, started


def only_report(world: World) -> RolloutReportSpec:
    (spec,) = world.reports.values()
    return RolloutReportSpec.model_validate(spec)


def at_half() -> World:
    """Version 2 is at 50 %."""
    world = started()
    world.want("2")
    world.run(70)
    assert world.place.canary is not None
    assert world.place.canary.weight == 50
    return world


def test_the_report_of_a_breach_says_what_happened_when_and_why() -> None:
    world = at_half()
    began = world.place.canary.started_at if world.place.canary else 0.0
    world.judged, detected = BREACHED, world.now
    world.run(5)
    report = only_report(world)
    assert (report.outcome, report.reason, report.severity) == ("RolledBack", "LatencyBreach", "P2")
    assert (report.revision, report.promptVersion, report.promptDigest) == ("rev2", "2", "sha256:2")
    assert report.stable is not None
    assert (report.stable.revision, report.stable.promptVersion, report.stable.promptDigest) == ("rev1", "1", "sha256:1")
    assert report.startToDetectionSeconds == int(detected - began)
    assert report.breachToDetectionSeconds == int(detected - START)
    assert report.detectionToShiftMilliseconds == 250
    assert (report.peakWeight, report.canaryRequests) == (50, 412)
    assert [(t.reason, t.weight) for t in report.transitions] == [
        ("CanaryStarted", 0),
        ("StepStarted", 5),
        ("WeightVerified", 5),
        ("StepStarted", 50),
        ("WeightVerified", 50),
        ("RolledBack", 0),
        ("TrafficShifted", 0),
    ]
    assert [t.time for t in report.transitions] == sorted(t.time for t in report.transitions)
    (slo,) = report.slos
    assert (slo.name, slo.state, slo.value, slo.limit) == ("latency", "Breached", "14.8", "5")
    assert slo.canary is not None
    assert slo.stable is not None
    assert (slo.canary.bad, slo.canary.total, slo.stable.bad, slo.stable.total) == (61, 412, 20, 7811)
    assert slo.evidence in report.message


def test_a_mean_that_is_breached_is_rolled_back_and_reported_with_what_requests_came_to_and_none_is_bad() -> None:
    world = at_half()
    world.judged = replace(
        BREACHED,
        name="cost",
        reason=Reason.COST_BREACH,
        value="0.031",
        limit="0.02",
        canary=Counts(total=412),
        stable=Counts(total=7811),
        is_mean=True,
        canary_mean="0.031",
        stable_mean="0.0121",
    )
    world.run(5)
    report = only_report(world)
    assert (report.outcome, report.reason, report.severity) == ("RolledBack", "CostBreach", "P3")
    (slo,) = report.slos
    arms = [arm.model_dump(exclude_none=True) for arm in (slo.canary, slo.stable) if arm is not None]
    assert arms == [{"total": 412, "mean": "0.031"}, {"total": 7811, "mean": "0.0121"}]
    assert (slo.value, slo.limit) == ("0.031", "0.02")


def test_the_report_is_named_in_status_once_it_is_written_and_the_timeline_goes() -> None:
    world = at_half()
    assert world.status.timeline is not None
    world.judged = BREACHED
    world.run(5)
    assert world.status.lastRollout is not None
    assert [world.status.lastRollout.report] == list(world.reports)
    assert world.status.timeline is None


@pytest.mark.parametrize(
    ("how", "outcome", "reason", "severity"),
    [
        ("good", "Promoted", "Promoted", "P4"),
        ("promote", "Promoted", "PromotedByHand", "P4"),
        ("abort", "RolledBack", "Aborted", "P3"),
        ("back", "Superseded", "ReturnedToStable", "P4"),
        ("other", "Superseded", "Superseded", "P4"),
        ("unavailable", "RolledBack", "CanaryUnavailable", "P4"),
    ],
)
def test_every_rollout_that_ends_is_reported(how: str, outcome: str, reason: str, severity: str) -> None:
    world = started(broken={"rev2"}) if how == "unavailable" else started()
    world.want("2")
    world.run(5)
    match how:
        case "promote":
            world.ask(promote="now")
        case "abort":
            world.ask(abort="now")
        case "back":
            world.want("1")
        case "other":
            world.want("3")
    world.run(210 if how in ("good", "unavailable") else 20)
    first = RolloutReportSpec.model_validate(next(iter(world.reports.values())))
    assert (first.revision, first.outcome, first.reason, first.severity) == ("rev2", outcome, reason, severity)
    assert first.transitions[0].reason == "CanaryStarted"
    assert first.transitions[-1].reason in (reason, "TrafficShifted", "Promoted", "RolledBack")


def test_the_report_of_a_superseded_canary_is_written_before_the_next_one_begins() -> None:
    world = at_half()
    world.want("3")
    world.rest()
    assert only_report(world).outcome == "Superseded"
    assert only_report(world).slos, "the evidence of the next rollout has not taken the place of this one's"
    assert world.place.canary is not None
    assert world.place.canary.revision == revision("3")
    assert world.place.timeline is not None
    assert [t.reason for t in world.place.timeline.transitions] == ["CanaryStarted"]
    assert world.status.lastRollout is not None
    assert [world.status.lastRollout.report] == list(world.reports)


def test_a_report_that_cannot_be_written_keeps_no_rollout_from_beginning() -> None:
    world = at_half()
    world.want("3")
    world.one_pass()
    assert world.place.canary is None
    waiting = decide(world.observe(), policy=world.policy, now=world.now)
    assert (waiting.place.canary, waiting.report) == (None, True)
    going_on = decide(replace(world.observe(), reporting=Failed()), policy=world.policy, now=world.now)
    assert going_on.place.canary is not None
    assert going_on.place.canary.revision == revision("3")


def test_a_shift_that_is_never_seen_is_left_out_of_the_report() -> None:
    world = at_half()
    world.judged, world.deaf = BREACHED, True
    world.run(55)
    assert not world.reports, "it may still be seen"
    world.run(10)
    report = only_report(world)
    assert (report.shiftedAt, report.detectionToShiftMilliseconds) == (None, None)


def test_a_rollout_that_began_before_timelines_were_kept_is_reported_from_its_start() -> None:
    world = at_half()
    assert world.place.canary is not None
    began = world.place.canary.started_at
    world.status = world.status.model_copy(update={"timeline": None})
    world.judged = BREACHED
    world.run(5)
    report = only_report(world)
    assert parse_time(report.startedAt) == began
    assert report.stable is not None
    assert (report.stable.revision, report.peakWeight) == ("rev1", 50)


def test_without_an_evaluation_the_requests_are_left_out() -> None:
    world = started(judged=None)
    world.want("2")
    world.run(5)
    world.ask(abort="now")
    world.run(5)
    assert only_report(world).canaryRequests is None


def test_no_report_is_written_where_none_is_to_be_kept() -> None:
    world = started()
    world.policy = world.policy.model_copy(update={"rollback": world.policy.rollback.model_copy(update={"reportHistoryLimit": 0})})
    world.want("2")
    world.run(250)
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("2")
    assert (world.reports, world.status.timeline) == ({}, None)


def test_a_halted_canary_that_is_tried_again_is_one_rollout() -> None:
    world = started(policy=policy(mode="Pause"))
    world.want("2")
    world.run(70)
    world.judged = BREACHED
    world.run(5)
    world.judged = HEALTHY
    world.ask(retry="again")
    world.run(250)
    report = only_report(world)
    assert report.outcome == "Promoted"
    told = [t.reason for t in report.transitions]
    assert told.index("Halted") < told.index("Retried") < told.index("Promoted")


@pytest.mark.parametrize("shared", [False, True], ids=["confirmed", "shared"])
def test_a_return_after_a_promotion_has_a_report_of_its_own_once_its_verdict_is_certain(shared: bool) -> None:
    world = promoted()
    world.run(10)
    promotion = only_report(world)
    assert promotion.outcome == "Promoted"
    since = world.place.stable.since if world.place.stable else 0.0
    world.judged = BREACHED
    world.one_pass()
    world.judged = HEALTHY
    world.run(5)
    assert len(world.reports) == 1, "it is only suspected"
    world.judged = BREACHED if shared else HEALTHY
    world.run(COMPARED)
    report = RolloutReportSpec.model_validate(list(world.reports.values())[1])
    assert (report.revision, report.outcome, report.peakWeight) == ("rev2", "RolledBack", 100)
    assert report.severity == ("P1" if shared else "P2")
    assert report.reason == ("SharedIncident" if shared else "LatencyBreach")
    assert report.stable is not None
    assert report.stable.revision == "rev1"
    assert parse_time(report.startedAt) == since
    assert [t.reason for t in report.transitions] == ["RolledBack", "TrafficShifted", "SharedIncident" if shared else "RejectionConfirmed"]
    assert [slo.state for slo in report.slos] == ["Breached"], "what the return was decided from, not what was watched after it"


def test_a_timeline_keeps_its_first_transition_and_the_newest_and_counts_the_rest() -> None:
    world = at_half()
    place = world.place
    for number in range(100):
        look = Look(replace(world.observe(), place=place), world.policy, START + number)
        place = followed(place, look=look, announcements=(Announcement(Reason.METRICS_UNAVAILABLE, f"{number}: " + "x" * 300),))
    assert place.timeline is not None
    kept = place.timeline.transitions
    assert (len(kept), place.timeline.omitted) == (64, 5 + 100 - 64)
    assert kept[0].reason == "CanaryStarted"
    assert (kept[1].message[:4], kept[-1].message[:4]) == ("37: ", "99: ")
    assert {len(t.message) for t in kept[1:]} == {256}


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("again", range(4))
def test_b14_the_report_survives_deaths_after_any_two_writes(writes: int, again: int) -> None:
    world = at_half()
    world.judged = BREACHED
    world.one_pass(stop_after=writes)
    world.settle()
    world.one_pass(stop_after=again)
    world.run(30)
    report = only_report(world)
    assert report.transitions[-2].reason == "RolledBack"
    assert world.status.lastRollout is not None
    assert world.status.lastRollout.report in world.reports


class Reported(Rollouts):
    """Everything at once, with a clock that never stands still: an end is told from another by its time."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: set[tuple[str, str]] = set()

    @rule(version=st.sampled_from("1234"))
    def the_spec_names(self, version: str) -> None:
        self.world.now = round(self.world.now + 0.001, 3)
        self.world.want(version)

    @invariant()
    def ends_are_noted(self) -> None:
        last = self.world.status.lastRollout
        if self.world.deleting or not self.world.exists:
            self.ended.clear()  # reports go with their policy
        elif last is not None and last.detectedAt is not None:
            self.ended.add((last.revision, last.detectedAt))

    def teardown(self) -> None:
        """Each rollout that ended has one report, and no other has."""
        self.ends_are_noted()
        super().teardown()
        self.ends_are_noted()
        reported = [(spec["revision"], spec["detectedAt"]) for spec in self.world.reports.values()]
        assert len(reported) == len(set(reported))
        assert self.ended <= set(reported)
        assert self.world.status.timeline is None
        last = self.world.status.lastRollout
        assert last is None or last.report in self.world.reports


TestReported = Reported.TestCase
TestReported.settings = settings(max_examples=40 if THOROUGH else 8, stateful_step_count=40)


def test_what_is_tried_again_after_a_report_that_failed_is_a_rollout_of_its_own() -> None:
    world = at_half()
    world.judged = BREACHED
    world.one_pass()
    world.settle()
    world.now += 1
    world.judged = HEALTHY
    world.ask(retry="again")
    for _ in range(6):  # no report is ever written
        plan = decide(replace(world.observe(), reporting=Failed()), policy=world.policy, now=world.now)
        world.status = status_of(plan, previous=world.status, generation=1, readings=(), analysis=None, arms=world.arms, now=world.now)
        if plan.route is not None:
            world.traffic = render(plan.route.state)
    canary, timeline = world.place.canary, world.place.timeline
    assert canary is not None
    assert timeline is not None
    assert (timeline.revision, timeline.started_at) == ("rev2", canary.started_at)
    assert timeline.transitions[0].reason == "CanaryStarted"
