"""Breakers and retries over real sockets. The gateway's clock stands still but where a test moves it; its timers run all the same."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from backstop.api.record import RevisionRecord
from e2e.fakemodel.script import Fault, Rule

from .harness import ExactTarget, Gateway, Gateways, Model, eventually, guarded_tier, listening, make_record, static_tier

QUICK = {"windowSeconds": 10, "minRequests": 2, "failurePercent": 50, "openSeconds": 5}
ERROR = Rule(error_percent=100, error_status=500)
# Nobody waits for it in a test; a tier that stands behind another has to have a time.
LONG = 60_000

Start = Callable[[RevisionRecord], Awaitable[Gateway]]


class Time:
    """What the gateway takes for the time, in seconds."""

    now = 1000.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def start(gateways: Gateways, time: Time) -> Start:
    """A gateway on that time."""
    return lambda record: gateways.start(record, clock=lambda: time.now)


class Held:
    """A model that answers 500, and requests of the user `held` as it is told, when it is told."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.answer: asyncio.Future[web.Response] = asyncio.get_running_loop().create_future()

    async def chat(self, request: web.Request) -> web.Response:
        """`POST /v1/chat/completions`."""
        if (await request.json()).get("user") != "held":
            return web.Response(status=500)
        self.arrived.set()
        return await self.answer


@pytest.fixture
async def held() -> AsyncIterator[tuple[Held, str]]:
    model = Held()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.chat)
    async with listening(app) as address:
        yield model, address


def answered(text: str) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"id": "x", "object": "chat.completion", "created": 1, "model": "m1", "choices": [choice]})


async def breaker(gateway: Gateway, tier: str = "primary") -> dict[str, Any]:
    """What `/-/status` says of it."""
    found: dict[str, Any] = (await gateway.status())["breakers"][tier]
    return found


async def test_w01_a_target_that_says_retry_after_is_left_alone_so_long_and_the_next_tier_answers(start: Start, time: Time) -> None:
    asked, says = 0, web.Response()

    async def chat(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return says

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with listening(app) as address:
        for status, wait in ((429, "2"), (503, "2"), (429, "Sat, 31 Jan 2026 09:30:02 GMT")):
            asked, says = 0, web.Response(status=status, headers={"Retry-After": wait, "Date": "Sat, 31 Jan 2026 09:30:00 GMT"})
            # The budget is shorter than what the target asks for: who waits for it does not get its answer.
            gateway = await start(make_record([guarded_tier(address, retries=3), static_tier()], budget=1900))
            first = await gateway.chat()
            assert (first.text, first.said("reason"), first.said("attempts")) == ("Not now.", "ResourceExhaustion", "1"), wait
            time.now += 1.5
            second = await gateway.chat()
            assert (second.text, second.said("reason"), second.said("attempts")) == ("Not now.", "ResourceExhaustion", "0"), wait
            assert second.said("first-tier") == "failed"
            assert asked == 1
            time.now += 0.5
            says = answered("Back.")
            assert (await gateway.chat()).text == "Back."


async def test_w02_a_target_that_goes_on_failing_is_asked_a_bounded_number_of_times(model: Model, start: Start) -> None:
    for status in (429, 503):
        model.script(Rule(error_percent=100, error_status=status))
        before = model.fake.total
        gateway = await start(make_record([guarded_tier(model.url, retries=2, breaker=QUICK | {"minRequests": 6}), static_tier()]))
        first = await gateway.chat()
        assert (first.text, first.said("attempts"), first.said("hand-offs")) == ("Not now.", "3", "1")
        assert model.fake.total == before + 3
        for _ in range(10):
            assert (await gateway.chat()).text == "Not now."
        assert model.fake.total == before + 6, "then the breaker is open"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [413, 431])
async def test_a_request_that_is_too_large_is_its_callers_and_takes_the_model_from_nobody(
    target: ExactTarget, start: Start, status: int, stream: bool
) -> None:
    gateway = await start(make_record([guarded_tier(target.url, breaker=QUICK), static_tier()]))
    said = '{"error":{"message":"too large"}}'
    target.says(said, status=status)
    for _ in range(4):
        got = await gateway.chat(stream=stream)
        assert (got.status, got.body, got.said("tier")) == (status, said.encode(), "primary")
    assert ((await breaker(gateway))["state"], len(target.seen)) == ("closed", 4)
    assert await gateway.total("backstop_served_total", outcome="caller_error") == 4


