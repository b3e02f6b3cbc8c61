"""`/v1/completions`: a chat of one message behind the older spelling, with the prompt, the chain and the cache of any other."""

import json

import pytest

from backstop.gateway.errors import CallerError
from backstop.gateway.surface import chat_of
from e2e.fakemodel.script import Fault, Rule

from .harness import ExactTarget, Gateways, Model, TrafficApi, make_record, model_tier, state, static_tier

PATH = "/v1/completions"
ASKED = rb'{"model":"any","prompt" : "Say \ud83d \"hi\"","max_tokens": 5,"temperature":1.50,"metadata":{"who":"Ann"}%s}'


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.MALFORMED])
async def test_a_completion_goes_along_the_chain_with_the_prompt_around_it(model: Model, gateways: Gateways, fault: Fault) -> None:
    model.script(Rule(text='So "be" it.\n🎉', fault=fault))
    record = make_record([model_tier(model.url), static_tier()], prompt="Help {{who}}.", variables=[{"name": "who"}])
    gateway = await gateways.start(record)
    text = "Not now." if fault is Fault.MALFORMED else 'So "be" it.\n🎉'
    got = await gateway.post(ASKED % b"", path=PATH)
    assert (got.status, got.json["object"]) == (200, "text_completion")
    assert got.json["choices"] == [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}]
    assert got.json["usage"]["total_tokens"] == (0 if fault is Fault.MALFORMED else 11)
    sent = json.loads(model.fake.requests[-1]["body"])
    assert sent["messages"] == [{"role": "system", "content": "Help Ann."}, {"role": "user", "content": 'Say \ud83d "hi"'}]
    assert (sent["max_tokens"], sent["temperature"], sent["model"], "prompt" in sent) == (5, 1.5, "m1", False)

    got = await gateway.post(ASKED % b',"stream":true,"stream_options":{"include_usage":true}', path=PATH)
    assert {event["object"] for event in got.events} == {"text_completion"}
    choices = [choice for event in got.events for choice in event["choices"]]
    assert "".join(choice["text"] for choice in choices) == text
    assert ([choice["finish_reason"] for choice in choices][-1], got.is_done) == ("stop", True)
    assert got.events[-1]["usage"]["total_tokens"] == (0 if fault is Fault.MALFORMED else 11)
    assert await gateway.total("backstop_served_total", outcome="success") == 2


async def test_a_completion_that_is_cut_ends_with_the_error_and_errors_keep_their_spelling(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    model.script(Rule(tokens=6, fault=Fault.CUT, cut_after_tokens=4))
    got = await gateway.post(b'{"prompt":"Hi","stream":true}', path=PATH)
    assert "".join(event["choices"][0]["text"] for event in got.events[:-1]) == "t0 t1 t2 t3 "
    assert (got.events[-1]["error"]["code"], got.is_done) == ("stream_interrupted", False)
    said = '{ "error":{"message":"no"}, "choices":[] }'
    model.script(Rule(error_percent=100, error_status=400, error_body=said))
    got = await gateway.post(b'{"prompt":"Hi"}', path=PATH)
    assert (got.status, got.body) == (400, said.encode())


async def test_a_text_that_comes_in_parts_is_one(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    said = {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Good "}, {"type": "text", "text": "day"}, 7]}
    target.says(json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}))
    assert (await gateway.post(b'{"prompt":"Hi"}', path=PATH)).json["choices"][0]["text"] == "Good day"


async def test_what_is_no_chunk_of_a_completions_stream_stays_as_it_is(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    rest = ': ping\n\ndata: {"type":"ping"}\n\ndata: {"choices":null}\n\ndata: [DONE]\n\n'
    target.says('data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n' + rest, stream=True)
    got = await gateway.post(b'{"prompt":"Hi","stream":true}', path=PATH)
    assert got.body.decode().endswith(rest)
    assert got.events[0]["choices"] == [{"index": 0, "finish_reason": "stop", "text": "a", "logprobs": None}]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_a_chunk_in_several_lines_of_data_is_one(gateways: Gateways, target: ExactTarget, end: str) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    lines = [
        'data: {"choices":[{"index":0,',
        'data: "delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"total_tokens":',
        "data: 3}}",
        "",
        "",
    ]
    target.says(end.join([*lines[:-1], "data: [DONE]", "", ""]), stream=True)
    got = await gateway.post(b'{"prompt":"Hi","stream":true}', path=PATH)
    assert [(event["choices"][0]["text"], event["usage"]) for event in got.events] == [("a", {"total_tokens": 3})]


async def test_a_chats_answer_that_is_kept_is_a_completions_too(model: Model, gateways: Gateways) -> None:
    cache = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}
    gateway = await gateways.start(make_record([model_tier(model.url), cache]))
    await gateway.chat(messages=[{"role": "user", "content": "Hi"}])
    for more in (b"", b',"stream":true'):
        got = await gateway.post(b'{"prompt":["Hi"]%s}' % more, path=PATH)
        assert got.said("cache") == "hit"
        assert "".join(c["text"] for e in (got.events if more else [got.json]) for c in e["choices"]) == "All is well."
    assert model.fake.total == 1


async def test_a_completion_is_split_like_any_other_request(model: Model, gateways: Gateways, api: TrafficApi) -> None:
    stable, canary = (make_record([model_tier(model.url)], prompt=prompt) for prompt in ("Old.", "New."))
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1000))
    gateway = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    await gateway.acts_on(1)
    for more in (b"", b',"stream":true'):
        got = await gateway.post(b'{"prompt":"Hi"%s}' % more, path=PATH)
        assert got.said("track") == "canary"
        assert "".join(c["text"] for e in (got.events if more else [got.json]) for c in e["choices"]) == "All is well."
    assert model.sent()["messages"][0]["content"] == "New."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "prompt"),
        (b'{"prompt":null}', "prompt"),
        (b'{"prompt":[]}', "prompt"),
        (b'{"prompt":["a","b"]}', "prompt"),
        (b'{"prompt":[1,2]}', "prompt"),
        (b'{"prompt":[[1]]}', "prompt"),
        (b'{"prompt":{"a":1}}', "prompt"),
        (b'{"prompt":"a","echo":true}', "echo"),
        (b'{"prompt":"a","suffix":"b"}', "suffix"),
        (b'{"prompt":"a","best_of":3}', "best_of"),
        (b'{"prompt":"a","logprobs":0}', "logprobs"),
        (b'{"prompt":"a","messages":[{"role":"user"}]}', "messages"),
        (b'{"prompt":"a","tools":[{}]}', "tools"),
        (b"[]", None),
    ],
)
def test_what_a_chat_cannot_mean_is_refused_by_name(body: bytes, param: str | None) -> None:
    with pytest.raises(CallerError) as refused:
        chat_of(body)
    assert refused.value.param == param


def test_members_that_say_nothing_are_left_out() -> None:
    asked = b'{"prompt":"a","echo":false,"suffix":null,"best_of":1,"logprobs":null,"n":2}'
    assert json.loads(chat_of(asked)) == {"n": 2, "messages": [{"role": "user", "content": "a"}]}
