"""Traces over real sockets: whose child a span is, what it says, and that no collector, nor the lack of one, is felt by callers."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backstop.api.record import RevisionRecord
from backstop.gateway.traceoptions import TraceSettings, trace_settings
from e2e.fakemodel.script import Fault, Rule
from tests.certificates import Authority

from .collector import Collected, Collector, collecting
from .harness import (
    NOBODY,
    REPLY_WITHIN,
    USER,
    ExactTarget,
    Gateway,
    GatewayProcess,
    Gateways,
    Model,
    TrafficApi,
    eventually,
    gateway_process,
    listening,
    make_record,
    model_tier,
    state,
    static_tier,
)

CHAT = "POST /v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "rojo=1,congo=t61"}


def towards(address: str, **more: str) -> TraceSettings:
    """Settings from an environment; `more` without their prefix."""
    soon = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    settings = trace_settings(soon | {f"OTEL_{name}": value for name, value in more.items()})
    assert settings is not None
    return settings


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


def parent_sent(model: Model) -> tuple[str, str, str]:
    """Trace, parent and flags that a model was told."""
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", model.fake.requests[-1]["headers"]["traceparent"])
    assert found
    return found[1], found[2], found[3]


def said(span: Collected, *names: str) -> list[Any]:
    return [span.attributes.get(name) for name in names]


async def test_a_request_is_the_child_of_its_callers_span_and_the_parent_of_the_attempt_that_the_model_is_told(
    collector: Collector, model: Model, gateways: Gateways
) -> None:
    record = make_record([model_tier(model.url)], model={"parameters": {"temperature": "0.25", "maxTokens": 64}})
    gateway = await gateways.start(record, traces=towards(collector.address))
    got = await gateway.chat(headers=SAMPLED, seed=7)
    server, client = await collector.whole(CHAT, "chat m1")
    assert (server.kind, server.trace, server.parent, server.state) == ("SERVER", TRACE, CALLER, SAMPLED["tracestate"])
    assert (client.kind, client.trace, client.parent, client.state) == ("CLIENT", TRACE, server.id, SAMPLED["tracestate"])
    assert parent_sent(model) == (TRACE, client.id, "01")
    assert model.fake.requests[-1]["headers"]["tracestate"] == SAMPLED["tracestate"]
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "backstop.namespace": "default",
        "backstop.policy": "support",
        "backstop.revision": gateway.revision,
        "backstop.prompt_version": "support-1",
        "backstop.request_id": got.said("request-id"),
        "backstop.track": "stable",
        "backstop.tier": "primary",
        "backstop.model": "m1",
        "backstop.attempts": 1,
        "backstop.hand_offs": 0,
        "backstop.outcome": "success",
    }
    host, port = model.url.split(":")
    assert client.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m1",
        "gen_ai.request.temperature": 0.25,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": got.json["model"],
        "gen_ai.response.id": got.json["id"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": got.json["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": got.json["usage"]["completion_tokens"],
        "server.address": host,
        "server.port": int(port),
        "backstop.tier": "primary",
        "backstop.outcome": "success",
    }
    assert (server.failed, client.failed) == (False, False)
    assert 0 < client.seconds <= server.seconds < 10


async def test_without_a_caller_that_traces_a_trace_begins_here(collector: Collector, model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]), traces=towards(collector.address))
    await gateway.chat()
    # What is none begins another one, and its state goes nowhere.
    await gateway.chat(headers={"traceparent": f"00-{'0' * 32}-{CALLER}-01", "tracestate": "a=b"})
    spans = await collector.until(lambda spans: len(spans) == 4)
    servers = [span for span in spans if span.kind == "SERVER"]
    assert [(span.parent, span.state) for span in servers] == [("", "")] * 2
    assert len({span.trace for span in spans}) == 2
    assert {(span.trace, span.parent) for span in spans if span.kind == "CLIENT"} == {(span.trace, span.id) for span in servers}
    assert "tracestate" not in model.fake.requests[-1]["headers"]


@pytest.mark.parametrize(
    ("sampler", "flag", "sampled"),
    [
        ({}, "00", False),
        ({"TRACES_SAMPLER": "always_off"}, "01", False),
        ({"TRACES_SAMPLER": "parentbased_traceidratio", "TRACES_SAMPLER_ARG": "0"}, None, False),
        ({"TRACES_SAMPLER": "parentbased_traceidratio", "TRACES_SAMPLER_ARG": "0"}, "01", True),
        ({"TRACES_SAMPLER": "always_on"}, "00", True),
        ({"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "1"}, "00", True),
    ],
)
async def test_who_samples_is_heeded_and_models_are_told(
    collector: Collector, model: Model, gateways: Gateways, sampler: dict[str, str], flag: str | None, sampled: bool
) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]), traces=towards(collector.address, **sampler))
    headers = {} if flag is None else {"traceparent": f"00-{TRACE}-{CALLER}-{flag}"}
    assert (await gateway.chat(headers=headers)).status == 200
    trace, parent, told = parent_sent(model)
    assert int(told, 16) & 1 == sampled
    assert (trace == TRACE) is (flag is not None)
    await gateway.stop()
    assert [span.id for span in collector.spans if span.kind == "CLIENT"] == ([parent] if sampled else [])
    assert bool(collector.asked) is sampled


async def test_each_attempt_has_a_span_and_one_that_failed_says_how(
    collector: Collector, target: ExactTarget, model: Model, gateways: Gateways
) -> None:
    target.says('{"error": {"message": "no"}}', status=503)
    target.says("no answer", then=True)
    chain = [
        model_tier(target.url, model="m0", firstTokenMilliseconds=2000) | {"retries": 1},
        model_tier(model.url, name="second", model="m2"),
    ]
    gateway = await gateways.start(make_record(chain), traces=towards(collector.address))
    assert (await gateway.chat()).said("tier") == "second"
    server, *clients = await collector.whole(CHAT, "chat m0", "chat m0", "chat m2")
    kinds = ("error.type", "http.response.status_code", "backstop.outcome", "backstop.tier")
    assert [(span.failed, *said(span, *kinds)) for span in clients] == [
        (True, "503", 503, "ResourceExhaustion", "primary"),
        (True, "MalformedAnswer", None, "MalformedAnswer", "primary"),
        (False, None, None, "success", "second"),
    ]
    assert {span.parent for span in clients} == {server.id}
    assert len({seen.headers["traceparent"] for seen in target.seen}) == 2
    assert said(server, "backstop.reason", "backstop.hand_offs", "backstop.attempts", "error.type") == ["MalformedAnswer", 1, 3, None]


async def test_a_request_that_nobody_answers_is_an_error_and_one_that_is_wrong_is_the_callers(
    collector: Collector, model: Model, gateways: Gateways
) -> None:
    chain = [model_tier(model.url, firstTokenMilliseconds=50)]
    gateway = await gateways.start(make_record(chain, budget=50), traces=towards(collector.address))
    model.script(Rule(fault=Fault.HANG))
    assert (await gateway.chat()).status == 504
    server, client = await collector.whole(CHAT, "chat m1")
    assert (server.failed, client.failed) == (True, True)
    assert said(server, "error.type", "backstop.outcome", "backstop.reason") == ["504", "error", "LatencyBreach"]
    assert said(client, "error.type", "backstop.outcome") == ["LatencyBreach", "LatencyBreach"]

    collector.spans.clear()
    patient = await gateways.start(make_record([model_tier(model.url)]), traces=towards(collector.address))
    model.script(Rule(error_percent=100, error_status=400))
    assert (await patient.chat()).status == 400
    server, client = await collector.whole(CHAT, "chat m1")
    assert (server.failed, client.failed) == (False, True)
    assert said(client, "error.type", "http.response.status_code", "backstop.outcome") == ["400", 400, "passed_back"]
    assert said(server, "error.type", "http.response.status_code", "backstop.outcome") == [None, 400, "caller_error"]

    collector.spans.clear()
    assert (await patient.post(b"[")).status == 400
    (server,) = await collector.whole(CHAT)
    assert said(server, "http.response.status_code", "backstop.outcome", "backstop.tier") == [400, "caller_error", None]


async def test_a_stream_lasts_to_its_end_and_says_what_it_took(collector: Collector, model: Model, gateways: Gateways) -> None:
    model.script(Rule(tokens=12, latency_milliseconds=30, token_interval_milliseconds=5))
    gateway = await gateways.start(make_record([model_tier(model.url)]), traces=towards(collector.address))
    got = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert got.is_done
    server, client = await collector.whole(CHAT, "chat m1")
    usage = got.events[-1]["usage"]
    assert said(client, "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens") == [usage["prompt_tokens"], usage["completion_tokens"]]
    named = ("gen_ai.response.model", "gen_ai.response.id", "gen_ai.response.finish_reasons", "gen_ai.request.stream", "backstop.outcome")
    assert said(client, *named) == [got.events[0]["model"], got.events[0]["id"], ["stop"], True, "success"]
    assert 0.025 < client.attributes["gen_ai.response.time_to_first_chunk"] < client.seconds <= server.seconds
    assert said(server, "http.response.status_code", "backstop.outcome") == [200, "success"]


@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault.CUT, "DependencyFailure"), (Fault.STALL, "LatencyBreach"), (Fault.GARBAGE, "DependencyFailure")]
)
async def test_a_stream_that_breaks_off_is_an_error_of_both(
    collector: Collector, model: Model, gateways: Gateways, fault: Fault, kind: str
) -> None:
    model.script(Rule(tokens=60, fault=fault, cut_after_tokens=40))
    gateway = await gateways.start(
        make_record([model_tier(model.url, stallMilliseconds=200 if fault is Fault.STALL else 5000)]), traces=towards(collector.address)
    )
    assert not (await gateway.chat(stream=True)).is_done
    server, client = await collector.whole(CHAT, "chat m1")
    assert (server.failed, client.failed) == (True, True)
    assert said(client, "error.type", "backstop.outcome") == [kind, "truncated"]
    assert said(server, "error.type", "http.response.status_code", "backstop.outcome") == ["truncated", 200, "truncated"]


async def test_who_finishes_a_stream_has_a_span_too(collector: Collector, model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(Rule(tokens=60, fault=Fault.CUT, cut_after_tokens=40))
    other_model.script(Rule(tokens=60))
    chain = [model_tier(model.url, firstTokenMilliseconds=2000), model_tier(other_model.url, name="second", model="m2")]
    gateway = await gateways.start(make_record(chain, stream={"onInterruption": "Continue"}), traces=towards(collector.address))
    assert (await gateway.chat(stream=True)).is_done
    server, first, second = await collector.whole(CHAT, "chat m1", "chat m2")
    assert [(span.failed, *said(span, "backstop.outcome")) for span in (server, first, second)] == [
        (False, "success"),
        (True, "truncated"),
        (False, "success"),
    ]
    assert (first.parent, second.parent) == (server.id, server.id)
    assert parent_sent(other_model)[1] == second.id


@pytest.mark.parametrize("stream", [False, True])
async def test_a_race_that_was_lost_ends_without_an_error(
    collector: Collector, model: Model, other_model: Model, gateways: Gateways, stream: bool
) -> None:
    model.script(Rule(fault=Fault.HANG))
    hedged = model_tier(model.url, firstTokenMilliseconds=60_000) | {"hedgeAfterMilliseconds": 20}
    chain = [hedged, model_tier(other_model.url, name="second", model="m2", firstTokenMilliseconds=60_000)]
    gateway = await gateways.start(make_record(chain, budget=180_000), traces=towards(collector.address))
    assert (await gateway.chat(stream=stream)).said("reason") == "Hedge"
    server, lost, won = await collector.whole(CHAT, "chat m1", "chat m2")
    assert [(span.failed, span.parent, *said(span, "backstop.outcome", "error.type")) for span in (lost, won)] == [
        (False, server.id, "cancelled", None),
        (False, server.id, "success", None),
    ]
    assert said(server, "backstop.reason", "backstop.tier") == ["Hedge", "second"]


async def test_a_caller_that_leaves_ends_the_hop_too(
    collector: Collector, gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model
) -> None:
    model.script(Rule(fault=Fault.HANG))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api, traces=towards(collector.address))
    behind = await gateways.start(canary, api=api)
    await entry.acts_on(3)
    await behind.acts_on(3)
    asking = asyncio.create_task(entry.chat())

    async def asked() -> bool:
        return model.fake.total == 1

    await eventually(asked)
    asking.cancel()
    spans = await collector.until(lambda spans: len(spans) == 2)
    assert sorted((span.kind, span.failed, *said(span, "backstop.outcome")) for span in spans) == [
        ("CLIENT", False, "cancelled"),
        ("SERVER", False, "cancelled"),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_is_nobodys_error(
    collector: Collector, model: Model, gateways: Gateways, http: aiohttp.ClientSession, stream: bool
) -> None:
    model.script(Rule(fault=Fault.STALL, tokens=9, cut_after_tokens=3) if stream else Rule(fault=Fault.HANG))
    gateway = await gateways.start(make_record([model_tier(model.url)], budget=60_000), traces=towards(collector.address))
    body = {"model": "any", "messages": [USER], "stream": stream}
    asking = asyncio.create_task(http.post(f"http://{gateway.address}/v1/chat/completions", json=body))

    async def asked() -> bool:
        return model.fake.total == 1

    await eventually(asked)
    if stream:
        response = await asking
        await response.content.readany()
        response.close()
    else:
        asking.cancel()
    server, client = await collector.whole(CHAT, "chat m1")
    assert [(span.failed, *said(span, "backstop.outcome", "error.type")) for span in (server, client)] == [(False, "cancelled", None)] * 2
    assert said(server, "http.response.status_code") == [200 if stream else None]


async def test_what_no_model_was_asked_for_has_one_span(collector: Collector, model: Model, gateways: Gateways) -> None:
    chain = [model_tier(model.url), {"name": "cache", "cache": {"hot": {"ttlSeconds": 60}, "staleIfErrorSeconds": 60}}, static_tier()]
    gateway = await gateways.start(make_record(chain), traces=towards(collector.address))
    assert (await gateway.chat()).said("cache") == "miss"
    await collector.whole(CHAT, "chat m1")
    collector.spans.clear()
    assert (await gateway.chat()).said("cache") == "hit"
    (server,) = await collector.whole(CHAT)
    assert said(server, "backstop.cache", "backstop.tier", "backstop.attempts") == ["hit", "cache", 0]

    collector.spans.clear()
    still = await gateways.start(make_record([static_tier()]), traces=towards(collector.address))
    assert (await still.chat(stream=True)).text == "Not now."
    (server,) = await collector.whole(CHAT)
    assert said(server, "backstop.model", "backstop.outcome") == ["backstop/static", "success"]


async def test_embeddings_are_named_as_such(collector: Collector, gateways: Gateways, target: ExactTarget) -> None:
    target.says('{"data":[{"embedding":[1]}],"model":"e-1-large","usage":{"prompt_tokens":5,"total_tokens":5}}')
    gateway = await gateways.start(make_record([model_tier(target.url, vectors="e-1")]), traces=towards(collector.address))
    assert (await gateway.post(b'{"input":"x"}', path="/v1/embeddings")).status == 200
    server, client = await collector.whole("POST /v1/embeddings", "embeddings e-1")
    named = ("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.response.model", "gen_ai.usage.input_tokens")
    assert said(client, *named) == ["embeddings", "e-1", "e-1-large", 5]
    assert server.attributes["backstop.outcome"] == "success"


async def test_what_is_not_offered_has_a_span_without_its_path(
    collector: Collector, gateways: Gateways, http: aiohttp.ClientSession, stable: RevisionRecord
) -> None:
    gateway = await gateways.start(stable, traces=towards(collector.address))
    for method, path in (
        ("GET", "/v1/models?key=sk-5ecret"),
        ("POST", "/v1/sk-5ecret"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/models/sk-5ecret"),
        ("GET", "/v1/models/m1"),
        ("BREW", "/v1/models"),
    ):
        async with http.request(method, f"http://{gateway.address}{path}") as response:
            await response.read()
    spans = await collector.until(lambda spans: len(spans) >= 5)
    assert [(span.name, *said(span, "http.response.status_code", "url.path")) for span in spans[:5]] == [
        ("GET /v1/models", 200, "/v1/models"),
        ("POST", 404, None),
        ("DELETE /v1/models", 405, "/v1/models"),
        ("GET", 404, None),
        ("GET /v1/models/m1", 200, "/v1/models/m1"),
    ]
    assert not any(span.failed for span in spans)
    assert b"5ecret" not in collector.raw


async def test_a_trace_goes_on_in_the_pod_of_another_revision(
    collector: Collector, gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    traces = towards(collector.address)
    entry = await gateways.start(stable, api=api, traces=traces)
    behind = await gateways.start(canary, api=api, traces=traces)
    await entry.acts_on(3)
    await behind.acts_on(3)
    assert (await entry.chat(headers=SAMPLED)).said("track") == "canary"
    spans = await collector.until(lambda spans: len(spans) == 4)
    attempt = next(span for span in spans if span.name == "chat m1")
    way = [attempt]
    while (parent := next((span for span in spans if span.id == way[-1].parent), None)) is not None:
        way.append(parent)
    assert [(span.kind, span.name) for span in reversed(way)] == [
        ("SERVER", CHAT),
        ("CLIENT", CHAT),
        ("SERVER", CHAT),
        ("CLIENT", "chat m1"),
    ]
    assert (way[-1].parent, {span.trace for span in way}) == (CALLER, {TRACE})
    hop, served = way[2], way[1]
    assert said(hop, "url.full", "http.request.method", "http.response.status_code", "backstop.revision") == [
        f"http://{behind.address}/v1/chat/completions",
        "POST",
        200,
        canary.revision,
    ]
    for server in (way[3], served):
        assert said(server, "backstop.revision", "backstop.track", "backstop.tier") == [canary.revision, "canary", "primary"]
    assert len({server.attributes["backstop.request_id"] for server in (way[3], served)}) == 1

    collector.spans.clear()
    await behind.stop()
    assert (await entry.chat(headers=SAMPLED)).said("track") == "stable"
    spans = await collector.until(lambda spans: len(spans) == 3)
    (hop,) = [span for span in spans if span.kind == "CLIENT" and span.name == CHAT]
    assert (hop.failed, said(hop, "error.type")) == (True, ["connect_failed"])


SECRETS = ("sk-of-the-target", "Bearer-of-the-caller", "tell-the-model", "said-by-the-caller", "said-by-the-model", "x-of-the-query")


async def test_nothing_that_was_said_and_no_key_is_in_a_span(collector: Collector, gateways: Gateways, target: ExactTarget) -> None:
    choice = {"message": {"content": "said-by-the-model"}, "finish_reason": "said-by-the-model, at length"}
    long = {"model": "said-by-the-model " * 9, "id": "said-by-the-model " * 9, "choices": [choice], "usage": {"prompt_tokens": "said-by"}}
    record = make_record([model_tier(target.url, key=True)], prompt="tell-the-model {{who}}", variables=[{"name": "who"}])
    gateway = await gateways.start(record, keys={"BACKSTOP_API_KEY_0": "sk-of-the-target"}, traces=towards(collector.address))
    headers = {"Authorization": "Bearer-of-the-caller", "x-backstop-var-who": "said-by-the-caller", "baggage": "k=said-by-the-caller"}
    for status, answer in ((200, json.dumps(long)), (400, '{"error": "said-by-the-model"}'), (500, "said-by-the-model")):
        target.says(answer, status=status)
        body = {
            "messages": [{"role": "user", "content": "said-by-the-caller"}],
            "stop": ["said-by-the-caller"],
            "user": "said-by-the-caller",
        }
        await gateway.post(json.dumps(body).encode(), headers=headers, path="/v1/chat/completions?key=x-of-the-query")
    spans = await collector.until(lambda spans: len(spans) == 6)
    assert target.seen[-1].headers["Authorization"] == "Bearer sk-of-the-target"
    assert not [secret for secret in SECRETS if secret.encode() in collector.raw]
    assert [span.attributes["http.response.status_code"] for span in spans if span.kind == "SERVER"] == [200, 400, 502]
    assert "baggage" not in target.seen[-1].headers


async def test_the_collector_is_told_who_sends_and_in_what_way_it_was_asked_for(
    collector: Collector, gateways: Gateways, stable: RevisionRecord
) -> None:
    settings = towards(
        collector.address,
        EXPORTER_OTLP_HEADERS="authorization=Bearer%20of-the-collector,x-tenant=shop",
        SERVICE_NAME="support-gateway",
        RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=other",
    )
    gateway = await gateways.start(stable, traces=settings)
    await gateway.chat()
    (span, _) = await collector.whole(CHAT, "chat m1")
    assert {name: collector.headers[0].get(name) for name in ("authorization", "x-tenant")} == {
        "authorization": "Bearer of-the-collector",
        "x-tenant": "shop",
    }
    assert span.resource["service.name"] == "support-gateway"
    assert span.resource["deployment.environment.name"] == "test"
    assert span.resource["telemetry.sdk.language"] == "python"


async def sent(gateway: Gateway, result: str) -> float:
    return await gateway.total("backstop_spans_total", result=result)


async def test_a_collector_that_refuses_or_is_not_there_is_said_once_and_felt_by_nobody(
    collector: Collector, gateways: Gateways, stable: RevisionRecord, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    collector.status = 401
    gateway = await gateways.start(stable, traces=towards(collector.address))
    for answered in range(1, 4):
        assert (await gateway.chat()).status == 200

        async def failed(spans: int = 2 * answered) -> bool:
            return await sent(gateway, "failed") == spans

        await eventually(failed)
    collector.status = 200
    assert (await gateway.chat()).status == 200
    await collector.whole(CHAT, "chat m1")

    async def counted() -> bool:
        return await sent(gateway, "sent") == 2

    await eventually(counted)
    told = [record.getMessage() for record in caplog.records if "spans" in record.getMessage()]
    assert told == [
        f"spans do not reach `{collector.address}`: it answers 401; requests are answered without them",
        f"spans reach `{collector.address}` again",
    ]

    dead = await gateways.start(stable, traces=towards(NOBODY, EXPORTER_OTLP_TIMEOUT="2000"))
    assert (await dead.chat()).status == 200

    async def given_up() -> bool:
        return await sent(dead, "failed") == 2

    await eventually(given_up)
    assert f"spans do not reach `{NOBODY}`: it cannot be reached, or breaks off" in caplog.text


async def test_a_collector_behind_tls_is_believed_where_its_authority_is_known(
    gateways: Gateways, stable: RevisionRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, collector = Authority("ours", by_the_book=True), Collector()
    (tmp_path / "ca.pem").write_text(authority.pem)
    async with listening(collector.application(), tls=authority.server(tmp_path)) as address:
        there = {"EXPORTER_OTLP_ENDPOINT": f"https://{address}"}
        doubting = await gateways.start(stable, traces=towards(address, **there, EXPORTER_OTLP_TIMEOUT="2000"))
        await doubting.chat()

        async def failed() -> bool:
            return await sent(doubting, "failed") == 2

        await eventually(failed)
        assert f"spans do not reach `{address}`: its certificate is not trusted, or ours is not taken" in caplog.text
        assert collector.spans == []
        knowing = await gateways.start(stable, traces=towards(address, **there, EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "ca.pem")))
        await knowing.chat()
        await collector.whole(CHAT, "chat m1")


@pytest.mark.long
async def test_the_bundle_of_a_revision_vouches_for_its_collector_and_stands_alone(
    http: aiohttp.ClientSession, model: Model, tmp_path: Path
) -> None:
    authority, other, collector = Authority("ours"), Authority("theirs"), Collector()
    chain, traces = [model_tier(model.url)], {"traces": {"caBundleRef": {"name": "authorities", "key": "ca.pem"}}}
    async with listening(collector.application(), tls=authority.server(tmp_path)) as address:
        there = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{address}", "OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "2000"}
        doubting = make_record(chain, serving=traces, contents={"serving/traces": other.pem})
        async with gateway_process(doubting, http=http, folder=tmp_path, environment=there) as running:
            await running.gateway.chat()

            async def failed() -> bool:
                return await sent(running.gateway, "failed") == 2

            await eventually(failed)
            assert collector.spans == []
        knowing = make_record(chain, serving=traces, contents={"serving/traces": authority.pem})
        async with gateway_process(knowing, http=http, folder=tmp_path, environment=there) as running:
            await running.gateway.chat()
            await collector.whole(CHAT, "chat m1")


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_memory_nor_the_end(
    collector: Collector, gateways: Gateways, stable: RevisionRecord, caplog: pytest.LogCaptureFixture
) -> None:
    collector.hold = asyncio.Event()
    at_once = towards(collector.address, BSP_MAX_QUEUE_SIZE="4", BSP_MAX_EXPORT_BATCH_SIZE="2", BSP_SCHEDULE_DELAY="60000")
    gateway = await gateways.start(stable, traces=at_once, grace_seconds=2.0)
    assert (await gateway.chat()).status == 200

    async def asked() -> bool:
        return collector.asked == 1

    await eventually(asked)
    for _ in range(5):
        assert (await gateway.chat()).status == 200
    assert await sent(gateway, "dropped") == 10 - 4, "two of the first request are on their way, and four more may wait"
    assert caplog.text.count("spans are dropped: 4 wait for the collector") == 1
    async with asyncio.timeout(REPLY_WITHIN):
        await gateway.stop()
    assert f"6 spans were not sent to `{collector.address}` before the end of this gateway" in caplog.text


async def test_spans_that_wait_are_sent_before_the_end(collector: Collector, gateways: Gateways, stable: RevisionRecord) -> None:
    gateway = await gateways.start(stable, traces=towards(collector.address, BSP_SCHEDULE_DELAY="60000"))
    await gateway.chat()
    assert collector.asked == 0
    await gateway.stop()
    assert sorted(span.name for span in collector.spans) == [CHAT, "chat m1"]


@pytest.mark.long
async def test_each_request_and_each_attempt_is_one_span_whatever_becomes_of_them(
    collector: Collector, gateways: Gateways, model: Model, other_model: Model
) -> None:
    first = model_tier(model.url, firstTokenMilliseconds=2000, stallMilliseconds=200) | {"retries": 1, "hedgeAfterMilliseconds": 30}
    chain = [first, model_tier(other_model.url, name="second", model="m2"), static_tier()]
    settings = towards(collector.address, BSP_MAX_QUEUE_SIZE="10", BSP_MAX_EXPORT_BATCH_SIZE="5")
    gateway = await gateways.start(make_record(chain, stream={"onInterruption": "Continue"}), traces=settings)
    faults = (Fault.NONE, Fault.CUT, Fault.STALL, Fault.RESET, Fault.MALFORMED, Fault.HANG)
    for fault, status in zip(faults, (200, 400, 200, 400, 200, 200), strict=True):
        model.script(Rule(fault=fault, tokens=9, cut_after_tokens=4, error_percent=30))
        collector.status = status
        await asyncio.gather(*(gateway.chat(stream=number % 2 == 0) for number in range(20)))

    async def told() -> bool:
        spans = [await sent(gateway, result) for result in ("sent", "failed", "dropped")]
        served, attempts = await gateway.total("backstop_requests_total"), await gateway.total("backstop_attempts_total")
        return served == 6 * 20 and sum(spans) == served + attempts and spans[0] == len(collector.spans) > 0

    await eventually(told)
    assert len({span.id for span in collector.spans}) == len(collector.spans)


PROTOBUF = "/google/_upb/"  # the library in C that writes spans


def mapped(running: GatewayProcess) -> str:
    """Files that a process has in its memory."""
    return Path(f"/proc/{running.process.pid}/maps").read_text()


@pytest.mark.long
async def test_a_process_takes_all_of_it_from_its_environment_and_nothing_of_it_without(
    collector: Collector, http: aiohttp.ClientSession, tmp_path: Path, model: Model
) -> None:
    record = make_record([model_tier(model.url)])
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "POD_NAME": "support-1",
        "POD_NAMESPACE": "shop",
    }
    async with gateway_process(record, http=http, folder=tmp_path, environment=environment) as running:
        assert (await running.gateway.chat(headers=SAMPLED)).status == 200
        assert PROTOBUF in mapped(running)
        running.terminate()
        assert await running.process.wait() == 0
    server, _ = await collector.whole(CHAT, "chat m1")
    assert {name: server.resource[name] for name in ("service.name", "k8s.pod.name", "k8s.namespace.name")} == {
        "service.name": "backstop-gateway",
        "k8s.pod.name": "support-1",
        "k8s.namespace.name": "shop",
    }
    assert collector.headers[0]["content-encoding"] == "gzip"
    asked = collector.asked

    off = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}", "OTEL_SDK_DISABLED": "true"}
    async with gateway_process(record, http=http, folder=tmp_path, environment=off) as running:
        assert (await running.gateway.chat(headers=SAMPLED)).status == 200
        assert await running.gateway.metrics("backstop_spans_total") == {}
        assert PROTOBUF not in mapped(running), "nothing of it is imported"
    assert model.fake.requests[-1]["headers"]["traceparent"] == SAMPLED["traceparent"]
    assert collector.asked == asked
