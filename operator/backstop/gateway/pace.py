"""How long a target takes to its first content, and whether that fits into a time. PURE.

Counts recent attempts by how long they took, in steps of a quarter. One that was broken off because its time was over took longer than
that, and nobody knows how much longer: it says something of times up to its own, and nothing of longer ones.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from typing import Final

# Of a hundred attempts, how many may not fit.
MOST_LATE_PERCENT: Final = 5
WINDOW_SECONDS: Final = 60.0
# Fewer attempts than these say nothing: with 20, a single late one is 5 %.
LEAST_ATTEMPTS: Final = 20
# A target that is passed over is tried by one request in so many seconds, to see.
TRIAL_SECONDS: Final = 5.0
_PARTS: Final = 6
_SHORTEST: Final = 0.001
_STEP: Final = log(1.25)
_STEPS: Final = 64  # up to twenty minutes


@dataclass
class _Part:
    number: int
    came: list[int] = field(default_factory=lambda: [0] * _STEPS)
    late: list[int] = field(default_factory=lambda: [0] * _STEPS)


class Pace:
    """One target's. `clock` is monotonic, in seconds. What it holds does not grow, and what it is asked takes the same time always."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parts: deque[_Part] = deque(maxlen=_PARTS)
        self._tried_at: float | None = None  # the last time that it was let try although it is too slow

    def came(self, seconds: float) -> None:
        """Content came after so long."""
        self._part().came[_step(seconds)] += 1

    def was_late(self, seconds: float) -> None:
        """None had come after so long, and it was waited for no longer."""
        self._part().late[_step(seconds)] += 1

    def fits(self, seconds: float) -> bool:
        """Whether to try it with so much time: unless more than MOST_LATE_PERCENT of recent attempts would have been late."""
        limit, fit, unfit = _step(seconds), 0, 0
        oldest = self._number() - _PARTS
        for part in self._parts:
            if part.number > oldest:
                fit += sum(part.came[: limit + 1])
                unfit += sum(part.came[limit + 1 :]) + sum(part.late[limit:])
        if fit + unfit < LEAST_ATTEMPTS or unfit * 100 <= MOST_LATE_PERCENT * (fit + unfit):
            return True
        now = self._clock()
        if self._tried_at is None or now - self._tried_at >= TRIAL_SECONDS:
            self._tried_at = now
            return True
        return False

    def _part(self) -> _Part:
        number = self._number()
        if not self._parts or self._parts[-1].number != number:
            self._parts.append(_Part(number))
        return self._parts[-1]

    def _number(self) -> int:
        return int(self._clock() * _PARTS // WINDOW_SECONDS)


class Paces:
    """Those of a chain's targets, by tier, and streams apart from whole answers."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paces: dict[tuple[str, bool], Pace] = {}

    def fits(self, tier: str, *, stream: bool, seconds: float) -> bool:
        """As of `Pace`. Of whom nothing is known everything does."""
        pace = self._paces.get((tier, stream))
        return pace is None or pace.fits(seconds)

    def of(self, tier: str, *, stream: bool) -> Pace:
        """One of them, made when first asked for."""
        pace = self._paces.get((tier, stream))
        if pace is None:
            pace = self._paces[tier, stream] = Pace(clock=self._clock)
        return pace


def _step(seconds: float) -> int:
    return min(_STEPS - 1, int(log(seconds / _SHORTEST) / _STEP)) if seconds > _SHORTEST else 0
