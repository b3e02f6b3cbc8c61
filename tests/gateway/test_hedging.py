"""Hedging over real sockets: a later tier is asked while an earlier one is waited for. The models answer when they are told to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from backstop.gateway.walk import Walk
from e2e.fakemodel.script import Rule

from .harness import USER, Gateway, Gateways, Model, eventually, guarded_tier, listening, make_record, static_tier

SOON = 30  # milliseconds
LONG = 60_000
TOUCHY = {"windowSeconds": 600, "minRequests": 1, "failurePercent": 1, "openSeconds": 600}


class Held:
    """A model that answers when, and what, it is told; each request by the order in which it came."""

    def __init__(self) -> None:
        self.asked = 0
        self.left = 0  # requests whose caller went before there was an answer
        self._answers: dict[int, asyncio.Future[web.Response]] = {}

    def answer(self, number: int, text: str = "", *, status: int = 200) -> None:
        """Answer the request of that number, from 0 on."""
        self.answer_with(number, _completion(text) if status == 200 else web.json_response({"error": {}}, status=status))

    def answer_with(self, number: int, answer: web.Response) -> None:
        """The same, with any answer."""
        self._answer(number).set_result(answer)

    async def is_asked(self, times: int) -> None:
        """Wait for so many requests."""

        async def look() -> bool:
            return self.asked == times

        await eventually(look)

    async def is_left(self, times: int) -> None:
        """Wait until so many of them were broken off."""

        async def look() -> bool:
            return self.left == times

        await eventually(look)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/…`."""
        number, self.asked = self.asked, self.asked + 1
        body = await request.json()
        try:
            answer = await asyncio.shield(self._answer(number))
        except asyncio.CancelledError:
            self.left += 1
            raise
        if answer.status != 200 or not body.get("stream"):
            return answer
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        text = answer.headers["x-text"]
        for delta, reason in (({"content": text}, None), ({}, "stop")):
            chunk = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            await stream.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await stream.write(b"data: [DONE]\n\n")
        return stream

    def _answer(self, number: int) -> asyncio.Future[web.Response]:
        return self._answers.setdefault(number, asyncio.get_running_loop().create_future())


def _completion(text: str) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return web.json_response(body, headers={"x-text": text})


Hold = Callable[[], AbstractAsyncContextManager[tuple[Held, str]]]


@asynccontextmanager
async def hold() -> AsyncIterator[tuple[Held, str]]:
    model = Held()
    app = web.Application()
    app.router.add_post("/v1/{rest:.*}", model.chat)
    async with listening(app) as address:
        yield model, address


@pytest.fixture
async def first() -> AsyncIterator[tuple[Held, str]]:
    async with hold() as held:
        yield held


@pytest.fixture
async def second() -> AsyncIterator[tuple[Held, str]]:
    async with hold() as held:
        yield held


def hedged(
    url: str, *, after: int = SOON, name: str = "primary", breaker: dict[str, int] | None = None, time: int = LONG
) -> dict[str, Any]:
    """A tier beside which the next one is asked."""
    return guarded_tier(url, name=name, first_token=time, breaker=breaker) | {"hedgeAfterMilliseconds": after}


async def counted(gateway: Gateway, target: str) -> dict[str, float]:
    """Attempts at a target by their end."""
    samples = (await gateway.metrics("backstop_attempts_total")).get("backstop_attempts_total", [])
    return {labels["outcome"]: value for labels, value in samples if labels["target"] == target}


Pair = tuple[Held, str]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_faster_one_answers_and_the_slower_one_is_broken_off_without_a_lesson(
    first: Pair, second: Pair, gateways: Gateways, stream: bool
) -> None:
    chain = [hedged(first[1], breaker=TOUCHY), guarded_tier(second[1], name="second", first_token=LONG), static_tier()]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    asking = asyncio.create_task(gateway.chat(stream=stream))
    await second[0].is_asked(1)
    second[0].answer(0, "Faster.")
    got = await asking
    assert (got.status, got.text) == (200, "Faster.")
    said = {name: got.said(name) for name in ("tier", "attempts", "hand-offs", "first-tier", "reason")}
    assert said == {"tier": "second", "attempts": "2", "hand-offs": "0", "first-tier": "skipped", "reason": "Hedge"}
    await first[0].is_left(1)
    assert (await counted(gateway, "primary"), await counted(gateway, "second")) == ({"cancelled": 1}, {"success": 1})
    assert (await gateway.status())["breakers"]["primary"]["state"] == "closed", "a race that was lost is no failure"
    assert await gateway.total("backstop_hedges_total", result="won", **{"from": "primary", "to": "second"}) == 1
    assert await gateway.total("backstop_handoffs_total") == 0
    assert (first[0].asked, second[0].asked) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_may_still_be_the_faster_one(first: Pair, second: Pair, gateways: Gateways, stream: bool) -> None:
    chain = [hedged(first[1]), guarded_tier(second[1], name="second", first_token=LONG, breaker=TOUCHY)]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    asking = asyncio.create_task(gateway.chat(stream=stream))
    await second[0].is_asked(1)
    first[0].answer(0, "First.")
    got = await asking
    assert (got.text, got.said("tier"), got.said("first-tier"), got.said("reason")) == ("First.", "primary", "answered", None)
    await second[0].is_left(1)
    assert (await counted(gateway, "primary"), await counted(gateway, "second")) == ({"success": 1}, {"cancelled": 1})
    assert (await gateway.status())["breakers"]["second"]["state"] == "closed"
    assert await gateway.total("backstop_hedges_total", result="lost") == 1


