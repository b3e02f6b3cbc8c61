"""The election in a thread with an event loop of its own: a renewal does not wait until the operator's loop has a turn for it.

While thousands of rollouts begin at once that can take seconds, and the Lease would go to another, who would have as much to do. But a
loop that does not turn at all must not lead: with it, the renewals end.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any, Final, Self, TypeVar

from .leadership import Leadership, LeadershipLost

T = TypeVar("T")

WATCH_SECONDS: Final = 1.0


class Aside:
    """A `Leadership`, with its methods. `make` builds it in the thread, with what has to be closed there at the end.

    `problem`: why the operator's own loop is not well, or None; asked from the thread.
    """

    def __init__(self, make: Callable[[AsyncExitStack], Awaitable[Leadership]], *, problem: Callable[[], str | None]) -> None:
        self._make = make
        self._problem = problem
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="election", daemon=True)
        self._stack = AsyncExitStack()
        self._leadership: Leadership | None = None

    async def __aenter__(self) -> Self:
        self._thread.start()
        self._leadership = await self._there(self._made())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._there(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def leads(self) -> bool:
        """Whether this process may act, at this moment."""
        return self._leadership is not None and self._leadership.leads()

    async def gain(self) -> None:
        """Wait until this process leads."""
        await self._there(self._elected.gain())

    async def keep(self) -> None:
        """Renew the Lease until cancelled. Raises LeadershipLost."""
        await self._there(self._kept())

    async def let_go(self) -> None:
        """Act no more, and let another lead at once."""
        await self._there(self._elected.let_go())

    @property
    def _elected(self) -> Leadership:
        assert self._leadership is not None, "entered"
        return self._leadership

    async def _made(self) -> Leadership:
        return await self._make(self._stack)

    async def _kept(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._elected.keep())
            tasks.create_task(self._while_well())

    async def _while_well(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if (problem := self._problem()) is not None:
                raise LeadershipLost(problem)

    async def _there(self, what: Coroutine[Any, Any, T]) -> T:
        """Run in the thread; cancelled there when it is cancelled here, and over there when this ends."""
        running: Future[T] = asyncio.run_coroutine_threadsafe(what, self._loop)
        return await asyncio.wrap_future(running)
