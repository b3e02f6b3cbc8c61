"""What reads bytes that others write, each with what has to hold of it whatever they are. Anything else that is raised is found."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backstop.api.knowledge import KnowledgeError, read_knowledge_base
from backstop.api.ruleset import RulesError, read_rules
from backstop.gateway.answer import MalformedError, check_whole, read_delta
from backstop.gateway.body import parse_chat
from backstop.gateway.compilation import compile_revision
from backstop.gateway.errors import CallerError, caller_error_body
from backstop.gateway.jsontext import join_object
from backstop.gateway.responserequest import as_chat
from backstop.gateway.responses import Responses
from backstop.gateway.sse import EventSplitter
from backstop.gateway.surface import Completions, chat_of, embeddings_of
from tests.gateway.harness import make_record, model_tier
from tests.gateway.test_bodies import PROMPT, VARIABLES

_REVISION: Final = compile_revision(make_record([model_tier("llm:80")], prompt=PROMPT, variables=VARIABLES), environment={})
_HEADERS: Final = {"customer": "x"}


@dataclass(frozen=True)
class Reader:
    """`holds` is given any bytes; `examples` are some that are good."""

    holds: Callable[[bytes], None]
    examples: Sequence[bytes]


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """What a caller is told of its mistake can be sent, and is short."""
    try:
        yield
    except CallerError as error:
        body = caller_error_body(error)
        _strictly(body)
        assert len(body) < 2000, body


def _strictly(text: bytes) -> None:
    """Raise ValueError for what is no JSON; `NaN` and its like, which Python reads, are none."""
    json.loads(text.decode(), parse_constant=_no_number)


def _no_number(name: str) -> None:
    raise ValueError(f"`{name}` is no JSON")


def _chat(text: bytes) -> None:
    _sent(text, echo={})


def _completion(text: bytes) -> None:
    with _refused():
        _sent(chat_of(text), echo={})


def _response(text: bytes) -> None:
    with _refused():
        chat, echo = as_chat(text)
        _sent(chat, echo=echo)


def _sent(text: bytes, *, echo: Mapping[str, bytes]) -> None:
    """What a model is sent is JSON, also where nobody has looked into it."""
    with _refused():
        _strictly(parse_chat(text, revision=_REVISION, header_variables=_HEADERS, echo=echo).for_model("m"))


def _embedding(text: bytes) -> None:
    with _refused():
        _strictly(join_object(embeddings_of(text)))


def _events(text: bytes) -> None:
    """Cut anywhere, nothing is lost."""
    if not text:
        return
    at, text = text[0] % len(text), text[1:]
    whole, pieces = EventSplitter(), EventSplitter()
    at_once, one_by_one = whole.feed(text), pieces.feed(text[:at]) + pieces.feed(text[at:])
    assert b"".join(event.raw for event in at_once) + whole.rest == text
    assert b"".join(event.raw for event in one_by_one) + pieces.rest == text
    if b"\r" not in text:  # half of a line's end may be one
        assert at_once == one_by_one


def _stream(text: bytes) -> None:
    """What is sound as a chat's chunks can be spelled in any way."""
    for event in EventSplitter().feed(text):
        if event.data is not None and event.data != b"[DONE]":
            try:
                read_delta(event.data)
            except MalformedError:
                return
    for spelled in (Responses(identity="r", created=1, echo={}).events(text), Completions().events(text)):
        for event in EventSplitter().feed(spelled):
            if event.data is not None and event.data != b"[DONE]":
                _strictly(event.data)


def _whole(text: bytes) -> None:
    try:
        check_whole(text)
    except MalformedError:
        return
    _strictly(Completions().whole(text))
    _strictly(Responses(identity="r", created=1, echo={}).whole(text))


def _knowledge(text: bytes) -> None:
    with contextlib.suppress(KnowledgeError):
        read_knowledge_base(text.decode(errors="surrogateescape"))


def _rules(text: bytes) -> None:
    with contextlib.suppress(RulesError):
        read_rules(text.decode(errors="surrogateescape"))


READERS: Final = {
    "chat": Reader(
        _chat,
        [
            b'{"messages":[{"role":"user","content":"hi \\u00e9"}],"stream":true,"metadata":{"customer":"a","tone":"dry"},"tools":[{}]}',
            b'{"messages":[{"role":"user","content":[{"type":"text","text":"\\ud83d"}]}],"stream_options":{"include_usage":true},"n":2}',
        ],
    ),
    "completion": Reader(_completion, ['{"prompt":["a é"],"suffix":null,"n":1,"stream":false}'.encode()]),
    "response": Reader(
        _response,
        [
            (
                b'{"input":[{"role":"user","content":[{"type":"input_text","text":"x"}]},{"type":"function_call","call_id":"c","name":"f",'
                b'"arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"o"}],"instructions":"i","tools":[{"type":"function",'
                b'"name":"f","parameters":{}}],"text":{"format":{"type":"text"}}}'
            ),
            b'{"input":"x","reasoning":{"\\udfff":1}}',
        ],
    ),
    "embedding": Reader(_embedding, [b'{"input":["a"],"model":"e"}']),
    "events": Reader(_events, [b'\x09data: {"a":1}\n\ndata: x\r\n\r\n: c\n\nevent: e\ndata\n\n']),
    "stream": Reader(
        _stream,
        [
            (
                b'data: {"choices":[{"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}\n\ndata: {"choices":[{"delta":'
                b'{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]},"finish_reason":"tool_calls"}],"usage":'
                b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\ndata: [DONE]\n\n'
            )
        ],
    ),
    "whole": Reader(
        _whole,
        [
            (
                b'{"id":"a","choices":[{"index":0,"message":{"role":"assistant","content":"x","tool_calls":[{"id":"c","type":"function",'
                b'"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,'
                b'"total_tokens":3}}'
            )
        ],
    ),
    "knowledge": Reader(_knowledge, [b"entries:\n- id: a\n  questions: [How?]\n  answer: So.\n"]),
    "rules": Reader(_rules, [b"entries:\n- when: request.text.matches('(?i)x') && request.locale == 'de'\n  answer: A\n"]),
}
