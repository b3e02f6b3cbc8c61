"""OpenTelemetry's spans of requests: a SERVER span for each, a CLIENT span for each attempt at a model and each hop to another revision.

Knows how OpenTelemetry's conventions for HTTP and for GenAI name what a request, a model and an answer are. What is in a prompt or an
answer is in no span, nor is a key, a header of the caller's or the query of a URL: spans say what the configuration, the answer's
`x-backstop-` headers and figures say. Imports `opentelemetry`, and is imported where traces are collected only.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, assert_never

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ..api.metricnames import FailureMode, Outcome
from .body import ChatRequest
from .chain import outcome_of
from .client import Place
from .errors import Failure
from .revision import ModelTier, Revision
from .sse import EventSplitter
from .tracing import Attempt, Came, Hop, Said, Untraced
from .upstream import Failed, PassedBack, Streaming, Whole
from .usage import MOST_TOKENS

_CONTEXT: Final = TraceContextTextMapPropagator()
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
# What an answer's headers say, as attributes.
_SAID: Final = {
    b"x-backstop-revision": "backstop.revision",
    b"x-backstop-prompt-version": "backstop.prompt_version",
    b"x-backstop-track": "backstop.track",
    b"x-backstop-tier": "backstop.tier",
    b"x-backstop-model": "backstop.model",
    b"x-backstop-cache": "backstop.cache",
    b"x-backstop-reason": "backstop.reason",
    b"x-backstop-attempts": "backstop.attempts",
    b"x-backstop-hand-offs": "backstop.hand_offs",
}
_COUNTS: Final = ("backstop.attempts", "backstop.hand_offs")
# Whose flavour of telemetry a host speaks, by the conventions' names; all others speak OpenAI's API, and so its flavour.
_PROVIDERS: Final = {
    r"api\.anthropic\.com": "anthropic",
    r"bedrock-[a-z]+\..+\.amazonaws\.com": "aws.bedrock",
    r".+\.openai\.azure\.com": "azure.ai.openai",
    r".+\.services\.ai\.azure\.com": "azure.ai.inference",
    r"api\.cohere\.(com|ai)": "cohere",
    r"api\.deepseek\.com": "deepseek",
    r"generativelanguage\.googleapis\.com": "gcp.gemini",
    r"(.+-)?aiplatform\.googleapis\.com": "gcp.vertex_ai",
    r"api\.groq\.com": "groq",
    r".+\.ml\.cloud\.ibm\.com": "ibm.watsonx.ai",
    r"api\.mistral\.ai": "mistral_ai",
    r"api\.perplexity\.ai": "perplexity",
    r"api\.x\.ai": "x_ai",
}
_FIGURES: Final[Mapping[str, tuple[str, type[int] | type[float]]]] = {
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "max_completion_tokens": ("gen_ai.request.max_tokens", int),
    "n": ("gen_ai.request.choice.count", int),
    "seed": ("gen_ai.request.seed", int),
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
}
# One that fits into an attribute, however it is read.
_FIGURE: Final = re.compile(rb"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_ONE_CHOICE: Final = ("n", b"1")  # which is what everybody wants
# What a target may call its model, its answer, and why that ended: no room for a sentence.
_WORD: Final = re.compile(r"[-A-Za-z0-9._:/@+]{1,128}")
_EMBEDDINGS: Final = "/embeddings"

Attributes = dict[str, AttributeValue]


class _Choice(msgspec.Struct):
    finish_reason: Any = None


class _Tokens(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _Answer(msgspec.Struct):
    id: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: _Tokens | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class Spans:
    """Makes the spans of one gateway's requests. `address` gives `host:port` of a revision's pods."""

    def __init__(self, revision: Revision, *, tracer: Tracer, address: Callable[[str], str]) -> None:
        self.tracer = tracer
        self.address = address
        self._constant: Attributes = {
            "url.scheme": "http",
            "backstop.namespace": revision.namespace,
            "backstop.policy": revision.policy,
            "backstop.revision": revision.name,
            "backstop.prompt_version": revision.prompt_version,
        }
        self._tiers = {_key(t): _of_tier(t) for t in (*revision.tiers, *revision.embedding_tiers) if isinstance(t, ModelTier)}

    def begin(
        self, headers: Mapping[str, str], *, method: str, version: str, path: str | None, identity: str, reply: Said
    ) -> "RequestSpan":
        """As of `Tracing`."""
        known = method if method in _METHODS else "_OTHER"
        attributes: Attributes = {
            **self._constant,
            "http.request.method": known,
            "network.protocol.version": version,
            "backstop.request_id": identity,
        }
        if path is not None:  # of what is not offered nobody knows what it holds
            attributes["url.path"] = attributes["http.route"] = path
        word = "HTTP" if known == "_OTHER" else known
        parent = _CONTEXT.extract(headers, context=Context())
        span = self.tracer.start_span(
            word if path is None else f"{word} {path}", context=parent, kind=SpanKind.SERVER, attributes=attributes
        )
        return RequestSpan(self, span=span, reply=reply)

    def of_tier(self, tier: ModelTier) -> tuple[str, Attributes]:
        """Name and attributes of what is asked of a tier."""
        return self._tiers[_key(tier)]


class RequestSpan:
    """A request: its own span, and those of what is asked for its sake. A context manager, which ends them."""

    def __init__(self, spans: Spans, *, span: Span, reply: Said) -> None:
        self._spans = spans
        self._span = span
        self._reply = reply
        self._inside = set_span_in_context(span, Context())
        self._asked: list[AttemptSpan | HopSpan] = []
        self._outcome: Outcome | None = None

    def __enter__(self) -> "RequestSpan":
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        for asked in self._asked:
            asked.given_up()
        if not self._span.is_recording():
            return
        attributes, status, failure = _said(self._reply.said), self._reply.status, ""
        if kind is not None and issubclass(kind, Exception):  # a mistake of ours
            status, failure = status or HTTPStatus.INTERNAL_SERVER_ERROR, kind.__name__
        if status:
            attributes["http.response.status_code"] = int(status)
        if self._outcome is not None:
            attributes["backstop.outcome"] = self._outcome.value
        if not failure and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            failure = str(status)
        if not failure and self._outcome is Outcome.TRUNCATED:
            failure = self._outcome.value
        _end(self._span, attributes, failure=failure)

    @property
    def headers(self) -> Mapping[str, str]:
        """As of `Trace`."""
        return _carried(self._inside)

    def ask(self, tier: ModelTier, *, request: ChatRequest) -> Attempt:
        """As of `Trace`."""
        if not self._span.is_recording():
            return Untraced(self.headers)
        name, attributes = self._spans.of_tier(tier)
        asked = AttemptSpan(self._start(name, attributes={**attributes, **_wanted(request)}))
        self._asked.append(asked)
        return asked

    def hop(self, revision: str, *, path: str) -> Hop:
        """As of `Trace`."""
        if not self._span.is_recording():
            return Untraced(self.headers)
        url = f"http://{self._spans.address(revision)}{path}"
        attributes = {"http.request.method": "POST", "url.full": url, "url.template": path, "backstop.revision": revision, **_place(url)}
        asked = HopSpan(self._start(f"POST {path}", attributes=attributes))
        self._asked.append(asked)
        return asked

    def counted(self, outcome: Outcome) -> None:
        """As of `Trace`."""
        self._outcome = outcome

    def _start(self, name: str, *, attributes: Attributes) -> Span:
        return self._spans.tracer.start_span(name, context=self._inside, kind=SpanKind.CLIENT, attributes=attributes)


class AttemptSpan:
    """An attempt at a model, to the end of its answer. What is said of it after its end is not heard."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._first = 0.0
        self.headers = _carried(set_span_in_context(span, Context()))

    def came(self, result: Came, *, seconds: float) -> None:
        """As of `Attempt`."""
        outcome = outcome_of(result)
        match result:
            case Streaming():
                self._first = seconds
                result.on_close = self._closed
            case Whole(body=body):
                self._end(outcome, attributes=_of_answer(body))
            case PassedBack(status=status):
                self._end(outcome, attributes={"http.response.status_code": status}, failure=str(status))
            case Failed(failure=Failure(mode=mode, status=status)):
                known: Attributes = {} if status is None else {"http.response.status_code": status}
                self._end(outcome, attributes=known, failure=mode.value if status is None else str(status))
            case None:
                self.given_up()
            case _:
                assert_never(result)

    def given_up(self) -> None:
        """Nobody waits for it any more."""
        self._end(outcome_of(None), attributes={})

    def _closed(self, stream: Streaming) -> None:
        attributes: Attributes = {**_of_stream(stream), "gen_ai.response.time_to_first_chunk": self._first}
        if stream.ended:
            self._end(Outcome.SUCCESS, attributes=attributes)
        elif stream.broke_off or stream.was_late:
            mode = FailureMode.LATENCY_BREACH if stream.was_late else FailureMode.DEPENDENCY_FAILURE
            self._end(Outcome.TRUNCATED, attributes=attributes, failure=mode.value)
        else:
            self._end(outcome_of(None), attributes=attributes)

    def _end(self, outcome: str, *, attributes: Attributes, failure: str = "") -> None:
        if self._span.is_recording():
            _end(self._span, {**attributes, "backstop.outcome": str(outcome)}, failure=failure)


