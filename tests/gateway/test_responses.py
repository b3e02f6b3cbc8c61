"""`/v1/responses`: a chat behind another spelling, with prompt, chain and cache of any other; events in order, and a single last one."""

import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseFunctionToolCall, ResponseTextDeltaEvent

from backstop.gateway.errors import CallerError
from backstop.gateway.responserequest import as_chat
from backstop.gateway.responses import Responses
from backstop.gateway.surface import Completions
from e2e.fakemodel.script import Fault, Rule

from .harness import ExactTarget, Gateway, Gateways, Got, Model, TrafficApi, make_record, model_tier, state, static_tier
from .test_cache import cache_tier

PATH = "/v1/responses"
TEXT = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
LAST = {"response.completed", "response.incomplete", "response.failed"}


def each_once(names: list[str]) -> list[str]:
    """Names, those that follow themselves once."""
    return [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]


def named(got: Got) -> list[str]:
    """Types of the events, after what holds for every stream: numbered from 0, named as their data say, one last one and nothing after."""
    lines = got.body.decode().split("\n")
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert [event["type"] for event in got.events] == names
    assert [event["sequence_number"] for event in got.events] == list(range(len(names)))
    assert [name for name in names if name in LAST] == names[-1:]
    assert "[DONE]" not in got.body.decode()
    return names


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.MALFORMED])
async def test_w25_a_response_goes_along_the_chain_with_the_prompt_around_it(model: Model, gateways: Gateways, fault: Fault) -> None:
    model.script(Rule(text='So "be" it.\n🎉', fault=fault))
    record = make_record([model_tier(model.url), static_tier()], prompt="Help {{who}}.", variables=[{"name": "who"}])
    gateway = await gateways.start(record)
    asked = b'{"model":"any","input":"Say \\ud83d","instructions":"Be brief.","max_output_tokens": 5,"metadata":{"who":"Ann"}%s}'
    text, answerer = ("Not now.", "backstop/static") if fault is Fault.MALFORMED else ('So "be" it.\n🎉', "m1")
    total = 0 if fault is Fault.MALFORMED else 11
    got = await gateway.post(asked % b"", path=PATH)
    answer = got.json
    assert (got.status, answer["object"], answer["status"], answer["model"]) == (200, "response", "completed", answerer)
    assert (answer["error"], answer["incomplete_details"], answer["store"]) == (None, None, False)
    assert (answer["instructions"], answer["metadata"], answer["max_output_tokens"]) == ("Be brief.", {"who": "Ann"}, 5)
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    assert answer["usage"]["total_tokens"] == answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"] == total
    sent = json.loads(model.fake.requests[-1]["body"])
    assert sent["messages"] == [
        {"role": "system", "content": "Help Ann."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say \ud83d"},
    ]
    assert (sent["max_completion_tokens"], sent["model"]) == (5, "m1")
    assert not {"input", "instructions", "max_output_tokens", "metadata"} & sent.keys()

    streamed = await gateway.post(asked % b',"stream":true', path=PATH)
    assert each_once(named(streamed)) == TEXT
    said = streamed.events
    assert "".join(event["delta"] for event in said if event["type"] == "response.output_text.delta") == text
    last = said[-1]["response"]
    assert last["output"][0]["content"] == item["content"]
    assert (last["status"], last["model"], last["usage"]["total_tokens"]) == ("completed", answerer, total)
    assert said[0]["response"]["status"] == "in_progress"
    assert await gateway.total("backstop_served_total", outcome="success") == 2


@pytest.mark.long
@pytest.mark.parametrize(("fault", "text"), [(Fault.NONE, "All is well."), (Fault.MALFORMED, "Not now.")])
async def test_w25_the_official_client(model: Model, gateways: Gateways, fault: Fault, text: str) -> None:
    model.script(Rule(fault=fault))
    gateway = await gateways.start(make_record([model_tier(model.url), static_tier()]))
    async with openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="sk-caller", max_retries=0) as client:
        answer = await client.responses.create(model="any", input="Hi", instructions="Be brief.")
        assert (answer.output_text, answer.status, answer.error) == (text, "completed", None)
        stream = await client.responses.create(model="any", input=[{"role": "user", "content": "Hi"}], stream=True)
        events = [event async for event in stream]
        assert "".join(event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)) == text
        async with client.responses.stream(model="any", input="Hi") as whole:
            assert (await whole.get_final_response()).output_text == text