def cut_short(*, stream: bool, **message: str) -> str:
    """An answer of thoughts, or of nothing, that used its tokens up."""
    choice = {"index": 0, "delta" if stream else "message": {"role": "assistant", "content": "", **message}, "finish_reason": "length"}
    body = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m1", "choices": [choice]})
    return f"data: {body}\n\ndata: [DONE]\n\n" if stream else body


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_that_ended_for_its_length_is_handed_on_and_taken_for_no_fault_of_the_models(
    target: ExactTarget, start: Start, stream: bool
) -> None:
    gateway = await start(make_record([guarded_tier(target.url, breaker=QUICK), static_tier()]))
    target.says(cut_short(stream=stream), stream=stream)
    for _ in range(4):
        got = await gateway.chat(stream=stream, max_completion_tokens=16)
        assert (got.text, got.said("reason")) == ("Not now.", "MalformedAnswer")
    assert ((await breaker(gateway))["state"], len(target.seen)) == ("closed", 4)
    assert await gateway.total("backstop_served_total", first_tier="skipped") == 4, "nor for the revision's"
    target.says(cut_short(stream=stream).replace("length", "stop"), stream=stream)
    for _ in range(4):
        await gateway.chat(stream=stream)
    assert ((await breaker(gateway))["state"], len(target.seen)) == ("open", 6), (
        "an answer that is empty for no reason is the model's fault"
    )
    assert await gateway.total("backstop_served_total", first_tier="failed") == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_thoughts_are_content_whole_as_in_a_stream(target: ExactTarget, start: Start, name: str, stream: bool) -> None:
    gateway = await start(make_record([guarded_tier(target.url), static_tier()]))
    target.says(cut_short(stream=stream, **{name: "Let me think"}), stream=stream)
    got = await gateway.chat(stream=stream, max_completion_tokens=16)
    assert (got.said("tier"), got.body) == ("primary", cut_short(stream=stream, **{name: "Let me think"}).encode())


async def test_w02_what_would_fail_again_is_not_asked_again(model: Model, start: Start) -> None:
    errors = [Rule(error_percent=100, error_status=status) for status in (400, 401, 302)]
    for rule in (*errors, Rule(fault=Fault.MALFORMED), Rule(fault=Fault.EMPTY)):
        model.script(_once(rule))
        before = model.fake.total
        gateway = await start(make_record([guarded_tier(model.url, retries=3), static_tier()]))
        assert (await gateway.chat()).said("attempts") == "1", rule
        assert model.fake.total == before + 1


async def test_w02_nobody_is_asked_again_when_the_tiers_time_is_over_or_the_breaker_opens(model: Model, start: Start, time: Time) -> None:
    async def chat(_: web.Request) -> web.Response:
        time.now += 2
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with listening(app) as address:
        chain = [guarded_tier(address, retries=3, first_token=4000), static_tier()]
        got = await (await start(make_record(chain, budget=LONG))).chat()
    assert (got.text, got.said("attempts"), got.said("reason")) == ("Not now.", "2", "DependencyFailure")

    model.script(ERROR)
    gateway = await start(make_record([guarded_tier(model.url, retries=3, breaker=QUICK), static_tier()]))
    got = await gateway.chat()
    assert (got.text, got.said("attempts"), got.said("reason")) == ("Not now.", "2", "DependencyFailure")


async def test_w03_what_failed_at_once_is_asked_again_and_there_is_one_answer(model: Model, start: Start) -> None:
    errors = [Rule(error_percent=100, error_status=status) for status in (429, 500, 502, 503, 504)]
    for rule, stream in ((rule, stream) for rule in (*errors, Rule(fault=Fault.RESET)) for stream in (False, True)):
        model.script(_once(rule), Rule(text="Fine."))
        gateway = await start(make_record([guarded_tier(model.url, retries=1), static_tier()]))
        got = await gateway.chat(stream=stream)
        said = (got.status, got.text, got.said("tier"), got.said("attempts"), got.said("hand-offs"), got.said("first-tier"))
        assert said == (200, "Fine.", "primary", "2", "0", "answered"), rule
        assert model.fake.requests[-2]["body"] == model.fake.requests[-1]["body"]
        assert await gateway.total("backstop_attempts_total", outcome="success") == 1
        assert await gateway.total("backstop_attempts_total") == 2
        assert await gateway.total("backstop_served_total") == 1


