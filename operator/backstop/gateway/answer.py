"""What an upstream's answer is: content, an error, or nothing; for whole bodies and for events of a stream alike. PURE.

Reads only the fields that decide. An answer's text is never looked into.
"""

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from .jsontext import no_number

_NOTHING: Final = (b"null", b'""', b"[]", b"{}", b"false")


class _Choice(msgspec.Struct):
    index: int = 0
    message: dict[str, msgspec.Raw] | None = None
    delta: dict[str, msgspec.Raw] | None = None
    finish_reason: str | None = None


_NULL: Final = msgspec.Raw(b"null")  # with `| None`, msgspec takes null alone


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL


_DECODER: Final = msgspec.json.Decoder(_Answer)
# A piece of any of these is content: from then on the caller has something. A role is not content.
_CONTENT: Final = ("content", "tool_calls", "function_call", "refusal", "audio", "reasoning_content", "reasoning")
# How servers spell it that a choice goes on.
UNFINISHED: Final = (None, "", "null")
# A refusal by the target's own filter is an answer; another model is not asked to write what this one would not.
_FILTERED: Final = "content_filter"
_CUT_SHORT: Final = "length"


# How the APIs say that a request does not fit: by a code, or in words only.
_OVERFLOW_CODES: Final = ("context_length_exceeded", "exceed_context_size_error")
_OVERFLOW_WORDS: Final = ("context length", "context window", "context size", "prompt is too long", "maximum number of tokens")
_LOOKED_AT: Final = 4096  # bytes of an error


class _Vectors(msgspec.Struct):
    data: list[msgspec.Raw] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_VECTORS: Final = msgspec.json.Decoder(_Vectors)


class MalformedError(ValueError):
    """Not an answer; the text says why, in our words."""


class CutShortError(MalformedError):
    """Nothing was written before the request's own bound on the length: a caller's figure, and no fault of the target's."""


def empty(finish_reasons: Iterable[str | None]) -> MalformedError:
    """What an answer without content is, by why its choices ended."""
    if _CUT_SHORT in finish_reasons:
        return CutShortError("the answer is empty: it ended for its length before it began")
    return MalformedError("the answer is empty")


class Delta(NamedTuple):  # made for every token: a frozen dataclass takes three times as long
    """What one event of a stream brings; of choices, which have begun, and which have ended, and why. `usage`: it says something of it."""

    content: bool
    started: Sequence[int]
    finished: Sequence[tuple[int, str]]
    usage: bool


def check_whole(body: bytes) -> None:
    """Raise MalformedError unless `body` is a complete answer with content."""
    answer = _decode(body)
    if not answer.choices:
        raise MalformedError("the answer has no choices")
    if not any(_has(c.message, fields=_CONTENT) or c.finish_reason == _FILTERED for c in answer.choices):
        raise empty(c.finish_reason for c in answer.choices)


def check_vectors(body: bytes) -> None:
    """Raise MalformedError unless `body` is an answer with embeddings."""
    _refuse_other_bytes(body)
    try:
        answer = _VECTORS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedError("the answer is not a list of embeddings") from None
    if _is_said(answer.error) or not answer.data:
        raise MalformedError("the target answered without embeddings")


def read_delta(text: bytes) -> Delta:
    """Read one event's data. Raises MalformedError for an error in the stream, or for what is not JSON."""
    answer = _decode(text)
    content, started, finished = False, [], []
    for choice in answer.choices or ():
        started.append(choice.index)
        content = content or _has(choice.delta, fields=_CONTENT) or choice.finish_reason == _FILTERED
        if choice.finish_reason not in UNFINISHED:
            finished.append((choice.index, choice.finish_reason))
    return Delta(content, started, finished, answer.usage is not _NULL and bytes(answer.usage) not in _NOTHING)


def is_overflow(status: int, error: bytes) -> bool:
    """Whether an error answer says that the request is larger than the model takes."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return True
    said = error[:_LOOKED_AT].decode(errors="replace").lower()
    return any(mark in said for mark in (*_OVERFLOW_CODES, *_OVERFLOW_WORDS))


def _decode(text: bytes) -> _Answer:
    _refuse_other_bytes(text)
    try:
        answer = _DECODER.decode(text)
    except msgspec.ValidationError:
        raise MalformedError("the answer is not a chat completion") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = _decode_slowly(text)
    if answer.error is not _NULL and _is_said(answer.error):
        raise MalformedError("the target answered with an error in place of an answer")
    return answer


def _refuse_other_bytes(text: bytes) -> None:
    """What is skipped is not decoded, and the caller's library would fail at it."""
    try:
        text.decode()
    except UnicodeDecodeError:
        raise MalformedError("the answer is not JSON: it has bytes that are no UTF-8") from None


def _is_said(error: msgspec.Raw) -> bool:
    return b"".join(bytes(error).split()) not in _NOTHING


def _decode_slowly(text: bytes) -> _Answer:
    """For JSON that msgspec refuses: lone surrogates, which models cut in two between tokens."""
    try:
        # As UTF-8, which alone it may be: of bytes, the library would guess.
        answer = json.loads(text.decode(), parse_constant=no_number)
        return _DECODER.decode(json.dumps(answer, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors too
        raise MalformedError("the answer is not JSON") from None


def _has(part: dict[str, msgspec.Raw] | None, *, fields: tuple[str, ...]) -> bool:
    if part is not None:
        for name in fields:
            if name in part and bytes(part[name]) not in _NOTHING:
                return True
    return False
