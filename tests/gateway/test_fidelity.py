"""What passes through: requests and answers arrive as they were spelled, whatever is in them, at whichever target answers."""

import json
import re

import pytest

from e2e.fakemodel.script import Fault, Rule

from .harness import ExactTarget, Gateways, Model, make_record, model_tier, static_tier

MIB = 1 << 20
# Spelled as no library would spell it: what is parsed and written again would look otherwise.
REQUESTS = {
    "w41": (
        rb'{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\" : 1.0}"}}]}',
        rb'{"role":"tool","tool_call_id":"c1", "content":"{}"}',
        rb'"tools":[ {"type":"function","function":{"name":"f","strict" : true,"parameters":{"type":"object","x":1e2}}} ]',
        rb'"tool_choice": {"type" :"function","function":{"name":"f"}}',
        rb'"parallel_tool_calls":false',
    ),
    "w42": (
        rb'{"role":"user","content":[{"type":"image_url","image_url":{"detail":"low", "url":"data:image\/png;base64,iVBORw0KGgo="}}]}',
        rb'{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"UklGRg==","format" :"wav"}},{"type":"x-own","x":[]}]}',
    ),
    "w43": (
        rb'{"role":"user","name":"ann","content":"Hi"}',
        rb'"n": 3',
        rb'"logprobs":true',
        rb'"top_logprobs" : 5',
        rb'"seed":9007199254740993',
        rb'"logit_bias":{"50256":-1e2}',
        rb'"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"z":1,"a":2.50,"z":3}}}',
        rb'"x_unknown":{"deep":[[[1.10]]]}',
    ),
    "w45": (
        '{"role":"user","content":"🎉 e\u0301 \u2028"}'.encode(),
        rb'{"role":"user","content":"\ud83d half, \u0000 nul, \uD83C\uDF89 \/"}',
        rb'"metadata":{"k\u0065y":"\udc00"}',
    ),
}
ANSWERS = {
    "w41": (
        rb'{"choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":'
        rb'[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\" :  1.0, \"b\":\"\\u00e9"}}]}}]}'
    ),
    "w42": rb'{"choices":[{"index":0,"message":{"role":"assistant","content":null,"audio":{"id":"a","data":"UklGRg=="}}}], "x" : 1.50}',
    "w43": (
        rb'{"choices":[{"index":1,"message":{"content":"b"},"logprobs":{"content":[{"token":"b","logprob":-0.10e1}]}},'
        rb'{"index":0, "message":{"content":"a"}}], "system_fingerprint":null,"x_unknown" :{"b":[ ]}}'
    ),
    "w45": '{"choices":[{"index":0,"message":{"content":"🎉 \\ud83d \\u0000 e\u0301"}}]}\n'.encode(),
}


def said_by(parts: tuple[bytes, ...], *, more: bytes = b"") -> bytes:
    """A request of these messages and members."""
    messages = [part for part in parts if part.startswith(b"{")]
    members = [part for part in parts if not part.startswith(b"{")]
    return b"{" + b", ".join([*members, b'"messages" : [' + b" ,".join(messages) + b"]"]) + more + b"}"


def arrived(part: bytes) -> bytes:
    """A message or member upstream. Between the body's own members there is no space; what they hold is as it was."""
    return part if part.startswith(b"{") else re.sub(rb'^("\w+") ?: ?', rb"\1:", part)


def in_pieces(answer: bytes) -> bytes:
    """The answer as a stream, its text cut in the middle."""
    chunk = answer.strip().replace(b'"message":', b'"delta":')
    last = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":"stop"}]}'
    return b": hello\n\ndata: " + chunk + b"\r\n\r\nid: 7\ndata:" + chunk + b"\n\ndata: " + last + b"\n\ndata: [DONE]\n\n"


