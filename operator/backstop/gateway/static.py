"""Fixed answers as the OpenAI API spells them: by a model such as `backstop/static`, usage 0. PURE."""

from dataclasses import dataclass
from typing import Final

import msgspec

from .sse import DONE_EVENT

_USAGE: Final = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@dataclass(frozen=True)
class FixedAnswer:
    """A text that no model wrote, and what its author is called in place of a model."""

    text: str
    model: str


def static_completion(fixed: FixedAnswer, *, identity: str, created: int) -> bytes:
    """A whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": fixed.text, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return msgspec.json.encode(
        {"id": identity, "object": "chat.completion", "created": created, "model": fixed.model, "choices": [choice], "usage": _USAGE}
    )


def static_stream(fixed: FixedAnswer, *, identity: str, created: int, include_usage: bool) -> bytes:
    """The same answer as a stream, whole."""
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": fixed.text}, None),
        ({}, "stop"),
    ]
    chunks: list[dict[str, object]] = [
        {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]} for delta, finish in deltas
    ]
    if include_usage:
        chunks = [chunk | {"usage": None} for chunk in chunks] + [{"choices": [], "usage": _USAGE}]
    head = {"id": identity, "object": "chat.completion.chunk", "created": created, "model": fixed.model}
    return b"".join(b"data: " + msgspec.json.encode(head | chunk) + b"\n\n" for chunk in chunks) + DONE_EVENT
