"""Tokens counted together: tells a shared counter what this pod's models took, and learns what those of all have. An adapter.

Nobody waits for it. While the counter does not answer, a pod goes by what it last heard and by its own; what it could not tell it tells
later.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Final, Protocol

from .allowance import Allowance
from .lowerlevel import STORE_SECONDS, StoreError

_LOG: Final = logging.getLogger("backstop.gateway")
TOLD_EVERY_SECONDS: Final = 1.0


class Counter(Protocol):
    """A counter for all, outside of the process."""

    async def add(self, name: str, *, amount: int, seconds: float) -> int:
        """Add to it; it is forgotten so long after the last time. What it comes to. Raises StoreError."""

    async def close(self) -> None:
        """Let it go."""


@asynccontextmanager
async def counting(allowance: Allowance, *, counter: Counter, jitter: Random) -> AsyncIterator[None]:
    """Tell and learn, until the end of the block; then tell what is left."""
    task = asyncio.create_task(_keep_counting(allowance, counter=counter, jitter=jitter))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(StoreError, TimeoutError):  # it was said when it began to fail
            await _tell(allowance, counter=counter)
        await counter.close()


async def _keep_counting(allowance: Allowance, *, counter: Counter, jitter: Random) -> None:
    fails = False
    while True:
        try:
            await _tell(allowance, counter=counter)
            if fails:
                _LOG.info("the shared count of tokens is there again")
            fails = False
        except (StoreError, TimeoutError) as error:
            if not fails:
                why = str(error) or "it does not answer"
                _LOG.warning("tokens are not counted together: %s; this gateway goes by what it last heard, and by its own", why)
            fails = True
        await asyncio.sleep(TOLD_EVERY_SECONDS * jitter.uniform(0.8, 1.2))


async def _tell(allowance: Allowance, *, counter: Counter) -> None:
    untold = allowance.untold()
    period = allowance.settings.period
    async with asyncio.timeout(STORE_SECONDS):
        total = await counter.add(f"tokens:{period / 86_400:.0f}:{untold.period}", amount=untold.tokens, seconds=2 * period)
    allowance.heard(untold, total=total)