async def test_w25_a_stream_that_is_cut_ends_with_the_failure_alone(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    model.script(Rule(tokens=6, fault=Fault.CUT, cut_after_tokens=4))
    got = await gateway.post(b'{"input":"Hi","stream":true}', path=PATH)
    assert named(got)[-1] == "response.failed"
    last = got.events[-1]["response"]
    assert (last["status"], last["error"]["code"]) == ("failed", "stream_interrupted")
    assert (last["output"][0]["status"], last["output"][0]["content"][0]["text"]) == ("incomplete", "t0 t1 t2 t3 ")
    assert await gateway.total("backstop_served_total", outcome="truncated") == 1


async def test_w25_a_canarys_stream_counts_as_what_it_is_at_the_entry(gateways: Gateways, model: Model, api: TrafficApi) -> None:
    stable, canary = make_record([model_tier(model.url)]), make_record([model_tier(model.url)], prompt="Another.")
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1000))
    behind = await gateways.start(canary, api=api)
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(1)
    await behind.acts_on(1)
    got = await entry.post(b'{"input":"Hi","stream":true}', path=PATH)
    assert (got.said("track"), each_once(named(got))) == ("canary", TEXT)
    model.script(Rule(tokens=6, fault=Fault.CUT, cut_after_tokens=4))
    assert named(await entry.post(b'{"input":"Hi","stream":true}', path=PATH))[-1] == "response.failed"
    counted = {
        o: await entry.total("backstop_served_total", revision=canary.revision, outcome=o) for o in ("success", "truncated", "error")
    }
    assert counted == {"success": 1, "truncated": 1, "error": 0}


async def test_errors_keep_the_envelope(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    said = '{ "error":{"message":"no"}, "choices":[] }'
    model.script(Rule(error_percent=100, error_status=400, error_body=said))
    got = await gateway.post(b'{"input":"Hi"}', path=PATH)
    assert (got.status, got.body) == (400, said.encode())
    got = await gateway.post(b'{"input":"Hi","background":true}', path=PATH)
    assert (got.status, got.json["error"]["param"]) == (400, "background")


CALLS: list[dict[str, Any]] = [
    {"role": "assistant", "content": None},
    {"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "find", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"\\ud83d\\ude42"}'}}]},
    {"tool_calls": [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "list", "arguments": "{}"}}]},
]


def stream_of(deltas: list[dict[str, Any]], *, finish: str) -> str:
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunks = [{"id": "c", "model": "m", "choices": [choice]} for choice in choices]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


async def test_calls_of_functions_are_items_of_their_own(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    target.says(stream_of([{"content": "Let me see."}, *CALLS], finish="tool_calls"), stream=True)
    got = await gateway.post(b'{"input":"Hi","stream":true,"tools":[{"type":"function","name":"find","parameters":{}}]}', path=PATH)
    call = [
        "response.output_item.added",
        *[f"response.function_call_arguments.{part}" for part in ("delta", "done")],
        "response.output_item.done",
    ]
    assert each_once(named(got)) == [*TEXT[:-1], *call, *call, "response.completed"]
    message, first, second = got.events[-1]["response"]["output"]
    assert message["content"][0]["text"] == "Let me see."
    assert (first["call_id"], first["name"], json.loads(first["arguments"])) == ("call_a", "find", {"a": "🙂"})
    assert (second["call_id"], second["name"], second["arguments"], second["type"]) == ("call_b", "list", "{}", "function_call")
    assert json.loads(target.seen[0].body)["tools"] == [{"type": "function", "function": {"name": "find", "parameters": {}}}]


async def test_the_official_client_reads_calls_of_functions(gateways: Gateways, target: ExactTarget) -> None:
    calls = [{"id": "call_a", "type": "function", "function": {"name": "find", "arguments": '{"a":1}'}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    target.says(json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}))
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    async with openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="sk-caller", max_retries=0) as client:
        (item,) = (await client.responses.create(model="any", input="Hi")).output
    assert isinstance(item, ResponseFunctionToolCall)
    assert (item.call_id, item.name, item.arguments) == ("call_a", "find", '{"a":1}')


