"""Names, labels and bucket bounds of the gateway's metrics: what the gateway exports and the analysis asks for.

Labels come from configuration only, never from callers.
"""

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

# On every series: which policy the pod belongs to.
NAMESPACE: Final = "namespace"
POLICY: Final = "policy"
REVISION: Final = "revision"
# Which process was scraped, as Prometheus calls it.
POD: Final = "pod"

# Of the analysis, counted by the entry pod only: once per request, with the revision that served it.
SERVED_TOTAL: Final = "backstop_served_total"  # {namespace, policy, revision, cache, outcome, first_tier}
SERVED_SECONDS: Final = "backstop_served_seconds"  # {namespace, policy, revision, cache, first_tier}: to the first byte the caller got
# Requests that the entry pod sent to a revision, counted when sent: what hangs never reaches the two above.
SENT_TOTAL: Final = "backstop_sent_total"  # {namespace, policy, revision}
# Requests that a model answered in full, by whether it said how many tokens that took; and how many, of those that did.
SERVED_USAGE: Final = "backstop_served_usage_total"  # {namespace, policy, revision, target, type}: a UsageType
SERVED_TOKENS: Final = "backstop_served_tokens_total"  # {namespace, policy, revision, target, type}: a TokenType
# Answers that were judged, each once, by the pod that served them: over all grounding scorers, of which `scorers` is a digest.
GROUNDED_TOTAL: Final = "backstop_quality_answers_total"  # {namespace, policy, revision, scorers, label}: a QualityLabel
# What callers thought of answers, by the pod that they told it.
FEEDBACK_TOTAL: Final = "backstop_feedback_total"  # {namespace, policy, revision, label}: a FeedbackLabel

QUALITY_SAMPLES_TOTAL: Final = "backstop_quality_samples_total"  # {namespace, policy, revision, scorer, label}: a QualityLabel
QUALITY_SCORE: Final = "backstop_quality_score"  # {namespace, policy, revision, scorer}: from 0 to 1
QUALITY_DROPPED_TOTAL: Final = "backstop_quality_dropped_total"  # {namespace, policy, revision, reason}: a QualityDrop
REQUESTS_TOTAL: Final = "backstop_requests_total"
TOKENS_TOTAL: Final = "backstop_tokens_total"  # {namespace, policy, revision, tier, type}: by the pod whose chain asked
REQUEST_SECONDS: Final = "backstop_request_duration_seconds"
FIRST_BYTE_SECONDS: Final = "backstop_time_to_first_byte_seconds"
OVERHEAD_SECONDS: Final = "backstop_overhead_seconds"
ATTEMPTS_TOTAL: Final = "backstop_attempts_total"
HANDOFFS_TOTAL: Final = "backstop_handoffs_total"
PASSED_OVER_TOTAL: Final = "backstop_passed_over_total"  # {namespace, policy, revision, target}: by their usual time
CONTINUED_TOTAL: Final = "backstop_continued_total"  # {namespace, policy, revision, from, to}
SPEND_TOKENS: Final = "backstop_spend_tokens"  # {namespace, policy, revision}: of this period, as far as the pod knows
SPEND_ALLOWANCE: Final = "backstop_spend_allowance_tokens"  # {namespace, policy, revision}
HEDGES_TOTAL: Final = "backstop_hedges_total"  # {namespace, policy, revision, from, to, result}
BUDGET_EXCEEDED_TOTAL: Final = "backstop_budget_exceeded_total"
TARGET_UP: Final = "backstop_target_up"
BREAKER_STATE: Final = "backstop_breaker_state"
SPLIT_TOTAL: Final = "backstop_split_total"
CACHE_LOOKUPS_TOTAL: Final = "backstop_cache_lookups_total"  # {namespace, policy, revision, level, result}
CACHE_BYTES: Final = "backstop_cache_bytes"  # {namespace, policy, revision, level}
CACHE_WRITES_TOTAL: Final = "backstop_cache_writes_total"  # {namespace, policy, revision, level, result}: of levels below memory
TICKETS_TOTAL: Final = "backstop_tickets_total"  # {namespace, policy, revision, tier, result}
TICKETS_WAITING: Final = "backstop_tickets_waiting"  # {namespace, policy, revision, tier}
RULES_TOTAL: Final = "backstop_rules_total"  # {namespace, policy, revision, tier, result}
REFUSED_TOTAL: Final = "backstop_refused_total"  # {namespace, policy, revision, reason}: by the pod that had no room
UNAUTHORIZED_TOTAL: Final = "backstop_unauthorized_total"  # {namespace, policy, revision}
INFLIGHT: Final = "backstop_inflight_requests"
REVISION_INFO: Final = "backstop_revision_info"
SPANS_TOTAL: Final = "backstop_spans_total"  # {namespace, policy, revision, result}: a SpanResult


class Outcome(StrEnum):
    """How a request ended, as the caller saw it."""

    SUCCESS = "success"
    ERROR = "error"  # the caller got an error that is not the caller's own
    TRUNCATED = "truncated"  # a stream that failed after its first content
    CALLER_ERROR = "caller_error"  # 4xx of the caller's making
    CANCELLED = "cancelled"  # the caller left
    REFUSED = "refused"  # a gateway had no room for it: no model was asked, so it says nothing of a revision


JUDGED_OUTCOMES: Final = (Outcome.SUCCESS, Outcome.ERROR, Outcome.TRUNCATED)


