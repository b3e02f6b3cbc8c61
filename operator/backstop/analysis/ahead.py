"""Whether a state was counted up to a time that is yet to come, so that clocks were set back; and where to look for what was counted then.

Pure. What is to be done about it is not known here (`setback`).
"""

import math
from typing import Final

from .state import AnalysisState

# Clocks that are kept differ by far less. Samples that are as far ahead are not counted.
AHEAD_SECONDS: Final = 30.0
# Policies that were counted in the same minute are asked for together.
TOGETHER_SECONDS: Final = 60


def ahead(state: AnalysisState, *, now: float) -> float:
    """By how many seconds what was counted last is ahead of now (seconds since the epoch), where clocks were set back; else 0."""
    by = max(state.watermarks.values(), default=now) - now
    return by if by > AHEAD_SECONDS else 0.0


def look_until(state: AnalysisState, *, now: float) -> int | None:
    """The end of the minute up to which a state that is `ahead` was counted; None for any other.

    A source that has nothing of then has none of the samples that were counted; in one that has, they come again as time goes on.
    """
    return math.ceil((now + by) / TOGETHER_SECONDS) * TOGETHER_SECONDS if (by := ahead(state, now=now)) else None
