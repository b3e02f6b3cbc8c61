"""The one table of reasons: the word for programs, whether its event is a warning, and nothing else.

Events, conditions, metrics and log lines take their reason from here, so that one word means one thing everywhere.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something is as it is, or has just happened."""

    # Input
    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    TEMPLATE_INVALID = "TemplateInvalid"
    REVISION_TOO_LARGE = "RevisionTooLarge"
    PROMPT_VERSION_NOT_FOUND = "PromptVersionNotFound"
    PROMPT_VERSION_INVALID = "PromptVersionInvalid"
    VERSION_CONFLICT = "VersionConflict"
    METRICS_SOURCE_NOT_FOUND = "MetricsSourceNotFound"
    OBJECT_NOT_OURS = "ObjectNotOurs"
    OBJECT_REFUSED = "ObjectRefused"
    RECORD_MISSING = "RecordMissing"
    RESOLVED = "Resolved"
    # Rollout
    FIRST_REVISION = "FirstRevision"
    STABLE = "Stable"
    CANARY_STARTED = "CanaryStarted"
    WAITING_FOR_READY = "WaitingForReady"
    STEP_STARTED = "StepStarted"
    WEIGHT_VERIFIED = "WeightVerified"
    WEIGHT_NOT_VERIFIED = "WeightNotVerified"
    HOLDING = "Holding"
    WAITING_FOR_SAMPLES = "WaitingForSamples"
    PROMOTING = "Promoting"
    PROMOTED = "Promoted"
    SUPERSEDED = "Superseded"
    RETURNED_TO_STABLE = "ReturnedToStable"
    RETURNED_TO_PREVIOUS = "ReturnedToPrevious"
    # Deletion, and another policy of the same name
    POLICY_DELETED = "PolicyDeleted"
    REJECTED_BEFORE = "RejectedBefore"
    LAST_ACCEPTED = "LastAccepted"
    # By hand
    PAUSED = "Paused"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    APPROVED = "Approved"
    STEP_SKIPPED = "StepSkipped"
    PROMOTED_BY_HAND = "PromotedByHand"
    ABORTED = "Aborted"
    RETRIED = "Retried"
    REFRESHED = "Refreshed"
    TOKEN_WITHOUT_EFFECT = "TokenWithoutEffect"
    # Breach and rollback
    LATENCY_BREACH = "LatencyBreach"
    ERROR_RATE_BREACH = "ErrorRateBreach"
    FALLBACK_RATE_BREACH = "FallbackRateBreach"
    HALTED = "Halted"
    WOULD_ROLL_BACK = "WouldRollBack"
    CANARY_UNREADY = "CanaryUnready"
    CANARY_UNAVAILABLE = "CanaryUnavailable"
    RETURNING = "Returning"
    NOTHING_TO_RETURN_TO = "NothingToReturnTo"
    REJECTION_CONFIRMED = "RejectionConfirmed"
    SHARED_INCIDENT = "SharedIncident"
    ROLLED_BACK = "RolledBack"
    TRAFFIC_SHIFTED = "TrafficShifted"
    # What cannot be seen
    METRICS_AVAILABLE = "MetricsAvailable"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    BUCKET_BOUNDARY_MISSING = "BucketBoundaryMissing"
    TRAFFIC_UNREADABLE = "TrafficUnreadable"
    STABLE_UNREADY = "StableUnready"
    STATUS_LOST = "StatusLost"


WARNINGS = frozenset(
    {
        Reason.INVALID,
        Reason.TEMPLATE_INVALID,
        Reason.REVISION_TOO_LARGE,
        Reason.PROMPT_VERSION_NOT_FOUND,
        Reason.PROMPT_VERSION_INVALID,
        Reason.VERSION_CONFLICT,
        Reason.METRICS_SOURCE_NOT_FOUND,
        Reason.OBJECT_NOT_OURS,
        Reason.OBJECT_REFUSED,
        Reason.RECORD_MISSING,
        Reason.WEIGHT_NOT_VERIFIED,
        Reason.REJECTED_BEFORE,
        Reason.LATENCY_BREACH,
        Reason.ERROR_RATE_BREACH,
        Reason.FALLBACK_RATE_BREACH,
        Reason.HALTED,
        Reason.WOULD_ROLL_BACK,
        Reason.RETURNING,
        Reason.NOTHING_TO_RETURN_TO,
        Reason.SHARED_INCIDENT,
        Reason.TOKEN_WITHOUT_EFFECT,
        Reason.CANARY_UNREADY,
        Reason.CANARY_UNAVAILABLE,
        Reason.ROLLED_BACK,
        Reason.METRICS_UNAVAILABLE,
        Reason.BUCKET_BOUNDARY_MISSING,
        Reason.TRAFFIC_UNREADABLE,
        Reason.STABLE_UNREADY,
    }
)


def event_type(reason: Reason) -> str:
    """`Warning` or `Normal`, as an Event spells it."""
    return "Warning" if reason in WARNINGS else "Normal"


def reason_of(text: str) -> Reason:
    """The reason a status or traffic object names; `RolledBack` for a word of a newer version that this one does not know."""
    return Reason(text) if text in Reason._value2member_map_ else Reason.ROLLED_BACK