async def test_w41_w42_w43_w45_requests_and_answers_arrive_as_they_were_spelled(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    for case, parts in REQUESTS.items():
        target.says(ANSWERS[case])
        got = await gateway.post(said_by(parts))
        assert (case, got.said("tier"), got.body) == (case, "primary", ANSWERS[case])
        sent = target.seen[-1].body
        assert [part for part in map(arrived, parts) if part not in sent] == [], case
        assert list(json.loads(sent)["messages"][0].values()) == ["system", "You are the stable prompt."]
        assert len(json.loads(sent)["messages"]) == 1 + sum(part.startswith(b"{") for part in parts)

        target.says(in_pieces(ANSWERS[case]), stream=True)
        got = await gateway.post(said_by(parts, more=b',"stream": true'))
        assert (case, got.said("tier"), got.body) == (case, "primary", in_pieces(ANSWERS[case]))
        assert [part for part in map(arrived, parts) if part not in target.seen[-1].body] == [], case


async def test_w44_a_body_at_the_bound_arrives_pristine_at_each_attempt_and_one_over_it_at_none(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget
) -> None:
    tier = model_tier(target.url, firstTokenMilliseconds=4000) | {"retries": 1}
    gateway = await gateways.start(make_record([tier, model_tier(other_target.url, name="second", model="m1")], budget=60_000))
    target.says("{}", status=500)
    other_target.says(ANSWERS["w45"])
    frame = b'{"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"%s"}}]}],"x":1.50}'
    room = 20 * MIB - len(frame) + 2
    got = await gateway.post(frame % (b"y" * room))
    assert (got.status, got.body) == (200, ANSWERS["w45"])
    first, again, elsewhere = (seen.body for seen in (*target.seen, *other_target.seen))
    assert first == again == elsewhere
    assert first.count(b"y") >= room
    assert (frame % (b"y" * room))[len(b'{"messages":[') : -len(b'],"x":1.50}')] in first
    over = await gateway.post(frame % (b"y" * (room + 1)))
    assert (over.status, over.json["error"]["type"]) == (413, "invalid_request_error")
    assert len(target.seen) + len(other_target.seen) == 3


async def test_w48_model_and_usage_are_those_of_who_answered(gateways: Gateways, target: ExactTarget, other_target: ExactTarget) -> None:
    chain = [model_tier(target.url, firstTokenMilliseconds=2000), model_tier(other_target.url, name="second", model="m2"), static_tier()]
    gateway = await gateways.start(make_record(chain))
    target.says("{}", status=500)
    answer = '{"model":"m2-2026-01","choices":[{"index":0,"message":{"content":"a"}}],"usage":{"total_tokens":7,"prompt_tokens":3}}'
    other_target.says(answer)
    got = await gateway.chat(model="callers-own")
    assert (got.body, got.said("model"), got.said("tier")) == (answer.encode(), "m2", "second")
    assert [json.loads(seen.body)["model"] for seen in (*target.seen, *other_target.seen)] == ["m1", "m2"]
    other_target.says("{}", status=500)
    got = await gateway.chat(model="callers-own")
    assert (got.json["model"], got.json["usage"]["total_tokens"]) == ("backstop/static", 0)


async def test_w20_usage_comes_to_who_asked_for_it_and_to_nobody_else(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    first = 'data: {"choices":[],"prompt_filter_results":[]}\n\ndata: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\n\n'
    last = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":6}}\n\n'
    usage = 'data: {"choices":[],"usage":{"total_tokens":7}}\n\n'
    target.says(first + last + usage + "data: [DONE]\n\n", stream=True)
    asked = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert asked.body.decode() == first + last + usage + "data: [DONE]\n\n"
    assert json.loads(target.seen[-1].body)["stream_options"] == {"include_usage": True}
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        got = await gateway.chat(stream=True, **options)
        assert got.body.decode() == first + last + "data: [DONE]\n\n", "a target that says it unasked is not repeated"
    target.says(first + last + "data: [DONE]\n\n", stream=True)
    asked = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert asked.body.decode() == first + last + "data: [DONE]\n\n", "usage is not made up"


@pytest.mark.parametrize("before", [0, 2])
async def test_w18_a_line_that_is_not_json_is_not_passed_over(model: Model, gateways: Gateways, before: int) -> None:
    model.script(Rule(tokens=4, fault=Fault.GARBAGE, cut_after_tokens=before))
    gateway = await gateways.start(make_record([model_tier(model.url), static_tier("Fixed.")]))
    got = await gateway.chat(stream=True)
    if before == 0:
        assert (got.text, got.is_done, got.said("reason")) == ("Fixed.", True, "MalformedAnswer")
    else:
        assert (got.text, got.is_done, got.events[-1]["error"]["code"]) == ("t0 t1 ", False, "stream_interrupted")
    assert not re.search(rb"data: \{\"choices\": \[\n", got.body)
