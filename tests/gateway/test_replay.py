"""Which answers are kept, and that they can be given as a whole or as a stream, whichever way they came."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from backstop.gateway.replay import Recorder, as_stream, keepable
from backstop.gateway.sse import EventSplitter

USAGE = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m1", "system_fingerprint": "fp_1"}


def whole(message: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Grüße, 🎉!", "refusal": None, "annotations": []} | (message or {})
    chosen = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"} | choice
    return HEAD | {"object": "chat.completion", "choices": [chosen], "usage": USAGE}


def events(*deltas: dict[str, Any], finish: str = "stop", usage: dict[str, int] | None = USAGE, **choice: Any) -> bytes:
    head = HEAD | {"object": "chat.completion.chunk"}
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None} | choice]} for delta in deltas]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish} | choice]})
    if usage is not None:
        chunks.append(head | {"choices": [], "usage": usage})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def recorded(stream: bytes, *, slices: int = 1 << 20, longest: int = 1000) -> bytes | None:
    recorder = Recorder(longest=longest)
    for start in range(0, len(stream), slices):
        recorder.take(stream[start : start + slices])
    return recorder.whole()


def chunks_of(stream: bytes) -> list[Any]:
    found = [event.data for event in EventSplitter().feed(stream)]
    assert found[-1] == b"[DONE]"
    return [json.loads(data or b"") for data in found[:-1]]


TEXT = ({"role": "assistant", "content": ""}, {"content": "Grüße, "}, {"content": "🎉!"})


def test_a_stream_is_kept_as_the_whole_answer_that_it_was() -> None:
    for slices in (1 << 20, 7):
        kept = recorded(events(*TEXT), slices=slices)
        assert kept is not None
        assert keepable(kept) is not None
        answer = ChatCompletion.model_validate_json(kept, strict=True)
        (choice,) = answer.choices
        assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Grüße, 🎉!", "stop")
        assert (answer.id, answer.created, answer.model, answer.system_fingerprint) == tuple(HEAD.values())
        assert answer.usage is not None
        assert answer.usage.total_tokens == 11


def test_a_whole_answer_is_given_as_the_stream_that_it_would_have_been() -> None:
    message = {"reasoning_content": "Hm.", "annotations": [{"type": "url_citation", "note": "a\nb"}]}
    body = json.dumps(whole(message), indent=2).encode()
    for include_usage in (False, True):
        chunks = chunks_of(as_stream(body, include_usage=include_usage))
        parsed = [ChatCompletionChunk.model_validate_json(json.dumps(chunk), strict=True) for chunk in chunks]
        assert "".join(c.delta.content or "" for chunk in parsed for c in chunk.choices) == "Grüße, 🎉!"
        assert [c.finish_reason for chunk in parsed for c in chunk.choices] == [None, "stop"]
        assert {(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in parsed} == {tuple(HEAD.values())}
        delta = chunks[0]["choices"][0]["delta"]
        assert (delta["role"], delta["reasoning_content"], delta["annotations"]) == ("assistant", *message.values())
        assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == ([USAGE] if include_usage else [])


def test_an_answer_survives_the_way_there_and_back() -> None:
    streamed = as_stream(json.dumps(whole({"reasoning": "Hm."})).encode(), include_usage=True)
    kept = recorded(streamed)
    assert kept is not None
    back = json.loads(kept)
    assert back["choices"][0]["message"] == {"role": "assistant", "content": "Grüße, 🎉!", "reasoning": "Hm."}
    assert (back["usage"], back["object"]) == (USAGE, "chat.completion")
    assert as_stream(kept, include_usage=True).count(b"data: ") == streamed.count(b"data: ")


def test_usage_that_a_stream_did_not_have_is_not_made_up() -> None:
    kept = recorded(events(*TEXT, usage=None))
    assert kept is not None
    found = keepable(kept)
    assert found is not None
    assert not found.has_usage
    assert all(chunk.get("usage") is None for chunk in chunks_of(as_stream(kept, include_usage=True)))


CALL = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
UNFIT_WHOLE = {
    "length": whole(finish_reason="length"),
    "filtered": whole(finish_reason="content_filter"),
    "unfinished": whole(finish_reason=None),
    "tool calls": whole(CALL | {"content": None}, finish_reason="tool_calls"),
    "tool calls beside text": whole(CALL),
    "refusal": whole({"refusal": "No."}),
    "empty": whole({"content": ""}),
    "parts": whole({"content": [{"type": "text", "text": "x"}]}),
    "logprobs": whole(logprobs={"content": []}),
    "another index": whole(index=1),
    "two choices": whole() | {"choices": whole()["choices"] * 2},
    "no choices": whole() | {"choices": []},
}


@pytest.mark.parametrize("name", UNFIT_WHOLE)
def test_w36_an_answer_that_is_not_one_complete_text_is_not_kept(name: str) -> None:
    assert keepable(json.dumps(whole()).encode()) is not None
    assert keepable(json.dumps(UNFIT_WHOLE[name]).encode()) is None


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"7", b'{"choices":[{"message":{"content":"\\ud83d"},"finish_reason":"stop"}]}'])
def test_w36_what_is_no_answer_is_not_kept(text: bytes) -> None:
    assert keepable(text) is None


UNFIT_STREAMS = {
    "length": events(*TEXT, finish="length"),
    "filtered": events(*TEXT, finish="content_filter"),
    "filtered, then stopped": events(*TEXT, finish="content_filter").replace(b"data: [DONE]\n\n", events()),
    "unfinished": events(*TEXT).partition(b'"finish_reason": "stop"')[0],
    "tool calls": events(*TEXT, CALL),
    "refusal": events(*TEXT, {"refusal": "No."}),
    "logprobs": events(*TEXT, logprobs={"content": []}),
    "another index": events(*TEXT, index=1),
    "not text": events(*TEXT, {"content": 7}),
    "half of a pair": events(*TEXT, {"content": "\ud83d"}),
    "not JSON": b"data: {\n\n" + events(*TEXT),
    "too long": events(*TEXT, {"content": "x" * 2000}),
}


@pytest.mark.parametrize("name", UNFIT_STREAMS)
def test_w36_a_stream_that_is_not_one_complete_text_is_not_kept(name: str) -> None:
    assert recorded(UNFIT_STREAMS[name]) is None


def test_w36_a_stream_without_text_is_not_kept() -> None:
    kept = recorded(events({"role": "assistant", "content": ""}))
    assert kept is None or keepable(kept) is None
