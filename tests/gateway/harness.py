"""What gateway tests run against: real sockets all through. Gateways in this process or as processes, the fake model, and a small
server that speaks as much of the Kubernetes API as the traffic watch asks for. Long, because they make each other's records and addresses.
"""

import asyncio
import contextlib
import json
import re
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from openai.types.chat import ChatCompletionUserMessageParam
from prometheus_client.parser import text_string_to_metric_families

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.problems import parse_strictly
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.record import RevisionRecord, build_record
from backstop.api.traffic import NO_STEERING, Abort, Steering, TrafficState, render
from backstop.gateway.callerfiles import read_callers
from backstop.gateway.compilation import compile_revision
from backstop.gateway.gateway import Settings, run_gateway
from backstop.gateway.listen import bind
from backstop.gateway.traceoptions import TraceSettings
from backstop.gateway.trafficwatch import ApiServer
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Rule

Found = TypeVar("Found")
POLICY = "support"
NAMESPACE = "default"
ROOT = Path(__file__).parents[2]
USER: ChatCompletionUserMessageParam = {"role": "user", "content": "Hello"}
NOBODY = "127.0.0.1:1"  # a port nobody listens on
REPLY_WITHIN = 10.0


async def eventually(look: Callable[[], Awaitable[Found]], *, within: float = 10.0) -> Found:
    """Poll until `look` gives something true; its last answer goes into the failure."""
    ends = time.monotonic() + within
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {within} s; last: {found!r}"
        await asyncio.sleep(0.02)


@dataclass
class Model:
    """The fake model, listening."""

    fake: FakeModel
    url: str

    def script(self, *rules: Rule) -> None:
        """Replace the rules."""
        self.fake.rules = rules

    def sent(self) -> dict[str, Any]:
        """The body of the last request, as it came."""
        body: dict[str, Any] = json.loads(self.fake.requests[-1]["body"])
        return body


@contextlib.asynccontextmanager
async def listening(app: web.Application, *, tls: ssl.SSLContext | None = None, at: socket.socket | None = None) -> AsyncIterator[str]:
    """Serve `app` on a port of its own, or `at` one; gives `host:port`. Handlers are cancelled when their caller leaves."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    sock = at or bind("127.0.0.1", port=0, option="--port")
    await web.SockSite(runner, sock, ssl_context=tls).start()
    try:
        yield f"127.0.0.1:{sock.getsockname()[1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def answering(raw: bytes, *, close: bool = False) -> AsyncIterator[str]:
    """A server that answers every request with these bytes, whatever a library would say to them, and may close; gives `host:port`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw)
            await writer.drain()
            if not close:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@dataclass
class Seen:
    """A request as a target has it."""

    path: str
    headers: dict[str, str]
    body: bytes