async def test_what_the_official_client_was_answered_can_be_said_again_with_what_the_functions_gave(
    gateways: Gateways, target: ExactTarget
) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    target.says(stream_of([{"content": "Let me see."}, *CALLS], finish="tool_calls"), stream=True)
    async with openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="sk-caller", max_retries=0) as client:
        async with client.responses.stream(model="any", input="Hi") as stream:
            first = await stream.get_final_response()
        assert [item.type for item in first.output] == ["message", "function_call", "function_call"]
        given: Any = [{"type": "function_call_output", "call_id": call, "output": call.upper()} for call in ("call_a", "call_b")]
        target.says(stream_of([{"content": "Done."}], finish="stop"), stream=True)
        again: Any = [{"role": "user", "content": "Hi"}, *first.output, *given]
        async with client.responses.stream(model="any", input=again) as stream:
            assert (await stream.get_final_response()).output_text == "Done."
    _, _, assistant, *tools = json.loads(target.seen[-1].body)["messages"]
    assert (assistant["content"], [call["id"] for call in assistant["tool_calls"]]) == ("Let me see.", ["call_a", "call_b"])
    assert [(tool["role"], tool["tool_call_id"], tool["content"]) for tool in tools] == [
        ("tool", "call_a", "CALL_A"),
        ("tool", "call_b", "CALL_B"),
    ]


def piece(said: object, *, name: str = "", **more: object) -> dict[str, Any]:
    """A delta with a piece of a call."""
    return {"tool_calls": [{**more, "function": {"arguments": said, **({"name": name} if name else {})}}]}


async def called(gateway: Gateway, target: ExactTarget, *, deltas: list[dict[str, Any]]) -> Got:
    target.says(stream_of(deltas, finish="tool_calls"), stream=True)
    return await gateway.post(b'{"input":"Hi","stream":true}', path=PATH)


async def test_calls_that_all_have_one_index_are_told_apart_by_their_ids(gateways: Gateways, target: ExactTarget) -> None:
    deltas = [piece("{}", name="find", index=0, id="call_a"), piece('{"b":1}', name="list", index=0, id="call_b")]
    got = await called(await gateways.start(make_record([model_tier(target.url)])), target, deltas=deltas)
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in got.events[-1]["response"]["output"]]
    assert calls == [("call_a", "find", "{}"), ("call_b", "list", '{"b":1}')]


