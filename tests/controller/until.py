"""Waiting for a condition, with a deadline; and what runs meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05


async def until(what: str, condition: Callable[[], Awaitable[T | None]], *, within: float = 30.0) -> T:
    """The first value of `condition` that is not None, False, or an empty list or set. Fails, saying what was waited for, when none comes
    in time.
    """
    try:
        async with asyncio.timeout(within):
            while True:
                value = await condition()
                if value is not None and value is not False and not (isinstance(value, list | set) and not value):
                    return value
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not within {within:g} s: {what}") from None


@contextlib.asynccontextmanager
async def alongside(what: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """While the context lasts, `what` runs; raises what ended it before."""
    task = asyncio.create_task(what)
    try:
        yield
        if task.done():
            await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
