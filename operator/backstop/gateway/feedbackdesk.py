"""Where feedback is taken: its id is checked, and it is counted for the revision that answered. Knows ids and metrics, no HTTP."""

from collections.abc import Callable
from typing import Final

import msgspec

from .errors import CallerError
from .feedback import FeedbackKeys, UsedIds, read_feedback
from .metrics import GatewayMetrics

_NOT_OURS: Final = "`request_id` is of no answer of this policy's, or of one too long ago; send `x-backstop-request-id` of the answer"


class FeedbackDesk:
    """Takes the feedback of one policy. `now`: the wall clock, in seconds."""

    def __init__(self, keys: FeedbackKeys, *, metrics: GatewayMetrics, now: Callable[[], float]) -> None:
        self._keys = keys
        self._metrics = metrics
        self._now = now
        self._used = UsedIds()

    def take(self, body: bytes) -> bytes:
        """Count what a caller sends; what it is told. Raises CallerError."""
        identity, label = read_feedback(body)
        signed = self._keys.read(identity, now=self._now())
        if signed is None:
            raise CallerError(_NOT_OURS, param="request_id", status=403, code="unknown_request_id")
        # Of a revision that is long gone, or of an answer that its caller chose the track of, nothing would be judged.
        counted = signed.counts and self._metrics.entry.counts_for(signed.revision) and self._used.take(signed.nonce)
        if counted:
            self._metrics.entry.of(signed.revision).count_feedback(label)
        return msgspec.json.encode({"object": "feedback", "label": label.value, "counted": counted})