async def test_calls_in_pieces_of_one_another_are_no_answer(gateways: Gateways, target: ExactTarget) -> None:
    begun = [piece("", name="find", index=0, id="call_a"), piece("", name="list", index=1, id="call_b")]
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    got = await called(gateway, target, deltas=[*begun, piece("{}", index=0), piece("{}", index=1)])
    assert named(got)[-1] == "response.failed"
    assert got.events[-1]["response"]["error"]["message"] == "the calls of functions came in pieces of one another"
    assert await gateway.total("backstop_requests_total", outcome="truncated") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_arguments_that_are_no_text_are_one_in_the_answer_and_a_call_without_an_id_has_one(
    gateways: Gateways, target: ExactTarget, stream: bool
) -> None:
    deltas = [piece({"city": 'B"n'}, name="find", index=0, id=None), piece(None, name="list", index=1, id="")]
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    if stream:
        answer = (await called(gateway, target, deltas=deltas)).events[-1]["response"]
    else:
        message = {"role": "assistant", "content": None, "tool_calls": [call for delta in deltas for call in delta["tool_calls"]]}
        target.says(json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}))
        answer = (await gateway.post(b'{"input":"Hi"}', path=PATH)).json
    first, second = answer["output"]
    assert (json.loads(first["arguments"]), second["arguments"]) == ({"city": 'B"n'}, "")
    assert first["call_id"] != second["call_id"]
    assert first["call_id"].startswith("call_")
    assert second["call_id"].startswith("call_")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_that_comes_in_parts_is_one(gateways: Gateways, target: ExactTarget, stream: bool) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    said = {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Good "}, {"type": "text", "text": "day"}]}
    whole = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})
    target.says(stream_of([said], finish="stop") if stream else whole, stream=stream)
    got = await gateway.post(json.dumps({"input": "Hi", "stream": stream}).encode(), path=PATH)
    answer = got.events[-1]["response"] if stream else got.json
    assert [part["text"] for item in answer["output"] for part in item["content"]] == ["Good day"]


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, 7)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": None}, (3, 4, 7)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 9}, (3, 4, 9)),
        ({"prompt_tokens": None, "completion_tokens": 4, "total_tokens": 4}, None),
        ({"prompt_tokens": 3.5, "completion_tokens": 4}, None),
        ({"prompt_tokens": 10**4000, "completion_tokens": 4}, None),
    ],
)
async def test_usage_is_told_as_it_was_said_or_not_at_all(
    gateways: Gateways, target: ExactTarget, usage: dict[str, object], told: tuple[int, int, int] | None
) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    target.says(json.dumps({"choices": [choice], "usage": usage}))
    said = (await gateway.post(b'{"input":"Hi"}', path=PATH)).json["usage"]
    assert (said and (said["input_tokens"], said["output_tokens"], said["total_tokens"])) == told


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
async def test_an_answer_that_ends_early_is_incomplete(
    gateways: Gateways, target: ExactTarget, finish: str, status: str, details: object
) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    target.says(stream_of([{"content": "a"}], finish=finish), stream=True)
    got = await gateway.post(b'{"input":"Hi","stream":true}', path=PATH)
    assert named(got)[-1] == f"response.{status}"
    assert got.events[-1]["response"]["incomplete_details"] == details
    message = {"role": "assistant", "content": "a"}
    target.says(json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}))
    answer = (await gateway.post(b'{"input":"Hi"}', path=PATH)).json
    assert (answer["status"], answer["incomplete_details"]) == (status, details)


async def test_a_character_that_was_cut_in_two_between_tokens_is_whole_in_the_end(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    target.says(stream_of([{"content": "\ud83d"}, {"content": "\ude42"}], finish="stop"), stream=True)
    got = await gateway.post(b'{"input":"Hi","stream":true}', path=PATH)
    assert got.events[-1]["response"]["output"][0]["content"][0]["text"] == "🙂"


def test_nothing_follows_the_last_event_but_comments() -> None:
    spelling = Responses(identity="i", created=1, echo={})
    first = spelling.events(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    assert first.count(b"event: response.completed\n") == 1
    assert spelling.events(b'data: {"error":{"message":"late"}}\n\ndata: [DONE]\n\n: ping\n\n') == b": ping\n\n"


def test_an_error_before_anything_else_begins_and_ends_the_stream() -> None:
    said = Responses(identity="i", created=1, echo={}).events(
        b'data: {"error": {"message": "no",\n"code": null}}\n\n'.replace(b",\n", b",")
    )
    names = [line for line in said.decode().split("\n") if line.startswith("event: ")]
    assert names == ["event: response.created", "event: response.in_progress", "event: response.failed"]


async def test_w25_a_kept_answer_is_given_as_a_response_and_to_chats_alike(gateways: Gateways, model: Model) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url), cache_tier()]))
    first = await gateway.post(b'{"input":"Hello"}', path=PATH)
    again = await gateway.post(b'{"input":[{"role":"user","content":[{"type":"input_text","text":"Hello"}]}],"stream":true}', path=PATH)
    chat = await gateway.chat()
    assert [got.said("cache") for got in (first, again, chat)] == ["miss", "hit", "hit"]
    assert each_once(named(again)) == TEXT
    assert again.events[-1]["response"]["output"][0]["content"][0]["text"] == chat.text == "All is well."


