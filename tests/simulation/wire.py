"""The way from one operator to the simulated API server: takes time, loses answers, breaks. Speaks as `kubernetes.aio`'s ApiClient does."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Any, Self

import aiohttp

from .api import Api, parts_of

LEASES = "leases"


class Fault(StrEnum):
    """What befalls one write."""

    ANSWER_LOST = "it takes effect, and its answer is lost"
    NEVER_ARRIVES = "it never arrives"
    LATE = "it takes effect long after its sender gave up"
    FORBIDDEN = "403"
    CONTENDED = "somebody else writes the object first"
    BUSY = "429"
    BROKEN = "500"
    DEATH_AFTER = "it takes effect, and its sender dies"
    DEATH_BEFORE = "its sender dies, and it never arrives"


LATE_SECONDS = 14.0
# More than that within ten seconds, and it writes because it has written: several times what the busiest rollout needs.
MOST_WRITES = 300


class Answer:
    """As the client reads it; for a watch, as it follows it."""

    def __init__(self, status: int, content: bytes | AsyncIterator[bytes]) -> None:
        self.status = status
        self.content = content

    async def read(self) -> bytes:
        """The whole body."""
        assert isinstance(self.content, bytes)
        return self.content

    @property
    def response(self) -> Self:
        """The underlying response."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        return None


class Wire:
    """One operator's connections. `faults` befall its next writes, in order; None: nothing happens to that one."""

    def __init__(self, api: Api, *, who: str, seed: int, die: Callable[[], None]) -> None:
        self._api = api
        self._who = who
        self._random = Random(seed)
        self._die = die
        self.faults: deque[Fault | None] = deque()
        self.cut = False
        self.latency = 0.02  # seconds, at most, each way
        self.writes: list[str] = []
        self.hot = False  # it wrote on and on, and was stopped
        self._written_at: deque[float] = deque(maxlen=MOST_WRITES)

    async def param_serialize(self, method: str, path: str, *, query_params: Any, header_params: Any, body: Any, auth_settings: Any) -> Any:
        """As the real one."""
        return method, path, header_params, body, query_params

    async def call_api(self, method: str, path: str, headers: Any, body: Any, query: Any, *, _request_timeout: Any) -> Answer:
        """One request, on its own way: it goes on when its sender gives up."""
        loop = asyncio.get_running_loop()
        parameters = dict(query)
        if self.cut:
            await asyncio.sleep(self._way())
            raise aiohttp.ClientConnectionError("the network is cut")
        if parameters.get("watch"):
            return Answer(200, self._follow(path, parameters))
        fault = self._fault(method, path)
        if fault is Fault.DEATH_BEFORE:
            loop.call_soon(self._die)
            return await asyncio.Future[Answer]()
        answer: asyncio.Future[Answer] = loop.create_future()

        def arrive() -> None:
            refused = {Fault.FORBIDDEN: 403, Fault.BUSY: 429, Fault.BROKEN: 500}
            if fault in refused:
                status, text = refused[fault], json.dumps({"kind": "Status", "message": str(fault)}).encode()
            elif fault is Fault.NEVER_ARRIVES:
                loop.call_later(self._way(), _fail, answer)
                return
            else:
                if fault is Fault.CONTENDED:
                    plural, namespace, name, _ = parts_of(path)
                    self._api.touch((plural, namespace or "", name or ""))
                if method != "GET" and LEASES not in path and not path.endswith("/events"):
                    self._count(f"{method} {path}", at=loop.time())
                status, text = self._api.answer(method, path, query=parameters, content=headers["Content-Type"], body=body, who=self._who)
            if fault is Fault.DEATH_AFTER:
                self._die()
            elif fault is Fault.ANSWER_LOST or self.cut:
                loop.call_later(self._way(), _fail, answer)
            else:
                loop.call_later(self._way(), _succeed, answer, Answer(status, text))

        loop.call_later(self._way() + (LATE_SECONDS if fault is Fault.LATE else 0.0), arrive)
        return await answer

    def _fault(self, method: str, path: str) -> Fault | None:
        if method == "GET" or LEASES in path or not self.faults:
            return None
        return self.faults.popleft()

    def _count(self, write: str, *, at: float) -> None:
        self.writes.append(write)
        self._written_at.append(at)
        if len(self._written_at) == MOST_WRITES and at - self._written_at[0] < 10.0:
            self.hot = True
            self._die()

    def _way(self) -> float:
        return self.latency * (0.1 + 0.9 * self._random.random())

    async def _follow(self, path: str, query: dict[str, str]) -> AsyncIterator[bytes]:
        """One object's changes."""
        name, position = query["fieldSelector"].removeprefix("metadata.name="), self._api.position(int(query["resourceVersion"]))
        plural = path.rsplit("/", 1)[1]
        for _ in range(int(query["timeoutSeconds"]) // 3):
            for event in self._api.log[position:]:
                if event.plural == plural and event.body["metadata"]["name"] == name:
                    yield json.dumps({"type": event.type, "object": event.body}).encode()
            position = len(self._api.log)
            await asyncio.sleep(3.0)
            if self.cut:
                raise aiohttp.ClientConnectionError("the network is cut")

    async def close(self) -> None:
        """Nothing to close."""


def _succeed(answer: asyncio.Future[Answer], what: Answer) -> None:
    if not answer.done():
        answer.set_result(what)


def _fail(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(aiohttp.ClientConnectionError("the connection broke"))
