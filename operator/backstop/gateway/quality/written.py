"""What is judged: an answer's text as its model wrote it, and the messages that it answers. Read out of JSON in small steps. PURE.

A step is some hundred microseconds at most, so that whoever takes them on an event loop can let others go on in between.
"""

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from ..jsontext import NotJSONError, split_array
from ..knowledge import text_of
from ..sse import DONE, EventSplitter, EventTooLongError

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

# Of an answer this much is looked at, from its beginning on.
LONGEST_ANSWER: Final = 8192  # characters
# With more than this around it, nothing is said of what an answer has from there.
LONGEST_CONTEXT: Final = 65_536  # characters
_EVENTS_A_STEP: Final = 32
_BYTES_A_STEP: Final = 8192
# Said by nobody who knows: what a model itself wrote before.
_OWN_ROLES: Final = ("assistant",)


@dataclass(frozen=True)
class Sampled:
    """An answer as it was sent: one body, or a stream's events; neither yet, where it is only drawn.

    `messages`: of the request, as its model got them; None: too long.
    """

    messages: bytes | None
    body: bytes = b""
    events: tuple[bytes, ...] = ()
    is_cut: bool = False  # there was more of the stream than is here
    allowed: frozenset[str] | None = None  # jurisdictions that it may be sent to; None: all
    wants_json: bool = False  # by the request's `response_format`


@dataclass(frozen=True)
class Written:
    """An answer to be judged. `context`: texts of the request; None: not known. `certainties`: natural logarithms, by token."""

    answer: str
    context: tuple[str, ...] | None
    question: str = ""
    finish: str | None = None
    refused: bool = False
    is_cut: bool = False
    certainties: tuple[float, ...] = ()
    wants_json: bool = False


class _Token(msgspec.Struct):
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_ANSWER: Final = msgspec.json.Decoder(_Answer)


@dataclass
class _Draft:
    """What was read of an answer so far: of its first choice, which is the only one of nearly all."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    finish: str | None = None
    refused: bool = False
    certainties: list[float] = field(default_factory=list)

    def take(self, text: bytes) -> None:
        """One chunk, or all of it. Raises msgspec.DecodeError, and what msgspec raises for text that is none."""
        for choice in _ANSWER.decode(text).choices:
            if choice.index != 0:
                continue
            said = choice.message or choice.delta or _Said()
            self.finish = choice.finish_reason or self.finish
            self.refused = self.refused or bool(said.refusal)
            if said.content and self.length < LONGEST_ANSWER:
                self.pieces.append(said.content)
                self.length += len(said.content)
            tokens = choice.logprobs.content if choice.logprobs is not None else None
            self.certainties += [t.logprob for t in tokens or () if t.logprob is not None and math.isfinite(t.logprob)]


def read(sampled: Sampled) -> Steps[Written | None]:
    """The answer, and what it answers; None where there is nothing to judge: no text, such as of a tool call, or none that can be read."""
    draft = _Draft()
    try:
        yield from _take(sampled, draft=draft)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, EventTooLongError):
        return None
    answer = "".join(draft.pieces)[:LONGEST_ANSWER]
    if not answer.strip() and not draft.refused and draft.finish != "content_filter":
        return None
    yield
    context, question = yield from _read_messages(sampled.messages)
    return Written(
        answer=answer,
        context=context,
        question=question,
        finish=None if sampled.is_cut else draft.finish,
        refused=draft.refused,
        is_cut=sampled.is_cut or draft.length > LONGEST_ANSWER,
        certainties=tuple(draft.certainties),
        wants_json=sampled.wants_json,
    )


def _take(sampled: Sampled, *, draft: _Draft) -> Steps[None]:
    if sampled.body:
        draft.take(sampled.body)
        return
    splitter = EventSplitter()
    taken = 0
    for events in sampled.events:
        for start in range(0, len(events), _BYTES_A_STEP):
            for event in splitter.feed(events[start : start + _BYTES_A_STEP]):
                if event.data is not None and event.data != DONE:
                    draft.take(event.data)
                taken += 1
                if taken % _EVENTS_A_STEP == 0:
                    yield


def _read_messages(messages: bytes | None) -> Steps[tuple[tuple[str, ...] | None, str]]:
    """The texts of the messages that a model did not write, and the last one of a user's."""
    if messages is None:
        return None, ""
    try:
        spelled = split_array(messages)
    except NotJSONError:
        return None, ""
    texts: list[str] = []
    question, length = "", 0
    for number, message in enumerate(spelled):
        role, text = text_of(message)
        if role == "user":
            question = text
        if role not in _OWN_ROLES and text:
            texts.append(text)
            length += len(text)
        if number % _EVENTS_A_STEP == _EVENTS_A_STEP - 1:
            yield
    return (tuple(texts) if length <= LONGEST_CONTEXT else None), question[:LONGEST_ANSWER]


def in_pieces(texts: Iterable[str], *, longest: int) -> Generator[str, None, None]:
    """The texts in pieces of about so many characters, cut at spaces where there are any."""
    for text in texts:
        start = 0
        while start < len(text):
            end = start + longest
            if end < len(text) and (space := text.rfind(" ", start, end)) > start:
                end = space
            yield text[start:end]
            start = end
