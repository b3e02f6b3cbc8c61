"""The cache tier over real sockets: what is given again, to whom, for how long, and who asks when many want the same."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from backstop.gateway.compilation import compile_revision
from backstop.gateway.main import refuse_too_large_a_cache
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Fault, Rule

from .harness import USER, Gateway, Gateways, Got, Model, TrafficApi, eventually, listening, make_record, model_tier, state, static_tier

MIB = 1 << 20


def cache_tier(*, stale: int = 60, **hot: int) -> dict[str, Any]:
    return {"name": "cache", "cache": {"hot": {"ttlSeconds": 60, **hot}, "staleIfErrorSeconds": stale}}


def completion(text: str = "Well.", *, finish: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m1", "choices": [choice], "usage": usage}).encode()


class Waiting:
    """A model whose every call waits until the test answers it."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[asyncio.Future[tuple[int, bytes]]] = []

    async def handle(self, _: web.Request) -> web.Response:
        asked: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.calls.append(asked)
        status, body = await asked
        return web.Response(status=status, body=body, content_type="application/json")

    async def called(self, times: int) -> None:
        async def look() -> bool:
            return len(self.calls) >= times

        await eventually(look)

    async def answer(self, number: int, *, status: int = 200, body: bytes | None = None) -> None:
        """Answer a call, once it is there."""
        await self.called(number + 1)
        self.calls[number].set_result((status, completion() if body is None else body))


@pytest.fixture
async def waiting() -> AsyncIterator[Waiting]:
    model = Waiting()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.handle)
    async with listening(app) as model.address:
        yield model


async def found(gateway: Gateway, result: str) -> float:
    return await gateway.total("backstop_cache_lookups_total", level="hot", result=result)


async def together(gateway: Gateway, times: int, *, seed: int) -> list[asyncio.Task[Got]]:
    """So many requests for the same, of which each asks, or waits for the one that does."""
    before = await found(gateway, "miss")
    asked = [asyncio.create_task(gateway.chat(seed=seed)) for _ in range(times)]

    async def looked() -> bool:
        return await found(gateway, "miss") == before + times

    await eventually(looked)
    return asked


def told(got: Got) -> tuple[str | None, ...]:
    return got.text, got.said("cache"), got.said("tier"), got.said("first-tier"), got.said("attempts")


async def test_a_fresh_answer_is_given_at_once_and_counted_as_one_that_asked_no_model(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url), cache_tier(), static_tier()]))
    first, second = await gateway.chat(), await gateway.chat()
    assert told(first) == ("All is well.", "miss", "primary", "answered", "1")
    assert told(second) == ("All is well.", "hit", "cache", "skipped", "0")
    assert (first.said("cache-age"), second.said("model")) == (None, "m1")
    assert int(second.said("cache-age") or "nan") < 60
    assert (second.body, model.fake.total) == (first.body, 1)
    assert [await found(gateway, result) for result in ("hit", "miss", "stale", "bypass")] == [1, 1, 0, 0]
    assert await gateway.total("backstop_served_total", cache="hit", outcome="success", first_tier="skipped") == 1
    assert await gateway.total("backstop_served_seconds_count", cache="hit") == 1
    assert await gateway.total("backstop_served_total", cache="miss") == 1
    assert await gateway.total("backstop_requests_total", tier="cache") == 1
    assert await gateway.total("backstop_attempts_total") == 1
    assert len(first.body) < await gateway.total("backstop_cache_bytes", level="hot") < len(first.body) + 1000

    without = await gateways.start(make_record([model_tier(model.url)]))
    assert [(await without.chat()).said("cache") for _ in range(2)] == [None, None]
    assert model.fake.total == 3
    assert await without.metrics("backstop_cache") == {}


async def test_w32_200_identical_misses_are_one_upstream_call(waiting: Waiting, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(waiting.address), cache_tier(), static_tier()]))
    asked = await together(gateway, 200, seed=1)
    await waiting.answer(0)
    answers = await asyncio.gather(*asked)
    assert {(got.body, *told(got)[:4]) for got in answers} == {(completion(), "Well.", "miss", "primary", "answered")}
    assert sorted(got.said("attempts") or "" for got in answers) == ["0"] * 199 + ["1"]
    assert len(waiting.calls) == 1
    assert await gateway.total("backstop_served_total", cache="miss", first_tier="answered") == 200
    assert told(await gateway.chat(seed=1))[1] == "hit"


