"""The life of a gateway as a process: ready, draining, gone; and the bounds of what it takes."""

import asyncio
import re
import socket
import time
from pathlib import Path
from random import Random

import aiohttp
import pytest
from yarl import URL

from backstop.api import heartbeat
from backstop.api.metricnames import JUDGED_OUTCOMES
from backstop.gateway import listen
from backstop.gateway.app import MAX_IN_FLIGHT
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Rule

from .harness import USER, Gateways, Model, eventually, gateway_process, guarded_tier, listening, make_record, model_tier, static_tier

STREAMS = 50


@pytest.mark.long
async def test_w53_a_drain_finishes_what_it_can_ends_the_rest_with_an_error_and_resets_nothing(
    model: Model, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    model.script(
        Rule(match="slow", tokens=10_000, token_interval_milliseconds=50), Rule(match="quick", tokens=20, token_interval_milliseconds=100)
    )
    record = make_record([model_tier(model.url)], prompt="{{speed}}", variables=[{"name": "speed"}], budget=20_000)
    options = ("--drain-seconds", "2", "--grace-seconds", "9")
    async with gateway_process(record, http=http, folder=tmp_path, options=options) as process:
        url = f"http://{process.gateway.address}/v1/chat/completions"

        async def stream(speed: str) -> bytes:
            body = {"messages": [USER], "stream": True, "metadata": {"speed": speed}}
            async with http.post(url, json=body) as response:
                assert response.status == 200
                return await response.read()

        streams = [asyncio.create_task(stream("quick" if number % 2 else "slow")) for number in range(STREAMS)]

        async def all_under_way() -> bool:
            return model.fake.total == STREAMS

        await eventually(all_under_way)
        process.terminate()
        terminated = time.monotonic()

        async def unready() -> bool:
            return not await process.gateway.ready()

        await eventually(unready, within=1)
        closing = await _short_requests(url, http=http, until=terminated + 1.5)
        # Ended by us 4 s after SIGTERM; at 9 s the kubelet would have killed the process.
        async with asyncio.timeout(terminated + 8 - time.monotonic()):
            ended = await asyncio.gather(*streams)
            assert await process.process.wait() == 0
    assert len(closing) > 10
    assert set(closing) == {"close"}, "every answer while draining closes its connection"
    quick, slow = ended[1::2], ended[::2]
    assert all(text.rstrip().endswith(b"data: [DONE]") for text in quick)
    assert all(b'"code":"shutting_down"' in text.rstrip().splitlines()[-1] and b"[DONE]" not in text for text in slow)


async def _short_requests(url: str, *, http: aiohttp.ClientSession, until: float) -> list[str]:
    """Short requests, one after another: each is answered, none is reset. Their `Connection` headers."""
    closing = []
    while time.monotonic() < until:
        async with http.post(url, json={"messages": [USER], "metadata": {"speed": "now"}}) as response:
            assert response.status == 200
            await response.read()
            closing.append(response.headers.get("Connection", ""))
    return closing


async def test_a_request_on_an_idle_connection_is_answered_also_while_the_gateway_stops(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "LINGER_SECONDS", 30.0)  # so that a busy machine cannot miss the moment
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    host, _, port = gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stopping = asyncio.ensure_future(gateway.stop())

    async def refused() -> bool:
        try:
            _, another = await asyncio.open_connection(host, int(port))
        except (ConnectionRefusedError, ConnectionResetError):  # reset: in the very moment in which the listener closes
            return True
        another.close()
        return False

    await eventually(refused)
    writer.write(b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n{"messages":[{"role":"user"}]}')
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    writer.close()
    await writer.wait_closed()
    await stopping


@pytest.mark.long
async def test_more_requests_than_the_bound_are_told_to_come_back(model: Model, gateways: Gateways) -> None:
    model.script(Rule(latency_milliseconds=60_000))
    gateway = await gateways.start(make_record([model_tier(model.url)], budget=90_000))
    waiting = [asyncio.create_task(gateway.chat()) for _ in range(MAX_IN_FLIGHT)]
    try:

        async def full() -> bool:
            return bool((await gateway.status())["inFlight"] == MAX_IN_FLIGHT)

        await eventually(full)
        refused = await gateway.chat()
        assert (refused.status, refused.headers["Retry-After"], refused.json["error"]["code"]) == (429, "1", "overload")
        assert refused.said("reason") == "Overload"
        assert await gateway.total("backstop_refused_total", reason="requests") == 1
        # It reached no model: it says nothing of the revision, for or against.
        assert await gateway.total("backstop_served_total", outcome="refused") == 1
        for outcome in JUDGED_OUTCOMES:
            assert await gateway.total("backstop_served_total", outcome=outcome) == 0
        assert await gateway.total("backstop_sent_total") == MAX_IN_FLIGHT
        assert await gateway.total("backstop_requests_total") == 0
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_loop_that_was_stuck_is_unhealthy_for_a_while(
    gateways: Gateways, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(heartbeat, "REMEMBERED_SECONDS", 2.0)
    gateway = await gateways.start(make_record([static_tier()]))

    async def health() -> tuple[int, str]:
        async with http.get(f"http://{gateway.metrics_address}/healthz") as response:
            return response.status, await response.text()

    assert await health() == (200, "ok\n")
    time.sleep(1.5)  # noqa: ASYNC251 - the loop is stuck: that is what is tested
    status, text = await health()
    assert status == 503
    assert re.fullmatch(r"the event loop (was|has been) stuck for \d+\.\d s\n", text)

    async def healthy() -> bool:
        return await health() == (200, "ok\n")

    await eventually(healthy)


async def test_unknown_paths_and_methods_get_the_error_envelope(gateways: Gateways, http: aiohttp.ClientSession) -> None:
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    cases = [
        ("GET", "/", 404, None),
        ("POST", "/v1/nothing", 404, None),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("OPTIONS", "/v1/responses", 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET"),
        ("DELETE", "/v1/models/m1", 405, "GET"),
        ("OPTIONS", "/v1/models/backstop/static", 405, "GET"),
        ("GET", "/v1/models/", 404, None),
        ("GET", "/v1/models/M1", 404, None),
        ("GET", "/v1/models/m1/", 404, None),
    ]
    for method, path, status, allowed in cases:
        async with http.request(method, f"http://{gateway.address}{path}") as response:
            assert (response.status, response.headers.get("Allow")) == (status, allowed)
            assert (await response.json())["error"]["type"] == "invalid_request_error"
    async with http.get(f"http://{gateway.address}/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["m1", "backstop/static"]
    assert await gateway.total("backstop_served_total") == 0


async def test_a_model_is_found_by_its_name_however_its_path_is_spelled(gateways: Gateways, http: aiohttp.ClientSession) -> None:
    name = "org/näher 7%?#:b"
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1", model=name), static_tier()]))
    for spelled in ("org/n%C3%A4her%207%25%3F%23:b", "org%2fn%c3%a4her%207%25%3f%23%3ab"):
        async with http.get(URL(f"http://{gateway.address}/v1/models/{spelled}?x=1", encoded=True)) as response:
            assert (response.status, await response.json()) == (200, {"id": name, "object": "model", "created": 0, "owned_by": "backstop"})
    async with http.head(f"http://{gateway.address}/v1/models/backstop/static") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")
    async with http.get(URL(f"http://{gateway.address}/v1/models/{'%22%0a' * 5000}%ff", encoded=True)) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert len(error["message"]) < 200


async def test_an_endless_head_is_refused(gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()]))
    host, _, port = gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in range(80)))
    async with asyncio.timeout(5):
        assert b" 431 " in await reader.readline()
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_w54_a_gateway_whose_upstream_is_not_there_is_ready_answers_statically_and_heals_alone(gateways: Gateways) -> None:
    later = 0.0
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))  # nobody listens yet
        tier = guarded_tier(f"127.0.0.1:{there.getsockname()[1]}", breaker={"minRequests": 2, "openSeconds": 5})
        gateway = await gateways.start(make_record([tier, static_tier()]), clock=lambda: time.monotonic() + later)
        for _ in range(3):
            got = await gateway.chat()
            assert (got.status, got.text, got.said("reason")) == (200, "Not now.", "DependencyFailure")
        assert await gateway.ready()
        async with listening(FakeModel(random=Random(1)).application(), at=there):
            assert (await gateway.chat()).text == "Not now.", "it is left alone for a while"
            later = 6.0
            assert (await gateway.chat()).text == "All is well."