TRANSLATED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"input": "a"}, {"messages": [{"role": "user", "content": "a"}]}),
    (
        {
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "b"},
                        {"type": "input_image", "image_url": "data:x", "detail": "low"},
                        {"type": "input_file", "filename": "f", "file_data": "data:y"},
                    ],
                },
                {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "phase": None,
                    "content": [{"type": "output_text", "text": "c", "annotations": [{"type": "url_citation"}], "logprobs": []}],
                },
                {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "id": "fc_2", "call_id": "2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "d"},
                {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "e"}]},
                {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
            ]
        },
        {
            "messages": [
                {"role": "developer", "content": "a"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "b"},
                        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                        {"type": "file", "file": {"filename": "f", "file_data": "data:y"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": "c",
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "d"},
                {"role": "tool", "tool_call_id": "2", "content": "e"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "3", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
            ]
        },
    ),
    (
        {
            "input": "a",
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}, "verbosity": "low"},
            "reasoning": {"effort": "high", "summary": None},
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
            "tool_choice": {"type": "function", "name": "f"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "truncation": "disabled",
            "top_k": 7,
            "temperature": 0.5,
        },
        {
            "messages": [{"role": "user", "content": "a"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}},
            "verbosity": "low",
            "reasoning_effort": "high",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "top_k": 7,
            "temperature": 0.5,
        },
    ),
    (
        {"input": "a", "stream": True, "stream_options": {"include_obfuscation": False, "include_usage": False}},
        {"messages": [{"role": "user", "content": "a"}], "stream": True, "stream_options": {"include_usage": True}},
    ),
]


