"""Answers that can be given again: which ones, as a whole or as a stream, whichever way they came. PURE.

Kept is one form, the whole completion. Only one complete text is: a single choice that ended with `stop`, without tool calls, refusal
or logprobs. What else an answer holds is passed on as it is.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from ..api.metricnames import CacheLevel, CacheUse
from .answer import UNFINISHED
from .jsontext import join_object, quoted
from .sse import DONE, DONE_EVENT, EventSplitter, EventTooLongError

_Members = dict[str, msgspec.Raw]
_NOTHING: Final = (b"null", b'""', b"[]", b"{}", b"false")
# What a model writes, in pieces that belong together.
_TEXTS: Final = ("content", "reasoning_content", "reasoning")
_NEVER: Final = ("tool_calls", "function_call", "refusal", "audio")
_OBJECT: Final = msgspec.json.Decoder(_Members)
_STRING: Final = msgspec.json.Decoder(str)
_NULL: Final = msgspec.Raw(b"null")


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Members | None = None
    delta: _Members | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    usage: msgspec.Raw = _NULL


_ANSWER: Final = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True)
class Replay:
    """A kept answer, for one who asks now. `age` in seconds; `use`: why it is given; `level`: where it was kept."""

    body: bytes
    age: float
    use: CacheUse
    level: CacheLevel = CacheLevel.HOT


@dataclass(frozen=True)
class Keepable:
    """An answer that may be given to others."""

    body: bytes
    has_usage: bool


def keepable(body: bytes) -> Keepable | None:
    """`body`, a whole completion, where it may be kept."""
    try:
        msgspec.json.decode(body)  # all of it: what is kept can be given in every form
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(answer.choices) != 1:
        return None
    choice = answer.choices[0]
    message = choice.message or {}
    if choice.index != 0 or choice.finish_reason != "stop" or _is_there(choice.logprobs):
        return None
    if not bytes(message.get("content", b"")).startswith(b'"') or not _is_there(message["content"]):
        return None
    if any(_is_there(message.get(name, _NULL)) for name in _NEVER):
        return None
    return Keepable(body, has_usage=_is_there(answer.usage))


def as_stream(body: bytes, *, include_usage: bool) -> bytes:
    """A kept completion as a stream, whole. Where its usage is not known, none is said."""
    members = _OBJECT.decode(body)
    choice = _ANSWER.decode(body).choices[0]
    usage = members.get("usage", _NULL)
    head = {name: bytes(value) for name, value in members.items() if name not in ("object", "choices", "usage")}
    head["object"] = b'"chat.completion.chunk"'
    delta = join_object({name: bytes(value) for name, value in (choice.message or {}).items() if name == "role" or _is_there(value)})
    said = {"usage": b"null"} if include_usage else {}
    chunks = [
        {**head, "choices": b'[{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":null}]', **said},
        {**head, "choices": b'[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]', **said},
    ]
    if include_usage and _is_there(usage):
        chunks.append({**head, "choices": b"[]", "usage": bytes(usage)})
    # Without spaces: a line break inside a completion would end the event.
    return b"".join([b"data: " + msgspec.json.format(join_object(chunk), indent=-1) + b"\n\n" for chunk in chunks]) + DONE_EVENT


class Recorder:
    """Puts a stream together while it passes by. Holds the text alone, and gives up on what could not be kept."""

    def __init__(self, *, longest: int) -> None:
        self._longest = longest
        self._splitter = EventSplitter()
        self._head: dict[str, bytes] | None = None
        self._texts: dict[str, list[str]] = {}
        self._held = 0
        self._usage = b"null"
        self._finished = self._given_up = False

    def take(self, events: bytes) -> None:
        """More of the stream."""
        if self._given_up:
            return
        try:
            for event in self._splitter.feed(events):
                if event.data is not None and event.data != DONE and not self._is_taken(event.data):
                    raise ValueError("not a plain text")
        except (ValueError, RecursionError, EventTooLongError):  # msgspec's errors are ValueErrors too
            self._given_up = True
            self._texts.clear()

    def whole(self) -> bytes | None:
        """The completion that the stream was, once it is over; None where it cannot be kept."""
        if self._given_up or not self._finished or self._head is None:
            return None
        texts = {name: quoted("".join(pieces)) for name, pieces in self._texts.items()}
        message = join_object({"role": b'"assistant"', **texts})
        choice = b'{"index":0,"message":' + message + b',"logprobs":null,"finish_reason":"stop"}'
        return join_object({**self._head, "object": b'"chat.completion"', "choices": b"[" + choice + b"]", "usage": self._usage})

    def _is_taken(self, text: bytes) -> bool:
        """Take one chunk; whether it is of a text that can be kept."""
        chunk = _ANSWER.decode(text)
        if self._head is None and chunk.choices:  # some begin with a chunk of nothing, and no name
            members = _OBJECT.decode(text)
            self._head = {n: bytes(value) for n, value in members.items() if n not in ("object", "choices", "usage")}
        if _is_there(chunk.usage):
            self._usage = bytes(chunk.usage)
        return all(self._is_text(choice) for choice in chunk.choices)

    def _is_text(self, choice: _Choice) -> bool:
        if choice.index != 0 or choice.finish_reason not in (*UNFINISHED, "stop") or _is_there(choice.logprobs):
            return False
        self._finished = self._finished or choice.finish_reason == "stop"
        for name, value in (choice.delta or {}).items():
            if name == "role" or not _is_there(value):
                continue
            if name not in _TEXTS:
                return False
            piece = _STRING.decode(value)
            self._held += len(piece)
            self._texts.setdefault(name, []).append(piece)
        return self._held <= self._longest


def _is_there(value: msgspec.Raw) -> bool:
    return bytes(value) not in _NOTHING
