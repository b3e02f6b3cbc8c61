"""Requests that were sent to a revision and never came to an end: what hangs is in no histogram and in no outcome. Pure.

Those whose callers left are no answers either: callers of what hangs do leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..api.metricnames import SERVED_TOTAL, Outcome
from .indicators import sent_requests
from .samples import Counter

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


def after_block(silence: Silence | None, *, added: Mapping[Counter, float], end: float, revision: str) -> Silence | None:
    """The silence after one more block that ended at `end`."""
    answered = (n for c, n in added.items() if c.metric == SERVED_TOTAL and c.revision == revision and c.outcome != Outcome.CANCELLED)
    if any(count > 0 for count in answered):
        return None
    sent = sent_requests(added, revision=revision)
    if silence is None:
        return Silence(since=end, sent=sent) if sent > 0 else None
    return Silence(since=silence.since, sent=silence.sent + sent)
