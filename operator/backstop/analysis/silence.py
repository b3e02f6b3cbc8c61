"""Requests that were sent to a revision and never came to an end: what hangs is in no histogram and in no outcome. Pure.

Those whose callers left are no answers either: callers of what hangs do leave.
"""

from dataclasses import dataclass
from typing import Final

from ..api.metricnames import SERVED_TOTAL, Outcome
from .deltas import Counted
from .indicators import sent_requests

FEWEST_SENT: Final = 20


@dataclass(frozen=True)
class Silence:
    """`sent` requests since `since`, the end of the first block with one of them (seconds since the epoch), and no answer after it."""

    since: float
    sent: int

    @property
    def tells(self) -> bool:
        """Whether that many would not be under way together by chance."""
        return self.sent >= FEWEST_SENT


def after_block(silence: Silence | None, *, counted: Counted, end: float, revision: str) -> Silence | None:
    """The silence after one more block that ended at `end`."""
    if any(count > 0 and counter.outcome != Outcome.CANCELLED for counter, count in counted.get((SERVED_TOTAL, revision), ())):
        return None
    sent = sent_requests(counted, revision=revision)
    if silence is None:
        return Silence(since=end, sent=sent) if sent > 0 else None
    return Silence(since=silence.since, sent=silence.sent + sent)
