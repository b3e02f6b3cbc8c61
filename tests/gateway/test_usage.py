"""How many tokens answers took: read from what models say, told to the entry, counted there once, and never made up."""

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backstop.api.record import RevisionRecord
from backstop.gateway.compilation import compile_revision
from backstop.gateway.entrymetrics import KEPT_REVISIONS, KEPT_TARGETS
from backstop.gateway.metrics import GatewayMetrics
from backstop.gateway.usage import MOST_TOKENS, ModelUse, Usage, comment, heard, heard_comment, told, usage_in
from e2e.fakemodel.script import Fault, Rule

from .harness import Gateway, Gateways, Model, TrafficApi, answering, make_record, model_tier, state, static_tier

ASKS: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
TARGET = "primary@0a1b2c3d"


def answer(usage: Any) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hm."}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})


def usage(prompt: Any, completion: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}


ODD: list[Any] = [
    None,
    [],
    "10",
    {},
    {"prompt_tokens": 3},
    usage(-1, 2),
    usage(1, -2),
    usage("1", 2),
    usage(1.5, 2),
    usage(1.0, 2),
    usage(True, 2),
    usage(None, 2),
    usage(1, MOST_TOKENS + 1),
    usage(10**400, 2),
]


@pytest.mark.parametrize("odd", ODD)
def test_a_usage_that_cannot_be_one_is_unknown(odd: Any) -> None:
    assert usage_in(answer(odd).encode()) is None


def test_a_usage_is_read_whatever_stands_around_it() -> None:
    assert usage_in(answer(usage(0, MOST_TOKENS)).encode()) == Usage(0, MOST_TOKENS)
    halves = answer(usage(3, 4) | {"note": "\ud83d"}).encode()
    assert b"\\ud83d" in halves, "half of a surrogate pair"
    assert usage_in(halves) == Usage(3, 4)
    assert usage_in(b'{"choices":[{"delta":{"content":"\\"prompt_tokens\\": 5"}}]}') is None
    assert usage_in(b'{"usage":{"prompt_tokens":1,') is None


@pytest.mark.parametrize(
    "use", [ModelUse(TARGET, usage=None), ModelUse(TARGET, usage=Usage(0, 7)), ModelUse("a@00000000", Usage(10**8, 1))]
)
def test_an_entry_hears_what_it_is_told(use: ModelUse) -> None:
    assert heard(told(use).decode()) == use
    assert heard_comment(comment(use)) == use


@pytest.mark.parametrize(
    "value",
    [None, "", "unknown", "1,2", f"1,2,3 {TARGET}", f"-1,2 {TARGET}", f"1,2 {TARGET} ", "1,2 primary", f"1,2 {TARGET}\n", "1,2 A@0a1b2c3d"],
)
def test_what_nobody_tells_is_not_heard(value: str | None) -> None:
    assert heard(value) is None
    assert heard_comment(f": x-backstop-usag {value}\n\n".encode()) is None


def test_an_entry_does_not_believe_more_than_a_model_is_believed() -> None:
    assert heard(f"999999999,1 {TARGET}") == ModelUse(TARGET, usage=None)


async def counted(gateway: Gateway, revision: str = "") -> dict[str, float]:
    """The analysis series of one revision by type, targets summed up."""
    found: dict[str, float] = {}
    for name in ("backstop_served_usage_total", "backstop_served_tokens_total"):
        for labels, value in (await gateway.metrics(name)).get(name, []):
            if labels["revision"] == (revision or gateway.revision):
                found[labels["type"]] = found.get(labels["type"], 0) + value
    return found


async def test_tokens_are_those_that_the_model_says_of_whole_answers_and_of_streams(model: Model, gateways: Gateways) -> None:
    model.script(Rule(tokens=5))
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    for got in (await gateway.chat(), await gateway.chat(**ASKS)):
        assert got.said("usage") is None
        assert b"x-backstop-usage" not in got.body
    assert await counted(gateway) == {"known": 2, "input": 16, "output": 10}
    assert await gateway.total("backstop_tokens_total", tier="primary", type="input") == 16
    assert await gateway.total("backstop_tokens_total", tier="primary", type="output") == 10
    (labels, _), *_ = (await gateway.metrics("backstop_served_tokens_total"))["backstop_served_tokens_total"]
    assert set(labels) == {"namespace", "policy", "revision", "target", "type"}
    assert labels["target"].startswith("primary@")


