"""A stream that broke off after its first content, finished by a later tier: the answer arrives whole, and once.

Knows what a caller has of the text, who may go on from there, and how another model's stream is spelled as the rest of the first one's.
Knows neither timers of a stream that is passed on, nor the caller. Plain text alone: what else an answer holds has no middle at which
another model could begin.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..api.fallbackpolicy import Capability
from .answer import UNFINISHED
from .body import ChatRequest
from .hotcache import LONGEST_ANSWER
from .jsontext import join_object, quoted
from .revision import ModelTier
from .sse import DONE, EventSplitter
from .upstream import CutError, Streaming
from .usage import Usage

_NOTHING: Final = (b"null", b'""', b"[]", b"{}", b"false")
# Members of a request that ask for more than one plain text.
_MORE: Final = ("tools", "functions", "response_format", "logprobs", "audio", "modalities")
_NULL: Final = msgspec.Raw(b"null")
_CONTINUED: Final = b": x-backstop-continued-by "
_FIRST_FAILED: Final = b", x-backstop-first-tier failed"


class _Choice(msgspec.Struct):
    index: int = 0
    delta: dict[str, msgspec.Raw] | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)


@dataclass(frozen=True)
class _Piece:
    """What one chunk brings of a plain text."""

    text: str = ""
    finished: str | None = None
    empty: bool = False  # no choice at all: usage, or a beginning


def _continued_by(tier: str, *, first: bool) -> bytes:
    """The comment before the end of a stream which another tier has finished."""
    return _CONTINUED + tier.encode() + (_FIRST_FAILED if first else b"") + b"\n\n"


def tells_that_first_failed(raw: bytes) -> bool:
    """Whether an event is that comment, and says so."""
    return raw.startswith(_CONTINUED) and _FIRST_FAILED in raw


def may_go_on(request: ChatRequest) -> bool:
    """Whether a stream is asked for that another model could finish."""
    members = request.members
    plain = all(members.get(name, b"null") in _NOTHING for name in _MORE)
    return request.wanted.stream and plain and members.get("n", b"1") in (b"1", b"null")


class Continuation:
    """What is needed to finish one stream. `candidates`: who may, behind a tier. `ask`: an attempt at one, None where it fails.

    `first`: it is the chain's first tier that has begun.
    """

    def __init__(
        self,
        request: ChatRequest,
        *,
        first: bool,
        candidates: Callable[[ModelTier], Sequence[ModelTier]],
        ask: Callable[[ModelTier, ChatRequest], Awaitable[Streaming | None]],
    ) -> None:
        self.first = first
        self._request = request
        self._candidates = candidates
        self._ask = ask
        self._head: dict[str, bytes] = {}  # what of a chunk says which answer it is of
        self._said: list[str] = []
        self._length = 0
        self._possible = True
        self._finished = False

    def take(self, events: bytes) -> None:
        """More of what the caller has."""
        if not self._possible:
            return
        for event in EventSplitter().feed(events):
            if event.data is None or event.data == DONE:
                continue
            piece = _read(event.data)
            if piece is None or self._length > LONGEST_ANSWER:
                self._possible = False
                self._said.clear()
                return
            if not self._head and not piece.empty:
                members = _MEMBERS.decode(event.data)
                self._head = {name: bytes(members[name]) for name in ("id", "created") if name in members}
            self._said.append(piece.text)
            self._length += len(piece.text)
            self._finished = self._finished or piece.finished is not None

    async def go_on(self, after: ModelTier, *, within: float) -> "tuple[ModelTier, ContinuedStream] | None":
        """The rest of the answer, from the first tier behind `after` that gives it, within so many seconds; None where nobody does."""
        text = "".join(self._said)
        if not self._possible or self._finished or not text:
            return None
        try:
            async with asyncio.timeout(within):
                for tier in self._candidates(after):
                    prefills = tier.able is not None and Capability.PREFILL in tier.able
                    stream = await self._ask(tier, _begun(self._request, text=text) if prefills else self._request)
                    if stream is not None:
                        said = _continued_by(tier.name, first=self.first)
                        return tier, ContinuedStream(stream, head=self._head, to_skip="" if prefills else text, said=said)
        except TimeoutError:
            return None
        return None


class ContinuedStream:
    """The rest of an answer, used as a `Streaming` is. Spelled as the answer that it goes on with; its `model` is its own.

    `to_skip`: what the caller has of it already; `said`: before the end.
    """

    head = b""

    def __init__(self, stream: Streaming, *, head: dict[str, bytes], to_skip: str, said: bytes) -> None:
        self._stream = stream
        self._head = head
        self._to_skip = to_skip
        self._said = said
        self._first = stream.head

    async def more(self) -> tuple[bytes, bool] | None:
        """As of `Streaming`. Also where it is another answer, it is a CutError."""
        while True:
            if self._first:
                events, self._first = self._first, b""
            else:
                piece = await self._stream.more()
                if piece is None:
                    return None
                events = piece[0]
            out, content = self._spelled(events)
            if out:
                return out, content

    async def close(self, *, late: bool = False) -> None:
        """As of `Streaming`."""
        await self._stream.close(late=late)

    @property
    def usage(self) -> Usage | None:
        """Not known: what the first of the models took, it did not say."""
        return None

    def _spelled(self, events: bytes) -> tuple[bytes, bool]:
        out: list[bytes] = []
        content = False
        for event in EventSplitter().feed(events):
            if event.data is None or event.data == DONE:
                out += [event.raw] if event.data is None else [self._said, event.raw]
                continue
            piece = _read(event.data)
            if piece is None:
                raise CutError("another tier went on with something else than text")
            text = self._skip(piece.text)
            if self._to_skip and piece.finished is not None:
                raise CutError("another tier gave another answer")
            if text or piece.finished is not None or piece.empty:
                out.append(self._chunk(event.data, text=text, piece=piece))
                content = content or bool(text)
        return b"".join(out), content

    def _skip(self, text: str) -> str:
        known = min(len(text), len(self._to_skip))
        if text[:known] != self._to_skip[:known]:
            raise CutError("another tier gave another answer")
        self._to_skip = self._to_skip[known:]
        return text[known:]

    def _chunk(self, data: bytes, *, text: str, piece: _Piece) -> bytes:
        members = {name: bytes(value) for name, value in _MEMBERS.decode(data).items()} | self._head
        if not piece.empty:
            delta = join_object({"content": quoted(text)} if text else {})
            reason = msgspec.json.encode(piece.finished)
            members["choices"] = b'[{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":' + reason + b"}]"
        # Without spaces: a line break inside of a chunk would end the event.
        return b"data: " + msgspec.json.format(join_object(members), indent=-1) + b"\n\n"


def _begun(request: ChatRequest, *, text: str) -> ChatRequest:
    """The same request, with the answer begun."""
    message = join_object({"role": b'"assistant"', "content": quoted(text)})
    messages = request.members["messages"].rstrip()
    return request._replace(members={**request.members, "messages": messages[:-1] + b"," + message + b"]"})


def _read(data: bytes) -> _Piece | None:
    """One chunk; None where it is not of one plain text."""
    try:
        choices = _CHUNK.decode(data).choices
        if not choices:
            return _Piece(empty=True)
        choice, others = choices[0], choices[1:]
        delta: dict[str, Any] = choice.delta or {}
        beyond = any(bytes(value) not in _NOTHING for name, value in delta.items() if name not in ("role", "content"))
        if others or choice.index != 0 or beyond or bytes(choice.logprobs) not in _NOTHING:
            return None
        text = bytes(delta.get("content", b"null"))
        finished = None if choice.finish_reason in UNFINISHED else choice.finish_reason
        return _Piece(text="" if text == b"null" else _STRING.decode(text), finished=finished)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # also half of a surrogate pair: no text ends there
        return None
