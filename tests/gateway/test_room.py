"""Bodies share one room: what is held at once is bounded in bytes, and what does not fit is told to come back."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from backstop.api.metricnames import JUDGED_OUTCOMES
from backstop.gateway.files import METRICS_CONNECTIONS
from backstop.gateway.memory import memory_limit
from backstop.gateway.room import HeadRoom, NoRoomError
from backstop.gateway.shares import CONNECTION, share
from e2e.fakemodel.script import Rule

from .harness import USER, Gateway, Gateways, Got, Model, TrafficApi, eventually, gateway_process, make_record, model_tier, state

MIB = 1 << 20
LARGE = "x" * (700 << 10)


async def _holds(gateway: Gateway, *, at_least: int = 0, at_most: int = 64 * MIB) -> None:
    async def look() -> bool:
        return bool(at_least <= (await gateway.status())["bodyBytes"] <= at_most)

    await eventually(look)


def _is_refused(got: Got) -> bool:
    said = (got.status, got.headers.get("Retry-After"), got.said("reason"), got.json["error"]["code"], got.json["error"]["type"])
    return bool(said == (429, "1", "Overload", "overload", "rate_limit_error"))


async def test_bodies_that_do_not_fit_together_are_told_to_come_back(model: Model, gateways: Gateways) -> None:
    model.script(Rule(latency_milliseconds=60_000))
    gateway = await gateways.start(make_record([model_tier(model.url)], budget=90_000), body_bytes=MIB)
    waiting = asyncio.create_task(gateway.chat(user=LARGE))
    await _holds(gateway, at_least=len(LARGE))
    assert _is_refused(await gateway.chat(user=LARGE)), "announced"

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b" " * (100 << 10)

    async with gateway.http.post(f"http://{gateway.address}/v1/chat/completions", data=pieces()) as r:
        assert _is_refused(Got(r.status, dict(r.headers), await r.read())), "unannounced"
    assert await gateway.total("backstop_refused_total", reason="bodies") == 2
    assert await gateway.total("backstop_served_total", outcome="refused") == 2
    for outcome in JUDGED_OUTCOMES:
        assert await gateway.total("backstop_served_total", outcome=outcome) == 0
    assert await gateway.total("backstop_sent_total") == 1

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await _holds(gateway, at_most=0)
    model.script()
    assert (await gateway.chat(user=LARGE)).status == 200, "there is room again"
    assert (await gateway.status())["bodyBytes"] == 0


async def test_a_body_is_let_go_with_the_first_of_its_answer(model: Model, gateways: Gateways, api: TrafficApi) -> None:
    model.script(Rule(tokens=10_000, token_interval_milliseconds=50))
    stable, canary = (make_record([model_tier(model.url)], prompt=prompt) for prompt in ("Old.", "New."))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api, body_bytes=MIB)
    behind = await gateways.start(canary, api=api, body_bytes=MIB)
    await entry.acts_on(3)
    for _ in range(3):
        response = await entry.http.post(
            f"http://{entry.address}/v1/chat/completions", json={"messages": [USER], "stream": True, "user": LARGE}
        )
        assert response.status == 200
        await response.content.readany()
        for gateway in (entry, behind):
            status = await gateway.status()
            assert (status["inFlight"] > 0, status["bodyBytes"]) == (True, 0)


async def test_a_canary_without_room_for_a_body_is_not_judged_by_it(model: Model, gateways: Gateways, api: TrafficApi) -> None:
    stable, canary = (make_record([model_tier(model.url)], prompt=prompt) for prompt in ("Old.", "New."))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    behind = await gateways.start(canary, api=api, body_bytes=MIB)
    await entry.acts_on(3)
    model.script(Rule(latency_milliseconds=60_000))
    waiting = asyncio.create_task(entry.chat(user=LARGE))
    await _holds(behind, at_least=len(LARGE))
    assert await behind.total("backstop_inflight_requests") == 1
    got = await entry.chat(user=LARGE)
    assert _is_refused(got)
    assert got.said("track") == "canary"
    assert await behind.total("backstop_refused_total", reason="bodies") == 1
    assert await entry.total("backstop_refused_total") == 0
    assert await entry.total("backstop_served_total", revision=canary.revision, outcome="refused") == 1
    assert await entry.total("backstop_served_total") == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_body_that_never_fits_is_too_long(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]), body_bytes=MIB)
    got = await gateway.chat(user="x" * MIB)
    assert (got.status, got.json["error"]["message"]) == (413, "the body is longer than 1 MiB; send less")


@pytest.mark.skipif(sys.platform != "linux", reason="it is the C library's doing, and looked at in /proc")
async def test_what_long_bodies_took_is_given_back(model: Model, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    record = make_record([model_tier(model.url)])
    async with gateway_process(record, http=http, folder=tmp_path, options=("--drain-seconds", "0")) as running:

        def resident() -> int:
            return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{running.process.pid}/status").read_text())[0]) << 10

        before = resident()
        for _ in range(2):
            assert (await running.gateway.chat(messages=[{"role": "user", "content": "x" * (19 * MIB)}])).status == 200
        assert resident() - before < 10 * MIB


async def test_heads_that_are_not_whole_share_a_room_half_of_which_is_for_short_ones(model: Model, gateways: Gateways) -> None:
    # In the other half there is room for two long heads. With 256 connections, 128 of them the metrics port's, 512 bytes are short.
    gateway = await gateways.start(make_record([model_tier(model.url)]), head_bytes=128 << 10, connections=128)
    host, _, port = gateway.address.rpartition(":")

    async def begins(*, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = await asyncio.open_connection(host, int(port))
        made[1].write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: " + b"x" * length)
        return made

    async def holds(at_least: int, *, at_most: int = 64 << 10) -> None:
        async def look() -> bool:
            return bool(at_least <= (await gateway.status())["headBytes"] <= at_most)

        await eventually(look)

    async def ends(made: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
        made[1].write(b"\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            return await made[0].read()

    first, left = await begins(length=30 << 10), await begins(length=30 << 10)
    await holds(58 << 10)
    late = await begins(length=30 << 10)
    async with asyncio.timeout(5):
        head, _, body = (await late[0].read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert {b"retry-after: 1", b"x-backstop-reason: Overload", b"connection: close"} <= set(head.split(b"\r\n"))
    assert body == (
        b'{"error":{"message":"the requests that are arriving have too long heads together; retry","type":"server_error",'
        b'"param":null,"code":"overload"}}'
    )
    assert await gateway.total("backstop_refused_total", reason="heads") == 1
    assert (await gateway.chat()).status == 200, "what comes in one piece needs no room"
    assert (await ends(await begins(length=200))).startswith(b"HTTP/1.1 200"), "and what is short has some"
    assert (await ends(first)).startswith(b"HTTP/1.1 200")
    await holds(30 << 10, at_most=31 << 10)
    left[1].close()
    await holds(0, at_most=0)
    unread = await begins(length=30 << 10)
    unread[1].write(b"\r\nContent-Length: 2\r\n\r\n")
    await holds(29 << 10)
    unread[1].write(b"{}")
    await holds(0, at_most=0)
    for made in (first, late, unread):
        made[1].close()


def test_the_heads_of_openais_client_are_not_shut_out_by_long_ones() -> None:
    memory = 256 << 20
    limit, connections = share(memory, cache=0).heads, share(memory, cache=0).connections // CONNECTION
    refused: list[int] = []
    room = HeadRoom(limit, connections=connections + METRICS_CONNECTIONS, count_refused=lambda: refused.append(room.held))
    long = [room.change(0, size=60 << 10) for _ in range(limit // 2 // (60 << 10))]
    with pytest.raises(NoRoomError):
        room.change(0, size=60 << 10)
    assert refused == [sum(long)]
    # 17 headers, with 128 bytes more for each, and once more what has come of them with nothing behind it.
    short = [room.change(0, size=3434) for _ in range(connections // 2)]
    for held in (*long, *short):
        assert room.change(held, size=0) == 0
    assert [room.change(0, size=limit // 4) for _ in range(2)], "long heads have left half of it"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "268435456\n"}, 256 * MIB),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "134217728\n"}, 128 * MIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_the_memory_limit_is_that_of_the_container(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit
