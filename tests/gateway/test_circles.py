"""What is over is gone at once. In a circle it would stay until garbage is searched for, which a gateway seldom does."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType, FrameType

import aiohttp
import pytest

from e2e.fakemodel.script import Fault, Rule

from .harness import USER, Gateway, Gateways, Model, TrafficApi, answering, eventually, make_record, model_tier, state, static_tier

QUICK = {"headersMilliseconds": 100, "firstTokenMilliseconds": 150, "stallMilliseconds": 100}
STREAMED = {"model": "any", "messages": [USER], "stream": True}
ASKED = 5
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """What a search finds of the gateway's own at the end, by its kind: objects, and what has run of its code. Of what each request left;
    not of the test before, whose loop has just ended.
    """
    gc.collect()
    gc.disable()
    found = Counter[str]()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(kind for thing in gc.garbage if (kind := _own(thing)) is not None)
        found.update({kind: count for kind, count in kinds.items() if count >= ASKED})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _own(thing: object) -> str | None:
    if isinstance(thing, FrameType | CoroutineType):
        code = thing.f_code if isinstance(thing, FrameType) else thing.cr_code
        return f"{type(thing).__name__} of {code.co_name}" if "/backstop/gateway/" in code.co_filename else None
    return type(thing).__qualname__ if type(thing).__module__.startswith("backstop.gateway") else None


async def _at_rest(*gateways: Gateway) -> None:
    async def over() -> bool:
        return all([(await each.status())["inFlight"] == 0 for each in gateways])

    await eventually(over)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "rule",
    [
        Rule(fault=Fault.RESET),
        Rule(fault=Fault.HANG),
        Rule(fault=Fault.MALFORMED),
        Rule(fault=Fault.EMPTY),
        Rule(fault=Fault.CUT, cut_after_tokens=2),
        Rule(fault=Fault.STALL, cut_after_tokens=2),
        Rule(fault=Fault.GARBAGE, cut_after_tokens=2),
        Rule(error_percent=100, error_status=500),
        Rule(latency_milliseconds=60),  # longer than the head start of the first
    ],
    ids=lambda rule: rule.fault.value if rule.fault is not None else f"{rule.error_status} {rule.latency_milliseconds}",
)
async def test_nothing_of_a_request_waits_for_the_search_for_garbage(
    rule: Rule, stream: bool, model: Model, other_model: Model, gateways: Gateways
) -> None:
    model.script(rule)
    first = model_tier(model.url) | {"timeouts": QUICK, "hedgeAfterMilliseconds": 20, "circuitBreaker": {"minRequests": 1000}}
    gateway = await gateways.start(make_record([first, model_tier(other_model.url, name="second"), static_tier()]))
    with garbage() as found:
        for _ in range(ASKED):
            await gateway.chat(stream=stream)
        await _at_rest(gateway)
    assert not found, f"{ASKED} requests left something behind"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nnone",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000,
        b"220 mail.example ESMTP\r\n",
    ],
    ids=["not gzip", "two lengths", "another protocol", "a long head", "not HTTP"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "no handshake"])
async def test_nothing_of_an_answer_that_is_none_waits_for_it(raw: bytes, tls: bool, gateways: Gateways) -> None:
    async with answering(raw, close=tls) as address:
        first = model_tier(address) | {"circuitBreaker": {"minRequests": 1000}, "timeouts": QUICK}
        if tls:
            first["model"]["baseURL"] = f"https://{address}/v1"
        gateway = await gateways.start(make_record([first, static_tier()]))
        with garbage() as found:
            for _ in range(ASKED):
                assert (await gateway.chat()).said("tier") == "static"
            await _at_rest(gateway)
    assert not found


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100_000,
        POST + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n" * 400,
        b"GET http://[/ HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["no host", "a long head", "too many at once", "no address", "not HTTP"],
)
async def test_nothing_of_a_request_that_is_refused_waits_for_it(raw: bytes, model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    with garbage() as found:
        for _ in range(ASKED):
            reader, writer = await asyncio.open_connection(*gateway.address.split(":"))
            writer.write(raw)
            assert b" 4" in await reader.read()
            writer.close()
        await _at_rest(gateway)
    assert not found


@pytest.mark.parametrize("hop", [False, True], ids=["served there", "through a hop"])
@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "in mid-stream"])
async def test_nothing_of_a_caller_who_leaves_waits_for_it(
    begun: bool, hop: bool, model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    model.script(Rule(fault=Fault.STALL, cut_after_tokens=2) if begun else Rule(fault=Fault.HANG))
    stable, canary = (make_record([model_tier(model.url)], budget=60_000, prompt=prompt) for prompt in ("Old.", "New."))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000 if hop else 0))
    gateway, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    await gateway.acts_on(3)
    with garbage() as found:
        for asked in range(1, ASKED + 1):
            async with aiohttp.ClientSession() as caller:
                request = asyncio.ensure_future(caller.post(f"http://{gateway.address}/v1/chat/completions", json=STREAMED))

                async def arrived(asked: int = asked) -> bool:
                    return model.fake.total == asked

                await eventually(arrived)
                if begun:
                    await (await request).content.readany()
                else:
                    request.cancel()
            await _at_rest(gateway, behind)
    assert not found


async def test_nothing_of_a_caller_who_leaves_in_its_body_waits_for_it(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))

    async def held(some: bool) -> bool:
        return ((await gateway.status())["bodyBytes"] > 0) is some

    with garbage() as found:
        for _ in range(ASKED):
            _, writer = await asyncio.open_connection(*gateway.address.split(":"))
            writer.write(POST + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
            await eventually(lambda: held(True))
            writer.close()
            await eventually(lambda: held(False))
    assert not found