async def test_who_answers_in_time_is_asked_alone(model: Model, second: Pair, gateways: Gateways) -> None:
    model.script(Rule(text="At once."))
    chain = [hedged(model.url, after=LONG - 1), guarded_tier(second[1], name="second", first_token=LONG)]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    assert [(await gateway.chat(stream=stream)).text for stream in (False, True)] == ["At once."] * 2
    assert second[0].asked == 0
    assert await gateway.total("backstop_hedges_total") == 0


@pytest.mark.parametrize("status", [400, 500])
async def test_what_fails_beside_the_first_is_neither_an_answer_nor_asked_again(
    first: Pair, second: Pair, gateways: Gateways, status: int
) -> None:
    chain = [hedged(first[1]), guarded_tier(second[1], name="second", first_token=LONG), static_tier()]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    for number, works in enumerate((True, False)):
        asking = asyncio.create_task(gateway.chat())
        await second[0].is_asked(number + 1)
        second[0].answer(number, status=status)

        async def over(times: int = number + 1) -> bool:
            return sum((await counted(gateway, "second")).values()) == times

        await eventually(over)
        assert not asking.done()
        first[0].answer(number, "First.", status=200 if works else 503)
        got = await asking
        assert got.said("attempts") == "2"
        if works:
            assert (got.text, got.said("tier"), got.said("hand-offs")) == ("First.", "primary", "0")
        elif status == 400:
            assert (got.status, got.said("tier"), got.said("hand-offs"), got.said("reason")) == (400, "second", "1", "ResourceExhaustion")
        else:
            assert (got.text, got.said("hand-offs"), got.said("reason")) == ("Not now.", "2", "ResourceExhaustion")
            assert got.said("first-tier") == "failed"
    assert second[0].asked == 2


async def test_a_first_that_fails_hands_over_to_what_has_begun(first: Pair, second: Pair, gateways: Gateways) -> None:
    chain = [hedged(first[1]), guarded_tier(second[1], name="second", first_token=LONG), static_tier()]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    asking = asyncio.create_task(gateway.chat())
    await second[0].is_asked(1)
    first[0].answer(0, status=500)

    async def failed() -> bool:
        return await gateway.total("backstop_handoffs_total", **{"from": "primary", "to": "second"}) == 1

    await eventually(failed)
    second[0].answer(0, "Second.")
    got = await asking
    assert (got.text, got.said("attempts"), got.said("reason"), got.said("first-tier")) == ("Second.", "2", "DependencyFailure", "failed")
    assert second[0].asked == 1


async def test_a_half_open_target_that_loses_gives_its_probe_back(first: Pair, second: Pair, gateways: Gateways) -> None:
    time = 1000.0
    quick = {"windowSeconds": 10, "minRequests": 1, "failurePercent": 1, "openSeconds": 5}
    chain = [hedged(first[1]), guarded_tier(second[1], name="second", first_token=LONG, breaker=quick)]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG), clock=lambda: time)
    asking = asyncio.create_task(gateway.chat())
    await second[0].is_asked(1)
    second[0].answer(0, status=500)

    async def state() -> str:
        return str((await gateway.status())["breakers"]["second"]["state"])

    async def is_open() -> bool:
        return await state() == "open"

    await eventually(is_open)
    first[0].answer(0, "First.")
    await asking

    time += 6
    for number in (1, 2):  # the second time shows that the first one's permit came back
        asking = asyncio.create_task(gateway.chat())
        await second[0].is_asked(number + 1)
        first[0].answer(number, "First.")
        assert (await asking).text == "First."
        await second[0].is_left(number)
        assert await state() == "half-open"


async def test_a_target_that_is_left_alone_is_passed_over(first: Pair, second: Pair, model: Model, gateways: Gateways) -> None:
    model.script(Rule(error_percent=100, error_status=429, error_retry_after="60"))
    chain = [
        hedged(first[1]),
        guarded_tier(model.url, name="second", first_token=LONG),
        guarded_tier(second[1], name="third", first_token=LONG),
    ]
    gateway = await gateways.start(make_record(chain, budget=4 * LONG))
    for number in (0, 1):
        asking = asyncio.create_task(gateway.chat())
        if number == 0:

            async def refused() -> bool:
                return await gateway.total("backstop_attempts_total", target="second") == 1

            await eventually(refused)
            first[0].answer(0, "First.")
        else:
            await second[0].is_asked(1)
            second[0].answer(0, "Third.")
        assert (await asking).text == ("First.", "Third.")[number]
    assert model.fake.total == 1