@pytest.mark.parametrize(("asked", "chat"), TRANSLATED)
def test_a_request_is_put_as_the_chat_that_means_the_same(asked: dict[str, Any], chat: dict[str, Any]) -> None:
    assert json.loads(as_chat(json.dumps(asked).encode()).text) == chat


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "`input` must be a list"),
    ({"input": []}, "input", "`input` must not be empty; give a text, or at least one item"),
    ({"input": "a", "previous_response_id": "r"}, "previous_response_id", "is not offered on `/v1/responses`; leave it out"),
    ({"input": "a", "store": True}, "store", "`store` is not offered"),
    ({"input": "a", "include": ["message.output_text.logprobs"]}, "include", "`include` is not offered"),
    ({"input": "a", "instructions": ["b"]}, "instructions", "`instructions` must be a string"),
    ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type", "`tools[0].type` `web_search` is not offered"),
    ({"input": "a", "tool_choice": {"type": "mcp"}}, "tool_choice.type", "`mcp` is not offered"),
    ({"input": "a", "text": {"format": {"type": "grammar"}}}, "text.format.type", "must be `text`, `json_object` or `json_schema`"),
    ({"input": "a", "reasoning": {"summary": "auto"}}, "reasoning.summary", "`reasoning.summary` is not offered"),
    ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", "must be one of `user`, `assistant`, `system`, `developer`"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "no item is kept here; send the item itself"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0].file_id", "not offered"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "f"}]}]}, "input[0].content[0].file_url", "leave it out"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "cache": 1}]}]},
        "input[0].content[0].cache",
        "leave it out",
    ),
    ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type", "`video` is not offered"),
    ({"input": [{"role": "assistant", "content": "a", "phase": "commentary"}]}, "input[0].phase", "leave it out"),
    ({"input": [{"type": "function_call_output", "call_id": "1", "output": "a", "caller": "x"}]}, "input[0].caller", "leave it out"),
    ({"input": [{"type": "function_call", "call_id": "1", "name": "a", "namespace": "x"}]}, "input[0].namespace", "leave it out"),
    ({"input": "a", "text": {"format": {"type": "text", "x": 1}}}, "text.format.x", "`text.format.x` is not offered"),
    ({"input": "a", "stream": True, "stream_options": 5}, "stream_options", "`stream_options` must be a JSON object"),
    ({"input": "a", "stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation", "leave it out"),
    ({"input": "a", "stream_options": {"include_usage": True}}, "stream_options", "`stream_options` belongs to `stream`"),
    ({"input": "a", "text": {"voice": "x"}}, "text.voice", "`text.voice` is not offered"),
    ({"input": "a", "include": "x"}, "include", "`include` must be a list"),
    ({"input": "a", "logprobs": True}, "logprobs", "`logprobs` is not offered"),
    ({"input": "a", "functions": [{"name": "f"}]}, "functions", "`functions` is not offered"),
    ({"input": "a", "modalities": ["text", "audio"]}, "modalities", "`modalities` is not offered"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id", "`input[0].call_id` must be a string"),
    ({"input": ["a"]}, "input[0]", "`input[0]` must be a JSON object"),
]


@pytest.mark.parametrize(("asked", "param", "sentence"), REFUSED)
def test_what_a_chat_cannot_mean_is_refused_by_name(asked: dict[str, Any], param: str, sentence: str) -> None:
    with pytest.raises(CallerError) as refused:
        as_chat(json.dumps(asked).encode())
    assert refused.value.param == param
    assert sentence in str(refused.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
KEYS = st.sampled_from(["type", "role", "content", "text", "call_id", "name", "arguments", "output", "image_url", "format", "effort"])
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "input_text", "input_image", "function", "user"])
ANYTHING = st.recursive(LEAVES | KINDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
FIELDS = st.sampled_from(["input", "instructions", "tools", "tool_choice", "text", "reasoning", "stream", "stream_options", "include"])


@given(st.dictionaries(FIELDS, ANYTHING, max_size=5))
def test_whatever_is_asked_is_a_chat_or_the_callers_mistake(asked: dict[str, Any]) -> None:
    try:
        chat = json.loads(as_chat(json.dumps(asked).encode()).text)
    except CallerError:
        return
    assert isinstance(chat["messages"], list)
    assert chat["messages"]


@pytest.mark.long
@given(st.lists(st.dictionaries(st.sampled_from(["content", "refusal", "tool_calls", "role"]), ANYTHING, max_size=3), max_size=5))
def test_whatever_a_model_says_there_is_one_last_event(deltas: list[dict[str, Any]]) -> None:
    spelling = Responses(identity="i", created=1, echo={})
    said = b"".join(spelling.events(chunk.encode() + b"\n\n") for chunk in stream_of(deltas, finish="stop").split("\n\n"))
    events = [json.loads(line[6:]) for line in said.decode().split("\n") if line.startswith("data: ")]
    assert [event["type"] for event in events if event["type"] in LAST] in (["response.completed"], ["response.failed"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


CALLED = st.fixed_dictionaries({"function": st.fixed_dictionaries({"arguments": ANYTHING, "name": ANYTHING})}, optional={"id": ANYTHING})
PARTS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "thinking"]), "text": ANYTHING}), max_size=3)


@pytest.mark.long
@given(content=ANYTHING | PARTS, calls=ANYTHING | st.lists(CALLED, max_size=3), usage=ANYTHING)
def test_whatever_a_model_says_at_once_can_be_read_as_what_was_asked_for(content: Any, calls: Any, usage: Any) -> None:
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}).encode()
    answer = json.loads(Responses(identity="i", created=1, echo={}).whole(body))
    for item in answer["output"]:
        texts = [item["call_id"], item["arguments"]] if item["type"] == "function_call" else [part["text"] for part in item["content"]]
        assert all(isinstance(text, str) for text in texts)
    (choice,) = json.loads(Completions().whole(body))["choices"]
    assert isinstance(choice["text"], str)
