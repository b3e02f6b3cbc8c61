"""Callers that take their time to read: what they miss is their own doing, and never counts against a revision.

Sockets are small here. To fill what the kernel would give them takes half a second of processor time, which on a busy machine is
longer than the targets have.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from backstop.gateway import connection, forward
from e2e.fakemodel.script import Fault, Rule

from .harness import USER, Gateway, Gateways, Model, TrafficApi, answering, eventually, make_record, model_tier, state

BUFFER = 32_768
# Many times what such sockets hold between a gateway and its caller.
LARGE = Rule(text=" ".join(["x" * 100_000] * 100))
DONE = b"data: [DONE]"


def small_socket(address: tuple[Any, ...]) -> socket.socket:
    """For a caller: what it has not read stays with who sends it."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return made


@contextlib.asynccontextmanager
async def unread_stream(gateway: Gateway) -> AsyncIterator[aiohttp.StreamReader]:
    """A stream whose caller has read its head, and nothing since."""
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=small_socket), read_bufsize=1024) as caller,
        caller.post(f"http://{gateway.address}/v1/chat/completions", json={"messages": [USER], "stream": True}) as response,
    ):
        assert response.status == 200
        yield response.content


async def pause(seconds: float) -> None:
    """The caller does something else: its pause is what is tested."""
    await asyncio.sleep(seconds)


async def last_line(stream: aiohttp.StreamReader) -> bytes:
    """Read all; the last line."""
    last = b""
    async for piece in stream.iter_any():
        last = (last + piece)[-1000:]
    return last.rstrip().splitlines()[-1]


async def outcomes(gateway: Gateway) -> dict[str, float]:
    """Requests served, by outcome, once one has ended."""

    async def look() -> dict[str, float]:
        found = (await gateway.metrics("backstop_served_total")).get("backstop_served_total", [])
        return {labels["outcome"]: value for labels, value in found if value}

    return await eventually(look)


async def test_a_caller_that_pauses_longer_than_a_stall_gets_its_answer_whole(model: Model, gateways: Gateways) -> None:
    model.script(LARGE)
    gateway = await gateways.start(make_record([model_tier(model.url, stallMilliseconds=500)]), send_buffer=BUFFER)
    async with unread_stream(gateway) as stream:
        await pause(1.5)
        assert await last_line(stream) == DONE
    assert await outcomes(gateway) == {"success": 1}


async def test_a_target_that_falls_silent_is_to_blame_also_behind_a_caller_that_was_slow(model: Model, gateways: Gateways) -> None:
    model.script(Rule(text=LARGE.text, fault=Fault.STALL, cut_after_tokens=80))
    gateway = await gateways.start(make_record([model_tier(model.url, stallMilliseconds=500)]), send_buffer=BUFFER)
    async with unread_stream(gateway) as stream:
        await pause(3)
        assert b'"code":"stream_interrupted"' in await last_line(stream)
    assert await outcomes(gateway) == {"truncated": 1}


@pytest.fixture
async def entry(model: Model, gateways: Gateways, api: TrafficApi, request: pytest.FixtureRequest) -> Gateway:
    """A gateway that answers itself, or an entry whose canary does."""
    chain = [model_tier(model.url, totalSeconds=4, stallMilliseconds=60_000)]
    stable, canary = (make_record(chain, prompt=prompt) for prompt in ("Old.", "New."))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000 if request.param == "forwarded" else 0))
    gateway = await gateways.start(stable, api=api, send_buffer=BUFFER)
    if request.param == "forwarded":
        await gateways.start(canary, api=api, send_buffer=BUFFER)
    await gateway.acts_on(3)
    return gateway


@pytest.mark.long
@pytest.mark.parametrize("entry", ["direct", "forwarded"], indirect=True)
async def test_a_target_whose_time_is_over_because_of_the_caller_is_not_to_blame(model: Model, entry: Gateway) -> None:
    model.script(LARGE)
    async with unread_stream(entry) as stream:
        await pause(6)
        assert b'"code":"slow_caller"' in await last_line(stream)
    assert await outcomes(entry) == {"cancelled": 1}