class ExactTarget:
    """A target that answers with the very bytes it is told, one after the other and the last for ever, and keeps what it is asked."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self._answers: list[tuple[int, str, bytes]] = []

    def says(self, body: bytes | str, *, status: int = 200, stream: bool = False, then: bool = False) -> None:
        """The next answer; `then`: after those that it was told before."""
        raw = body.encode() if isinstance(body, str) else body
        self._answers = [*(self._answers if then else []), (status, "text/event-stream" if stream else "application/json", raw)]

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/{rest:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen.append(Seen(request.path, dict(request.headers), await request.read()))
        status, content_type, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return web.Response(status=status, body=body, content_type=content_type)


class TrafficApi:
    """The ConfigMap `support-traffic` behind get and watch, as a kube-apiserver serves it to an account that may see this one only."""

    def __init__(self) -> None:
        self.url = ""
        self.broken = False  # answer 500 to everything
        self.mute = False  # keep watches open, and say nothing on them
        self.reads = 0
        self.watches = 0  # open
        self.tokens: list[str] = []
        self._version = 1
        self._data: dict[str, str] | None = None
        self._changed = asyncio.Event()

    def write(self, state: TrafficState | None) -> None:
        """Put a state; None deletes the object."""
        self.write_raw(None if state is None else render(state))

    def write_raw(self, data: dict[str, str] | None) -> None:
        """Put any data."""
        self._version += 1
        self._data = data
        self._changed.set()
        self._changed = asyncio.Event()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        base = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
        app.router.add_get(f"{base}/{POLICY}-traffic", self._get)
        app.router.add_get(base, self._watch)
        return app

    def _object(self) -> dict[str, Any]:
        metadata = {"name": f"{POLICY}-traffic", "namespace": NAMESPACE, "resourceVersion": str(self._version)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": self._data}

    async def _get(self, request: web.Request) -> web.Response:
        self.reads += 1
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.broken:
            return web.Response(status=500)
        if self._data is None:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        return web.json_response(self._object())

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        # The shipped RBAC names the object: a watch without the selector would be refused.
        if request.query.get("fieldSelector") != f"metadata.name={POLICY}-traffic" or request.query.get("watch") != "true":
            return web.Response(status=403)
        if self.broken:
            return web.Response(status=500)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        seen = int(request.query["resourceVersion"])
        self.watches += 1
        try:
            await self._tell(response, seen=seen)
        finally:
            self.watches -= 1
        return response

    async def _tell(self, response: web.StreamResponse, *, seen: int) -> None:
        while True:
            changed = self._changed
            if self._version > seen and not self.mute:
                seen = self._version
                event = {"type": "DELETED" if self._data is None else "MODIFIED", "object": self._object()}
                line = json.dumps(event).encode() + b"\n"
                await response.write(line[:20])  # events arrive in pieces
                await response.write(line[20:])
            await changed.wait()


@dataclass
class Gateway:
    """A running gateway."""

    record: RevisionRecord
    address: str
    metrics_address: str
    http: aiohttp.ClientSession
    stop: Callable[[], Awaitable[None]]

    @property
    def revision(self) -> str:
        """Its revision."""
        return self.record.revision

    async def chat(self, *, headers: Mapping[str, str] | None = None, **fields: Any) -> "Got":
        """One chat request; the whole answer, streams included."""
        body = {"model": "any", "messages": [USER], **fields}
        return await self.post(msgspec.json.encode(body), headers=headers)

    async def post(self, body: bytes, *, headers: Mapping[str, str] | None = None, path: str = "/v1/chat/completions") -> "Got":
        """One request with the very bytes."""
        async with (
            asyncio.timeout(REPLY_WITHIN),
            self.http.post(f"http://{self.address}{path}", data=body, headers=headers) as r,
        ):
            return Got(r.status, dict(r.headers), await r.read())

    async def status(self) -> dict[str, Any]:
        """`/-/status`."""
        async with self.http.get(f"http://{self.metrics_address}/-/status") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def ready(self) -> bool:
        """`/readyz`."""
        try:
            async with self.http.get(f"http://{self.metrics_address}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def acts_on(self, generation: int) -> None:
        """Wait until the gateway acts on a traffic generation."""

        async def look() -> bool:
            return bool((await self.status())["generation"] == generation)

        await eventually(look)

    async def metrics(self, name: str = "") -> dict[str, list[tuple[dict[str, str], float]]]:
        """Every sample by name, or those of one name: a tenth of the work for who asks until it is there."""
        async with self.http.get(f"http://{self.metrics_address}/metrics") as response:
            text = await response.text()
        if name:
            text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(name))
        samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return samples

    async def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of one name whose labels include these."""
        return sum(value for found, value in (await self.metrics(name)).get(name, []) if labels.items() <= found.items())


