"""Deadlines on the injected clock, as asyncio's timers want them.

An event loop's own time is coarse (uvloop: milliseconds, read once per turn): good for timers, too coarse to measure with.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType


def on_loop(moment: float, *, clock: Callable[[], float]) -> float:
    """`moment` of `clock` (monotonic, seconds) in the running loop's time."""
    return asyncio.get_running_loop().time() + moment - clock()


class Deadline:
    """`asyncio.timeout_at` for a moment of `clock` (monotonic, seconds) that moves all the time.

    To put it off costs no timer; only to bring it forward does. `loop`: the running one, where it is known.
    """

    def __init__(self, moment: float, *, clock: Callable[[], float], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._moment = moment
        self._clock = clock
        self._given = loop
        self._expired = False

    def reschedule(self, moment: float) -> None:
        """Another moment."""
        self._moment = moment
        if moment < self._armed_for:
            self._timer.cancel()
            self._arm()

    async def __aenter__(self) -> "Deadline":
        """Begin."""
        self._loop = self._given or asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._arm()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End. Raises TimeoutError where the moment has come, and nobody else has cancelled the task."""
        self._timer.cancel()
        task = self._task
        del self._task  # a circle otherwise: the task, the exception that ended it, a frame of that, and this
        if self._expired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _arm(self) -> None:
        self._begin(max(0.0, self._moment - self._clock()))

    def _begin(self, seconds: float) -> None:
        self._armed_for = self._moment
        self._timer = self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        if self._moment > self._armed_for:
            self._begin(self._moment - self._armed_for)
        else:
            self._expired = True
            self._task.cancel()