async def test_w04_a_reset_before_headers_goes_to_the_next_target_and_is_counted_once(
    model: Model, other_model: Model, start: Start
) -> None:
    model.script(Rule(fault=Fault.RESET))
    other_model.script(Rule(text="From the second."))
    chain = [guarded_tier(model.url, first_token=4000), guarded_tier(other_model.url, name="second")]
    gateway = await start(make_record(chain))
    for number, stream in ((1, False), (2, True)):
        assert (await gateway.chat(stream=stream)).text == "From the second."
        assert model.fake.total == number
        assert await gateway.total("backstop_attempts_total", target="primary", outcome="DependencyFailure") == number
        assert await gateway.total("backstop_attempts_total", target="primary") == number
        assert await gateway.total("backstop_handoffs_total") == number


async def test_w05_a_target_that_never_sends_headers_is_not_asked_again(model: Model, start: Start) -> None:
    cases: list[tuple[str, int, tuple[Rule, ...], str]] = [
        ("headersMilliseconds", 80, (), "1"),
        ("firstTokenMilliseconds", 80, (), "1"),
        ("headersMilliseconds", 1000, (_once(ERROR),), "2"),  # it hangs when it is asked again
    ]
    for timeout, milliseconds, before, attempts in cases:
        model.script(*before, Rule(fault=Fault.HANG))
        total = model.fake.total
        tier = guarded_tier(model.url, retries=3) | {"timeouts": {timeout: milliseconds}}
        got = await (await start(make_record([tier, static_tier()], budget=LONG))).chat()
        assert (got.text, got.said("reason"), got.said("first-tier")) == ("Not now.", "LatencyBreach", "late")
        assert got.said("attempts") == attempts
        assert model.fake.total - total <= int(attempts)  # fewer, where the time was over before the request had come


async def test_w26_a_breaker_opens_on_the_rate_with_fewest_requests_and_says_so(model: Model, start: Start, time: Time) -> None:
    gateway = await start(make_record([guarded_tier(model.url, breaker=QUICK | {"minRequests": 4}), static_tier()]))
    assert await breaker(gateway) == {"state": "closed", "failureMode": None, "openForSeconds": 0}
    model.script(_once(Rule(text="Fine.")), ERROR)
    for _ in range(3):
        await gateway.chat()
    assert (await breaker(gateway))["state"] == "closed"
    assert await gateway.total("backstop_breaker_state", tier="primary") == 0
    await gateway.chat()
    assert await breaker(gateway) == {"state": "open", "failureMode": "DependencyFailure", "openForSeconds": 5}
    assert await gateway.total("backstop_breaker_state", tier="primary") == 2
    got = await gateway.chat()
    assert (got.text, got.said("attempts"), got.said("reason")) == ("Not now.", "0", "DependencyFailure")
    assert model.fake.total == 4
    time.now += 5
    assert (await breaker(gateway))["state"] == "half-open"
    assert await gateway.total("backstop_breaker_state", tier="primary") == 1
    model.script(Rule(text="Back."))
    assert (await gateway.chat()).text == "Back."
    assert (await breaker(gateway))["state"] == "closed"
    assert await gateway.total("backstop_breaker_state", tier="primary") == 0


async def test_w26_callers_mistakes_do_not_open_it(model: Model, start: Start) -> None:
    gateway = await start(make_record([guarded_tier(model.url, breaker=QUICK), static_tier()]))
    for status in (400, 404, 422):
        model.script(Rule(error_percent=100, error_status=status))
        for _ in range(3):
            assert (await gateway.chat()).status == status
    assert (await breaker(gateway))["state"] == "closed"


async def test_w27_of_a_hundred_requests_at_once_one_tries_and_gives_way_to_another_when_its_caller_leaves(
    model: Model, start: Start, time: Time
) -> None:
    gateway = await start(make_record([guarded_tier(model.url, breaker=QUICK), static_tier()], budget=LONG))
    await _open(gateway, model=model, time=time)
    model.script(Rule(latency_milliseconds=LONG))
    before = model.fake.total
    waiting = {asyncio.create_task(gateway.chat()) for _ in range(100)}
    while len(waiting) > 1:
        done, waiting = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert done, f"{len(waiting)} still wait"
        assert {task.result().text for task in done} == {"Not now."}
    assert model.fake.total == before + 1
    for probe in waiting:
        probe.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probe

    async def gone() -> bool:
        return await gateway.total("backstop_attempts_total", outcome="cancelled") == 1

    await eventually(gone)
    assert (await breaker(gateway))["state"] == "half-open"
    model.script(Rule(text="Back."))
    assert (await gateway.chat()).text == "Back."
    assert (await breaker(gateway))["state"] == "closed"