@dataclass
class Got:
    """An answer as its caller has it."""

    status: int
    headers: dict[str, str]
    body: bytes
    read_at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The answer's text, streamed or not."""
        if self.headers["Content-Type"].startswith("text/event-stream"):
            return "".join(c["delta"].get("content", "") for e in self.events for c in e.get("choices", []))
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def events(self) -> list[Any]:
        """The stream's events, `[DONE]` left out."""
        return [json.loads(line) for line in self._data() if line != "[DONE]"]

    @property
    def is_done(self) -> bool:
        """Whether the stream ends with `[DONE]`."""
        return self._data()[-1:] == ["[DONE]"]

    def said(self, name: str) -> str | None:
        """An `x-backstop-` header."""
        return self.headers.get(f"x-backstop-{name}")

    def _data(self) -> list[str]:
        return [line[6:] for line in re.split(r"\r\n|\n|\r", self.body.decode()) if line.startswith("data: ")]


def model_tier(
    url: str, *, name: str = "primary", model: str = "m1", key: bool = False, vectors: str | None = None, **timeouts: int
) -> dict[str, Any]:
    """A model tier of a chain. `vectors`: its model for embeddings."""
    target: dict[str, Any] = {"baseURL": f"http://{url}/v1", "name": model} | ({"embeddingModel": vectors} if vectors else {})
    if key:
        target["apiKeyRef"] = {"name": "keys", "key": name}
    return {"name": name, "model": target} | ({"timeouts": timeouts} if timeouts else {})


def guarded_tier(
    url: str, *, name: str = "primary", retries: int = 0, breaker: dict[str, int] | None = None, first_token: int | None = None
) -> dict[str, Any]:
    """A model tier that is asked again, or left alone, as these say."""
    tier = model_tier(url, name=name) if first_token is None else model_tier(url, name=name, firstTokenMilliseconds=first_token)
    return tier | {"retries": retries} | ({"circuitBreaker": breaker} if breaker else {})


def static_tier(text: str = "Not now.") -> dict[str, Any]:
    """The static tier."""
    return {"name": "static", "static": {"default": text}}


def make_record(
    chain: Sequence[dict[str, Any]],
    *,
    prompt: str = "You are the stable prompt.",
    budget: int = 5000,
    slos: Sequence[dict[str, Any]] = (),
    variables: Sequence[dict[str, Any]] = (),
    model: dict[str, Any] | None = None,
    contents: Mapping[str, str] | None = None,
    access: dict[str, Any] | None = None,
    residency: dict[str, Any] | None = None,
    engine: str = "Mustache",
    **parts: dict[str, Any],
) -> RevisionRecord:
    """The record that the operator would write. `parts`: further ones of the policy's spec."""
    spec = {"promptVersion": "support-1", "latencyBudgetMilliseconds": budget, "chain": list(chain), "slos": list(slos), **parts}
    if access is not None:
        spec["access"] = access
    if residency is not None:
        spec["residency"] = residency
    prompt_spec = {
        "prompt": "support",
        "version": "1.0.0",
        "messages": [{"role": "system", "content": prompt}],
        "variables": list(variables),
        "template": {"engine": engine},
    }
    return build_record(
        namespace=NAMESPACE,
        name=POLICY,
        policy=parse_strictly(FallbackPolicySpec, spec, prefix="spec"),
        prompt=parse_strictly(PromptVersionSpec, prompt_spec | ({"model": model} if model else {}), prefix="spec"),
        contents=contents,
    )


