"""Streams whose model breaks off after its first content, over real sockets: who finishes them, and what callers have of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import openai
import pytest

from backstop.api.record import RevisionRecord
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Fault, Rule

from .harness import USER, Gateway, Gateways, Model, TrafficApi, eventually, listening, make_record, model_tier, state

CONTINUE = {"onInterruption": "Continue"}
TOKENS = [f"t{number}" for number in range(60)]
REST = " ".join(TOKENS[40:])
CUT = Rule(tokens=60, fault=Fault.CUT, cut_after_tokens=40)


def tier(url: str, *, name: str = "second", prefill: bool = False, stall: int = 5000) -> dict[str, Any]:
    made = model_tier(url, name=name, model=f"m-{name}", firstTokenMilliseconds=2000, stallMilliseconds=stall)
    made["model"] |= {"capabilities": ["Prefill", "Tools", "JSONSchema"]} if prefill else {}
    return made


def record(first: str, *behind: dict[str, Any], stream: dict[str, Any] | None = None, stall: int = 5000) -> RevisionRecord:
    return make_record([tier(first, name="primary", stall=stall), *behind], budget=20_000, stream=stream or CONTINUE)


@asynccontextmanager
async def third_model() -> AsyncIterator[Model]:
    fake = FakeModel(random=Random(3))
    async with listening(fake.application()) as address:
        yield Model(fake, address)


async def counted(gateway: Gateway, **labels: str) -> float:
    return await gateway.total("backstop_served_total", **labels)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.STALL, Fault.UNFINISHED, Fault.GARBAGE])
async def test_w58_a_tier_that_can_is_given_the_text_so_far_and_finishes_the_answer(
    model: Model, other_model: Model, gateways: Gateways, fault: Fault
) -> None:
    model.script(Rule(tokens=60, fault=fault, cut_after_tokens=40))
    other_model.script(Rule(text=REST))
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True), stall=300 if fault is Fault.STALL else 5000))
    got = await gateway.chat(stream=True, temperature=0.5)
    assert got.text.split() == TOKENS
    assert (got.status, got.is_done, got.said("tier")) == (200, True, "primary")
    assert len({event["id"] for event in got.events}) == 1
    assert [event["choices"][0]["finish_reason"] for event in got.events if event["choices"]].count("stop") == 1
    assert b"\n\n: x-backstop-continued-by second, x-backstop-first-tier failed\n\ndata: [DONE]" in got.body
    sent = other_model.sent()
    assert sent["messages"][-1] == {"role": "assistant", "content": " ".join(TOKENS[:40]) + " "}
    assert (sent["messages"][:-1], sent["temperature"], sent["model"]) == (model.sent()["messages"], 0.5, "m-second")
    assert await gateway.total("backstop_continued_total", **{"from": "primary", "to": "second"}) == 1
    assert await counted(gateway, outcome="success", first_tier="failed") == 1, "what its first tier does to a revision still shows"
    assert await gateway.total("backstop_served_usage_total", type="unknown") == 1


async def test_w58_an_answer_that_begins_with_the_text_so_far_is_taken_from_there(
    model: Model, other_model: Model, gateways: Gateways
) -> None:
    model.script(CUT)
    other_model.script(Rule(tokens=60, slice_bytes=11))
    gateway = await gateways.start(record(model.url, tier(other_model.url)))
    got = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert (got.text.split(), got.is_done) == (TOKENS, True)
    assert other_model.sent()["messages"] == model.sent()["messages"]
    assert got.events[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("prefill", [False, True])
async def test_w58_wherever_it_is_cut_the_text_is_the_same(model: Model, other_model: Model, gateways: Gateways, prefill: bool) -> None:
    words = ["Grüße,", '"世界"', "🎉", "a\\b", "line\nbreak\u2028", "{{x}}", "data:", "end"]
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=prefill)))
    for cut in range(1, len(words)):
        model.script(Rule(text=" ".join(words), fault=Fault.CUT, cut_after_tokens=cut, slice_bytes=13))
        other_model.script(Rule(text=" ".join(words[cut:] if prefill else words), slice_bytes=7))
        got = await gateway.chat(stream=True)
        assert (got.text, got.is_done) == (" ".join(words), True), cut


@pytest.mark.parametrize("other", ["t0 t1 t2 and now for something else", " ".join(["t0", "t1", *TOKENS])])
async def test_w58_whoever_says_something_else_adds_nothing_and_the_next_one_goes_on(
    model: Model, other_model: Model, gateways: Gateways, other: str
) -> None:
    model.script(Rule(match="first", tokens=60, fault=Fault.CUT, cut_after_tokens=40), CUT)
    other_model.script(Rule(text=other))
    gateway = await gateways.start(record(model.url, tier(other_model.url)))
    got = await gateway.chat(stream=True)
    assert (got.text.split(), got.is_done, got.events[-1]["error"]["code"]) == (TOKENS[:40], False, "stream_interrupted")
    assert "the connection to the target broke" in got.events[-1]["error"]["message"], "as it was the first time"
    assert await counted(gateway, outcome="truncated", first_tier="answered") == 1

    async with third_model() as third:
        third.script(Rule(text=REST))
        gateway = await gateways.start(record(model.url, tier(other_model.url), tier(third.url, name="third", prefill=True)))
        got = await gateway.chat(stream=True)
    assert (got.text.split(), got.is_done) == (TOKENS, True)
    assert b"continued-by third" in got.body


async def test_w58_who_goes_on_may_break_off_too(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(CUT)
    other_model.script(Rule(text=REST, fault=Fault.CUT, cut_after_tokens=10))
    async with third_model() as third:
        third.script(Rule(text=" ".join(TOKENS[50:])))
        behind = [tier(other_model.url, prefill=True), tier(third.url, name="third", prefill=True)]
        got = await (await gateways.start(record(model.url, *behind))).chat(stream=True)
        assert third.sent()["messages"][-1]["content"].split() == TOKENS[:50]
    assert (got.text.split(), got.is_done) == (TOKENS, True)


@pytest.mark.parametrize(
    "rule", [Rule(error_percent=100, error_status=400), Rule(error_percent=100, error_status=500), Rule(fault=Fault.RESET)]
)
async def test_w59_a_tier_that_rejects_the_prefill_leaves_the_first_failure(
    model: Model, other_model: Model, gateways: Gateways, rule: Rule
) -> None:
    model.script(CUT)
    other_model.script(rule)
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True)))
    got = await gateway.chat(stream=True)
    assert (got.text.split(), got.is_done) == (TOKENS[:40], False)
    error = got.events[-1]["error"]
    assert (error["code"], error["message"]) == ("stream_interrupted", "the answer is incomplete: the connection to the target broke")
    assert other_model.fake.total == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
    ],
)
async def test_what_is_more_than_a_plain_text_is_never_continued(
    model: Model, other_model: Model, gateways: Gateways, fields: dict[str, Any]
) -> None:
    model.script(CUT)
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True)))
    got = await gateway.chat(stream=True, **fields)
    assert (got.is_done, got.events[-1]["error"]["code"], other_model.fake.total) == (False, "stream_interrupted", 0)


async def test_without_continue_nobody_is_asked(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(CUT)
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True), stream={"onInterruption": "Fail"}))
    assert not (await gateway.chat(stream=True)).is_done
    assert other_model.fake.total == 0


async def test_w58_completions_and_the_official_client_have_one_whole_answer(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(CUT)
    other_model.script(Rule(text=REST))
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True)))
    async with openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="x", max_retries=0) as client:
        chunks = [c async for c in await client.chat.completions.create(model="m", messages=[USER], stream=True)]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).split() == TOKENS
        texts = [c async for c in await client.completions.create(model="m", prompt="Hello", stream=True)]
        assert "".join(c.choices[0].text for c in texts if c.choices).split() == TOKENS


async def test_a_caller_that_leaves_takes_who_goes_on_with_it(
    model: Model, other_model: Model, gateways: Gateways, http: aiohttp.ClientSession
) -> None:
    model.script(CUT)
    other_model.script(Rule(fault=Fault.HANG))
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True)))
    response = await http.post(f"http://{gateway.address}/v1/chat/completions", json={"messages": [USER], "stream": True})

    async def asked() -> bool:
        return other_model.fake.total == 1

    await eventually(asked)
    response.close()

    async def over() -> bool:
        return other_model.fake.cancelled == 1 and await counted(gateway, outcome="cancelled") == 1

    await eventually(over)


@pytest.mark.parametrize("stream", [CONTINUE, {"onInterruption": "Fail"}])
async def test_a_body_takes_room_for_as_long_as_another_tier_may_need_it(
    model: Model, other_model: Model, gateways: Gateways, http: aiohttp.ClientSession, stream: dict[str, Any]
) -> None:
    model.script(Rule(tokens=60, fault=Fault.STALL, cut_after_tokens=2))
    gateway = await gateways.start(record(model.url, tier(other_model.url, prefill=True), stream=stream, stall=60_000))
    response = await http.post(f"http://{gateway.address}/v1/chat/completions", json={"messages": [USER], "stream": True})
    await response.content.readany()
    assert ((await gateway.status())["bodyBytes"] > 0) is (stream is CONTINUE)
    response.close()

    async def given_back() -> bool:
        return bool((await gateway.status())["bodyBytes"] == 0)

    await eventually(given_back)


async def test_an_entry_learns_that_the_first_tier_of_a_canary_broke_off(
    model: Model, other_model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    model.script(Rule(match="canary", tokens=60, fault=Fault.CUT, cut_after_tokens=40))
    other_model.script(Rule(text=REST))
    stable = await gateways.start(make_record([model_tier(model.url)]), api=api)
    canary = make_record(
        [tier(model.url, name="primary"), tier(other_model.url, prefill=True)], budget=20_000, stream=CONTINUE, prompt="the canary"
    )
    canary_gateway = await gateways.start(canary, api=api)
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=1000))
    await asyncio.gather(stable.acts_on(2), canary_gateway.acts_on(2))
    got = await stable.chat(stream=True)
    assert (got.text.split(), got.is_done, got.said("revision")) == (TOKENS, True, canary.revision)

    async def told() -> bool:
        return await counted(stable, revision=canary.revision, outcome="success", first_tier="failed") == 1

    await eventually(told)


async def test_w60_a_stream_that_breaks_off_while_it_is_held_back_is_handed_over_unnoticed(
    model: Model, other_model: Model, gateways: Gateways
) -> None:
    model.script(Rule(tokens=60, token_interval_milliseconds=10, fault=Fault.CUT, cut_after_tokens=5))
    other_model.script(Rule(text="From the second."))
    gateway = await gateways.start(record(model.url, tier(other_model.url), stream={"holdBackMilliseconds": 1500}))
    got = await gateway.chat(stream=True)
    assert (got.text, got.is_done, got.said("tier"), got.said("reason")) == ("From the second.", True, "second", "DependencyFailure")
    assert await gateway.total("backstop_attempts_total", target="primary", outcome="DependencyFailure") == 1
    assert await counted(gateway, outcome="success", first_tier="failed") == 1


async def test_what_is_held_back_is_given_whole(model: Model, gateways: Gateways, http: aiohttp.ClientSession) -> None:
    model.script(Rule(tokens=60, fault=Fault.STALL, cut_after_tokens=40))
    gateway = await gateways.start(record(model.url, stream={"holdBackMilliseconds": 100}))
    body = {"messages": [USER], "stream": True}
    async with asyncio.timeout(10), http.post(f"http://{gateway.address}/v1/chat/completions", json=body) as response:
        seen = b""
        while b"t39 " not in seen:
            seen += await response.content.readany()
    pieces = [json.loads(line[6:]) for line in seen.decode().splitlines() if line.startswith("data: ")]
    assert "".join(p["choices"][0]["delta"].get("content") or "" for p in pieces).split() == TOKENS[:40]

    model.script(Rule(tokens=60))
    got = await gateway.chat(stream=True)
    assert (got.text.split(), got.is_done) == (TOKENS, True)