class HopSpan:
    """A request that another revision's pod answers."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers = _carried(set_span_in_context(span, Context()))

    def over(self, *, status: int | None = None, failure: str = "") -> None:
        """As of `Hop`."""
        if self._span.is_recording():
            refused = status is not None and status >= HTTPStatus.BAD_REQUEST
            _end(self._span, {} if status is None else {"http.response.status_code": status}, failure=str(status) if refused else failure)

    def given_up(self) -> None:
        """Nobody waits for it any more."""
        if self._span.is_recording():
            _end(self._span, {"backstop.outcome": outcome_of(None)}, failure="")


def _end(span: Span, attributes: Attributes, *, failure: str) -> None:
    if failure:
        attributes["error.type"] = failure
        span.set_status(Status(StatusCode.ERROR))
    span.set_attributes(attributes)
    span.end()


def _carried(context: Context) -> dict[str, str]:
    """The headers that hand a trace on."""
    headers: dict[str, str] = {}
    _CONTEXT.inject(headers, context=context)
    return headers


def _key(tier: ModelTier) -> tuple[str, str]:
    return tier.name, tier.url


def _of_tier(tier: ModelTier) -> tuple[str, Attributes]:
    operation = "embeddings" if tier.url.endswith(_EMBEDDINGS) else "chat"
    place = _place(tier.url)
    host = str(place["server.address"])
    return f"{operation} {tier.model}", {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": next((name for pattern, name in _PROVIDERS.items() if re.fullmatch(pattern, host)), "openai"),
        "gen_ai.request.model": tier.model,
        "backstop.tier": tier.name,
        **place,
    }


def _place(url: str) -> Attributes:
    place = Place.of(url)
    return {"server.address": place.host, "server.port": place.port}


def _wanted(request: ChatRequest) -> Attributes:
    """What is asked of a model beside the text, as far as it is figures."""
    wanted: Attributes = {"gen_ai.request.stream": True} if request.wanted.stream else {}
    for member, (name, kind) in _FIGURES.items():
        raw = request.members.get(member, b"")
        if _FIGURE.fullmatch(raw) and (kind is float or raw.isdigit()) and (member, raw) != _ONE_CHOICE:
            wanted[name] = kind(raw)
    return wanted


def _of_answer(body: bytes) -> Attributes:
    """What a whole answer, or an event of a stream, says of itself."""
    try:
        answer = _read(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors too
        return {}
    attributes = _words(model=answer.model, identity=answer.id, reasons=[choice.finish_reason for choice in answer.choices or ()])
    if answer.usage is not None:
        attributes |= _tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    return attributes


def _read(body: bytes) -> _Answer:
    try:
        return _ANSWER.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # JSON that msgspec refuses: lone surrogates, which models cut in two between tokens
        return msgspec.convert(json.loads(body), _Answer)


def _of_stream(stream: Streaming) -> Attributes:
    first = next((event.data for event in EventSplitter().feed(stream.head) if event.data is not None), b"")
    attributes = _of_answer(first) | _words(reasons=stream.finish_reasons)
    if stream.usage is not None:
        attributes |= _tokens(stream.usage.input, stream.usage.output)
    return attributes


def _words(*, model: object = None, identity: object = None, reasons: Sequence[object] = ()) -> Attributes:
    """What is as short as a name; a target may say anything."""
    said = {"gen_ai.response.model": model, "gen_ai.response.id": identity}
    words: Attributes = {name: word for name, word in said.items() if isinstance(word, str) and _WORD.fullmatch(word)}
    known = [reason for reason in reasons if isinstance(reason, str) and _WORD.fullmatch(reason)]
    return words | ({"gen_ai.response.finish_reasons": known} if known else {})


def _tokens(asked: object, answered: object) -> Attributes:
    said = {"gen_ai.usage.input_tokens": asked, "gen_ai.usage.output_tokens": answered}
    return {name: count for name, count in said.items() if type(count) is int and 0 <= count <= MOST_TOKENS}


def _said(headers: Sequence[tuple[bytes, bytes]]) -> Attributes:
    """What the caller was told."""
    attributes: Attributes = {}
    for header, raw in headers:
        if (name := _SAID.get(header)) is not None:
            attributes[name] = int(raw) if name in _COUNTS and raw.isdigit() else raw.decode(errors="replace")
    return attributes