async def test_w33_when_the_one_that_asks_fails_or_leaves_one_of_the_others_takes_over(waiting: Waiting, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(waiting.address), cache_tier(), static_tier()]))
    asked = await together(gateway, 20, seed=1)
    await waiting.answer(0, status=500)
    await waiting.answer(1)
    answers = [told(got) for got in await asyncio.gather(*asked)]
    assert answers.count(("Not now.", "miss", "static", "failed", "1")) == 1
    assert answers.count(("Well.", "miss", "primary", "answered", "1")) == 1
    assert answers.count(("Well.", "miss", "primary", "answered", "0")) == 18
    assert len(waiting.calls) == 2

    (leaving,) = await together(gateway, 1, seed=2)
    asked = await together(gateway, 10, seed=2)
    await waiting.called(3)
    leaving.cancel()
    await waiting.answer(3)
    answers = [told(got) for got in await asyncio.gather(*asked)]
    assert answers.count(("Well.", "miss", "primary", "answered", "1")) == 1
    assert answers.count(("Well.", "miss", "primary", "answered", "0")) == 9
    assert len(waiting.calls) == 4


async def test_w33_a_target_that_has_failed_two_is_not_asked_by_all_the_others(waiting: Waiting, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(waiting.address), cache_tier(), static_tier()]))
    asked = await together(gateway, 20, seed=1)
    await waiting.answer(0, status=500)
    await waiting.answer(1, status=503)
    answers = [told(got) for got in await asyncio.gather(*asked)]
    assert {answer[:4] for answer in answers} == {("Not now.", "miss", "static", "failed")}
    assert sorted(answer[4] or "" for answer in answers) == ["0"] * 18 + ["1"] * 2
    assert len(waiting.calls) == 2
    assert await gateway.total("backstop_handoffs_total", **{"from": "primary"}) == 20

    asked = await together(gateway, 3, seed=2)
    await waiting.answer(2, body=completion("One", finish="length"))
    await waiting.answer(3, body=completion("Two", finish="length"))
    await waiting.answer(4, body=completion("Three", finish="length"))
    assert sorted([got.text for got in await asyncio.gather(*asked)]) == ["One", "Three", "Two"], "not for others: each asks"


async def test_who_waits_does_so_within_its_own_budget_and_no_stream_waits_for_another(
    waiting: Waiting, model: Model, gateways: Gateways
) -> None:
    gateway = await gateways.start(make_record([model_tier(waiting.address), cache_tier(), static_tier()], budget=400))
    answers = await asyncio.gather(*(gateway.chat() for _ in range(5)))
    assert {told(got)[:4] for got in answers} == {("Not now.", "miss", "static", "late")}
    assert {got.said("reason") for got in answers} == {"LatencyBreach"}

    model.script(Rule(tokens=2, token_interval_milliseconds=60_000))
    streaming = await gateways.start(make_record([model_tier(model.url, stallMilliseconds=200), cache_tier(), static_tier()]))
    streams = await asyncio.gather(*(streaming.chat(stream=True) for _ in range(3)))
    assert [(got.text, got.said("first-tier")) for got in streams] == [("t0 ", "answered")] * 3


async def test_w35_the_same_request_is_known_again_and_no_other_is(model: Model, gateways: Gateways) -> None:
    variables = [{"name": "place", "default": "Ulm"}]
    chain = [model_tier(model.url), cache_tier()]
    gateway = await gateways.start(make_record(chain, prompt="You are in {{place}}.", variables=variables))
    await gateway.chat(temperature=1)
    for same in ({"user": "u"}, {"metadata": {"trace": "7f9c"}}, {"metadata": {"place": "Ulm"}}, {"model": "another"}):
        assert (await gateway.chat(temperature=1, **same)).said("cache") == "hit"
    reordered = b'{"temperature": 1, "messages": [{"content": "Hello", "role": "user"}]}'
    assert (await gateway.post(reordered)).said("cache") == "hit"
    assert model.fake.total == 1
    others: list[dict[str, Any]] = [{"temperature": 2}, {"temperature": 1, "metadata": {"place": "Bonn"}}]
    for other in (*others, {"temperature": 1, "messages": [USER, USER]}):
        assert (await gateway.chat(**other)).said("cache") == "miss"
    assert model.fake.total == 4

    model.script(Rule(match="new", text="From the new prompt."), Rule(text="From the old one."))
    for prompt, text in (("You are old.", "From the old one."), ("You are new.", "From the new prompt.")):
        gateway = await gateways.start(make_record(chain, prompt=prompt))
        assert [told(await gateway.chat())[:2] for _ in range(2)] == [(text, "miss"), (text, "hit")]


async def test_w35_a_normalized_match_gives_an_answer_again_to_another_spelling(model: Model, gateways: Gateways) -> None:
    tier = cache_tier()
    tier["cache"]["match"] = "Normalized"
    gateway = await gateways.start(make_record([model_tier(model.url), tier]))
    asked = ["When are you open?", "when are you  OPEN", "When are you closed?"]
    answers = [await gateway.chat(messages=[{"role": "user", "content": text}]) for text in asked]
    assert [got.said("cache") for got in answers] == ["miss", "hit", "miss"]
    assert model.sent()["messages"][-1]["content"] == "When are you closed?", "the model gets it as it was spelled"