class Overload(StrEnum):
    """What a gateway had no room for."""

    REQUESTS = "requests"  # in flight
    BODIES = "bodies"  # bytes of request bodies that are held
    HEADS = "heads"  # and of the heads of requests that are not whole yet
    FILES = "files"  # to ask a model with, of which the system gives no more
    CONNECTIONS = "connections"  # of callers: one that was turned away is one, whatever would have been asked on it


class FirstTier(StrEnum):
    """What became of the chain's first tier: a chain that hides a slow or failing model still shows it."""

    ANSWERED = "answered"
    LATE = "late"  # handed over because it was late (LatencyBreach), or taken out because it was
    FAILED = "failed"  # its attempt failed, other than by being late, or it is taken out because it failed so
    # Not tried: no time left, or what is asked is more than it can do; or what came of it is not its doing: the request does not fit, or
    # leaves no length for an answer, or the gateway could not ask.
    SKIPPED = "skipped"


class CacheUse(StrEnum):
    """Whether an answer came from a cache."""

    MISS = "miss"  # also where there is no cache, or it was passed by
    HIT = "hit"  # at once, without a model being asked
    STALE = "stale"  # because the tiers before had failed


# A model was asked. A stale answer is of these: to leave it out would leave out the failures of whoever has a warm cache.
ASKED_A_MODEL: Final = (CacheUse.MISS, CacheUse.STALE)


class UsageType(StrEnum):
    """Whether an answer says how many tokens it took."""

    KNOWN = "known"
    UNKNOWN = "unknown"


class TokenType(StrEnum):
    """Tokens of the request, and of the answer."""

    INPUT = "input"
    OUTPUT = "output"


class CacheLookup(StrEnum):
    """What a request found in a level of the cache, or that it did not look."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"  # after a miss, and the failure of the tiers before
    BYPASS = "bypass"  # its caller, or what it asks for, wants no kept answer
    FAILED = "failed"  # the level did not say in time; goes on as a miss


class CacheWrite(StrEnum):
    """What became of an answer that was to be kept below memory."""

    WRITTEN = "written"
    FAILED = "failed"
    DROPPED = "dropped"  # too much was waiting, or the level is left alone


class SpanResult(StrEnum):
    """What became of a span."""

    SENT = "sent"
    FAILED = "failed"  # the collector did not take it
    DROPPED = "dropped"  # too many waited, or the gateway ended first


class RuleResult(StrEnum):
    """What the rules of a tier came to."""

    ANSWERED = "answered"
    MISSED = "missed"  # none held
    FAILED = "failed"  # a condition could not be evaluated, and held for nobody; each one counts, beside one of the others


class TicketResult(StrEnum):
    """What became of a ticket for people, or of a try to send one."""

    QUEUED = "queued"
    REFUSED = "refused"  # too many wait, or the volume failed: the next tier is asked
    DELIVERED = "delivered"
    FAILED = "failed"  # a try that is followed by another


class CacheLevel(StrEnum):
    """Where answers are kept."""

    HOT = "hot"  # in the gateway's memory
    WARM = "warm"  # in a Redis
    COLD = "cold"  # on a volume


class QualityLabel(StrEnum):
    """What a scorer says of an answer."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"  # it cannot tell, or has nothing to say to such an answer
    ERROR = "error"  # it gave no verdict: neither good nor bad


class QualityDrop(StrEnum):
    """Why an answer that was drawn is not judged."""

    QUEUE = "queue"  # too many wait
    MEMORY = "memory"  # what waits takes too much


class FeedbackLabel(StrEnum):
    """What a caller thought of an answer."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NEUTRAL = "neutral"


class FailureMode(StrEnum):
    """The taxonomy of hand-offs: a closed list, one per hand-off."""

    LATENCY_BREACH = "LatencyBreach"
    DEPENDENCY_FAILURE = "DependencyFailure"
    RESOURCE_EXHAUSTION = "ResourceExhaustion"
    MALFORMED_ANSWER = "MalformedAnswer"
    PROMPT_ERROR = "PromptError"  # what is asked is more than the target can do, or more than fits into it
    POLICY_VIOLATION = "PolicyViolation"  # the policy does not let the request go there


SEVERITY: Final[dict[FailureMode, str]] = {
    FailureMode.LATENCY_BREACH: "P1",
    FailureMode.DEPENDENCY_FAILURE: "P1",
    FailureMode.RESOURCE_EXHAUSTION: "P2",
    FailureMode.MALFORMED_ANSWER: "P2",
    FailureMode.PROMPT_ERROR: "P3",
    FailureMode.POLICY_VIOLATION: "P3",
}

# A fixed grid in seconds, about a third apart, from 5 ms to 120 s.
GRID: Final = (
    0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip
# Around each declared limit, so that a slow-down can be seen at several bounds.
LIMIT_MULTIPLES: Final = (1.0, 1.17, 1.33, 1.7, 2.0, 3.0)


def latency_bounds(limits: Iterable[float]) -> tuple[float, ...]:
    """Histogram bounds in seconds, rising: the grid and the multiples of each declared limit."""
    around = {round(limit * multiple, 6) for limit in limits for multiple in LIMIT_MULTIPLES}
    return tuple(sorted(set(GRID) | around))


def bound_label(seconds: float) -> str:
    """The `le` label of a bound, as the Prometheus client libraries spell it."""
    return repr(float(seconds))


def target_label(tier: str, *, base_url: str, model: str) -> str:
    """A tier's target as declared: another model or address under the same name of a tier is another target, with a price of its own."""
    return f"{tier}@{hashlib.sha256(repr((base_url, model)).encode()).hexdigest()[:8]}"
