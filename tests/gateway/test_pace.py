"""How long targets take: what is learned of it, and who is passed over for it."""

import asyncio
from time import monotonic

import pytest

from backstop.gateway.pace import LEAST_ATTEMPTS, TRIAL_SECONDS, WINDOW_SECONDS, Pace
from e2e.fakemodel.script import Fault, Rule

from .harness import Gateway, Gateways, Got, Model, guarded_tier, make_record, static_tier

NEVER = {"windowSeconds": 600, "minRequests": 10_000, "failurePercent": 100, "openSeconds": 1}


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pace(time: Time) -> Pace:
    return Pace(clock=time)


def test_a_target_is_tried_until_enough_is_known(pace: Pace) -> None:
    for _ in range(LEAST_ATTEMPTS - 1):
        pace.came(1.0)
        assert pace.fits(0.1)
        assert pace.fits(0.1), "also twice at the same time"
    pace.came(1.0)
    assert [pace.fits(0.1) for _ in range(3)] == [True, False, False], "once, to see"
    assert pace.fits(1.0)


def test_one_late_attempt_of_twenty_is_borne_and_two_are_not(pace: Pace) -> None:
    for _ in range(19):
        pace.came(0.01)
    pace.came(1.0)
    assert all(pace.fits(0.1) for _ in range(3))
    pace.came(1.0)
    assert [pace.fits(0.1) for _ in range(2)] == [True, False]


def test_what_was_broken_off_says_nothing_of_longer_times(pace: Pace) -> None:
    for _ in range(LEAST_ATTEMPTS):
        pace.was_late(0.1)
    pace.fits(0.1)
    assert (pace.fits(0.1), pace.fits(0.05)) == (False, False)
    assert (pace.fits(0.2), pace.fits(10.0)) == (True, True)


def test_a_target_that_is_passed_over_is_tried_now_and_then_and_forgiven_in_a_minute(pace: Pace, time: Time) -> None:
    for _ in range(1000):
        pace.was_late(0.1)
    assert [pace.fits(0.1) for _ in range(3)] == [True, False, False]
    time.now += TRIAL_SECONDS
    assert [pace.fits(0.1) for _ in range(3)] == [True, False, False]
    time.now += WINDOW_SECONDS
    assert all(pace.fits(0.1) for _ in range(3))


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e9])
def test_no_time_is_too_short_or_too_long_to_be_counted(pace: Pace, seconds: float) -> None:
    for _ in range(LEAST_ATTEMPTS):
        pace.came(seconds)
        pace.was_late(seconds)
    assert isinstance(pace.fits(seconds), bool)


async def at_once(gateway: Gateway) -> list[Got]:
    """As many requests as tell how fast a target is."""
    return await asyncio.gather(*(chat(gateway) for _ in range(LEAST_ATTEMPTS)))


async def chat(gateway: Gateway, *, milliseconds: int | None = None) -> Got:
    return await gateway.chat(headers={} if milliseconds is None else {"x-backstop-deadline-ms": str(milliseconds)})


@pytest.mark.long
async def test_a_tier_that_lately_took_longer_than_is_left_is_passed_over_counted_and_tried_again(
    model: Model, other_model: Model, gateways: Gateways
) -> None:
    later = 0.0
    began = monotonic
    model.script(Rule(fault=Fault.RESET))
    other_model.script(Rule(latency_milliseconds=120, text="Second."))
    chain = [
        guarded_tier(model.url, breaker=NEVER, first_token=300),
        guarded_tier(other_model.url, name="second", first_token=400, breaker=NEVER),
    ]
    record = make_record([*chain, static_tier()], budget=800)
    gateway = await gateways.start(record, clock=lambda: began() + later)
    assert {got.said("tier") for got in await at_once(gateway)} == {"second"}

    trial = await chat(gateway, milliseconds=60)
    assert (trial.said("tier"), trial.said("attempts")) == ("static", "2")
    asked = other_model.fake.total
    for _ in range(3):
        got = await chat(gateway, milliseconds=60)
        assert (got.text, got.said("attempts"), got.said("hand-offs")) == ("Not now.", "1", "2")
    assert other_model.fake.total == asked
    assert await gateway.total("backstop_passed_over_total", target="second") == 3
    assert await gateway.total("backstop_handoffs_total", failure_mode="LatencyBreach", **{"from": "second"}) == 4
    assert (await chat(gateway)).said("tier") == "second", "with more time it is asked"

    other_model.script(Rule(text="Fast."))
    later += WINDOW_SECONDS + 1
    assert (await chat(gateway, milliseconds=2000)).text == "Fast."


@pytest.mark.long
async def test_the_first_tier_is_passed_over_only_by_who_has_less_time_than_the_policy_gives(model: Model, gateways: Gateways) -> None:
    model.script(Rule(latency_milliseconds=150, text="First."))
    gateway = await gateways.start(make_record([guarded_tier(model.url, breaker=NEVER), static_tier()], budget=400))
    assert {got.text for got in await at_once(gateway)} == {"First."}
    hurried = [await chat(gateway, milliseconds=50) for _ in range(2)]
    assert [(got.text, got.said("attempts")) for got in hurried] == [("Not now.", "1"), ("Not now.", "0")]
    assert hurried[1].said("first-tier") == "skipped"

    model.script(Rule(fault=Fault.HANG))
    late = [await chat(gateway) for _ in range(4)]
    assert [(got.text, got.said("attempts"), got.said("first-tier")) for got in late] == [("Not now.", "1", "late")] * 4


@pytest.mark.long
async def test_nobody_is_passed_over_behind_whom_nobody_is(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(Rule(fault=Fault.RESET))
    other_model.script(Rule(latency_milliseconds=250))
    chain = [
        guarded_tier(model.url, breaker=NEVER, first_token=300),
        guarded_tier(other_model.url, name="second", first_token=400, breaker=NEVER),
    ]
    gateway = await gateways.start(make_record(chain, budget=800))
    await at_once(gateway)
    assert [(await chat(gateway, milliseconds=100)).status for _ in range(2)] == [502, 502]
    assert other_model.fake.total == LEAST_ATTEMPTS + 2
