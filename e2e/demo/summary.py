"""The figures of a demo, from what callers saw and what the policy's status says. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from backstop.api.clock import parse_time, render_time
from e2e.load import Answer

DETECTION_TARGET_SECONDS = 30.0 + 5.0 + 2.0  # the rule, one scrape interval, and 2 s
SHIFT_TARGET_SECONDS = 1.0


@dataclass(frozen=True)
class Summary:
    """Times in seconds since the epoch."""

    breach_began: float
    detected: float
    shifted: float
    last_canary_request: float
    requests: int
    failed: int
    canary_requests: int
    promoted: str
    rolled_back: str

    @property
    def detection_seconds(self) -> float:
        """From the first answer over the limit to the decision."""
        return self.detected - self.breach_began

    @property
    def shift_seconds(self) -> float:
        """From the decision to the last request that still reached the canary; below 0 if none began after it."""
        return self.last_canary_request - self.detected

    def as_json(self) -> dict[str, str | int]:
        """`out/demo.json`: times RFC 3339 with milliseconds."""
        return {
            "breachBeganAt": render_time(self.breach_began),
            "detectedAt": render_time(self.detected),
            "shiftedAt": render_time(self.shifted),
            "lastCanaryRequestAt": render_time(self.last_canary_request),
            "requests": self.requests,
            "failedRequests": self.failed,
            "canaryRequests": self.canary_requests,
            "promotedVersion": self.promoted,
            "rolledBackVersion": self.rolled_back,
        }


class NotSeen(Exception):  # noqa: N818 - the name says what happened
    """Something that the demo has to show was not seen; the text says what."""


def summarise(
    answers: Sequence[Answer], *, bad_revision: str, limit_seconds: float, rollback: dict[str, str], promotion: dict[str, str]
) -> Summary:
    """`rollback` and `promotion` are the two `status.lastRollout`. Raises NotSeen when the story is not whole."""
    canary = [answer for answer in answers if answer.revision == bad_revision]
    late = [answer.began + answer.seconds for answer in canary if answer.seconds > limit_seconds]
    if not late:
        raise NotSeen("no caller saw a slow answer of the bad canary")
    if rollback.get("outcome") != "RolledBack" or not rollback.get("shiftedAt"):
        raise NotSeen(f"the bad canary was not rolled back: {rollback}")
    if promotion.get("outcome") != "Promoted":
        raise NotSeen(f"the good version was not promoted: {promotion}")
    return Summary(
        breach_began=min(late),
        detected=parse_time(rollback["detectedAt"]),
        shifted=parse_time(rollback["shiftedAt"]),
        last_canary_request=max(answer.began for answer in canary),
        requests=len(answers),
        failed=sum(answer.failed for answer in answers),
        canary_requests=len(canary),
        promoted=promotion["promptVersion"],
        rolled_back=rollback["promptVersion"],
    )
