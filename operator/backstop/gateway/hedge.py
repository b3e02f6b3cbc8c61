"""Head starts: a later tier's attempt that begins while an earlier one is still waited for, and the race between them.

Knows positions in a chain, when the next one may begin, and whose answer counts; neither what a tier is nor how it is asked. Whoever
loses is cancelled; an answer that came too late is let go.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

Reached = TypeVar("Reached")
_LOG: Final = logging.getLogger("backstop.gateway")


@dataclass(frozen=True)
class Course(Generic[Reached]):
    """What a race asks of the chain that it runs along. All by a tier's position.

    `patience`: after how many seconds a later tier begins beside it; None: none does. `after`: the next tier that can be asked now; None:
    there is none. `is_good`: nothing better is waited for. `let_go`: nobody wants it.
    """

    ask: Callable[[int], Coroutine[Any, Any, Reached]]
    patience: Callable[[int], float | None]
    after: Callable[[int], int | None]
    is_good: Callable[[Reached], bool]
    let_go: Callable[[Reached], None]


class HeadStarts(Generic[Reached]):
    """The attempts of one request that run beside each other. `end` is called when it is over, whatever became of it."""

    def __init__(self, course: Course[Reached]) -> None:
        self._course = course
        self._attempts: dict[int, asyncio.Task[Reached]] = {}
        self._begun_at: dict[int, float] = {}  # on the loop's clock
        self.begun: list[tuple[int, int]] = []  # beside whom, and who

    async def reach(self, position: int) -> tuple[int, Reached]:
        """What the tier at `position` gives, begun now if it was not before; or a good answer of one that began beside it, where that
        is there first. With whose it is.
        """
        if position not in self._attempts:
            self._begin(position)
        front = self._attempts[position]
        loop = asyncio.get_running_loop()
        while not front.done():
            due = self._due()
            pending = [task for task in self._attempts.values() if not task.done()]
            timeout = None if due is None else max(0.0, due[1] - loop.time())
            await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if front.done():
                break
            for other, task in self._attempts.items():
                if other > position and task.done() and self._course.is_good(task.result()):
                    return other, task.result()
            if due is not None and loop.time() >= due[1]:
                self.begun.append((max(self._attempts), due[0]))
                self._begin(due[0])
        return position, front.result()

    def end(self, given: object) -> None:
        """Cancel what still runs, and let go what nobody wants: all but what is `given`."""
        for task in self._attempts.values():
            task.cancel()  # one that is over stays as it is
            task.add_done_callback(partial(self._ended, given=given))

    def _begin(self, position: int) -> None:
        self._attempts[position] = asyncio.create_task(self._course.ask(position))
        self._begun_at[position] = asyncio.get_running_loop().time()

    def _due(self) -> tuple[int, float] | None:
        """Who begins next, and when: beside the one that is furthest along the chain."""
        last = max(self._attempts)
        patience, following = self._course.patience(last), self._course.after(last)
        return None if patience is None or following is None else (following, self._begun_at[last] + patience)

    def _ended(self, task: asyncio.Task[Reached], *, given: object) -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            _LOG.error("an attempt that nobody waits for ended with a mistake of ours: %r", error)
        elif task.result() is not given:
            self._course.let_go(task.result())
