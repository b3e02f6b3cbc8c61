"""Watching traffic move: while a policy waits for a traffic generation, its ready gateway pods are asked several times a second; where
there are no gateways, the endpoints of its Service are looked at instead.

Knows which policies wait, because a pass says so; decides nothing. A key is woken when the answer becomes another one. Where very many
wait at once, each is asked less and less often: a thousand that begin a step together must not keep the operator from one that falls.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

from ..api.names import callers_service
from ..kube.client import Client
from ..kube.resources import SERVICES
from ..rendering.route import revisions_of
from ..rollout.observed import Known, Unknown
from ..rollout.progress import VERIFY_SECONDS
from ..traffic.acting import Acting, acting_generations
from ..traffic.replicas import endpoints_follow
from ..traffic.router import REPLICAS
from .keys import PolicyKey
from .observe import gateways_of
from .store import Store

ASK_AGAIN_SECONDS: Final = 0.25
LOOK_AGAIN_SECONDS: Final = 0.5  # every look is a request to the API server
# Of policies whose traffic does not fall: so many are asked in a second, and at once.
ASKED_PER_SECOND: Final = 100
ASKED_AT_ONCE: Final = 64
# However many wait: the first question often comes before the write, and each needs several in the time that a weight has.
LONGEST_PAUSE_SECONDS: Final = VERIFY_SECONDS / 4
CONNECTIONS: Final = 256
NOBODY_ASKED: Final = Acting(Unknown("nobody was asked yet"), None)


@dataclass
class _Watched:
    answer: Acting
    since: float | None  # when the lowest, where it is known, became this one; seconds since the epoch
    task: asyncio.Task[None]
    falling: bool
    by_endpoints: bool
    decided: int = 0


_log = logging.getLogger(__name__)


class Verification:
    """The running questions, one task per waiting policy. `wake(key, urgent)` is called when the answer is another one."""

    def __init__(
        self,
        store: Store,
        *,
        client: Client,
        wake: Callable[[PolicyKey, bool], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._store = store
        self._client = client
        self._wake = wake
        self._clock = clock
        self._jitter = jitter
        self._watched: dict[PolicyKey, _Watched] = {}
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS), trust_env=False)

    def acting(self, key: PolicyKey) -> Acting:
        """The latest answer of the policy's gateways."""
        watched = self._watched.get(key)
        return watched.answer if watched is not None else NOBODY_ASKED

    def acting_since(self, key: PolicyKey) -> float | None:
        """When the policy's gateways first gave this answer, in seconds since the epoch; None while there is none."""
        watched = self._watched.get(key)
        return watched.since if watched is not None else None

    def keep_asking(self, key: PolicyKey, *, waiting: bool, falling: bool = False, by_endpoints: bool = False, decided: int = 0) -> None:
        """Whether the policy waits for a generation from now on. `falling`: for a canary to lose its traffic; that comes first.
        `by_endpoints`: it has no gateways that could be asked. `decided`: the latest generation that its place knows of.
        """
        watched = self._watched.get(key)
        if not waiting:
            if watched is not None:
                watched.task.cancel()
                del self._watched[key]
        elif watched is None or watched.task.done() or watched.falling != falling:
            answer = NOBODY_ASKED
            since = None
            if watched is not None and not watched.task.done():
                watched.task.cancel()  # it may be waiting for its turn
                answer, since = watched.answer, watched.since
            task = asyncio.create_task(self._ask(key), name=f"verify {key}")
            task.add_done_callback(_log_failure)
            self._watched[key] = _Watched(answer, since, task, falling, by_endpoints, decided)
        else:
            watched.decided = decided

    async def close(self) -> None:
        """End all questions."""
        tasks = [watched.task for watched in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    async def _ask(self, key: PolicyKey) -> None:
        asked = 0
        while True:
            watched = self._watched[key]
            async with contextlib.nullcontext() if watched.falling else self._turns:
                if watched.by_endpoints:
                    answer = await endpoints_of(self._client, store=self._store, key=key)
                else:
                    answer = await acting_generations(self._session, gateways=gateways_of(self._store.pods(key)))
            before, watched.answer = watched.answer, answer
            if _said(answer) != _said(before):
                watched.since = self._clock() if isinstance(answer.lowest, Known) else None
            if is_news(answer, before=before, decided=watched.decided):
                self._wake(key, watched.falling)
            least = LOOK_AGAIN_SECONDS if watched.by_endpoints else ASK_AGAIN_SECONDS
            pause = least if watched.falling else pause_after(asked, waiting=len(self._watched), least=least)
            asked += 1
            await asyncio.sleep(pause * (1 + self._jitter() / 4))


def is_news(answer: Acting, *, before: Acting, decided: int) -> bool:
    """Whether a pass makes something of it: of the lowest, and of one that is later than all that was `decided`. While a weight is taken
    up the highest is earlier there than the lowest, which says nothing.
    """
    return _said(answer) != _said(before) or _later(answer, than=decided) != _later(before, than=decided)


def _said(answer: Acting) -> Known[int] | int | None:
    """The lowest. That one of them does not say it yet, in whatever words, is nothing."""
    return answer.lowest if isinstance(answer.lowest, Known) else answer.highest


def _later(answer: Acting, *, than: int) -> int | None:
    return answer.highest if answer.highest is not None and answer.highest > than else None


async def endpoints_of(client: Client, *, store: Store, key: PolicyKey) -> Acting:
    """The generation that the Service of the policy carries, once its endpoints are those pods that it selects and that are ready."""
    name = callers_service(key.name)
    service = store.child(SERVICES, namespace=key.namespace, name=name)
    if service is None:
        return Acting(Unknown(f"Service `{name}` does not exist"), None)
    said = REPLICAS.observe(service.content, annotations=service.annotations)
    if not isinstance(said, Known) or said.value is None:
        return Acting(said, None) if isinstance(said, Unknown) else NOBODY_ASKED
    serving = revisions_of(said.value)
    pods = [pod.name for pod in store.pods(key) if pod.revision in serving and pod.ready and not pod.deleting]
    followed = await endpoints_follow(client, namespace=key.namespace, service=name, pods=pods, generation=said.value.generation)
    return Acting(followed, followed.value if isinstance(followed, Known) else None)


def pause_after(asked: int, *, waiting: int, least: float) -> float:
    """Seconds until a policy whose traffic does not fall is asked again, after `asked` pauses: longer each time, up to what the number of
    policies that are `waiting` asks for.
    """
    longest = max(least, min(waiting / ASKED_PER_SECOND, LONGEST_PAUSE_SECONDS))
    return float(min(least * 2 ** min(asked, 16), longest))


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("asking gateways ended", exc_info=error)
