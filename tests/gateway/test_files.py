"""File descriptors have an end: callers' connections are bounded before it, and what fails for want of one is nobody else's fault."""

import asyncio
import contextlib
import re
import resource
import ssl
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from backstop.gateway import client, listen
from backstop.gateway.files import METRICS_CONNECTIONS, TURNED_AWAY, for_callers
from backstop.gateway.httpexchange import Exchange
from backstop.gateway.listen import HttpServer
from backstop.gateway.room import HeadRoom
from e2e.fakemodel.script import Rule

from .harness import ROOT, Gateway, Gateways, Model, eventually, gateway_process, guarded_tier, make_record, model_tier, static_tier

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODY = b'{"messages":[{"role":"user","content":"Hello"}]}'
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CROWDED = b'{"error":{"message":"too many connections are open; retry","type":"server_error","param":null,"code":"overload"}}'


@contextlib.asynccontextmanager
async def connections(gateway: Gateway, count: int) -> AsyncIterator[list[Streams]]:
    """So many callers, who ask nothing yet."""
    host, _, port = gateway.address.rpartition(":")
    made = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        yield made
    finally:
        for _, writer in made:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in made), return_exceptions=True)


async def ask(streams: Streams) -> bytes:
    """The start of the answer; empty: the connection is closed."""
    reader, writer = streams
    try:
        async with asyncio.timeout(5):
            writer.write(REQUEST)
            return await reader.read(1 << 16)
    except ConnectionError:
        return b""


async def test_a_connection_that_is_one_too_many_is_told_to_come_back(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]), connections=3)
    async with connections(gateway, 3) as served:
        assert [(await ask(each))[:12] for each in served] == [b"HTTP/1.1 200"] * 3
        async with connections(gateway, 1) as (late,):
            head, _, body = (await ask(late)).partition(b"\r\n\r\n")
            assert (head[:12], body) == (b"HTTP/1.1 503", CROWDED)
            lines = head.split(b"\r\n")
            assert {b"retry-after: 1", b"x-backstop-reason: Overload", b"connection: close"} <= set(lines)
            assert await late[0].read() == b"", "and the connection is over"
        assert await gateway.total("backstop_refused_total", reason="connections") == 1
        assert await gateway.total("backstop_served_total") == 3
        assert (await ask(served[0]))[:12] == b"HTTP/1.1 200", "who is here stays"
        served[1][1].close()

        async def there_is_room() -> bool:
            async with connections(gateway, 1) as (another,):
                return (await ask(another)).startswith(b"HTTP/1.1 200")

        await eventually(there_is_room)


async def test_who_comes_to_a_full_gateway_takes_the_place_of_the_connection_that_has_been_idle_for_longest(
    model: Model, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "SPARED_SECONDS", 0.0)
    gateway = await gateways.start(make_record([model_tier(model.url)], budget=90_000), connections=4)
    async with connections(gateway, 4) as (busy, arriving, longest, other):
        for each in (longest, other):
            assert (await ask(each)).startswith(b"HTTP/1.1 200")
        model.script(Rule(latency_milliseconds=60_000))
        busy[1].write(REQUEST)

        async def under_way() -> bool:
            return model.fake.total == 3

        await eventually(under_way)
        model.script()
        arriving[1].write(REQUEST[:20])
        async with connections(gateway, 1) as (late,):
            assert (await ask(late)).startswith(b"HTTP/1.1 200")
            async with asyncio.timeout(5):
                assert await longest[0].read() == b""
            assert (await ask(other)).startswith(b"HTTP/1.1 200"), "one was enough"
            other[1].write(REQUEST[:20])
            late[1].write(REQUEST[:20])
            async with connections(gateway, 1) as (refused,):
                assert (await ask(refused)).startswith(b"HTTP/1.1 503"), "on all of them something is under way"
            assert await gateway.total("backstop_refused_total", reason="connections") == 1


async def test_a_connection_that_is_one_too_many_and_asks_nothing_does_not_stay(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "TURNED_AWAY_SECONDS", 0.05)
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1")]), connections=1)
    async with connections(gateway, 2) as (_, late), asyncio.timeout(5):
        assert await late[0].read() == b""


