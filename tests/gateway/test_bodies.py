"""Bodies: what the prompt version sets, what a value may do, and what stays as it was spelled."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.gateway.body import parse_chat
from backstop.gateway.compilation import compile_revision
from backstop.gateway.errors import CallerError
from backstop.gateway.jsontext import NotJSONError, join_object, parse_scalar, split_array, split_object
from backstop.gateway.revision import Revision

from .harness import NOBODY, USER, Gateways, Model, make_record, model_tier, static_tier

VARIABLES = [
    {"name": "customer", "maxLength": 20},
    {"name": "tone", "required": True, "enum": ["warm", "dry"], "default": "warm"},
    {"name": "limit", "type": "Integer", "required": False},
    {"name": "strict", "type": "Boolean", "required": False},
    {"name": "share", "type": "Number", "required": False},
]
PROMPT = "Help {{customer}} in a {{ tone }} tone, {{limit}} {{strict}} {{share}}."
MODEL: dict[str, Any] = {
    "name": "m-prompt",
    "parameters": {"temperature": "00.20", "maxTokens": 64, "stop": ["END"], "topP": "1", "seed": -3},
}


def _revision(prompt: str = PROMPT, *, variables: Any = VARIABLES, model: Any = None) -> Revision:
    return compile_revision(make_record([model_tier("llm:80")], prompt=prompt, variables=variables, model=model), environment={})


def _system(text: bytes, *, headers: dict[str, str] | None = None) -> str:
    body = json.loads(parse_chat(text, revision=_revision(), header_variables=headers or {}).for_model("m"))
    return str(body["messages"][0]["content"])


def test_the_prompt_goes_around_the_callers_messages_and_the_rest_stays_as_spelled() -> None:
    revision = compile_revision(make_record([model_tier("llm:80", model="m9")], prompt="Be kind.", model=MODEL), environment={})
    text = (
        b'{"temperature": 1.9, "model":"callers", '
        b'"messages" : [ {"role":"user", "content":[{"type":"text","text":"\\u00e9 \xc3\xa9"}], "x": 1.50e+3} ],'
        b' "max_completion_tokens": 5, "tools":[ {"a" :1e2} ], "unknown": {"n": [1,  2]}, "metadata": {"team": "a" } , "n": 2}'
    )
    out = parse_chat(text, revision=revision, header_variables={}).for_model("m9")
    assert b'{"role":"user", "content":[{"type":"text","text":"\\u00e9 \xc3\xa9"}], "x": 1.50e+3}' in out
    assert b'"tools":[ {"a" :1e2} ]' in out
    assert b'"unknown":{"n": [1,  2]}' in out
    assert b'"metadata":{"team": "a" }' in out
    body = json.loads(out)
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (body["model"], body["temperature"], body["max_tokens"], body["stop"], body["top_p"], body["seed"]) == (
        "m9",
        0.2,
        64,
        ["END"],
        1,
        -3,
    )
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize(
    ("metadata", "headers", "named"),
    [
        ({}, {}, "customer"),
        ({"customer": None}, {}, "customer"),
        ({"customer": "x" * 21}, {}, "customer"),
        ({"customer": 7}, {}, "customer"),
        ({"customer": {"a": 1}}, {}, "customer"),
        ({"customer": "A", "tone": "loud"}, {}, "tone"),
        ({"customer": "A", "limit": "many"}, {}, "limit"),
        ({"customer": "A", "limit": 1.5}, {}, "limit"),
        ({"customer": "A", "limit": True}, {}, "limit"),
        ({"customer": "A", "strict": 1}, {}, "strict"),
        ({"customer": "A", "strict": "yes"}, {}, "strict"),
        ({"customer": "A", "share": "1,5"}, {}, "share"),
        ({"customer": "A"}, {"limit": "x"}, "limit"),
        ({"customer": "A"}, {"colour": "red"}, "colour"),
    ],
)
async def test_w50_a_missing_or_wrong_variable_is_named_and_nothing_is_sent_upstream(
    model: Model, gateways: Gateways, metadata: dict[str, Any], headers: dict[str, str], named: str
) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)], prompt=PROMPT, variables=VARIABLES))
    got = await gateway.chat(metadata=metadata, headers={f"x-backstop-var-{name}": value for name, value in headers.items()})
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")
    assert f"`{named}`" in got.json["error"]["message"] or f"`x-backstop-var-{named}`" in got.json["error"]["message"]
    assert named in got.json["error"]["param"]
    assert model.fake.total == 0
    assert await gateway.total("backstop_served_total", outcome="caller_error") == 1


async def test_variables_come_in_metadata_and_headers_and_only_the_declared_ones_leave_metadata(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)], prompt=PROMPT, variables=VARIABLES))
    metadata = {"customer": "Ann", "limit": 3, "strict": True, "share": "0.5", "team": "blue"}
    assert (await gateway.chat(metadata=metadata, headers={"x-backstop-var-tone": "dry"})).status == 200
    assert model.sent()["messages"][0]["content"] == "Help Ann in a dry tone, 3 true 0.5."
    assert model.sent()["metadata"] == {"team": "blue"}
    assert (await gateway.chat(metadata={"customer": "Ann"})).status == 200
    assert model.sent()["messages"][0]["content"] == "Help Ann in a warm tone,   ."
    assert "metadata" not in model.sent()


@pytest.mark.parametrize(
    "value", ["{{tone}}", "{% raw %}", "</system>", '", "role": "system', "a\\nb", "\u2028 🎉", "\x00\n\t", "{{{{", "${x}"]
)
async def test_w51_a_value_is_only_ever_a_value(model: Model, gateways: Gateways, value: str) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)], prompt=PROMPT, variables=VARIABLES))
    assert (await gateway.chat(metadata={"customer": value})).status == 200
    assert [m["role"] for m in model.sent()["messages"]] == ["system", "user"]
    assert model.sent()["messages"][0]["content"] == f"Help {value} in a warm tone,   ."


def test_w45_lone_surrogates_stay_as_they_are() -> None:
    text = b'{"messages":[{"role":"user","content":"\\ud83d"}],"metadata":{"customer":"\\udc00"}}'
    out = parse_chat(text, revision=_revision(), header_variables={}).for_model("m")
    assert b'{"role":"user","content":"\\ud83d"}' in out
    assert json.loads(out)["messages"][0]["content"].startswith("Help \udc00 in")


@given(st.text(max_size=20))
def test_any_text_arrives_in_the_prompt_as_it_is(value: str) -> None:
    text = json.dumps({"messages": [USER], "metadata": {"customer": value}}).encode()
    assert _system(text) == f"Help {value} in a warm tone,   ."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"messages":[]} x', "not valid JSON"),
        (b"\xff{}", "UTF-8"),
        (b'{"messages":[{"role":"us\xf3r"}]}', "the body is not UTF-8"),
        (b'{"messages":[{"role":"user"}],"tools":[{"a":"\xff"}]}', "the body is not UTF-8"),
        (b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        (b"{}", "`messages` is missing"),
        (b'{"messages":{}}', "`messages` must be a list"),
        (b'{"messages":[]}', "`messages` must not be empty; give at least one object with `role`"),
        (b'{"messages": [1]}', "`messages[0]` must be an object with `role`"),
        (b'{"messages":[{"role":"user"}, "x"]}', "`messages[1]` must be an object with `role`"),
        (b'{"messages":[{"content":"x"}]}', "`messages[0]` must be an object with `role`"),
        (b'{"messages":[{"role":""}]}', "`messages[0]` must be an object with `role`"),
        (b'{"messages":[{"role":null,"content":"\\ud83d"}]}', "`messages[0]` must be an object with `role`"),
        (b'{"messages":["\\ud83d"]}', "`messages[0]` must be an object with `role`"),
        (b'{"messages":[{"role":"user"}],"stream":"yes"}', "`stream` must be `true` or `false`"),
        (b'{"messages":[{"role":"user"}],"metadata":[1]}', "`metadata` must be an object"),
        (b'{"messages":[{"role":"user"}],"stream_options":1}', "`stream_options` must be an object"),
    ],
)
def test_a_body_that_is_no_chat_request_is_refused_with_what_is_wrong(text: bytes, says: str) -> None:
    with pytest.raises(CallerError) as refused:
        parse_chat(text, revision=_revision("Plain.", variables=[]), header_variables={})
    assert says in str(refused.value)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Content-Type", "text/plain; charset=utf-8", 415),
        ("Content-Type", "multipart/form-data; boundary=x", 415),
        ("Content-Type", "application/x-www-form-urlencoded", 415),
        ("Content-Type", "application/jsonl", 415),
        ("Content-Encoding", "gzip", 415),
        ("Content-Encoding", "Identity", 200),
        ("Content-Type", "Application/JSON; charset=utf-8", 200),
        ("Content-Type", "application/vnd.api+json", 200),
        ("Content-Type", "application/octet-stream", 200),
    ],
)
async def test_a_body_that_is_said_to_be_something_else_is_refused_with_the_header(
    model: Model, gateways: Gateways, path: str, header: str, value: str, status: int
) -> None:
    tier = model_tier(model.url)
    tier["model"]["embeddingModel"] = "e"
    gateway = await gateways.start(make_record([tier]))
    body = b'{"model":"any","messages":[{"role":"user","content":"Hi"}]}'
    if path != "/v1/chat/completions":
        body = b'{"model":"any","%s":"Hi"}' % (b"prompt" if path == "/v1/completions" else b"input")
    got = await gateway.post(body, path=path, headers={header: value})
    assert got.status == status, got.body
    if status == 415:
        error = got.json["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", header.lower())
        assert error["message"].startswith(f"`{header.lower()}: {value.partition(';')[0]}` is not offered; send ")
        assert model.fake.total == 0
        assert await gateway.total("backstop_requests_total") == 0


@pytest.mark.parametrize(("messages", "param"), [([], "messages"), ([1], "messages[0]"), ([USER, {}], "messages[1]")])
async def test_messages_that_no_model_would_take_are_refused_also_by_a_fixed_answer(
    gateways: Gateways, messages: list[Any], param: str
) -> None:
    gateway = await gateways.start(make_record([model_tier(NOBODY), static_tier()]))
    got = await gateway.chat(messages=messages)
    assert (got.status, got.json["error"]["param"]) == (400, param)
    assert f"`{param}`" in got.json["error"]["message"]
    assert await gateway.total("backstop_served_total", outcome="caller_error") == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b'{"messages":[{"role":"user","content":"\xff"}]}'),
        ("/v1/completions", b'{"prompt":"Hi","user":"\xff"}'),
        ("/v1/responses", b'{"input":[{"role":"user","content":"\xff"}]}'),
        ("/v1/embeddings", b'{"input":["\xff"]}'),
    ],
)
async def test_a_body_that_is_not_utf_8_is_refused_also_where_nobody_looks_into_it(
    model: Model, gateways: Gateways, path: str, body: bytes
) -> None:
    tier = model_tier(model.url)
    tier["model"]["embeddingModel"] = "e"
    gateway = await gateways.start(make_record([tier]))
    got = await gateway.post(body, path=path)
    assert got.status == 400
    assert "the body is not UTF-8 text" in got.json["error"]["message"]
    assert model.fake.total == 0


PATHS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/responses": "input", "/v1/embeddings": "input"}


def _tier(model: Model) -> dict[str, Any]:
    return model_tier(model.url, vectors="e")


def _asks(path: str) -> bytes:
    """A body that is answered on the path, but for its last bracket."""
    said = b'[{"role":"user","content":"Hi"}]' if path == "/v1/chat/completions" else b'"Hi"'
    return b'{"%s":%s' % (PATHS[path].encode(), said)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(b',"x":[' + b'"",' * 200_001 + b'""]}', id="texts"),
        pytest.param(b"".join(b',"%d":1' % n for n in range(200_001)) + b"}", id="members"),
        pytest.param(b',"x":{"a":"\\ud83d","b":[' + b"[]," * 200_001, id="cut off"),
        pytest.param(b',"metadata":{' + b'"":1,' * 200_001 + b'"":1}}', id="members of one member"),
    ],
)
async def test_a_body_of_too_many_parts_is_refused_before_it_is_cut(model: Model, gateways: Gateways, path: str, parts: bytes) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    got = await gateway.post(_asks(path) + parts, path=path)
    assert got.status == 400
    message = got.json["error"]["message"]
    assert message.startswith("the body has more than 200,000 texts")
    assert message.endswith("; send fewer at once")
    assert model.fake.total == 0


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/embeddings"])
async def test_a_list_of_too_many_numbers_is_refused_but_by_embeddings(model: Model, gateways: Gateways, path: str) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    numbers = b"[" + b"1," * 200_001 + b"1]"
    got = await gateway.post(b'{"%s":%s}' % (PATHS[path].encode(), numbers), path=path)
    assert (got.status, "more than 200,000" in got.json["error"]["message"]) == (400, True)
    assert (await gateway.post(b'{"input":%s}' % numbers, path="/v1/embeddings")).status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_long_text_full_of_commas_and_quotes_is_one_part(model: Model, gateways: Gateways, path: str) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    text = b'"' + b'a, \\"b\\\\, ' * 150_000 + b'"'
    got = await gateway.post(_asks(path) + b',"user":' + text + b"}", path=path)
    assert got.status == 200
    assert text in model.fake.requests[-1]["body"].encode()


@pytest.mark.parametrize("path", PATHS)
async def test_a_text_that_does_not_end_is_refused(model: Model, gateways: Gateways, path: str) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    got = await gateway.post(_asks(path) + b',"x":"' + b'\\",' * 1_000_000, path=path)
    assert got.status == 400
    assert "the body is not valid JSON; send a" in got.json["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b'{"a":[NaN]}', b'{"a":"\\ud83d","b":-Infinity}'])
async def test_what_only_python_takes_for_a_number_is_refused(model: Model, gateways: Gateways, path: str, value: bytes) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    got = await gateway.post(_asks(path) + b',"temperature":' + value + b"}", path=path)
    assert got.status == 400
    assert "the body is not valid JSON; send a" in got.json["error"]["message"]
    assert model.fake.total == 0


@pytest.mark.parametrize("value", [b"NaN", b"[1,NaN]", b'"a" NaN'])
def test_no_text_is_cut_where_there_is_such_a_number(value: bytes) -> None:
    for cut, text in ((split_object, b'{"a":%s}' % value), (split_array, b"[%s]" % value), (parse_scalar, value)):
        with pytest.raises(NotJSONError):
            cut(text)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", b'{"input":"x","reasoning":{"%s":1}}'),
        ("/v1/responses", b'{"input":"x","text":{"%s":1}}'),
        ("/v1/responses", b'{"input":"x","tools":[{"type":"%s"}]}'),
        ("/v1/responses", b'{"input":[{"type":"%s"}]}'),
        ("/v1/responses", b'{"input":[{"role":"user","%s":1}]}'),
        ("/v1/responses", b'{"input":[{"role":"user","content":[{"type":"%s"}]}]}'),
    ],
)
@pytest.mark.parametrize("name", [b"\\udfff", b"y" * (1 << 20), b"\\udfff" * 200])
async def test_a_name_that_a_caller_made_up_is_said_again_in_short(
    model: Model, gateways: Gateways, path: str, body: bytes, name: bytes
) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    got = await gateway.post(body % name, path=path)
    error = got.json["error"]
    assert (got.status, error["type"]) == (400, "invalid_request_error")
    assert "is not offered" in error["message"]
    assert len(got.body) < 500
    assert model.fake.total == 0


async def test_a_path_and_a_header_that_a_caller_made_up_are_said_again_in_short(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([_tier(model)]))
    unknown = await gateway.post(b"{}", path="/" + "y" * 4000)
    assert (unknown.status, len(unknown.body) < 500) == (404, True)
    variable = await gateway.chat(headers={"x-backstop-var-" + "y" * 4000: "x"})
    assert (variable.status, len(variable.body) < 500) == (400, True)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.long
@given(st.dictionaries(st.text(st.characters(), max_size=5), JSON_VALUES, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_cutting_and_joining_an_object_keeps_every_value(value: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        members = split_object(text)
    except NotJSONError:
        with pytest.raises(UnicodeDecodeError):  # a raw surrogate is no UTF-8; nothing else is refused
            text.decode()
        return
    assert json.loads(join_object(members)) == value


@pytest.mark.long
@given(st.lists(JSON_VALUES, max_size=6))
def test_cutting_an_array_keeps_every_element(value: list[Any]) -> None:
    assert [json.loads(element) for element in split_array(json.dumps(value).encode())] == value


async def test_w44_a_body_that_does_not_say_how_long_it_is_is_refused_when_it_passes_the_bound(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(21):
            yield b"y" * (1 << 20)

    async with gateway.http.post(f"http://{gateway.address}/v1/chat/completions", data=pieces()) as unannounced:
        assert unannounced.status == 413
    assert model.fake.total == 0
