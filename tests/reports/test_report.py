"""What a report is made of: the status alone, and who answers for the policy."""

from pathlib import Path

import pytest
import yaml

from backstop.api.fallbackpolicy import PolicyOwner
from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.rolloutreport import RolloutReportSpec
from backstop.rendering.owner import Owner
from backstop.reports.owner import owner_annotations, owner_sentence
from backstop.reports.report import report_of
from backstop.reports.severity import severity_of

POLICY = Owner("shop", "support", "uid-1")
SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "written-by-the-operator" / "rolloutreport.yaml"


def status(*, last: dict[str, object] | None = None, timeline: dict[str, object] | None = None) -> FallbackPolicyStatus:
    """A rollout that was rolled back at half past nine."""
    return FallbackPolicyStatus.model_validate(
        {
            "lastRollout": {
                "outcome": "RolledBack",
                "revision": "7f9c21d0aa",
                "promptVersion": "support-1-4-0",
                "reason": "ErrorRateBreach",
                "message": "errors: 31 of 412 canary requests failed",
                "detectedAt": "2026-01-31T09:30:00.123Z",
                "shiftedAt": "2026-01-31T09:30:00.535Z",
            }
            | (last or {}),
            "timeline": {
                "revision": "7f9c21d0aa",
                "startedAt": "2026-01-31T09:27:58.500Z",
                "endedAt": "2026-01-31T09:30:00.123Z",
                "peakWeight": 25,
                "slos": [{"name": "errors", "state": "Breached", "limit": "1", "breachedSince": "2026-01-31T09:29:29.000Z"}],
            }
            | (timeline or {}),
        }
    )


def spec_of(given: FallbackPolicyStatus, *, owner: PolicyOwner | None = None) -> RolloutReportSpec:
    return RolloutReportSpec.model_validate(report_of(given, policy=POLICY, owner=owner)["spec"])


def test_the_name_follows_from_policy_revision_and_the_time_of_the_decision() -> None:
    assert report_of(status(), policy=POLICY, owner=None)["metadata"]["name"] == "support-7f9c21d0aa-20260131-093000-123"
    assert report_of(status(), policy=POLICY, owner=None) == report_of(status(), policy=POLICY, owner=None)


def test_times_are_told_between_what_was_measured() -> None:
    said = spec_of(status())
    assert (said.startToDetectionSeconds, said.breachToDetectionSeconds, said.detectionToShiftMilliseconds) == (121, 31, 412)
    later = spec_of(status(last={"shiftedAt": "2026-01-31T09:30:11.000Z"}))
    assert (later.breachToDetectionSeconds, later.breachToShiftSeconds) == (31, 42)


def test_clocks_that_differ_make_no_time_negative() -> None:
    said = spec_of(status(last={"shiftedAt": "2026-01-31T09:29:59.000Z"}, timeline={"startedAt": "2026-01-31T09:31:00.000Z"}))
    assert (said.startToDetectionSeconds, said.detectionToShiftMilliseconds) == (0, 0)


def test_what_is_not_known_is_left_out() -> None:
    body = report_of(status(last={"shiftedAt": None}, timeline={"slos": []}), policy=POLICY, owner=None)
    unknown = {"shiftedAt", "detectionToShiftMilliseconds", "breachToDetectionSeconds", "canaryRequests", "stable", "owner", "reviewDueAt"}
    assert (unknown | {"breachToShiftSeconds"}) & body["spec"].keys() == set()
    assert spec_of(status(last={"shiftedAt": None})).breachToShiftSeconds is None
    assert spec_of(status(timeline={"slos": []})).breachToShiftSeconds is None


@pytest.mark.parametrize(
    ("cadence", "due"), [("Daily", "02-01"), ("Weekly", "02-07"), ("Monthly", "03-02"), ("Quarterly", "05-01"), (None, None)]
)
def test_a_review_is_due_so_long_after_the_end_as_the_owner_says(cadence: str | None, due: str | None) -> None:
    owner = PolicyOwner.model_validate({"team": "ml-platform"} | ({"reviewCadence": cadence} if cadence else {}))
    said = spec_of(status(), owner=owner)
    assert said.owner == owner
    assert said.reviewDueAt == (f"2026-{due}T09:30:00.123Z" if due else None)


@pytest.mark.parametrize(
    ("outcome", "reason", "peak", "severity"),
    [
        ("RolledBack", "ErrorRateBreach", 5, "P1"),
        ("RolledBack", "SharedIncident", 100, "P1"),
        ("RolledBack", "LatencyBreach", 5, "P2"),
        ("RolledBack", "FallbackRateBreach", 5, "P3"),
        ("RolledBack", "CostBreach", 5, "P3"),
        ("RolledBack", "CanaryUnavailable", 5, "P3"),
        ("RolledBack", "Aborted", 5, "P3"),
        ("RolledBack", "AReasonOfANewerVersion", 5, "P3"),
        ("RolledBack", "CanaryUnavailable", 0, "P4"),
        ("Superseded", "Superseded", 50, "P4"),
        ("Promoted", "Promoted", 100, "P4"),
    ],
)
def test_severity_is_what_callers_felt(outcome: str, reason: str, peak: int, severity: str) -> None:
    assert severity_of(outcome=outcome, reason=reason, peak_weight=peak) == severity


def test_a_warning_names_what_is_known_of_the_owner() -> None:
    assert (owner_sentence(None), owner_annotations(None)) == ("", {})
    team = PolicyOwner(team="ml-platform")
    assert (owner_sentence(team), owner_annotations(team)) == (" — owner: ml-platform", {"backstop.dev/team": "ml-platform"})
    whole = PolicyOwner(team="ml-platform", contact="#ml-oncall", runbookURL="https://runbooks.example/support")
    assert owner_sentence(whole) == " — owner: ml-platform (#ml-oncall); runbook: https://runbooks.example/support"
    assert owner_annotations(whole) == {
        "backstop.dev/team": "ml-platform",
        "backstop.dev/contact": "#ml-oncall",
        "backstop.dev/runbook-url": "https://runbooks.example/support",
    }


def test_the_sample_is_what_is_written_of_such_a_rollout() -> None:
    sample = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    spec = sample["spec"]
    last = {name: spec[name] for name in ("revision", "promptVersion", "outcome", "reason", "message", "detectedAt", "shiftedAt")}
    seen = {name: spec[name] for name in ("revision", "startedAt", "endedAt", "peakWeight", "canaryRequests", "slos", "transitions")}
    ended = status(last=last, timeline=seen | {"against": spec["stable"]})
    body = report_of(ended, policy=POLICY, owner=PolicyOwner.model_validate(spec["owner"]))
    assert body["spec"] == spec
    assert body["metadata"]["name"] == sample["metadata"]["name"]
