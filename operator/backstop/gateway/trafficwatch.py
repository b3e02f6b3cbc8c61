"""The gateway's own small watch of its policy's traffic object: two requests of the Kubernetes API, nothing more.

A watch brings changes at once; a re-read every few seconds is there for when the watch is silently dead. Neither ever ends:
what cannot be read is read again, and the gateway goes on with what it knows.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from ..api.authorities import taken_as_declared
from ..api.traffic import TrafficError, parse
from .client import Answer, Client, GarbledError, Place
from .options import parse_port
from .view import TrafficView

ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REREAD_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 290
_MAX_LINE_BYTES: Final = 2 << 20
_IDLE_SECONDS: Final = 30.0
_LOG: Final = logging.getLogger("backstop.gateway")


@dataclass(frozen=True)
class ApiServer:
    """Where the Kubernetes API is, and where the account's credentials lie (`token`, `ca.crt`; both may be replaced at any time)."""

    url: str
    account: Path

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> "ApiServer | None":
        """The API server as a pod is told of it; None outside of a cluster. Raises ConfigurationError."""
        host = environment.get("KUBERNETES_SERVICE_HOST")
        if not host:
            return None
        port = parse_port(environment.get("KUBERNETES_SERVICE_PORT", "443"), option="KUBERNETES_SERVICE_PORT")
        return ApiServer(url=f"https://{f'[{host}]' if ':' in host else host}:{port}", account=ACCOUNT_FOLDER)


class UnreadableError(Exception):
    """The traffic object could not be read; the text says why."""


class _Object(msgspec.Struct):
    metadata: dict[str, Any]
    data: dict[str, str] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class TrafficWatch:
    """Keeps `view` up to date. `now` is the wall clock; `interval` the longest time between two reads, in seconds."""

    def __init__(
        self,
        server: ApiServer,
        *,
        namespace: str,
        name: str,
        view: TrafficView,
        now: Callable[[], float],
        random: Random,
        interval: float = REREAD_SECONDS,
    ) -> None:
        self._server = server
        self._collection = f"{server.url}/api/v1/namespaces/{namespace}/configmaps"
        self._name = name
        self._view = view
        self._now = now
        self._random = random
        self._interval = interval
        self._client: Client | None = None
        self._readable: bool | None = None

    async def first_look(self, *, within: float) -> None:
        """One read, so that a new pod does not act on ignorance for longer than needed; it may fail."""
        try:
            async with asyncio.timeout(within):
                await self._read()
        except (UnreadableError, TimeoutError) as error:
            self._say(readable=False, why=str(error) or "no answer in time")

    async def run(self) -> None:
        """Watch and re-read until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reread())
                group.create_task(self._watch())
        finally:
            self._forget()

    async def _reread(self) -> None:
        while True:
            await asyncio.sleep(self._interval * self._random.uniform(0.7, 0.95))
            try:
                await self._read()
            except UnreadableError as error:
                self._say(readable=False, why=str(error))

    async def _watch(self) -> None:
        pause = 0.0
        while True:
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            try:
                version = await self._read()
                await self._follow(version=version)
                pause = 0.2  # a watch ends by itself now and then; never in a tight loop
            except UnreadableError as error:
                self._say(readable=False, why=str(error))
                pause = min(self._interval, max(0.2, pause * 2))

    async def _read(self) -> str:
        """Read the object once; its resourceVersion. Raises UnreadableError."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._get(f"{self._collection}/{self._name}")
                try:
                    if answer.status != 200:
                        raise UnreadableError(f"the API server answered {answer.status}")
                    text = b""
                    while piece := await answer.read():
                        text += piece
                        if len(text) > _MAX_LINE_BYTES:
                            raise UnreadableError("the object is too long")
                finally:
                    answer.release()
            return self._accept(text)
        except (OSError, GarbledError) as error:
            self._forget()
            raise UnreadableError(type(error).__name__) from None

    async def _follow(self, *, version: str) -> None:
        """Take events until the watch ends. Raises UnreadableError when it cannot be held."""
        seconds = int(WATCH_SECONDS * self._random.uniform(0.8, 1.0))
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._name}",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        try:
            async with asyncio.timeout(seconds + REQUEST_SECONDS):
                answer = await self._get(f"{self._collection}?{urlencode(query)}")
                try:
                    if answer.status != 200:
                        raise UnreadableError(f"the API server answered {answer.status} to a watch")
                    await self._take_events(answer)
                finally:
                    answer.release()
        except (OSError, GarbledError) as error:
            self._forget()
            raise UnreadableError(type(error).__name__) from None

    async def _take_events(self, answer: Answer) -> None:
        rest = b""
        while chunk := await answer.read():
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                raise UnreadableError("an event of the watch is too long")
            for line in filter(None, lines):
                self._take_event(line)

    def _take_event(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Event)
        except msgspec.DecodeError:
            raise UnreadableError("the watch sent something else than events") from None
        match event.type:
            case "ADDED" | "MODIFIED":
                self._accept(bytes(event.object))
            case "ERROR":
                raise UnreadableError("the watch has to begin anew")
            case _:  # DELETED: the gateway goes on with what it knows
                return

    def _accept(self, text: bytes) -> str:
        try:
            read = msgspec.json.decode(text, type=_Object)
            self._view.accept(parse(read.data or {}), at=self._now())
        except (msgspec.DecodeError, TrafficError) as error:
            raise UnreadableError(str(error)) from None
        self._say(readable=True, why="")
        return str(read.metadata.get("resourceVersion", ""))

    def _headers(self) -> dict[str, str]:
        try:
            token = (self._server.account / "token").read_text().strip()
        except OSError:
            return {}
        return {"Authorization": f"Bearer {token}"}

    async def _get(self, url: str) -> Answer:
        if self._client is None:
            tls = url.startswith("https:")
            trust = taken_as_declared(ssl.create_default_context(cafile=str(self._server.account / "ca.crt"))) if tls else None
            self._client = Client(idle_seconds=_IDLE_SECONDS, trust=trust)
        headers = {"Accept": "application/json", "User-Agent": "backstop", **self._headers()}
        return await self._client.get(Place.of(url), headers=headers, connect=REQUEST_SECONDS)

    def _forget(self) -> None:
        """Begin anew with the next request: the authority may have been replaced."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _say(self, *, readable: bool, why: str) -> None:
        """One line for each change, not one for each try."""
        if readable is self._readable:
            return
        self._readable = readable
        if readable:
            _LOG.info("traffic object `%s` is readable", self._name)
        else:
            _LOG.warning("traffic object `%s` is unreadable (%s); going on with what is known", self._name, why)
