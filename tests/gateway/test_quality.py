"""Answers that are judged: which ones, for whom they count, and that nobody waits for it. Over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from backstop.api.quality import Quality, grounding_digest
from backstop.api.record import RevisionRecord
from backstop.api.residency import Residency
from backstop.gateway.compilation import compile_revision
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Fault, Rule

from .harness import ExactTarget, Gateway, Gateways, Model, TrafficApi, eventually, listening, make_record, model_tier, state, static_tier

FIGURES = {"name": "figures", "type": "NumbersAndLinks"}
INVENTS = "Call 0800 123456 or see https://made-up.example/hours before 10:45."


def judged(*scorers: dict[str, Any], percent: int = 100) -> dict[str, Any]:
    return {"samplePercent": percent, "scorers": list(scorers)}


def record_of(model: Model, *scorers: dict[str, Any], prompt: str = "You are the stable prompt.", percent: int = 100) -> RevisionRecord:
    return make_record([model_tier(model.url)], prompt=prompt, quality=judged(*(scorers or (FIGURES,)), percent=percent))


async def answers_judged(gateway: Gateway, count: int) -> dict[tuple[str, str], float]:
    """Verdicts by (scorer, label), once every scorer has given as many."""
    name = "backstop_quality_samples_total"

    async def look() -> dict[tuple[str, str], float] | None:
        found = {(s["scorer"], s["label"]): v for s, v in (await gateway.metrics(name)).get(name, []) if v}
        by_scorer = {scorer: sum(v for (s, _), v in found.items() if s == scorer) for scorer, _ in found}
        return found if by_scorer and all(total == count for total in by_scorer.values()) else None

    found = await eventually(look)
    assert found is not None
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_makes_figures_up_fails_and_one_that_repeats_those_of_its_request_passes(
    stream: bool, model: Model, gateways: Gateways
) -> None:
    gateway = await gateways.start(record_of(model))
    model.script(Rule(text=INVENTS))
    assert (await gateway.chat(stream=stream)).text == INVENTS
    assert await answers_judged(gateway, 1) == {("figures", "fail"): 1}
    await gateway.chat(stream=stream, messages=[{"role": "user", "content": f"Is this right? {INVENTS}"}])
    assert await answers_judged(gateway, 2) == {("figures", "fail"): 1, ("figures", "pass"): 1}
    digest = grounding_digest(Quality.model_validate(judged(FIGURES)))
    assert await gateway.total("backstop_quality_answers_total", scorers=digest, label="fail", revision=gateway.revision) == 1
    assert await gateway.total("backstop_quality_answers_total", scorers=digest, label="pass", revision=gateway.revision) == 1
    assert await gateway.total("backstop_quality_score_count", scorer="figures") == 2
    assert await gateway.total("backstop_quality_score_sum", scorer="figures") == 1


async def test_an_answer_counts_for_the_revision_that_gave_it_and_once_by_the_pod_that_did(
    model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    records = [record_of(model), record_of(model, prompt="You are the canary prompt.")]
    model.script(Rule(match="canary", text=INVENTS))
    api.write(state(2, stable=records[0].revision, canary=records[1].revision, permille=1000))
    entry, canary = [await gateways.start(record, api=api) for record in records]
    for gateway in (entry, canary):
        await gateway.acts_on(2)
    for stream in (False, True):
        assert (await entry.chat(stream=stream)).said("track") == "canary"
    assert await answers_judged(canary, 2) == {("figures", "fail"): 2}
    assert await canary.total("backstop_quality_answers_total", revision=canary.revision, label="fail") == 2
    assert await entry.total("backstop_quality_samples_total") == 0


async def test_only_what_a_model_gave_to_a_request_that_chance_assigned_is_judged(
    model: Model, gateways: Gateways, api: TrafficApi
) -> None:
    cached = {"name": "kept", "cache": {"hot": {"maxMebibytes": 1, "ttlSeconds": 60}}}
    record = make_record([model_tier(model.url), cached, static_tier()], quality=judged(FIGURES))
    api.write(state(2, stable=record.revision))
    gateway = await gateways.start(record, api=api)
    await gateway.acts_on(2)
    await gateway.chat(seed=1, headers={"x-backstop-pin": record.revision})
    await gateway.chat(seed=2, headers={"x-backstop-deadline-ms": "4000"})
    model.script(Rule(error_percent=100))
    assert (await gateway.chat(seed=3)).said("tier") == "static"
    model.script(Rule(error_percent=100, error_status=400))
    assert (await gateway.chat(seed=4)).status == 400
    model.script(Rule(fault=Fault.CUT, cut_after_tokens=2))
    assert not (await gateway.chat(seed=5, stream=True)).is_done
    assert (await gateway.post(b"{")).status == 400
    model.script(Rule(text="Yes.", latency_milliseconds=100))
    answers = await asyncio.gather(*(gateway.chat(seed=6) for _ in range(4)))
    assert (await gateway.chat(seed=6)).said("cache") == "hit"
    asked = sum(answer.said("attempts") == "1" and answer.said("cache") != "hit" for answer in answers)
    # What was given up above is never offered, so that this is all there will be.
    assert await answers_judged(gateway, asked) == {("figures", "pass"): asked}
    assert (await gateway.status())["quality"] == {"queued": 0, "bytes": 0, "scorers": {}}


async def test_answers_without_a_text_are_skipped_and_odd_ones_hurt_nobody(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)], quality=judged(FIGURES, {"name": "all", "type": "Truncation"})))
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    target.says(json.dumps({"choices": [{"index": 0, "message": call, "finish_reason": "tool_calls"}]}))
    await gateway.chat()
    target.says('{"choices":[{"index":0,"message":{"role":"assistant","content":"half \\ud83d 77"},"finish_reason":"stop"}]}')
    await gateway.chat()
    target.says(
        json.dumps({"choices": [{"index": 0, "message": {"content": "77"}, "finish_reason": "length", "logprobs": {"content": 5}}]})
    )
    await gateway.chat()
    assert await answers_judged(gateway, 3) == {("figures", "skip"): 3, ("all", "skip"): 3}
    target.says(json.dumps({"choices": [{"index": 0, "message": {"content": "77"}, "finish_reason": "length"}]}))
    await gateway.post(
        json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "Is it 77?"}, {"type": "image_url"}]}]}).encode()
    )
    found = await answers_judged(gateway, 4)
    assert (found["figures", "pass"], found["all", "fail"]) == (1, 1)


class Judge:
    """A scorer behind an address, as the how-to describes it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Any = {"label": "pass"}
        self.status = 200
        self.hangs = False

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/score", self._score)
        return app

    async def _score(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.status, text=self.reply if isinstance(self.reply, str) else json.dumps(self.reply))