async def test_more_than_can_be_told_so_wait_for_their_turn(model: Model, gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "TURNED_AWAY", 1)
    monkeypatch.setattr(listen, "TURNED_AWAY_SECONDS", 60.0)
    gateway = await gateways.start(make_record([model_tier(model.url)]), connections=1)
    async with connections(gateway, 1) as (served,), connections(gateway, 1) as (told,):

        async def is_crowded() -> bool:
            return await gateway.total("backstop_refused_total", reason="connections") == 1

        await eventually(is_crowded)
        async with connections(gateway, 1) as (waiting,):
            waiting[1].write(REQUEST)
            assert (await ask(served)).startswith(b"HTTP/1.1 200")
            assert await is_crowded(), "nobody else was taken"
            assert b"too many connections" in await ask(told)
            async with asyncio.timeout(5):
                assert b"too many connections" in await waiting[0].read()
        async with connections(gateway, 2) as (last, unseen), asyncio.timeout(10):
            await gateway.stop()
            for each in (served, last, unseen):  # the port is closed, and not only waited at
                with contextlib.suppress(ConnectionResetError):
                    await each[0].read()
        host, _, port = gateway.address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))


async def test_a_port_that_is_closed_while_it_resumes_stays_closed() -> None:
    async def app(exchange: Exchange) -> None:
        raise AssertionError

    heads = HeadRoom(1 << 20, connections=1, count_refused=lambda: None)
    server = HttpServer(app, now=lambda: 0.0, lingers=False, most=0, heads=heads, count_crowded=lambda: None)
    sock = listen.bind("127.0.0.1", port=0, option="--port")
    port = sock.getsockname()[1]
    await server.listen(sock)
    made = [await asyncio.open_connection("127.0.0.1", port) for _ in range(TURNED_AWAY)]

    async def is_paused() -> bool:
        return server._paused is not None

    await eventually(is_paused)
    for _, writer in made:
        writer.transport.abort()
    async with asyncio.timeout(5):
        while server._resuming is None:  # noqa: ASYNC110 - a longer wait would see it listen already
            await asyncio.sleep(0)
    server.close()
    assert await server.ended(within=5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_connections_that_others_keep_to_the_metrics_port_fail_no_probe(gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1")]))
    host, _, port = gateway.metrics_address.rpartition(":")
    async with contextlib.AsyncExitStack() as kept:
        for _ in range(METRICS_CONNECTIONS):
            _, writer = await asyncio.open_connection(host, int(port))
            kept.callback(writer.close)
        for path in ("/healthz", "/readyz", "/metrics", "/-/status"):
            reader, writer = await asyncio.open_connection(host, int(port))
            kept.callback(writer.close)
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
            async with asyncio.timeout(5):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200"), path
            assert b"connection: close\r\n" in answer


@pytest.mark.long
async def test_callers_cannot_take_the_last_file_descriptor(model: Model, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    record = make_record([model_tier(model.url)])
    async with (
        gateway_process(record, http=http, folder=tmp_path, options=("--drain-seconds", "0"), files=(550, 600)) as running,
        connections(running.gateway, 500) as callers,
    ):
        assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (600, 600), "it takes all that it can have"
        answers = await asyncio.gather(*(ask(caller) for caller in callers))
        served = sum(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        assert served == for_callers(600, by_memory=600)
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200", b"HTTP/1.1 503"}, "nobody is cut off"
        gateway = running.gateway
        assert await gateway.total("backstop_refused_total", reason="connections") == 500 - served
        assert await gateway.total("backstop_attempts_total", outcome="success") == served
        assert await gateway.total("backstop_attempts_total") == served
        running.terminate()
        assert running.process.stderr is not None
        said = [line async for line in running.process.stderr]
        assert sum(b"as many as it may have" in line for line in said) == 1, said


@pytest.mark.long
@pytest.mark.parametrize("static", [True, False], ids=["static", "exhausted"])
async def test_a_model_is_not_blamed_for_a_gateway_without_file_descriptors(
    model: Model, http: aiohttp.ClientSession, tmp_path: Path, static: bool
) -> None:
    tier = guarded_tier(model.url, breaker={"windowSeconds": 10, "minRequests": 2, "failurePercent": 50, "openSeconds": 5})
    record = make_record([tier, *([static_tier()] if static else [])])
    async with gateway_process(record, http=http, folder=tmp_path, options=("--drain-seconds", "0")) as running:
        gateway, pid = running.gateway, running.process.pid
        assert (await http.get(f"http://{gateway.address}/v1/models")).status == 200, "and the connection stays"
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        for _ in range(5):
            got = await gateway.chat()
            assert (got.said("reason"), got.said("first-tier")) == ("Overload", "skipped")
            assert (got.status, got.said("tier")) == ((200, "static") if static else (503, None))
            assert (got.headers.get("Retry-After"), "x-should-retry" in got.headers) == (None if static else "1", False)
            assert (b'"code":"overload"' in got.body) is not static
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert (await gateway.status())["breakers"]["primary"]["state"] == "closed"
        assert await gateway.total("backstop_attempts_total", target="primary", outcome="Overload") == 5
        assert await gateway.total("backstop_served_total", outcome="success" if static else "refused", first_tier="skipped") == 5
        assert await gateway.total("backstop_refused_total", reason="files") == (0 if static else 5)
        got = await gateway.chat()
        assert (got.status, got.said("tier"), got.said("attempts")) == (200, "primary", "1")
        running.terminate()
        assert running.process.stderr is not None
        said = await running.process.stderr.read()
        assert len(re.findall(rb"no file descriptor is left to ask tier `primary` with; it is passed over, and not blamed", said)) == 1, (
            said
        )


@pytest.mark.long
async def test_a_refusal_for_want_of_file_descriptors_says_so_also_behind_a_tier_that_was_not_for_the_request(
    model: Model, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    text_only, able = model_tier(model.url, firstTokenMilliseconds=500), model_tier(model.url, name="able")
    text_only["model"]["capabilities"] = []
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with gateway_process(make_record([text_only, able]), http=http, folder=tmp_path, options=("--drain-seconds", "0")) as running:
        gateway, pid = running.gateway, running.process.pid
        assert (await http.get(f"http://{gateway.address}/v1/models")).status == 200, "and the connection stays"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        got = await gateway.chat(tools=tools)
        # An entry hop counts what comes with a 503 by its reason.
        assert (got.status, got.said("reason"), got.said("first-tier")) == (503, "Overload", "skipped")
        assert b'"code":"overload"' in got.body
        assert await gateway.total("backstop_served_total", outcome="refused", first_tier="skipped") == 1


async def test_authorities_are_read_while_there_are_file_descriptors_to_read_them_with(
    model: Model, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []

    def trust_of(authorities: str | None) -> ssl.SSLContext:
        read.append(authorities)
        return ssl.create_default_context(cadata=authorities)

    monkeypatch.setattr(client, "trust_of", trust_of)
    second = {"name": "second", "model": {"baseURL": "https://127.0.0.1:1/v1", "name": "m2"}}
    gateway = await gateways.start(make_record([model_tier(model.url, firstTokenMilliseconds=500), second]))
    assert read == [None], "before the first tier fails: OpenSSL says nothing where it can read none, and believes nobody"
    assert (await gateway.chat()).status == 200
    assert read == [None]


@pytest.mark.parametrize(
    ("limit", "by_memory", "connections"),
    [(1024, 16_384, 384), (1 << 20, 16_384, 16_384), (1 << 20, 4096, 4096), (1024, 4096, 384), (1 << 20, 16, 512)],
)
def test_callers_get_half_of_the_files_and_what_there_is_memory_for(limit: int, by_memory: int, connections: int) -> None:
    assert for_callers(limit, by_memory=by_memory) == connections


async def test_a_gateway_that_may_have_too_few_files_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(make_record([model_tier("127.0.0.1:1")]).model_dump_json(exclude_defaults=True))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backstop.gateway.main", "--record", str(tmp_path / "record.json"), "--port", "0", "--metrics-port", "0"),
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": "/usr/bin:/bin"},
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (200, 200)),
    )
    _, said = await process.communicate()
    sentence = "backstop-gateway: this process may have 200 open files, and needs 512 at least; raise its limit (`ulimit -n`)\n"
    assert (process.returncode, said.decode()) == (2, sentence)
