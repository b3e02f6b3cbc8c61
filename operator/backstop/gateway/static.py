"""Fixed answers as the OpenAI API spells them: `model: backstop/static`, usage 0. PURE."""

from typing import Final

import msgspec

from .revision import STATIC_MODEL
from .sse import DONE_EVENT

_USAGE: Final = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def static_completion(text: str, *, identity: str, created: int) -> bytes:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None, "finish_reason": "stop"}
    return msgspec.json.encode(
        {"id": identity, "object": "chat.completion", "created": created, "model": STATIC_MODEL, "choices": [choice], "usage": _USAGE}
    )


def static_stream(text: str, *, identity: str, created: int, include_usage: bool) -> bytes:
    """The same answer as a stream, whole."""
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": text}, None),
        ({}, "stop"),
    ]
    chunks: list[dict[str, object]] = [
        {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]} for delta, finish in deltas
    ]
    if include_usage:
        chunks = [chunk | {"usage": None} for chunk in chunks] + [{"choices": [], "usage": _USAGE}]
    head = {"id": identity, "object": "chat.completion.chunk", "created": created, "model": STATIC_MODEL}
    return b"".join(b"data: " + msgspec.json.encode(head | chunk) + b"\n\n" for chunk in chunks) + DONE_EVENT