@pytest.fixture
async def judge() -> AsyncIterator[tuple[Judge, dict[str, Any]]]:
    """A scorer, and how a policy names it."""
    scorer = Judge()
    async with listening(scorer.application()) as address:
        http = {"url": f"http://{address}/score", "timeoutMilliseconds": 20_000, "apiKeyRef": {"name": "judge", "key": "token"}}
        yield scorer, {"name": "judge", "type": "HTTP", "failBelowPercent": 60, "http": http}


KEYS = {"BACKSTOP_SCORER_KEY_1": "key-of-the-judge"}


async def test_a_scorer_of_ones_own_is_asked_with_the_answer_and_what_it_answers(
    judge: tuple[Judge, dict[str, Any]], model: Model, gateways: Gateways
) -> None:
    scorer, declared = judge
    record = record_of(model, FIGURES, declared)
    gateway = await gateways.start(record, keys=KEYS)
    labels: list[dict[str, float]] = []
    for reply in ({"label": "fail", "score": 0.9}, {"score": 0.59}, {"score": 0.6, "why": "?"}, {"label": "skip"}):
        scorer.reply = reply
        await gateway.chat()
        found = await answers_judged(gateway, len(labels) + 1)
        labels.append({label: count for (name, label), count in found.items() if name == "judge"})
    assert labels == [{"fail": 1}, {"fail": 2}, {"fail": 2, "pass": 1}, {"fail": 2, "pass": 1, "skip": 1}]
    assert scorer.keys == ["Bearer key-of-the-judge"] * 4
    assert scorer.asked[0] == {
        "policy": "support",
        "revision": record.revision,
        "prompt_version": "support-1",
        "scorer": "judge",
        "question": "Hello",
        "context": ["You are the stable prompt.", "Hello"],
        "answer": "All is well.",
        "answer_is_cut": False,
    }
    # By both together: figures pass each time, the judge fails two, and what it skips it leaves to the other.
    assert await gateway.total("backstop_quality_answers_total", label="fail") == 2
    assert await gateway.total("backstop_quality_answers_total", label="pass") == 2


