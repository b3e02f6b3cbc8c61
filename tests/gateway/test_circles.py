"""What is over is gone at once. In a circle it would stay until garbage is searched for, which a gateway seldom does."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from e2e.fakemodel.script import Fault, Rule

from .harness import USER, Gateways, Model, TrafficApi, eventually, make_record, model_tier, state, static_tier

QUICK = {"headersMilliseconds": 100, "firstTokenMilliseconds": 150, "stallMilliseconds": 100}
ASKED = 5
STREAMED = {"model": "any", "messages": [USER], "stream": True}


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """What a search finds of the gateway's own at the end, by its kind."""
    gc.collect()
    gc.disable()
    found = Counter[str]()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(type(thing).__qualname__ for thing in gc.garbage if type(thing).__module__.startswith("backstop.gateway"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


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

    async def over() -> bool:
        return bool((await gateway.status())["inFlight"] == 0)

    with garbage() as found:
        for _ in range(ASKED):
            await gateway.chat(stream=stream)
        await eventually(over)
    assert sum(found.values()) < ASKED, f"by each request something was left behind: {found}"


@pytest.mark.parametrize("hop", [False, True], ids=["", "through a hop"])
@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "in mid-stream"])
async def test_nothing_of_a_caller_who_leaves_waits_for_the_search_for_garbage(
    begun: bool, hop: bool, model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    model.script(Rule(fault=Fault.STALL, cut_after_tokens=2) if begun else Rule(fault=Fault.HANG))
    stable, canary = (make_record([model_tier(model.url)], budget=60_000, prompt=prompt) for prompt in ("Old.", "New."))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000 if hop else 0))
    gateway, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    await gateway.acts_on(3)

    async def over() -> bool:
        return all([(await each.status())["inFlight"] == 0 for each in (gateway, behind)])

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
            await eventually(over)
    assert sum(found.values()) < ASKED, f"by each caller something was left behind: {found}"
