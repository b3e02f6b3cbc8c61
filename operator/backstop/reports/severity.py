"""How much callers felt of a rollout. Pure; knows reasons, no policy."""

from typing import Final

from ..api.reasons import Reason
from ..api.rolloutreport import Severity

# What a breach of each objective is to a caller; one that stable shares goes on.
_BREACHES: Final = {
    Reason.ERROR_RATE_BREACH: Severity.P1,
    Reason.SHARED_INCIDENT: Severity.P1,
    Reason.NO_TRAFFIC: Severity.P1,
    Reason.LATENCY_BREACH: Severity.P2,
    Reason.PROMQL_BREACH: Severity.P2,  # what its author counts, callers may have felt or not
    Reason.HALLUCINATION_RATE_BREACH: Severity.P1,  # callers were told what is not so
    Reason.FEEDBACK_BREACH: Severity.P2,
    Reason.FALLBACK_RATE_BREACH: Severity.P3,
    Reason.TOKENS_BREACH: Severity.P3,  # callers felt nothing of it
    Reason.COST_BREACH: Severity.P3,
}


def severity_of(*, outcome: str, reason: str, peak_weight: int) -> Severity:
    """Severity of a rollout that ended so. `peak_weight`: the highest percent of requests that its revision had."""
    if outcome != "RolledBack" or peak_weight == 0:
        return Severity.P4
    return {breach.value: severity for breach, severity in _BREACHES.items()}.get(reason, Severity.P3)