async def test_w36_an_answer_that_is_not_complete_is_not_kept_and_neither_is_a_fallback(
    waiting: Waiting, model: Model, gateways: Gateways
) -> None:
    chain = [model_tier(waiting.address, firstTokenMilliseconds=4000), cache_tier(), model_tier(model.url, name="second")]
    gateway = await gateways.start(make_record(chain))
    unfit = {
        "cut": (200, completion(finish="length")),
        "filtered": (200, completion(finish="content_filter")),
        "refused": (200, completion().replace(b'"role"', b'"refusal": "No.", "role"')),
        "tool calls": (200, completion().replace(b'"role"', b'"tool_calls": [{"id": "c1"}], "role"')),
        "the caller's mistake": (400, b'{"error": {"message": "No."}}'),
        "down": (500, b"{}"),
        "empty": (200, completion("")),
    }
    for number, (name, (status, body)) in enumerate(unfit.items()):
        for again in range(2):
            asked = asyncio.create_task(gateway.chat(seed=number))
            await waiting.answer(2 * number + again, status=status, body=body)
            got = await asked
            assert (name, got.said("cache"), got.body == body) == (name, "miss", name not in ("down", "empty"))
    assert model.fake.total == 4
    assert await gateway.total("backstop_cache_bytes") == 0


async def test_w36_a_stream_that_was_cut_or_left_is_not_kept(model: Model, gateways: Gateways, http: aiohttp.ClientSession) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url), cache_tier()]))
    for number, fault in enumerate((Fault.CUT, Fault.UNFINISHED, Fault.GARBAGE)):
        model.script(Rule(tokens=6, fault=fault, cut_after_tokens=4))
        for _ in range(2):
            got = await gateway.chat(stream=True, seed=number)
            assert (got.said("cache"), got.is_done) == ("miss", False)
    assert model.fake.total == 6

    model.script(Rule(tokens=3, token_interval_milliseconds=60_000))
    response = await http.post(f"http://{gateway.address}/v1/chat/completions", json={"messages": [USER], "stream": True})
    await response.content.readany()
    response.close()

    async def left() -> bool:
        return await gateway.total("backstop_served_total", outcome="cancelled") == 1

    await eventually(left)
    assert await gateway.total("backstop_cache_bytes") == 0


async def test_a_kept_answer_is_given_as_a_whole_or_as_a_stream_whichever_way_it_came(model: Model, gateways: Gateways) -> None:
    text = "Grüße, 世界 🎉 and more"
    model.script(Rule(text=text, line_end="\r\n", slice_bytes=7))
    gateway = await gateways.start(make_record([model_tier(model.url), cache_tier()]))
    first = await gateway.chat(seed=1)
    wishes: list[dict[str, Any]] = [{}, {"stream_options": {"include_usage": True}}]
    for options in wishes:
        got = await gateway.chat(seed=1, stream=True, **options)
        assert (got.said("cache"), got.text, got.is_done) == ("hit", text, True)
        assert got.headers["Content-Type"].startswith("text/event-stream")
        assert [event["usage"] for event in got.events if event.get("usage")] == ([first.json["usage"]] if options else [])
    assert model.fake.total == 1

    assert [told(await gateway.chat(seed=2, stream=True))[:2] for _ in range(2)] == [(text, "miss"), (text, "hit")]
    counted = await gateway.chat(seed=2, stream=True, stream_options={"include_usage": True})
    assert counted.said("cache") == "miss", "the first caller did not ask for the usage, so nobody knows it"
    whole = await gateway.chat(seed=2)
    assert told(whole)[:2] == (text, "hit")
    assert whole.json["usage"] == counted.events[-1]["usage"]
    assert model.fake.total == 3


async def test_a_callers_cache_control_is_honoured(model: Model, gateways: Gateways) -> None:
    later = 0.0
    gateway = await gateways.start(make_record([model_tier(model.url), cache_tier()]), clock=lambda: time.monotonic() + later)

    async def ask(control: str) -> str | None:
        return (await gateway.chat(headers={"Cache-Control": control})).said("cache")

    assert [await ask("no-store"), await ask("no-store")] == ["bypass", "bypass"]
    assert await gateway.total("backstop_cache_bytes") == 0
    assert [await ask("no-cache"), await ask("max-age=0")] == ["bypass", "bypass"]
    assert model.fake.total == 4
    assert await ask("max-age=30") == "hit", "others may have what was answered to one who wanted no kept answer"
    later = 40.0
    assert [await ask("max-age=50"), await ask("max-age=30"), await ask("max-age=30")] == ["hit", "miss", "hit"]
    assert model.fake.total == 5
    for fields in ({"n": 2}, {"logprobs": True}, {"store": True}):
        assert [(await gateway.chat(**fields)).said("cache") for _ in range(2)] == ["bypass", "bypass"]
    assert model.fake.total == 11
    assert await found(gateway, "bypass") == 10