class Gateways:
    """Starts gateways in this process, each on ports of its own, as peers of each other."""

    def __init__(self, http: aiohttp.ClientSession, *, account: Path) -> None:
        self._http = http
        self._account = account
        self._stops: list[Callable[[], Awaitable[None]]] = []
        self.peers: dict[str, str] = {}

    async def start(
        self,
        record: RevisionRecord,
        *,
        api: TrafficApi | None = None,
        keys: Mapping[str, str] | None = None,
        seed: int = 7,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        reread_seconds: float = 10.0,
        drain_seconds: float = 0.0,
        body_bytes: int = 64 << 20,
        head_bytes: int = 16 << 20,
        connections: int = 4096,
        callers: Path | None = None,
        cache_folder: Path | None = None,
        tickets_folder: Path | None = None,
        send_buffer: int | None = None,
        traces: TraceSettings | None = None,
        grace_seconds: float = 6.0,
    ) -> Gateway:
        """A ready gateway. `send_buffer`: bytes that a socket holds for a caller who does not read; unset: the kernel.s choice."""
        traffic, metrics = (bind("127.0.0.1", port=0, option="--port") for _ in range(2))
        if send_buffer is not None:
            traffic.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # of each connection that it accepts, too
        stop = asyncio.Event()
        settings = Settings(
            traffic_socket=traffic,
            metrics_socket=metrics,
            address=lambda revision: self.peers.get(revision, NOBODY),
            api_server=None if api is None else ApiServer(url=api.url, account=self._account),
            drain_seconds=drain_seconds,
            grace_seconds=grace_seconds,
            body_bytes=body_bytes,
            head_bytes=head_bytes,
            connections=connections,
            reread_seconds=reread_seconds,
            caller_texts={} if callers is None else read_callers(callers),
            callers=callers,
            callers_seconds=0.05,
            cache_folder=cache_folder,
            tickets_folder=tickets_folder,
            traces=traces,
        )
        address, metrics_address = (f"127.0.0.1:{s.getsockname()[1]}" for s in (traffic, metrics))
        running = asyncio.create_task(
            run_gateway(
                compile_revision(record, environment=keys or {}),
                settings=settings,
                stop=stop,
                clock=clock,
                now=now,
                split=Random(seed),
                jitter=Random(1),
            )
        )
        self.peers[record.revision] = address

        async def end() -> None:
            stop.set()
            await running

        self._stops.append(end)
        gateway = Gateway(record, address, metrics_address, self._http, end)
        await eventually(gateway.ready)
        return gateway

    async def close(self) -> None:
        """Stop them all; without their caller's idle connections they need not linger."""
        await self._http.close()
        await asyncio.gather(*(stop() for stop in self._stops))


class GatewayProcess:
    """`backstop-gateway` as a process."""

    def __init__(self, process: asyncio.subprocess.Process, *, gateway: Gateway) -> None:
        self.process = process
        self.gateway = gateway

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()


@contextlib.asynccontextmanager
async def gateway_process(
    record: RevisionRecord,
    *,
    http: aiohttp.ClientSession,
    folder: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    files: tuple[int, int] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Run the record as a pod does, without a cluster. `files`: the soft and the hard limit of open files; unset: as it is here."""
    file = folder / f"{record.revision}.json"
    file.write_text(record.model_dump_json(exclude_defaults=True))
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "backstop.gateway.main",
            "--record",
            str(file),
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--metrics-port",
            "0",
        ),
        *options,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": "/usr/bin:/bin", **(environment or {})},
        preexec_fn=None if files is None else partial(resource.setrlimit, resource.RLIMIT_NOFILE, files),
    )
    assert process.stderr is not None

    async def nothing() -> None:
        return

    try:
        async with asyncio.timeout(20):
            while not (found := re.search(rb"on port (\d+), metrics on port (\d+)", line := await process.stderr.readline())):
                assert line, "the gateway ended at its start"
        gateway = Gateway(record, f"127.0.0.1:{int(found[1])}", f"127.0.0.1:{int(found[2])}", http, nothing)
        await eventually(gateway.ready)
        yield GatewayProcess(process, gateway=gateway)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def state(
    generation: int,
    *,
    stable: str,
    canary: str | None = None,
    permille: int = 0,
    aborted: str | None = None,
    steering: Steering = NO_STEERING,
) -> TrafficState:
    """A traffic state."""
    verdict = Abort(revision=aborted, reason="LatencyBreach", time="2026-01-31T09:30:00.000Z") if aborted else None
    return TrafficState(generation=generation, stable=stable, canary=canary, permille=permille, aborted=verdict, steering=steering)
