"""How many tokens an answer took, as the model that gave it says; and how a pod tells the entry, which counts. PURE.

What is said is taken as it is or not at all: a figure that cannot be one makes the usage unknown, never zero. An entry learns it from a
header of a whole answer; of a stream, where it is not known at the start, from a comment after the last event. Neither reaches a caller.
"""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

USAGE_HEADER: Final = "x-backstop-usage"
# No context window is larger; what says more is mistaken.
MOST_TOKENS: Final = 100_000_000
_COMMENT: Final = b": " + USAGE_HEADER.encode() + b" "
_SAID: Final = re.compile(r"(?:unknown|([0-9]{1,9}),([0-9]{1,9})) ([a-z0-9](?:[a-z0-9-]{0,62})@[0-9a-f]{8})")
# Every event of a stream that may hold a usage has this in it, and hardly another one.
_MARK: Final = b'_tokens"'

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]


class _Said(msgspec.Struct):
    prompt_tokens: _Tokens
    completion_tokens: _Tokens


class _Answer(msgspec.Struct):
    usage: _Said | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer."""

    input: int
    output: int


@dataclass(frozen=True)
class ModelUse:
    """A model answered a request. `target`: which one, as metrics name it; `usage`: None where the answer does not say."""

    target: str
    usage: Usage | None


def usage_in(text: bytes) -> Usage | None:
    """The usage that a whole answer, or an event of a stream, tells; None where it tells none that can be one."""
    if _MARK not in text:
        return None
    try:
        said = _read(text).usage
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors too
        return None
    return None if said is None else Usage(input=said.prompt_tokens, output=said.completion_tokens)


def told(use: ModelUse) -> bytes:
    """The header's value, for the entry."""
    figures = "unknown" if use.usage is None else f"{use.usage.input},{use.usage.output}"
    return f"{figures} {use.target}".encode()


def comment(use: ModelUse) -> bytes:
    """The comment that ends a stream, for the entry."""
    return _COMMENT + told(use) + b"\n\n"


def heard(value: str | None) -> ModelUse | None:
    """What a pod tells in the header; None where it tells nothing, as of an answer that no model gave, or nothing that can be."""
    said = _SAID.fullmatch(value or "")
    if said is None:
        return None
    tokens_in, tokens_out, target = said.groups()
    if tokens_in is None:
        return ModelUse(target, usage=None)
    usage = Usage(input=int(tokens_in), output=int(tokens_out))
    return ModelUse(target, usage=usage if max(usage.input, usage.output) <= MOST_TOKENS else None)


def heard_comment(raw: bytes) -> ModelUse | None:
    """The same, of a comment of a stream; None for every other one."""
    return heard(raw[len(_COMMENT) :].rstrip(b"\r\n").decode("latin-1")) if raw.startswith(_COMMENT) else None


def _read(text: bytes) -> _Answer:
    try:
        return _DECODER.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # JSON that msgspec refuses: lone surrogates, which models cut in two between tokens
        return msgspec.convert(json.loads(text), _Answer)
