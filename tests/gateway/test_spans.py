"""What spans are made of, without a network: parents from whatever callers send, providers by their hosts, and figures."""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, from_regex, one_of, sampled_from, text
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from backstop.gateway.body import ChatRequest, Wanted
from backstop.gateway.compilation import compile_revision
from backstop.gateway.revision import ModelTier
from backstop.gateway.spans import Spans
from backstop.gateway.upstream import Whole
from backstop.gateway.wire import lines

from .harness import make_record, model_tier

PARENT = r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]"
REQUEST = ChatRequest(members={}, wanted=Wanted(stream=False, include_usage=False))


class Kept(SpanProcessor):
    """Keeps what has ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@dataclass
class Nothing:
    """A caller who was not answered."""

    status: int = 0
    said: list[tuple[bytes, bytes]] = field(default_factory=list)


def told(
    *, url: str = "models:80", headers: dict[str, str] | None = None, request: ChatRequest = REQUEST, answer: bytes = b"{}"
) -> tuple[dict[str, str], list[ReadableSpan]]:
    """What a model is sent of the trace of one request, and its spans: the attempt's, and the request's own."""
    kept, provider = Kept(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    revision = compile_revision(make_record([model_tier(url)]), environment={})
    spans = Spans(revision, tracer=provider.get_tracer("test"), address=str)
    with spans.begin(headers or {}, method="POST", version="1.1", path=None, identity="a", reply=Nothing()) as trace:
        (tier,) = revision.tiers
        assert isinstance(tier, ModelTier)
        attempt = trace.ask(tier, request=request)
        sent = dict(attempt.headers)
        attempt.came(Whole(answer), seconds=0.1)
    return sent, kept.spans


said = one_of(
    text(max_size=80), from_regex(PARENT, fullmatch=True), from_regex(r"[a-z*/@-]{1,9}=[ -~]{0,9}(,[a-z]=[ -~]{0,9})*", fullmatch=True)
)


@given(dictionaries(sampled_from(["traceparent", "tracestate"]), said))
def test_whatever_a_caller_says_of_a_trace_a_model_is_sent_one_that_is(headers: dict[str, str]) -> None:
    sent, spans = told(headers=headers)
    assert re.fullmatch(f"{PARENT[:-4]}[0-3]", sent["traceparent"])  # a bit beside the one for sampled: its id is a random one
    lines((name.encode(), value.encode()) for name, value in sent.items())  # or nobody could be asked at all
    if re.fullmatch(PARENT, headers.get("traceparent", ""), re.ASCII):
        assert sent["traceparent"].split("-")[1] == headers["traceparent"].split("-")[1]
        assert int(sent["traceparent"][-1]) & 1 == int(headers["traceparent"][-1])
    else:
        assert "tracestate" not in sent
        assert len(spans) == 2
    encode_spans(spans)


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("vllm.models.svc.cluster.local", "openai"),
        ("models-1234.elb.eu-west-1.amazonaws.com", "openai"),
        ("shop.openai.azure.com", "azure.ai.openai"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("api.mistral.ai", "mistral_ai"),
        ("europe-west4-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("generativelanguage.googleapis.com", "gcp.gemini"),
        ("api.x.ai", "x_ai"),
        ("api.x.ai.example.com", "openai"),
    ],
)
def test_a_provider_is_told_by_its_host(host: str, provider: str) -> None:
    _, (attempt, _) = told(url=host)
    assert attempt.attributes is not None
    assert (attempt.attributes["gen_ai.provider.name"], attempt.attributes["server.address"]) == (provider, host)
    assert attempt.attributes["server.port"] == 80


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"temperature": b"0.5", "top_p": b"1", "seed": b"42"}, {"temperature": 0.5, "top_p": 1.0, "seed": 42}),
        ({"n": b"3", "max_completion_tokens": b"9"}, {"choice.count": 3, "max_tokens": 9}),
        ({"n": b"1", "max_tokens": b"null", "seed": b"-1", "temperature": b'"said"', "top_p": b"1e999"}, {}),
        ({"max_tokens": b"9" * 99, "stop": b'["said"]', "user": b'"said"', "presence_penalty": b"-2.0"}, {"presence_penalty": -2.0}),
    ],
)
def test_of_a_request_figures_are_said_and_nothing_else(members: dict[str, bytes], found: dict[str, Any]) -> None:
    _, (attempt, _) = told(request=ChatRequest(members=members, wanted=Wanted(stream=False, include_usage=False)))
    prefix = "gen_ai.request."
    attributes = dict(attempt.attributes or {})
    assert attributes.pop(f"{prefix}model") == "m1"
    assert {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)} == found


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b'{"id":"chatcmpl-1","model":"vendor/m:1@x","choices":[]}', {"id": "chatcmpl-1", "model": "vendor/m:1@x"}),
        (b'{"id":"two words","model":"\\ud83d","choices":[{"finish_reason":"stop"},{}]}', {"finish_reasons": ("stop",)}),
        (b'{"id":1,"model":{},"choices":[{"finish_reason":["stop"]}],"usage":null}', {}),
        (b'{"model":"' + b"m" * 129 + b'"}', {}),
        (b"no JSON", {}),
    ],
)
def test_of_an_answer_names_are_said_and_nothing_longer(answer: bytes, found: dict[str, Any]) -> None:
    _, (attempt, _) = told(answer=answer)
    prefix = "gen_ai.response."
    assert {n.removeprefix(prefix): value for n, value in (attempt.attributes or {}).items() if n.startswith(prefix)} == found


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        (b'{"prompt_tokens":3,"completion_tokens":0}', {"input_tokens": 3, "output_tokens": 0}),
        (b'{"prompt_tokens":-3,"completion_tokens":true}', {}),
        (b'{"prompt_tokens":1e99,"completion_tokens":"7"}', {}),
        (b'{"prompt_tokens":5}', {"input_tokens": 5}),
    ],
)
def test_tokens_are_whole_numbers_that_can_be_some(usage: bytes, found: dict[str, int]) -> None:
    _, (attempt, _) = told(answer=b'{"usage":' + usage + b"}")
    prefix = "gen_ai.usage."
    assert {n.removeprefix(prefix): value for n, value in (attempt.attributes or {}).items() if n.startswith(prefix)} == found
