"""An event loop whose time is simulated: it jumps to the next deadline when nothing is left to do, and never waits.

Nothing in it may do real I/O. The same calls lead to the same order of events, so that what was found once is found again.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

MOST_TURNS = 20_000  # of the loop, without time going by


class _NoWaiting(selectors.SelectSelector):
    """Hands every wait of the loop to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: SimulatedLoop | None = None
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        assert self.turns < MOST_TURNS, "11: it goes round and round without any time going by"
        if self.clock is not None and (timeout is None or timeout > 0):
            self.turns = 0
            self.clock.idle(timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time` is in seconds since the loop was made."""

    def __init__(self) -> None:
        self._now = 0.0
        self._until = 0.0
        selector = _NoWaiting()
        super().__init__(selector)
        selector.clock = self
        self.failures: list[Mapping[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._now

    def let_pass(self, seconds: float) -> None:
        """Everything that happens within this time."""
        self._until = self._now + seconds
        self.run_forever()

    def idle(self, timeout: float | None) -> None:
        """Nothing to do for this long; None: until somebody does something."""
        if timeout is None or self._now + timeout > self._until:
            self._now = self._until
            self.stop()
        else:
            self._now += timeout