async def test_a_stream_whose_caller_did_not_ask_for_its_usage_is_unknown_and_not_zero(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    got = await gateway.chat(stream=True)
    assert all("usage" not in event for event in got.events)
    assert "stream_options" not in model.sent()
    assert await counted(gateway) == {"unknown": 1}
    assert await gateway.total("backstop_tokens_total") == 0


@pytest.mark.parametrize("odd", [None, usage(-1, 2)])
async def test_an_answer_with_an_odd_usage_goes_to_the_caller_as_it_is_and_counts_as_unknown(
    odd: Any, model: Model, gateways: Gateways
) -> None:
    model.script(Rule(error_percent=100, error_status=200, error_body=answer(odd)))
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    assert (await gateway.chat()).json["usage"] == odd
    assert await counted(gateway) == {"unknown": 1}


async def test_the_entry_counts_the_tokens_of_the_revision_that_answered_and_tells_its_caller_nothing_of_it(
    model: Model, gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    model.script(Rule(match="canary", tokens=40), Rule(tokens=5))
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    behind = await gateways.start(canary, api=api)
    for gateway in (entry, behind):
        await gateway.acts_on(2)
    answers = [await entry.chat(), await entry.chat(**ASKS), await entry.chat(stream=True)]
    assert [got.said("track") for got in answers] == ["canary"] * 3
    for got in answers:
        assert got.said("usage") is None
        assert b"x-backstop-usage" not in got.body
    assert answers[1].is_done
    assert await counted(entry, canary.revision) == {"known": 2, "unknown": 1, "input": 16, "output": 80}
    assert await counted(entry, stable.revision) == {}
    assert await counted(behind, canary.revision) == {}, "the canary pod serves, the entry counts"
    assert await behind.total("backstop_tokens_total", type="output") == 80


@pytest.mark.parametrize("options", [None, {"include_usage": False, "include_obfuscation": False}])
async def test_w20_a_model_that_is_asked_for_the_usage_of_all_streams_tells_it_to_those_callers_alone_who_ask_too(
    options: dict[str, bool] | None, model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    tier = model_tier(model.url)
    tier["model"]["askUsage"] = True
    records = [make_record([tier]), make_record([tier], prompt="Another one.")]
    api.write(state(2, stable=records[0].revision, canary=records[1].revision, permille=1000))
    entry, _ = [await gateways.start(record, api=api) for record in records]
    await entry.acts_on(2)
    quiet = await entry.chat(stream=True, stream_options=options)
    assert model.sent()["stream_options"] == (options or {}) | {"include_usage": True}
    assert quiet.is_done
    assert quiet.text == "All is well."
    assert all(event["choices"] and "usage" not in event for event in quiet.events)
    asked = await entry.chat(**ASKS)
    assert (asked.events[-1]["choices"], asked.events[-1]["usage"]["completion_tokens"]) == ([], 3)
    assert await counted(entry, records[1].revision) == {"known": 2, "input": 16, "output": 6}
    await entry.chat()
    assert "stream_options" not in model.sent()


async def test_of_a_stream_that_tells_its_usage_as_it_goes_the_last_word_counts(gateways: Gateways) -> None:
    pieces = [
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage(9, 1)},
        {"choices": [{"index": 0, "delta": {"content": "b"}}], "usage": usage(9, 2)},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None},
    ]
    body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces).encode() + b"data: [DONE]\n\n"
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) as url:
        gateway = await gateways.start(make_record([model_tier(url)]))
        assert (await gateway.chat(stream=True)).text == "ab"
        assert await counted(gateway) == {"known": 1, "input": 9, "output": 2}


async def test_an_answer_that_no_model_gave_took_no_tokens_and_is_not_counted_as_free(model: Model, gateways: Gateways) -> None:
    cached = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1, "ttlSeconds": 60}}}
    gateway = await gateways.start(make_record([model_tier(model.url), cached, static_tier()]))
    await gateway.chat(seed=1)
    assert (await gateway.chat(seed=1)).said("cache") == "hit"
    assert await counted(gateway) == {"known": 1, "input": 8, "output": 3}
    model.script(Rule(error_percent=100))
    assert (await gateway.chat(seed=2)).said("tier") == "static"
    assert await counted(gateway) == {"known": 1, "input": 8, "output": 3}
    model.script()
    assert (await gateway.chat(seed=3, **ASKS)).said("cache") == "miss"
    assert await counted(gateway) == {"known": 2, "input": 16, "output": 6}


async def test_of_callers_that_wait_for_one_answer_only_the_one_that_asked_took_tokens(model: Model, gateways: Gateways) -> None:
    model.script(Rule(tokens=5, latency_milliseconds=200))
    cached = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1, "ttlSeconds": 60}}}
    gateway = await gateways.start(make_record([model_tier(model.url), cached]))
    answers = await asyncio.gather(*(gateway.chat(seed=1) for _ in range(5)))
    assert [got.said("attempts") for got in answers].count("1") == model.fake.total < 5
    assert await counted(gateway) == {"known": model.fake.total, "input": 8 * model.fake.total, "output": 5 * model.fake.total}


async def test_tokens_of_another_tier_are_counted_as_that_tier_s(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(Rule(error_percent=100))
    chain = [model_tier(model.url, firstTokenMilliseconds=1000), model_tier(other_model.url, name="small", model="m2")]
    gateway = await gateways.start(make_record(chain))
    await gateway.chat()
    samples = (await gateway.metrics("backstop_served_usage_total"))["backstop_served_usage_total"]
    assert [(labels["target"].partition("@")[0], labels["type"], value) for labels, value in samples] == [("small", "known", 1)]


def test_what_is_counted_is_bounded_whatever_a_peer_says_and_goes_with_its_revision(stable: RevisionRecord) -> None:
    metrics = GatewayMetrics(compile_revision(stable, environment={}), registry=CollectorRegistry())
    for number in range(40):
        metrics.entry.of("canary").count_usage(ModelUse(f"t{number}@00000000", usage=Usage(1, 2)))
    exported = generate_latest(metrics.registry).decode()
    assert exported.count("backstop_served_usage_total{") == KEPT_TARGETS
    for number in range(2 * KEPT_REVISIONS):
        metrics.entry.prepare(state(number, stable=stable.revision, canary=f"r{number}"))
    exported = generate_latest(metrics.registry).decode()
    assert exported.count("backstop_served_usage_total{") == exported.count("backstop_served_tokens_total{") == 0


async def test_an_answer_that_was_cut_off_says_nothing_of_its_tokens(model: Model, gateways: Gateways) -> None:
    model.script(Rule(tokens=5, fault=Fault.CUT, cut_after_tokens=3))
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    got = await gateway.chat(**ASKS)
    assert not got.is_done
    assert await gateway.total("backstop_served_total", outcome="truncated") == 1
    assert await counted(gateway) == {}
