"""Whether an event loop turns: it beats at a steady pace, and a beat that comes late shows how long it was stuck. PURE.

Knows a clock and the pace. Who beats, and who asks, is wired elsewhere: gateways and the operator do it alike.
"""

from collections.abc import Callable
from typing import Final

# The owner calls `beat` as often as this.
BEAT_SECONDS: Final = 0.5
# A loop that does nothing for this long serves nobody.
STUCK_SECONDS: Final = 5.0
# As long as a kubelet takes from one look to the next: one long pause is seen once, a loop that is stuck again and again always.
REMEMBERED_SECONDS: Final = 10.0


class Heartbeat:
    """The beats of one loop. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self._stuck: tuple[float, float] | None = None  # when it turned again, and for how long it had not

    def beat(self) -> None:
        """The loop turns."""
        now = self._clock()
        if (late := self._late(now)) > STUCK_SECONDS:
            self._stuck = now, late
        self._last = now

    def stuck(self) -> str | None:
        """In one sentence, that the loop does not turn at this moment."""
        late = self._late(self._clock())
        return f"the event loop has been stuck for {late:.1f} s" if late > STUCK_SECONDS else None

    def problem(self) -> str | None:
        """What is wrong, or was a moment ago; None while the loop turns. Right also when it is asked before a late beat."""
        if (stuck := self.stuck()) is not None:
            return stuck
        if self._stuck is not None and self._clock() - self._stuck[0] < REMEMBERED_SECONDS:
            return f"the event loop was stuck for {self._stuck[1]:.1f} s"
        return None

    def _late(self, now: float) -> float:
        return now - self._last - BEAT_SECONDS