@pytest.mark.parametrize("entry", ["direct", "forwarded"], indirect=True)
async def test_a_target_whose_time_is_over_by_itself_is(model: Model, entry: Gateway) -> None:
    model.script(Rule(tokens=1000, token_interval_milliseconds=50))
    async with unread_stream(entry) as stream:
        assert b'"code":"stream_interrupted"' in await last_line(stream)
    assert await outcomes(entry) == {"truncated": 1}


@pytest.mark.long
@pytest.mark.parametrize("entry", ["direct", "forwarded"], indirect=True)
async def test_a_caller_that_does_not_read_is_cut_off_and_has_left(model: Model, entry: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 5)  # after the target's time is over
    model.script(LARGE)
    async with unread_stream(entry):
        assert await outcomes(entry) == {"cancelled": 1}

        async def nothing_in_flight() -> bool:
            return bool((await entry.status())["inFlight"] == 0)

        await eventually(nothing_in_flight)


@pytest.mark.long
@pytest.mark.parametrize(("bound", "outcome"), [(0.5, "cancelled"), (60.0, "truncated")])
async def test_a_peer_that_breaks_off_behind_a_caller_that_does_not_read_is_not_to_blame(
    model: Model, gateways: Gateways, api: TrafficApi, monkeypatch: pytest.MonkeyPatch, bound: float, outcome: str
) -> None:
    monkeypatch.setattr(forward, "UNREAD_SECONDS", bound)
    stable = make_record([model_tier(model.url)])
    api.write(state(3, stable=stable.revision, canary="other", permille=1000))
    gateway = await gateways.start(stable, api=api, send_buffer=BUFFER)
    await gateway.acts_on(3)
    events = b"data: %s\n\n" % (b"x" * 100_000) * 500
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % (len(events) + 1)
    async with answering(head + events, close=True) as gateways.peers["other"], unread_stream(gateway) as stream:
        await pause(1.5)
        assert b'"code":"stream_interrupted"' in await last_line(stream)
    assert await outcomes(gateway) == {outcome: 1}


async def test_w23_what_a_caller_does_not_read_stays_with_the_target(gateways: Gateways) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 65_000)
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    events, sent, stuck, sent_all = 500, 0, asyncio.Event(), asyncio.Event()  # 32 MB

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for _ in range(events):
            writer.write(event)
            draining = asyncio.create_task(writer.drain())
            if not (await asyncio.wait({draining}, timeout=0.5))[0]:
                stuck.set()
            await draining
            sent += 1
        writer.write(last)
        writer.close()
        sent_all.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gateway = await gateways.start(make_record([model_tier(address, stallMilliseconds=20_000)]), send_buffer=BUFFER)
        async with unread_stream(gateway) as stream:
            waits = {asyncio.create_task(happened.wait()) for happened in (stuck, sent_all)}
            _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            assert stuck.is_set(), "the gateway has taken all of it, and holds it"
            assert sent < events / 2
            assert await last_line(stream) == DONE
    assert (sent, await outcomes(gateway)) == (events, {"success": 1})


async def test_a_connection_that_has_ended_does_not_wait_for_ever_for_its_caller_to_take_the_rest(
    model: Model, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECONDS", 0.5)
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.5)
    model.script(Rule(text="x" * 40_000))  # more than the sockets hold, and less than makes the gateway wait
    gateway = await gateways.start(make_record([model_tier(model.url)]), send_buffer=4096, connections=1)
    host, _, port = gateway.address.rpartition(":")
    body = b'{"messages":[{"role":"user","content":"Hello"}]}'
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        caller.connect((host, int(port)))
        caller.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert await outcomes(gateway) == {"success": 1}

        async def there_is_room() -> bool:
            async with aiohttp.ClientSession() as another, another.get(f"http://{gateway.address}/v1/models") as got:
                return got.status == 200

        await eventually(there_is_room)
