"""What a target's answer is taken for, over real sockets: good answers with odd members, and errors that look like answers."""

import re
from typing import Any

import pytest

from .harness import ExactTarget, Gateways, answering, make_record, model_tier, static_tier

CHOICE = '{"index":0,"message":{"role":"assistant","content":"Fine."},"finish_reason":"stop"}'
CHUNK = '{"index":0,"delta":{"content":"Fine."},"finish_reason":"stop"}'

ASKS = [
    ("/v1/chat/completions", '"messages":[{"role":"user","content":"Hi"}]'),
    ("/v1/completions", '"prompt":"Hi"'),
    ("/v1/responses", '"input":"Hi"'),
]


def answer(members: str, *, stream: bool) -> str:
    """An answer of one choice, and these members before it."""
    return f'data: {{{members},"choices":[{CHUNK}]}}\n\ndata: [DONE]\n\n' if stream else f'{{{members},"choices":[{CHOICE}]}}'


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_says_that_there_was_no_error_is_an_answer(gateways: Gateways, target: ExactTarget, stream: bool) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    for nothing in ("null", "{}", "{ }", '""', "false", "[]"):
        said = answer(f'"error": {nothing}', stream=stream)
        target.says(said, stream=stream)
        got = await gateway.chat(stream=stream)
        assert (got.said("tier"), got.said("reason"), got.body) == ("primary", None, said.encode())


@pytest.mark.parametrize("stream", [False, True])
async def test_w14_an_answer_with_an_error_in_it_is_none(gateways: Gateways, target: ExactTarget, stream: bool) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    for error in ('{"message":"no"}', '{"code":null}', '"no"', "true", "500", "[{}]"):
        target.says(answer(f'"error": {error}', stream=stream), stream=stream)
        got = await gateway.chat(stream=stream)
        assert (got.text, got.said("reason")) == ("Not now.", "MalformedAnswer")


@pytest.mark.parametrize("stream", [False, True])
async def test_w14_an_answer_with_bytes_that_are_no_text_is_none(gateways: Gateways, target: ExactTarget, stream: bool) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    target.says(answer('"note":"\x80"', stream=stream).encode("latin-1"), stream=stream)
    got = await gateway.chat(stream=stream)
    assert (got.text, got.said("reason")) == ("Not now.", "MalformedAnswer")


async def test_a_media_type_has_no_case(gateways: Gateways) -> None:
    said = answer('"id":"x"', stream=True).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nContent-Length: %d\r\n\r\n" % len(said)
    async with answering(head + said) as address:
        gateway = await gateways.start(make_record([model_tier(address), static_tier()]))
        got = await gateway.chat(stream=True)
    assert (got.said("tier"), got.body) == ("primary", said)


def pieces(*texts: str, finish: str, last: str = "") -> str:
    """Chunks of a stream that each say `finish`, and one of nothing that says `last`."""
    chunks = [f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"{finish}"}}]}}\n\n' for text in texts]
    return "".join(chunks) + (f'data: {{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{last}"}}]}}\n\n' if last else "")


@pytest.mark.parametrize("finish", ["", "null"])
async def test_w16_an_end_that_is_no_word_is_none(gateways: Gateways, target: ExactTarget, other_target: ExactTarget, finish: str) -> None:
    """Some servers spell so that a choice goes on."""
    kept: dict[str, Any] = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}
    behind = model_tier(other_target.url, name="second", model="m2", firstTokenMilliseconds=2000)
    begun, whole = pieces("Fi", "ne", finish=finish), pieces("Fi", "ne", ".", finish=finish, last="stop")
    gateway = await gateways.start(make_record([model_tier(target.url), kept, behind]))
    target.says(begun, stream=True)
    got = await gateway.chat(stream=True)
    assert (got.text, got.is_done, got.events[-1]["error"]["code"]) == ("Fine", False, "stream_interrupted")
    target.says(whole, stream=True)
    got = await gateway.chat(stream=True)
    assert (got.body.decode(), got.said("cache")) == (whole + "data: [DONE]\n\n", "miss")
    assert (await gateway.chat(stream=True)).said("cache") == "hit", "it was put together"
    got = await gateway.post(b'{"input":"Hi","stream":true}', path="/v1/responses", headers={"cache-control": "no-store"})
    assert got.events[-1]["response"]["status"] == "completed"

    going_on = await gateways.start(make_record([model_tier(target.url), behind], budget=9000, stream={"onInterruption": "Continue"}))
    target.says(begun, stream=True)
    other_target.says(whole, stream=True)
    got = await going_on.chat(stream=True)
    assert (got.text, got.is_done) == ("Fine.", True)


@pytest.mark.parametrize(
    ("end", "is_whole"), [("data: [DONE]", True), ("data:[DONE]\r\n", True), ("data: [DO", False), ('data: {"a":1}', False)]
)
@pytest.mark.parametrize("last", ["", "stop"])
async def test_w19_an_end_is_seen_without_the_line_behind_it(
    gateways: Gateways, target: ExactTarget, end: str, is_whole: bool, last: str
) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    target.says(pieces("Fine.", finish="", last=last) + end, stream=True)
    got = await gateway.chat(stream=True)
    assert (got.text, got.is_done, "error" in got.events[-1]) == ("Fine.", is_whole, not is_whole)


@pytest.mark.parametrize(("path", "asks"), ASKS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_mark_before_an_answer_is_left_out_of_it(
    gateways: Gateways, target: ExactTarget, path: str, asks: str, stream: bool
) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    asked = f'{{{asks},"stream":{str(stream).lower()}}}'.encode()
    plain = answer('"id":"c","created":1,"model":"m"', stream=stream)
    identity = {"x-backstop-request-id": "one"}
    target.says(plain, stream=stream)
    expected = await gateway.post(asked, path=path, headers=identity)
    target.says("\ufeff" + plain, stream=stream)
    got = await gateway.post(asked, path=path, headers=identity)
    assert b"Fine." in got.body
    assert (got.status, got.said("tier"), _timeless(got.body)) == (200, "primary", _timeless(expected.body))


@pytest.mark.parametrize(("path", "asks"), ASKS)
@pytest.mark.parametrize("stream", [False, True])
async def test_w14_half_of_a_pair_as_bytes_is_no_text_whichever_way_it_is_asked_for(
    gateways: Gateways, target: ExactTarget, path: str, asks: str, stream: bool
) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    target.says(answer('"\ud800":1', stream=stream).encode(errors="surrogatepass"), stream=stream)
    got = await gateway.post(f'{{{asks},"stream":{str(stream).lower()}}}'.encode(), path=path)
    assert (got.status, got.said("tier"), got.said("reason")) == (200, "static", "MalformedAnswer")


async def test_w14_an_answer_in_another_encoding_is_none(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url), static_tier()]))
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        target.says(answer('"id":"c"', stream=False).encode(encoding))
        got = await gateway.chat()
        assert (got.text, got.said("reason")) == ("Not now.", "MalformedAnswer")


def _timeless(body: bytes) -> bytes:
    return re.sub(rb'"created_at":\d+', b"", body)