async def test_half_a_surrogate_pair_is_no_failure_of_the_scorer(
    judge: tuple[Judge, dict[str, Any]], model: Model, gateways: Gateways
) -> None:
    scorer, declared = judge
    gateway = await gateways.start(record_of(model, FIGURES, declared), keys=KEYS)
    await gateway.post(b'{"messages":[{"role":"user","content":"half \\ud83d"}]}')
    assert (await answers_judged(gateway, 1))["judge", "pass"] == 1
    assert scorer.asked[0]["question"] == "half \ud83d"


async def test_json_is_told_of_answers_that_were_asked_for_as_such(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(record_of(model, {"name": "json", "type": "JSON"}))
    await gateway.chat()
    await gateway.chat(response_format={"type": "json_object"}, stream=True)
    model.script(Rule(text='{"open": 10}'))
    await gateway.chat(response_format={"type": "json_schema", "json_schema": {"name": "hours", "schema": {"type": "object"}}})
    assert await answers_judged(gateway, 3) == {("json", "skip"): 1, ("json", "fail"): 1, ("json", "pass"): 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_shape_is_told_of_answers_whatever_the_callers_schema_says(stream: bool, model: Model, gateways: Gateways) -> None:
    shape = {"definition": '{"type": "object", "properties": {"open": {"type": "string"}}, "required": ["open"]}'}
    scorers = [{"name": "asked", "type": "JSONSchema", "jsonSchema": shape}]
    scorers.append({"name": "all", "type": "JSONSchema", "jsonSchema": shape | {"appliesTo": "AllRequests"}})
    gateway = await gateways.start(record_of(model, *scorers))
    await gateway.chat(stream=stream)
    theirs = {"type": "json_schema", "json_schema": {"name": "hours", "schema": {"type": "object"}}}
    for text in ('{"open": 10}', '{"open": "at ten"}'):
        model.script(Rule(text=text))
        await gateway.chat(stream=stream, response_format=theirs)
    found = await answers_judged(gateway, 3)
    assert found == {("asked", "skip"): 1, ("asked", "fail"): 1, ("asked", "pass"): 1, ("all", "fail"): 2, ("all", "pass"): 1}
    assert await gateway.total("backstop_quality_answers_total") == 0, "a shape says nothing of what is grounded"


async def test_a_scorer_that_gives_no_verdict_makes_answers_neither_good_nor_bad_and_is_left_alone(
    judge: tuple[Judge, dict[str, Any]], model: Model, gateways: Gateways
) -> None:
    scorer, declared = judge
    gateway = await gateways.start(record_of(model, FIGURES, declared), keys=KEYS)
    model.script(Rule(text=INVENTS))
    replies = [(500, {"label": "pass"}), (200, "no JSON"), (200, {"label": "good"}), (200, {"score": 7}), (200, {}), (200, "x" * 70_000)]
    for number, (scorer.status, scorer.reply) in enumerate(replies, start=1):
        await gateway.chat()
        assert (await answers_judged(gateway, number))["judge", "error"] == number
    # After five it is left alone.
    assert len(scorer.asked) == 5
    assert (await gateway.status())["quality"]["scorers"]["judge"]["state"] == "open"
    assert await gateway.total("backstop_quality_answers_total", label="error") == 6
    assert await gateway.total("backstop_quality_answers_total", label="fail") == 0, (
        "though figures are made up, what the judge says is unknown"
    )


async def test_a_reply_that_is_nested_too_deep_is_no_verdict(target: ExactTarget, model: Model, gateways: Gateways) -> None:
    declared = {"name": "judge", "type": "HTTP", "http": {"url": f"http://{target.url}/v1/judge"}}
    gateway = await gateways.start(record_of(model, declared))
    target.says(b'{"label":"pass","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}")
    await gateway.chat()
    assert await answers_judged(gateway, 1) == {("judge", "error"): 1}
    failure = (await gateway.status())["quality"]["scorers"]["judge"]["failure"]
    assert failure == "its reply has neither a `label` nor a `score` that can be one"


async def test_nobody_waits_for_a_scorer_that_hangs(judge: tuple[Judge, dict[str, Any]], model: Model, gateways: Gateways) -> None:
    scorer, declared = judge
    scorer.hangs = True
    hurried = declared | {"http": declared["http"] | {"timeoutMilliseconds": 50}}
    gateway = await gateways.start(record_of(model, FIGURES, hurried), keys=KEYS)
    for _ in range(3):
        assert (await gateway.chat()).status == 200
    assert (await answers_judged(gateway, 3))["judge", "error"] == 3
    assert (await gateway.status())["quality"]["scorers"]["judge"]["failure"] == "it takes too long"


@pytest.mark.parametrize(
    ("url", "keys", "sentence"),
    [
        (
            "http://judge/bewertung-für-alle",
            KEYS,
            "`spec.quality.scorers[1].http.url` holds characters that no URL does; write those of its path as `%` and two digits each",
        ),
        (
            "http://169.254.169.254/score",
            KEYS,
            "`spec.quality.scorers[1].http.url` is a link-local or metadata address, which is never called; name the scorer's own host",
        ),
        (
            "http://judge/score",
            {},
            "`spec.quality.scorers[1].http.apiKeyRef`: it is empty; give the Secret `judge` with `token`, or set `BACKSTOP_SCORER_KEY_1`",
        ),
        (
            "http://judge/score",
            {"BACKSTOP_SCORER_KEY_1": "a\nb"},
            "`spec.quality.scorers[1].http.apiKeyRef`: the key in Secret `judge` holds characters that a header cannot carry",
        ),
    ],
)
def test_a_scorer_that_cannot_be_asked_is_refused_at_the_start(url: str, keys: dict[str, str], sentence: str, model: Model) -> None:
    declared = {"name": "judge", "type": "HTTP", "http": {"url": url, "apiKeyRef": {"name": "judge", "key": "token"}}}
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(record_of(model, FIGURES, declared), environment=keys)
    assert str(refused.value) == sentence


def test_a_schema_that_cannot_be_used_is_refused_at_the_start(model: Model) -> None:
    declared = {"name": "shape", "type": "JSONSchema", "jsonSchema": {"definition": '{"$ref": "https://elsewhere.example"}'}}
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(record_of(model, FIGURES, declared), environment={})
    assert str(refused.value) == (
        "`spec.quality.scorers[1].jsonSchema.definition` cannot be used: it refers to `https://elsewhere.example`, and nothing is fetched; "
        "put that into `$defs`, and write `#/$defs/…`"
    )


async def test_w57_an_answer_that_may_not_leave_its_jurisdiction_is_sent_to_no_scorer_abroad(
    judge: tuple[Judge, dict[str, Any]], model: Model, gateways: Gateways
) -> None:
    scorer, declared = judge
    tier = model_tier(model.url)
    tier["model"]["jurisdiction"] = "EU"
    residency = {"allowedJurisdictions": ["EU", "US"], "tenants": [{"name": "acme", "allowedJurisdictions": ["EU"]}]}
    abroad = declared | {"http": declared["http"] | {"jurisdiction": "US"}}
    record = make_record([tier], quality=judged(FIGURES, abroad), residency=residency, access={"tenantHeader": "x-tenant"})
    gateway = await gateways.start(record, keys=KEYS)
    await gateway.chat(headers={"x-tenant": "acme"})
    await gateway.chat()  # it may be acme's
    assert await answers_judged(gateway, 2) == {("figures", "pass"): 2, ("judge", "skip"): 2}
    assert scorer.asked == []
    await gateway.chat(headers={"x-tenant": "globex"})
    assert (await answers_judged(gateway, 3))["judge", "pass"] == 1
    elsewhere = record.model_copy(update={"residency": Residency(allowedJurisdictions=["EU"])})
    with pytest.raises(ConfigurationError, match="take the scorer out"):
        compile_revision(elsewhere, environment=KEYS)
