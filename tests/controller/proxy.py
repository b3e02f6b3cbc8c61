"""An HTTP proxy in front of a real API server, which can be slow, refuse, freeze or end watches; it counts what goes through."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from e2e.cluster.apiserver import ApiServer

# Of one connection, not of what is carried over it.
HOP_BY_HOP = frozenset({"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding"})
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@dataclass(frozen=True)
class Request:
    """One request that came in. `at`: monotonic seconds."""

    at: float
    method: str
    path: str
    watch: bool
    agent: str

    @property
    def write(self) -> bool:
        """Whether it asks for a change."""
        return self.method != "GET"


@dataclass(frozen=True)
class Refusal:
    """What is answered instead of the API server, to the requests that it fits. `numbered`: in other words each time."""

    status: int
    fits: Callable[[Request], bool]
    headers: dict[str, str] = field(default_factory=dict)
    numbered: bool = False


class Proxy:
    """`delay` in seconds before each request is passed on."""

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._frozen = ""
        self._last_words: bytes | None = None
        self.delay = 0.0
        self.refusal: Refusal | None = None
        self.requests: list[Request] = []
        self.watches = 0  # that are open now
        self.held: set[str] = set()  # paths of frozen watches that would have had something to say

    def count(self, fits: Callable[[Request], bool], *, since: float) -> int:
        """Requests since then (monotonic seconds)."""
        return sum(request.at >= since and fits(request) for request in self.requests)

    def freeze_watches(self, of: str = "") -> None:
        """They stay open and say nothing; new ones too. `of`: only those whose path ends so."""
        self._frozen = of
        self._flowing.clear()

    def end_watches(self, with_event: dict[str, object] | None = None) -> None:
        """What they had to say is lost; they say this instead, or nothing, and end. New ones work."""
        said = json.dumps({"type": "ERROR", "object": with_event}).encode() if with_event is not None else b""
        self._last_words = said + b"\n"
        self._flowing.set()

    async def handle(self, incoming: web.Request) -> web.StreamResponse:
        """One request."""
        request = Request(
            time.monotonic(), incoming.method, incoming.path, "watch" in incoming.query, incoming.headers.get("User-Agent", "")
        )
        self.requests.append(request)
        if self.refusal is not None and self.refusal.fits(request):
            message = f"denied, request {len(self.requests)}" if self.refusal.numbered else "as scripted"
            status = {"kind": "Status", "message": message}
            return web.json_response(status, status=self.refusal.status, headers=self.refusal.headers)
        await asyncio.sleep(self.delay)
        headers = {key: value for key, value in incoming.headers.items() if key.lower() not in HOP_BY_HOP}
        headers |= {"Authorization": f"Bearer {self._server.token}"}
        url = self._server.url + incoming.raw_path
        async with self._session.request(incoming.method, url, data=await incoming.read() or None, headers=headers) as answer:
            passed = {key: value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(incoming)
            if request.watch:
                await self._watch(answer, response, path=request.path)
            else:
                await response.write(await answer.read())
            return response

    async def _watch(self, answer: aiohttp.ClientResponse, response: web.StreamResponse, *, path: str) -> None:
        self.watches += 1
        try:
            async for line in answer.content:
                if not self._flowing.is_set() and path.endswith(self._frozen):
                    self.held.add(path)
                    await self._flowing.wait()
                    if self._last_words is not None:
                        await response.write(self._last_words)
                        return
                await response.write(line)
        finally:
            self.watches -= 1


@contextlib.asynccontextmanager
async def proxy(server: ApiServer, *, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy, and a kubeconfig that goes through it."""
    trusted = ssl.create_default_context(cafile=str(server.certificate_authority))
    connector = aiohttp.TCPConnector(ssl=trusted, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=True) as session:
        between = Proxy(server, session)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", between.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = folder / "proxied.kubeconfig"
        path.write_text(json.dumps(document))
        try:
            yield between, path
        finally:
            await runner.cleanup()
