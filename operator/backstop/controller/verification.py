"""Watching gateways act: while a policy waits for a traffic generation, its ready gateway pods are asked several times a second.

Knows which policies wait, because a pass says so; decides nothing. A key is woken when the answer becomes another one. Where very many
wait at once, each is asked less often: a thousand that begin a step together must not keep the operator from one that falls.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

from ..rollout.observed import Known, Unknown
from ..traffic.acting import acting_generation
from .keys import PolicyKey
from .observe import gateways_of
from .store import Store

ASK_AGAIN_SECONDS: Final = 0.25
# Of policies whose traffic does not fall: so many are asked in a second, and at once.
ASKED_PER_SECOND: Final = 100
ASKED_AT_ONCE: Final = 64
CONNECTIONS: Final = 256
NOBODY_ASKED: Final = Unknown("no gateway was asked yet")


@dataclass
class _Watched:
    answer: Known[int] | Unknown
    task: asyncio.Task[None]
    falling: bool


_log = logging.getLogger(__name__)


class Verification:
    """The running questions, one task per waiting policy."""

    def __init__(self, store: Store, *, wake: Callable[[PolicyKey], None], jitter: Callable[[], float]) -> None:
        self._store = store
        self._wake = wake
        self._jitter = jitter
        self._watched: dict[PolicyKey, _Watched] = {}
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS), trust_env=False)

    def acting(self, key: PolicyKey) -> Known[int] | Unknown:
        """The latest answer of the policy's gateways."""
        watched = self._watched.get(key)
        return watched.answer if watched is not None else NOBODY_ASKED

    def keep_asking(self, key: PolicyKey, *, waiting: bool, falling: bool = False) -> None:
        """Whether the policy waits for a generation from now on. `falling`: for a canary to lose its traffic; that comes first."""
        watched = self._watched.get(key)
        if not waiting:
            if watched is not None:
                watched.task.cancel()
                del self._watched[key]
        elif watched is None or watched.task.done() or watched.falling != falling:
            answer: Known[int] | Unknown = NOBODY_ASKED
            if watched is not None and not watched.task.done():
                watched.task.cancel()  # it may be waiting for its turn
                answer = watched.answer
            task = asyncio.create_task(self._ask(key), name=f"verify {key}")
            task.add_done_callback(_log_failure)
            self._watched[key] = _Watched(answer, task, falling)

    async def close(self) -> None:
        """End all questions."""
        tasks = [watched.task for watched in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    async def _ask(self, key: PolicyKey) -> None:
        while True:
            watched = self._watched[key]
            async with contextlib.nullcontext() if watched.falling else self._turns:
                answer = await acting_generation(self._session, gateways=gateways_of(self._store.pods(key)))
            news = answer != watched.answer if isinstance(answer, Known) else isinstance(watched.answer, Known)
            watched.answer = answer
            if news:
                self._wake(key)
            pause = ASK_AGAIN_SECONDS if watched.falling else max(ASK_AGAIN_SECONDS, len(self._watched) / ASKED_PER_SECOND)
            await asyncio.sleep(pause * (1 + self._jitter() / 4))


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("asking gateways ended", exc_info=error)