async def test_who_began_beside_another_may_have_one_beside_it(first: Pair, second: Pair, gateways: Gateways) -> None:
    async with hold() as third:
        chain = [hedged(first[1]), hedged(second[1], name="second"), guarded_tier(third[1], name="third", first_token=LONG)]
        gateway = await gateways.start(make_record(chain, budget=4 * LONG))
        asking = asyncio.create_task(gateway.chat(stream=True))
        await third[0].is_asked(1)
        third[0].answer(0, "Third.")
        got = await asking
        assert (got.text, got.is_done, got.said("attempts"), got.said("tier")) == ("Third.", True, "3", "third")
        await first[0].is_left(1)
        await second[0].is_left(1)


async def test_w24_a_caller_that_leaves_takes_both_with_it(
    first: Pair, second: Pair, gateways: Gateways, http: aiohttp.ClientSession
) -> None:
    chain = [hedged(first[1]), guarded_tier(second[1], name="second", first_token=LONG)]
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    asking = asyncio.create_task(http.post(f"http://{gateway.address}/v1/chat/completions", json={"messages": [USER]}))
    await second[0].is_asked(1)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await first[0].is_left(1)
    await second[0].is_left(1)

    async def counted_once() -> bool:
        return await gateway.total("backstop_served_total", outcome="cancelled") == 1

    await eventually(counted_once)
    assert (await counted(gateway, "primary"), await counted(gateway, "second")) == ({"cancelled": 1}, {"cancelled": 1})


async def test_w32_of_requests_that_wait_for_one_that_lost_one_asks_the_first_tier_again(
    first: Pair, second: Pair, gateways: Gateways
) -> None:
    chain = [hedged(first[1]), {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}]
    gateway = await gateways.start(make_record([*chain, guarded_tier(second[1], name="second", first_token=LONG)], budget=3 * LONG))
    waiting = []
    for number in range(4):
        waiting.append(asyncio.create_task(gateway.chat()))
        await second[0].is_asked(number + 1)
    assert first[0].asked == 1
    for number, asking in enumerate(waiting):
        second[0].answer(number, "Second.")
        got = await asking
        assert (got.text, got.said("first-tier")) == ("Second.", "skipped")
        await first[0].is_left(min(number + 1, 2))
    assert first[0].asked == 2
    assert await gateway.total("backstop_served_usage_total") == 4, "each was answered by a model that it asked itself"


async def test_who_was_given_anothers_answer_has_taken_no_tokens_whomever_it_asked_beside(
    first: Pair, second: Pair, gateways: Gateways
) -> None:
    chain = [hedged(first[1]), {"name": "kept", "cache": {"hot": {"maxMebibytes": 1}}}]
    gateway = await gateways.start(make_record([*chain, guarded_tier(second[1], name="second", first_token=LONG)], budget=3 * LONG))
    waiting = []
    for number in range(2):
        waiting.append(asyncio.create_task(gateway.chat()))
        await second[0].is_asked(number + 1)
    first[0].answer(0, "First.")
    assert {(got.text, got.said("tier")) for got in await asyncio.gather(*waiting)} == {("First.", "primary")}
    await second[0].is_left(2)
    assert (first[0].asked, await gateway.total("backstop_served_usage_total")) == (1, 1)


def test_time_in_which_two_are_waited_for_counts_once() -> None:
    now = 10.0
    walk = Walk(started=now, budget=60.0)
    with walk.wait(lambda: now):
        now += 2
        with walk.wait(lambda: now):
            now += 3
            assert walk.waited_by(now) == 5
        now += 1
    now += 100
    with walk.wait(lambda: now):
        now += 4
    assert (walk.waited, walk.waited_by(now + 50)) == (10, 10)


async def test_embeddings_are_hedged_with_what_has_them(first: Pair, second: Pair, gateways: Gateways) -> None:
    chain = [hedged(first[1]), guarded_tier(second[1], name="second", first_token=LONG)]
    for tier in chain:
        tier["model"]["embeddingModel"] = "e"
    gateway = await gateways.start(make_record(chain, budget=3 * LONG))
    asking = asyncio.create_task(gateway.post(b'{"input":"x"}', path="/v1/embeddings"))
    await second[0].is_asked(1)
    second[0].answer_with(0, web.json_response({"data": [{"embedding": [1.0]}]}))
    got = await asking
    assert (got.status, got.said("tier")) == (200, "second")
    await first[0].is_left(1)
