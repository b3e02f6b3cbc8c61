"""Whether the gateway takes, drains or ends: read on every request, set by the wiring.

Draining: not ready, connections close after their answer. Ending: what still runs is ended, with an error its caller can read.
"""

import asyncio


class Lifecycle:
    """The gateway's state, the tasks of the requests that have begun, and how many of them are in flight."""

    def __init__(self) -> None:
        self.draining = False
        self.ending = False
        self.killed_at: float | None = None  # on the event loop's clock; None: nobody has told it to end
        self.in_flight = 0  # requests whose body is there: one that is still on its way takes room for what has come, and nobody's turn
        self._running: set[asyncio.Task[None]] = set()

    def enter(self, task: asyncio.Task[None]) -> None:
        """A request has begun; its task is cancelled when the gateway ends before it does."""
        self._running.add(task)

    def leave(self, task: asyncio.Task[None]) -> None:
        """The request is over."""
        self._running.discard(task)

    def drain(self, *, killed_at: float) -> None:
        """Be unready, and close connections after their answers."""
        self.draining = True
        self.killed_at = killed_at

    def end(self) -> None:
        """Interrupt what still runs."""
        self.ending = True
        for task in tuple(self._running):
            task.cancel()
