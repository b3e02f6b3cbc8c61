"""The RolloutReport of the rollout that a policy's status says has ended. Pure: the same status gives the same report, name included."""

from datetime import timedelta
from typing import Final

from ..api.clock import parse_time, render_time
from ..api.fallbackpolicy import PolicyOwner, ReviewCadence
from ..api.names import API_VERSION, report_object
from ..api.policystatus import FallbackPolicyStatus, LastRolloutStatus, TimelineStatus
from ..api.rolloutreport import RolloutReportSpec
from ..rendering.owner import Body, Owner, metadata
from .severity import severity_of

DAYS: Final = {ReviewCadence.DAILY: 1, ReviewCadence.WEEKLY: 7, ReviewCadence.MONTHLY: 30, ReviewCadence.QUARTERLY: 90}


def report_name(policy: str, *, last: LastRolloutStatus) -> str:
    """Name of the report of this rollout. Another rollout of the same revision ends at another time."""
    return report_object(policy, revision=last.revision, decided=last.detectedAt or "")


def report_of(status: FallbackPolicyStatus, *, policy: Owner, owner: PolicyOwner | None) -> Body:
    """The object to create. `status` as it was read, with a rollout that has ended; `owner`: who answers for the policy."""
    last, timeline = status.lastRollout, status.timeline
    assert last is not None, "a report is due only when a rollout has ended"
    assert timeline is not None, "a report is due only while there is a timeline"
    return {
        "apiVersion": API_VERSION,
        "kind": "RolloutReport",
        "metadata": metadata(policy, name=report_name(policy.name, last=last), revision=last.revision, component="report"),
        "spec": _record(policy.name, last=last, timeline=timeline, owner=owner).model_dump(mode="json", exclude_none=True),
    }


def _record(policy: str, *, last: LastRolloutStatus, timeline: TimelineStatus, owner: PolicyOwner | None) -> RolloutReportSpec:
    started, detected = parse_time(timeline.startedAt), parse_time(last.detectedAt or timeline.startedAt)
    ended = parse_time(timeline.endedAt) if timeline.endedAt else detected
    breaches = [parse_time(slo.breachedSince) for slo in timeline.slos if slo.state == "Breached" and slo.breachedSince]
    shifted = parse_time(last.shiftedAt) if last.shiftedAt else None
    cadence = owner.reviewCadence if owner is not None else None
    return RolloutReportSpec(
        policy=policy,
        revision=last.revision,
        promptVersion=last.promptVersion,
        promptDigest=last.promptDigest,
        stable=timeline.against,
        outcome=last.outcome,
        reason=last.reason,
        message=last.message,
        severity=severity_of(outcome=last.outcome, reason=last.reason, peak_weight=timeline.peakWeight),
        startedAt=timeline.startedAt,
        detectedAt=render_time(detected),
        shiftedAt=last.shiftedAt,
        endedAt=render_time(ended),
        startToDetectionSeconds=_whole(detected - started),
        breachToDetectionSeconds=_whole(detected - min(breaches)) if breaches else None,
        detectionToShiftMilliseconds=max(0, round(1000 * (shifted - detected))) if shifted is not None else None,
        breachToShiftSeconds=_whole(shifted - min(breaches)) if breaches and shifted is not None else None,
        peakWeight=timeline.peakWeight,
        canaryRequests=timeline.canaryRequests,
        slos=timeline.slos,
        transitions=timeline.transitions,
        transitionsOmitted=timeline.omitted,
        owner=owner,
        reviewDueAt=render_time(ended + timedelta(days=DAYS[cadence]).total_seconds()) if cadence is not None else None,
    )


def _whole(amount: float) -> int:
    """Rounded down, as ages are told; clocks of two operators may differ by a little, and no time is negative."""
    return max(0, int(amount + 1e-6))