async def test_w28_a_late_success_does_not_close_it(held: tuple[Held, str], start: Start) -> None:
    target, address = held
    gateway = await start(make_record([guarded_tier(address, breaker=QUICK), static_tier()], budget=LONG))
    early = asyncio.create_task(gateway.chat(user="held"))
    await target.arrived.wait()
    for _ in range(2):
        assert (await gateway.chat()).text == "Not now."
    target.answer.set_result(answered("Late."))
    assert (await early).text == "Late."
    assert (await breaker(gateway))["state"] == "open"
    assert (await gateway.chat()).said("attempts") == "0"


async def test_w29_the_later_of_two_ends_stays(held: tuple[Held, str], start: Start) -> None:
    target, address = held
    gateway = await start(make_record([guarded_tier(address, breaker=QUICK), static_tier()], budget=LONG))
    early = asyncio.create_task(gateway.chat(user="held"))
    await target.arrived.wait()
    for _ in range(2):
        await gateway.chat()
    assert await breaker(gateway) == {"state": "open", "failureMode": "DependencyFailure", "openForSeconds": 5}
    target.answer.set_result(web.Response(status=429, headers={"Retry-After": "2"}))
    assert (await early).said("reason") == "ResourceExhaustion"
    assert await breaker(gateway) == {"state": "open", "failureMode": "DependencyFailure", "openForSeconds": 5}


async def test_w30_a_minute_of_failures_costs_few_attempts_and_recovery_is_soon(model: Model, start: Start, time: Time) -> None:
    model.script(ERROR)
    gateway = await start(make_record([guarded_tier(model.url, breaker=QUICK), static_tier()]))
    attempts = []
    for _ in range(60):
        got = await gateway.chat()
        assert got.text == "Not now."
        attempts.append(int(got.said("attempts") or "nan"))
        time.now += 1
    assert max(sum(attempts[n : n + 15]) for n in range(46)) <= 4
    assert sum(attempts) == model.fake.total
    model.script(Rule(text="Back."))
    texts = []
    for _ in range(30):
        texts.append((await gateway.chat()).text)
        time.now += 1
    assert texts[-1] == "Back."
    assert texts == sorted(texts, reverse=True), "once it is back it stays"


async def test_w31_with_all_targets_open_there_is_an_error_or_the_static_answer_at_once(
    model: Model, other_model: Model, start: Start
) -> None:
    model.script(ERROR)
    other_model.script(ERROR)
    chain = [
        guarded_tier(model.url, breaker=QUICK, first_token=LONG),
        guarded_tier(other_model.url, name="second", breaker=QUICK),
    ]
    gateway = await start(make_record(chain, budget=2 * LONG))
    for _ in range(2):
        assert (await gateway.chat()).status == 502
    model.script(Rule(fault=Fault.HANG))
    other_model.script(Rule(fault=Fault.HANG))
    for stream in (False, True):
        got = await gateway.chat(stream=stream)
        assert (got.status, got.headers["x-should-retry"], got.said("attempts")) == (503, "false", "0")
        assert got.json["error"] == {
            "message": "no tier of the chain answered: tier `primary` is left alone after it failed (DependencyFailure)",
            "type": "server_error",
            "param": None,
            "code": "DependencyFailure",
        }
    assert await gateway.total("backstop_served_total", outcome="error", first_tier="failed") == 4

    with_static = await start(make_record([guarded_tier(model.url, breaker=QUICK), static_tier()]))
    model.script(ERROR)
    before = model.fake.total
    for _ in range(4):
        assert (await with_static.chat()).text == "Not now."
    assert model.fake.total == before + 2


async def test_a_first_tier_that_is_left_alone_counts_as_what_it_did_before(model: Model, start: Start) -> None:
    for rule, first, patience in ((ERROR, "failed", LONG), (Rule(fault=Fault.HANG), "late", 80)):
        model.script(rule)
        chain = [guarded_tier(model.url, breaker=QUICK, first_token=patience), static_tier()]
        gateway = await start(make_record(chain, budget=LONG))
        answers = [await gateway.chat() for _ in range(5)]
        assert [got.said("attempts") for got in answers] == ["1", "1", "0", "0", "0"]
        assert {got.said("first-tier") for got in answers} == {first}
        assert await gateway.total("backstop_served_total", outcome="success", first_tier=first) == 5


async def _open(gateway: Gateway, *, model: Model, time: Time) -> None:
    """Open the breaker, and wait until it is half-open."""
    model.script(ERROR)
    for _ in range(2):
        assert (await gateway.chat()).text == "Not now."
    time.now += 5
    assert (await breaker(gateway))["state"] == "half-open"


def _once(rule: Rule) -> Rule:
    """It decides once."""
    return msgspec.structs.replace(rule, times=1)