async def test_w39_an_expired_answer_stands_in_for_a_model_that_fails_and_says_its_age(model: Model, gateways: Gateways) -> None:
    later = 0.0
    record = make_record([model_tier(model.url), cache_tier(stale=600), static_tier()])
    gateway = await gateways.start(record, clock=lambda: time.monotonic() + later)
    last = await gateways.start(make_record([model_tier(model.url), cache_tier()]))
    await gateway.chat()
    later = 61.0
    model.script(Rule(error_percent=100, error_status=429))
    got = await gateway.chat()
    assert told(got) == ("All is well.", "stale", "cache", "failed", "1")
    assert (got.said("hand-offs"), got.said("reason")) == ("1", "ResourceExhaustion")
    assert 61 <= int(got.said("cache-age") or "nan") < 660
    streamed = await gateway.chat(stream=True)
    assert (*told(streamed)[:2], streamed.is_done) == ("All is well.", "stale", True)
    fussy = await gateway.chat(headers={"cache-control": "max-age=30"})
    assert (*told(fussy)[:3], fussy.said("hand-offs")) == ("Not now.", "miss", "static", "2")
    assert await gateway.total("backstop_served_total", cache="stale", outcome="success", first_tier="failed") == 2
    assert await found(gateway, "stale") == 2
    assert await gateway.total("backstop_handoffs_total", **{"from": "primary", "to": "cache"}) == 3
    assert await gateway.total("backstop_handoffs_total", **{"from": "cache", "to": "static"}) == 1
    nobody = await last.chat()
    assert (nobody.status, nobody.json["error"]["code"], nobody.said("cache")) == (429, "ResourceExhaustion", "miss")

    model.script(Rule(text="New."))
    assert [told(await gateway.chat())[:2] for _ in range(2)] == [("New.", "miss"), ("New.", "hit")]
    later = 61.0 + 661.0
    model.script(Rule(error_percent=100, error_status=500))
    assert told(await gateway.chat())[:3] == ("Not now.", "miss", "static")
    assert await gateway.total("backstop_cache_bytes") == 0


async def test_w40_a_full_cache_stays_within_its_bound_and_forgets_what_was_not_asked_for(model: Model, gateways: Gateways) -> None:
    model.script(Rule(text="x" * 100_000))
    gateway = await gateways.start(make_record([model_tier(model.url), cache_tier(maxMebibytes=1)]))

    async def ask(number: int) -> str | None:
        return (await gateway.chat(seed=number)).said("cache")

    for number in range(14):
        assert await ask(number) == "miss"
        assert await ask(0) == "hit", "asked for again and again"
        assert await gateway.total("backstop_cache_bytes") <= MIB
    assert await gateway.total("backstop_cache_bytes") > 0.9 * MIB
    assert [await ask(13), await ask(1)] == ["hit", "miss"]


async def test_the_entry_counts_what_another_revisions_cache_gave(model: Model, gateways: Gateways, api: TrafficApi) -> None:
    stable = make_record([model_tier(model.url)])
    canary = make_record([model_tier(model.url), cache_tier()], prompt="You are new.")
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    await entry.acts_on(3)
    await behind.acts_on(3)
    wishes = ("", "", "no-store")
    said = [(await entry.chat(headers={"cache-control": wish} if wish else None)).said("cache") for wish in wishes]
    assert said == ["miss", "hit", "bypass"]
    assert await entry.total("backstop_served_total", revision=canary.revision, cache="hit") == 1
    assert await entry.total("backstop_served_seconds_count", revision=canary.revision, cache="hit") == 1
    assert await entry.total("backstop_served_total", revision=canary.revision, cache="miss") == 2


def test_a_cache_that_the_containers_memory_has_no_room_for_is_refused_at_the_start() -> None:
    revision = compile_revision(make_record([model_tier("models:1"), cache_tier(maxMebibytes=65)]), environment={})
    refuse_too_large_a_cache(revision, memory=None)
    refuse_too_large_a_cache(revision, memory=260 * MIB)
    with pytest.raises(ConfigurationError, match=r"`cache\.hot\.maxMebibytes` of tier `cache` is 65, .* has room for 64; lower it"):
        refuse_too_large_a_cache(revision, memory=256 * MIB)
