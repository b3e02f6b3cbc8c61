"""What a target can do and how much fits into it: who is asked, and what the caller is told when nobody is left."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from backstop.api.fallbackpolicy import Capability
from backstop.gateway.jsontext import split_array, split_object
from backstop.gateway.needs import needs_of

from .harness import USER, ExactTarget, Gateways, eventually, listening, make_record, model_tier, static_tier

ANSWER = '{"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}]}'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
OVERFLOW = '{"error":{"message":"This model has a maximum context length of 100 tokens.","code":"context_length_exceeded"}}'


def able_tier(target: ExactTarget, *, name: str, able: list[str] | None = None, window: int | None = None) -> dict[str, Any]:
    """A tier of which something is known."""
    tier = model_tier(target.url, name=name, model=name, firstTokenMilliseconds=2000)
    said = {"capabilities": able, "contextTokens": window}
    return tier | {"model": tier["model"] | {field: value for field, value in said.items() if value is not None}}


def part(kind: str) -> list[dict[str, Any]]:
    """Messages with one part of that kind beside a text."""
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": kind, kind: {"url": "data:,x"}}]}]


NEEDS: list[tuple[dict[str, Any], set[Capability]]] = [
    ({}, set()),
    ({"tools": TOOLS}, {Capability.TOOLS}),
    ({"functions": [{"name": "f"}]}, {Capability.TOOLS}),
    ({"tools": []}, set()),
    ({"tools": None, "logprobs": False, "response_format": {"type": "json_object"}, "modalities": ["text"]}, set()),
    ({"logprobs": True}, {Capability.LOGPROBS}),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, {Capability.JSON_SCHEMA}),
    ({"modalities": ["text", "audio"]}, {Capability.AUDIO}),
    ({"messages": part("image_url")}, {Capability.VISION}),
    ({"messages": part("input_audio")}, {Capability.AUDIO}),
    ({"messages": part("file")}, {Capability.FILES}),
    ({"messages": part("refusal")}, set()),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud83d"}, {"type": "image_url"}]}]}, {Capability.VISION}),
    ({"messages": [{"role": "user", "content": 7}], "modalities": 1, "response_format": "x"}, set()),
]


@pytest.mark.parametrize(("fields", "needed"), NEEDS)
def test_what_a_request_needs_is_read_out_of_it(fields: dict[str, Any], needed: set[Capability]) -> None:
    members = split_object(json.dumps({"messages": [USER]} | fields).encode())
    assert needs_of(members, history=split_array(members["messages"])) == needed


async def test_w41_w42_a_target_that_cannot_do_what_is_asked_is_passed_by(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget
) -> None:
    target.says(ANSWER % "first")
    other_target.says(ANSWER % "second")
    chain = [able_tier(target, name="first", able=["JSONSchema"]), able_tier(other_target, name="second"), static_tier()]
    gateway = await gateways.start(make_record(chain))
    beyond: list[dict[str, Any]] = [{"tools": TOOLS}, {"messages": part("image_url")}, {"logprobs": True}]
    for fields in beyond:
        got = await gateway.chat(**fields)
        assert (got.text, got.said("reason"), got.said("first-tier"), got.said("attempts")) == ("second", "PromptError", "skipped", "1")
    within: list[dict[str, Any]] = [{}, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}]
    for fields in within:
        assert (await gateway.chat(**fields)).text == "first"
    assert (len(target.seen), len(other_target.seen)) == (2, 3)
    assert await gateway.total("backstop_handoffs_total", failure_mode="PromptError", to="second") == 3


async def test_w41_w42_what_no_target_can_do_is_the_revisions_fault_and_says_what_is_missing(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget
) -> None:
    gateway = await gateways.start(make_record([able_tier(target, name="first", able=[])]))
    got = await gateway.chat(tools=TOOLS)
    assert (got.status, got.json["error"]["code"], got.headers["x-should-retry"]) == (501, "PromptError", "false")
    assert "tier `first` is not offered for Tools" in got.json["error"]["message"]
    assert await gateway.total("backstop_served_total", outcome="error", first_tier="skipped") == 1
    other_target.says("{}", status=429)
    gateway = await gateways.start(make_record([able_tier(target, name="first", able=[]), able_tier(other_target, name="second")]))
    assert (await gateway.chat(tools=TOOLS)).status == 429, "the one that could have done it says why it did not"
    assert not target.seen


@pytest.mark.parametrize("stream", [False, True])
async def test_w11_what_is_too_long_goes_to_a_larger_window_only(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget, stream: bool
) -> None:
    small = [able_tier(target, name="small", window=100), able_tier(target, name="same", window=100), able_tier(target, name="unknown")]
    gateway = await gateways.start(make_record([*small, able_tier(other_target, name="large", window=200), static_tier()], budget=9000))
    target.says(OVERFLOW, status=400)
    other_target.says(OVERFLOW.replace("100", "200"), status=400)
    got = await gateway.chat(stream=stream)
    assert (got.status, got.body, len(target.seen)) == (400, OVERFLOW.replace("100", "200").encode(), 1), "the largest has the last word"
    other_target.says("{}", status=500)
    got = await gateway.chat(stream=stream)
    assert (got.status, got.text, got.said("attempts"), len(target.seen)) == (200, "Not now.", "2", 2), "it could have, and failed"
    if not stream:
        other_target.says(ANSWER % "large")
        got = await gateway.chat()
        assert (got.text, got.said("tier"), got.said("first-tier"), len(target.seen)) == ("large", "large", "skipped", 3)


async def test_w11_a_body_that_is_too_large_goes_to_a_larger_window_too(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget
) -> None:
    chain = [able_tier(target, name="small", window=100), able_tier(other_target, name="large", window=200), static_tier()]
    gateway = await gateways.start(make_record(chain))
    target.says("<html>413 Request Entity Too Large</html>", status=413)
    other_target.says(ANSWER % "large")
    got = await gateway.chat()
    assert (got.text, got.said("tier"), got.said("reason"), got.said("first-tier")) == ("large", "large", "PromptError", "skipped")


async def test_w11_who_waited_for_another_and_does_not_fit_either_was_not_late(gateways: Gateways, other_target: ExactTarget) -> None:
    asked, go = 0, asyncio.Event()

    async def too_long(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await go.wait()
        return web.Response(status=400, text=OVERFLOW, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", too_long)
    other_target.says(ANSWER % "large")
    cache = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}
    async with listening(app) as address:
        small = model_tier(address, name="small", firstTokenMilliseconds=4000)
        small["model"]["contextTokens"] = 100
        gateway = await gateways.start(make_record([small, cache, able_tier(other_target, name="large", window=200)], budget=9000))
        both = [asyncio.create_task(gateway.chat()) for _ in range(2)]

        async def one_asks_and_one_waits() -> bool:
            return asked == 1 and (await gateway.status())["inFlight"] == 2

        await eventually(one_asks_and_one_waits)
        go.set()
        got = await asyncio.gather(*both)
    assert [(g.text, g.said("first-tier")) for g in got] == [("large", "skipped")] * 2


async def test_w11_without_a_larger_window_it_is_the_callers_to_shorten(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget
) -> None:
    target.says(OVERFLOW, status=400)
    chain = [able_tier(target, name="first", window=100), able_tier(other_target, name="second"), static_tier()]
    gateway = await gateways.start(make_record(chain))
    got = await gateway.chat()
    assert (got.status, got.body, got.said("first-tier")) == (400, OVERFLOW.encode(), "answered")
    gateway = await gateways.start(make_record([chain[0], able_tier(other_target, name="same", window=100), static_tier()]))
    assert (await gateway.chat()).said("hand-offs") == "0"
    gateway = await gateways.start(make_record([chain[0], able_tier(other_target, name="large", able=[], window=200), static_tier()]))
    got = await gateway.chat(tools=TOOLS)
    assert (got.status, got.body, got.said("tier")) == (400, OVERFLOW.encode(), "first"), "the larger one cannot do what is asked"
    target.says('{"error":{"message":"temperature is too high"}}', status=400)
    gateway = await gateways.start(make_record([chain[0], able_tier(other_target, name="large", window=200), static_tier()]))
    assert (await gateway.chat()).status == 400, "another mistake is not about the window"
    assert not other_target.seen
    assert await gateway.total("backstop_served_total", outcome="caller_error") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_w12_a_refusal_for_its_content_is_not_put_to_another_model(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget, stream: bool
) -> None:
    gateway = await gateways.start(make_record([able_tier(target, name="first"), model_tier(other_target.url, name="b"), static_tier()]))
    refusal = '{"error":{"message":"The response was filtered","code":"content_filter","innererror":{"code":"X"}}}'
    target.says(refusal, status=400)
    got = await gateway.chat(stream=stream)
    assert (got.status, got.body) == (400, refusal.encode())
    if stream:
        filtered = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}\n\ndata: [DONE]\n\n'
    else:
        filtered = '{"choices":[{"index":0,"message":{"role":"assistant","content":null},"finish_reason":"content_filter"}]}'
    target.says(filtered, stream=stream)
    got = await gateway.chat(stream=stream)
    assert (got.status, got.body, got.said("tier")) == (200, filtered.encode(), "first")
    assert not other_target.seen
