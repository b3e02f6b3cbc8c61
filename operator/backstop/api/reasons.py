"""The one table of reasons: the word for programs, whether its event is a warning, what to do about it, and nothing else.

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
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    KNOWLEDGE_BASE_INVALID = "KnowledgeBaseInvalid"
    RULES_INVALID = "RulesInvalid"
    CA_BUNDLE_INVALID = "CABundleInvalid"
    OBJECT_NOT_OURS = "ObjectNotOurs"
    OBJECT_REFUSED = "ObjectRefused"
    RECORD_MISSING = "RecordMissing"
    REPORT_FAILED = "ReportFailed"
    RESOLVED = "Resolved"
    # Rollout
    FIRST_REVISION = "FirstRevision"
    FIRST_UNAVAILABLE = "FirstUnavailable"
    STABLE = "Stable"
    CANARY_STARTED = "CanaryStarted"
    WAITING_FOR_READY = "WaitingForReady"
    WAITING_FOR_PROBES = "WaitingForProbes"
    PROBE_PASSED = "ProbePassed"
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
    STEP_PASSED_EARLY = "StepPassedEarly"
    STEP_SKIPPED = "StepSkipped"
    STEPS_REPLANNED = "StepsReplanned"
    PROMOTED_BY_HAND = "PromotedByHand"
    ABORTED = "Aborted"
    RETRIED = "Retried"
    REFRESHED = "Refreshed"
    TOKEN_WITHOUT_EFFECT = "TokenWithoutEffect"
    # Breach and rollback
    LATENCY_BREACH = "LatencyBreach"
    ERROR_RATE_BREACH = "ErrorRateBreach"
    FALLBACK_RATE_BREACH = "FallbackRateBreach"
    PROMQL_BREACH = "PromQLBreach"
    TOKENS_BREACH = "TokensBreach"
    COST_BREACH = "CostBreach"
    HALLUCINATION_RATE_BREACH = "HallucinationRateBreach"
    FEEDBACK_BREACH = "FeedbackBreach"
    NO_TRAFFIC = "NoTraffic"
    HALTED = "Halted"
    WOULD_ROLL_BACK = "WouldRollBack"
    CANARY_UNREADY = "CanaryUnready"
    CANARY_UNAVAILABLE = "CanaryUnavailable"
    PROBE_FAILED = "ProbeFailed"
    PROBE_ENDED = "ProbeEnded"
    HOLDING_LONG = "HoldingLong"
    HELD_TOO_LONG = "HeldTooLong"
    RETURNING = "Returning"
    RETURNING_TO_PREVIOUS = "ReturningToPrevious"
    RETURN_UNAVAILABLE = "ReturnUnavailable"
    NOTHING_TO_RETURN_TO = "NothingToReturnTo"
    REJECTION_CONFIRMED = "RejectionConfirmed"
    SHARED_INCIDENT = "SharedIncident"
    SHARED_BREACH = "SharedBreach"
    ROLLED_BACK = "RolledBack"
    TRAFFIC_SHIFTED = "TrafficShifted"
    # What cannot be seen
    METRICS_AVAILABLE = "MetricsAvailable"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    BUCKET_BOUNDARY_MISSING = "BucketBoundaryMissing"
    NEVER_JUDGED = "NeverJudged"
    TRAFFIC_UNREADABLE = "TrafficUnreadable"
    CLOCK_SET_BACK = "ClockSetBack"
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
        Reason.CONFIG_MAP_NOT_FOUND,
        Reason.KNOWLEDGE_BASE_INVALID,
        Reason.RULES_INVALID,
        Reason.CA_BUNDLE_INVALID,
        Reason.OBJECT_NOT_OURS,
        Reason.OBJECT_REFUSED,
        Reason.RECORD_MISSING,
        Reason.REPORT_FAILED,
        Reason.WEIGHT_NOT_VERIFIED,
        Reason.REJECTED_BEFORE,
        Reason.FIRST_UNAVAILABLE,
        Reason.LATENCY_BREACH,
        Reason.ERROR_RATE_BREACH,
        Reason.FALLBACK_RATE_BREACH,
        Reason.PROMQL_BREACH,
        Reason.TOKENS_BREACH,
        Reason.COST_BREACH,
        Reason.HALLUCINATION_RATE_BREACH,
        Reason.FEEDBACK_BREACH,
        Reason.NO_TRAFFIC,
        Reason.HALTED,
        Reason.WOULD_ROLL_BACK,
        Reason.RETURNING,
        Reason.RETURN_UNAVAILABLE,
        Reason.NOTHING_TO_RETURN_TO,
        Reason.SHARED_INCIDENT,
        Reason.SHARED_BREACH,
        Reason.TOKEN_WITHOUT_EFFECT,
        Reason.CANARY_UNREADY,
        Reason.CANARY_UNAVAILABLE,
        Reason.PROBE_FAILED,
        Reason.PROBE_ENDED,
        Reason.HOLDING_LONG,
        Reason.HELD_TOO_LONG,
        Reason.ROLLED_BACK,
        Reason.METRICS_UNAVAILABLE,
        Reason.BUCKET_BOUNDARY_MISSING,
        Reason.NEVER_JUDGED,
        Reason.TRAFFIC_UNREADABLE,
        Reason.CLOCK_SET_BACK,
        Reason.STABLE_UNREADY,
        Reason.STATUS_LOST,
    }
)


WAY_BACK = "change the spec to go on, or set a new value of the annotation `backstop.dev/retry`"

# What to do next, where that is the same whatever the message says; else the message says it.
ADVICE = {
    Reason.OBJECT_REFUSED: "allow it, or change what the policy asks for; it is tried again",
    Reason.REPORT_FAILED: "allow it; rollouts go on, and it is tried again until the next one begins",
    Reason.RECORD_MISSING: "restore it from a backup, or roll out another version",
    Reason.WEIGHT_NOT_VERIFIED: "look at the policy's pods, and delete one that does not come along",
    Reason.ROLLED_BACK: WAY_BACK,
    Reason.REJECTED_BEFORE: WAY_BACK,
    Reason.WOULD_ROLL_BACK: "name another version in the spec; a new value of the annotation `backstop.dev/abort` ends a canary",
    Reason.RETURNING: "see to its pods if they do not come; a new value of the annotation `backstop.dev/promote` keeps what serves",
    Reason.NOTHING_TO_RETURN_TO: "roll out another version",
    Reason.SHARED_INCIDENT: "look for what both have in common, such as the model behind them, "
    "and then set a new value of the annotation `backstop.dev/retry` or change the spec",
    Reason.SHARED_BREACH: "look for what both have in common, such as the model behind them; the rollout goes on when it is over",
    Reason.CANARY_UNREADY: "look at its pods; it is rolled back when it is short of them for `spec.canary.progressDeadlineSeconds`",
    Reason.PROBE_ENDED: "correct it in `spec.canary.probes`, and it begins anew; until then callers' requests alone are judged",
    Reason.HOLDING_LONG: "`.status.slos` says what is missing; `backstop.dev/skip-step` goes on, `backstop.dev/abort` ends it, and "
    "`spec.canary.analysis.maxHoldSeconds` bounds the wait",
    Reason.METRICS_UNAVAILABLE: "see that the metrics source answers, and that it scrapes the policy's pods",
    Reason.NEVER_JUDGED: "see that metrics can be seen and that there are requests; `spec.rollback.guardSeconds` says how long is watched",
    Reason.CLOCK_SET_BACK: "see that the clocks of the nodes that the operator runs on are kept",
    Reason.STABLE_UNREADY: "look at its pods",
    Reason.STATUS_LOST: "see who took it away: a backup is restored with its status, and a client changes what is its own",
}


def event_type(reason: Reason) -> str:
    """`Warning` or `Normal`, as an Event spells it."""
    return "Warning" if reason in WARNINGS else "Normal"


def advice_for(reason: Reason) -> str:
    """What is said after every message of this reason; empty where the message says it."""
    return f"; {ADVICE[reason]}" if reason in ADVICE else ""


def reason_of(text: str) -> Reason:
    """The reason a status or traffic object names; `RolledBack` for a word of a newer version that this one does not know."""
    return Reason(text) if text in Reason._value2member_map_ else Reason.ROLLED_BACK
