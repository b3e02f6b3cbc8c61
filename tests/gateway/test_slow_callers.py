"""Callers that take their time: with a head, with a body, with nothing at all. Connections end; those in use do not."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from backstop.gateway import app, exchange
from backstop.gateway import connection as server_side
from e2e.fakemodel.script import Rule

from .harness import Gateway, Gateways, Model, eventually, make_record, model_tier, static_tier

BODY = b'{"messages":[{"role":"user"}]}'
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
SOON = 0.3

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def gateway(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A gateway that waits for a head no longer than SOON."""
    monkeypatch.setattr(server_side, "HEAD_SECONDS", SOON)
    return await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))


@contextlib.asynccontextmanager
async def connection(gateway: Gateway) -> AsyncIterator[Streams]:
    """A connection, closed at the end."""
    host, _, port = gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def dribble(streams: Streams, piece: bytes) -> bytes:
    """Send `piece` again and again until the other side closes; what it said until then."""
    reader, writer = streams
    said = b""

    async def listen_on() -> None:
        nonlocal said
        with contextlib.suppress(ConnectionResetError):  # our last piece crossed the other side's end
            while heard := await reader.read(4096):
                said += heard

    listening = asyncio.ensure_future(listen_on())
    while not listening.done():
        writer.write(piece)
        await asyncio.wait({listening}, timeout=SOON / 20)
    await listening
    return said


async def answer(streams: Streams) -> bytes:
    """One answer with a length."""
    reader, _ = streams
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    await reader.readexactly(length)
    return head


@pytest.mark.parametrize("begun", [b"", MODELS])
@pytest.mark.parametrize(
    ("head", "more"), [(b"GET /v1/models HTTP/1.1\r\nx: ", b"y"), (b"P", b""), (b"\r\nGET /v1/models HTTP/1.1\r\n", b"")]
)
async def test_a_head_that_is_not_complete_in_time_is_told_so_and_ends_its_connection(
    gateway: Gateway, begun: bytes, head: bytes, more: bytes
) -> None:
    async with connection(gateway) as streams:
        if begun:
            streams[1].write(begun)
            assert b" 200 " in await answer(streams)
        streams[1].write(head)
        said, _, body = (await dribble(streams, more)).partition(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said.split(b"\r\n")
    error = json.loads(body)["error"]
    assert (error["type"], error["message"].partition(" within ")[0]) == ("invalid_request_error", "the request's head did not arrive")


@pytest.mark.parametrize("begun", [b"", MODELS])
async def test_empty_lines_in_place_of_a_head_end_their_connection_without_a_word(gateway: Gateway, begun: bytes) -> None:
    async with connection(gateway) as streams:
        if begun:
            streams[1].write(begun)
            assert b" 200 " in await answer(streams)
        assert await dribble(streams, b"\r\n") == b""


async def test_a_head_that_is_not_complete_in_time_after_a_long_answer_is_told_so(
    model: Model, gateway: Gateway, gateways: Gateways
) -> None:
    model.script(Rule(latency_milliseconds=1000 * SOON * 5))
    waiting = await gateways.start(make_record([model_tier(model.url)], budget=20_000))
    async with connection(waiting) as streams:
        streams[1].write(REQUEST + MODELS[:20])
        assert b" 200 " in await answer(streams)
        assert (await dribble(streams, b"")).startswith(b"HTTP/1.1 408 ")


async def test_idle_connections_outlive_the_time_for_a_head(gateway: Gateway) -> None:
    async with connection(gateway) as fresh, connection(gateway) as used, connection(gateway) as slow:
        used[1].write(MODELS[:20])
        used[1].write(MODELS[20:])
        await answer(used)
        await dribble(slow, b"G")  # closed: the time is over
        for streams in (fresh, used):
            streams[1].write(REQUEST)
            assert b" 200 " in await answer(streams)


async def test_a_head_behind_a_long_answer_does_not_end_it(model: Model, gateway: Gateway, gateways: Gateways) -> None:
    model.script(Rule(latency_milliseconds=1000 * SOON * 5))
    waiting = await gateways.start(make_record([model_tier(model.url)], budget=20_000))
    async with connection(waiting) as streams:
        streams[1].write(REQUEST + MODELS[:20])
        assert b" 200 " in await answer(streams)
        streams[1].write(MODELS[20:])
        assert b" 200 " in await answer(streams)


async def test_a_connection_without_a_request_ends_as_an_idle_one_does(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_side, "KEEP_ALIVE_SECONDS", 1)
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    async with connection(gateway) as (reader, _):
        assert await reader.read() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_is_not_complete_in_time_is_let_go_and_its_connection_ends(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, framing: bytes
) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", SOON)
    monkeypatch.setattr(server_side, "BODY_SECONDS", SOON)
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    async with connection(gateway) as streams:
        streams[1].write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % framing)
        assert (await dribble(streams, b"1\r\n \r\n")).startswith(b"HTTP/1.1 408")
    assert await gateway.total("backstop_served_total", outcome="caller_error") == 1
    assert (await gateway.status())["bodyBytes"] == 0


async def test_bodies_that_do_not_come_lock_nobody_out_and_are_let_go(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_IN_FLIGHT", 1)
    monkeypatch.setattr(exchange, "SILENT_BODY_SECONDS", 3 * SOON)
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    async with connection(gateway) as one, connection(gateway) as two, connection(gateway) as third:
        for _, writer in (one, two):
            writer.write(REQUEST[:-1])

        async def both_wait() -> bool:
            return bool((await gateway.status())["bodyBytes"] == 2 * len(BODY) - 2)

        await eventually(both_wait)
        assert ((await gateway.status())["inFlight"], await gateway.total("backstop_inflight_requests")) == (0, 0)
        third[1].write(REQUEST)
        assert b" 200 " in await answer(third)
        for streams in (one, two):
            assert b" 408 " in await answer(streams)
    assert (await gateway.status())["bodyBytes"] == 0


async def test_the_body_of_a_request_that_is_refused_before_it_came_is_not_awaited_for_ever(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_side, "BODY_SECONDS", SOON)
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    async with connection(gateway) as streams:
        streams[1].write(b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await dribble(streams, b" ")).startswith(b"HTTP/1.1 404")
    async with connection(gateway) as streams:  # one that does come leaves the connection to the next request
        streams[1].write(b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        await answer(streams)
        streams[1].write(b"body" + REQUEST)
        assert b" 200 " in await answer(streams)
