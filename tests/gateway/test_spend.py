"""An allowance of tokens: counted by one gateway, and by several together in a real Valkey."""

import time
from pathlib import Path
from typing import Any

import pytest

from backstop.api.record import RevisionRecord
from backstop.gateway.allowance import Allowance, AllowanceSettings
from backstop.gateway.usage import Usage
from e2e.fakemodel.script import Rule

from .harness import NOBODY, Gateway, Gateways, Model, eventually, guarded_tier, make_record, static_tier
from .test_warm_cache import ADDRESS, shared_tier
from .valkey import Valkey, valkey

DAY = 86_400.0
NO_STORE = {"cache-control": "no-store"}


class Now:
    """The wall clock."""

    def __init__(self, at: float = 100 * DAY + 5) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def allowance(now: Now) -> Allowance:
    return Allowance(AllowanceSettings(tokens=100, period=DAY, tiers=frozenset({"primary"}), refuses=False), now=now)


def test_a_tier_is_barred_when_its_tokens_reach_the_allowance_and_no_other_is(allowance: Allowance) -> None:
    allowance.took("second", usage=Usage(1000, 1000))
    allowance.took("primary", usage=Usage(60, 39))
    assert (allowance.used, allowance.bars("primary")) == (99, False)
    allowance.took("primary", usage=Usage(0, 1))
    assert (allowance.bars("primary"), allowance.bars("second")) == (True, False)


def test_what_is_taken_while_the_counter_is_told_is_told_the_next_time(allowance: Allowance) -> None:
    allowance.took("primary", usage=Usage(10, 0))
    told = allowance.untold()
    allowance.took("primary", usage=Usage(0, 7))
    allowance.heard(told, total=40)
    assert (allowance.used, allowance.untold().tokens) == (47, 7)


def test_a_counter_that_has_forgotten_is_not_believed(allowance: Allowance) -> None:
    allowance.heard(allowance.untold(), total=90)
    allowance.took("primary", usage=Usage(6, 0))
    allowance.heard(allowance.untold(), total=6)
    assert (allowance.used, allowance.untold().tokens) == (96, 0)


def test_a_new_period_begins_at_nothing_whatever_is_heard_of_the_old_one(allowance: Allowance, now: Now) -> None:
    allowance.took("primary", usage=Usage(100, 0))
    told = allowance.untold()
    assert allowance.period_ends == 101 * DAY
    now.at = 101 * DAY - 0.001
    assert allowance.bars("primary")
    now.at = 101 * DAY
    assert not allowance.bars("primary")
    allowance.heard(told, total=5000)
    assert (allowance.used, allowance.untold().period, allowance.untold().tokens) == (0, told.period + 1, 0)


def spending(model: str, *, tokens: int, behind: dict[str, Any] | None = None, on_exhausted: str = "HandOff") -> RevisionRecord:
    first = guarded_tier(model, first_token=2000)
    first["model"]["askUsage"] = True
    spend = {"periodDays": 30, "tokenAllowance": tokens, "onExhausted": on_exhausted}
    return make_record([first, shared_tier(), behind or static_tier()], budget=8000, spend=spend)


async def used(gateway: Gateway, tokens: float) -> None:
    """Wait until it knows of so many."""

    async def look() -> bool:
        return await gateway.total("backstop_spend_tokens") == tokens

    await eventually(look)


async def ask(gateway: Gateway, **fields: Any) -> tuple[int, str | None, str | None]:
    got = await gateway.chat(headers=NO_STORE, **fields)
    return got.status, got.said("tier"), got.said("reason")


@pytest.mark.parametrize("stream", [False, True])
async def test_without_its_redis_a_gateway_counts_for_itself(model: Model, gateways: Gateways, stream: bool) -> None:
    model.script(Rule(text="one two"))
    gateway = await gateways.start(spending(model.url, tokens=20), keys={ADDRESS: f"redis://{NOBODY}"})
    assert [await ask(gateway, stream=stream) for _ in range(3)] == [
        (200, "primary", None),
        (200, "primary", None),
        (200, "static", "ResourceExhaustion"),
    ], "ten tokens each"
    assert model.fake.total == 2
    assert await gateway.total("backstop_spend_tokens") >= 20
    assert await gateway.total("backstop_spend_allowance_tokens") == 20
    assert await gateway.total("backstop_served_total", first_tier="skipped", outcome="success") == 1
    spend = (await gateway.status())["spend"]
    assert spend["allowance"] == 20
    assert spend["periodEnds"].endswith("T00:00:00.000Z")


async def test_a_request_beyond_the_allowance_is_refused_where_the_policy_says_so(model: Model, gateways: Gateways) -> None:
    record = spending(model.url, tokens=1, on_exhausted="Refuse")
    gateway = await gateways.start(record, keys={ADDRESS: f"redis://{NOBODY}"})
    assert (await gateway.chat()).status == 200
    kept = await gateway.chat()
    assert (kept.status, kept.said("cache")) == (200, "hit"), "what is kept takes no tokens"
    got = await gateway.chat(headers=NO_STORE)
    assert (got.status, got.json["error"]["type"], got.headers["x-should-retry"]) == (429, "rate_limit_error", "false")
    assert "the allowance of tokens of tier `primary` is used up" in got.json["error"]["message"]
    assert model.fake.total == 1


@pytest.mark.long
async def test_gateways_count_together_and_one_that_begins_knows_what_was_taken(model: Model, gateways: Gateways, tmp_path: Path) -> None:
    async with valkey(tmp_path) as server:
        record = spending(model.url, tokens=25)
        first, second = [await gateways.start(record, keys={ADDRESS: server.url}) for _ in range(2)]
        await ask(first)
        taken = await first.total("backstop_spend_tokens")
        await used(second, taken)
        await ask(second)
        await used(first, 2 * taken)
        await ask(first)
        await used(second, 3 * taken)
        assert 3 * taken >= 25
        third = await gateways.start(record, keys={ADDRESS: server.url})
        await used(third, 3 * taken)
        assert {await ask(gateway) for gateway in (first, second, third)} == {(200, "static", "ResourceExhaustion")}
        assert model.fake.total == 3
        (name,) = [key async for key in server.redis.scan_iter("backstop:default:support:tokens:30:*")]
        assert 0 < await server.redis.ttl(name) <= 60 * DAY


@pytest.mark.long
async def test_what_could_not_be_told_is_told_when_the_redis_is_back_and_at_the_end(
    model: Model, gateways: Gateways, tmp_path: Path
) -> None:
    server = Valkey(tmp_path)
    await server.start()
    await server.stop()
    try:
        gateway = await gateways.start(spending(model.url, tokens=1000), keys={ADDRESS: server.url})
        await ask(gateway)
        taken = await gateway.total("backstop_spend_tokens")
        await server.start()
        another = await gateways.start(spending(model.url, tokens=1000), keys={ADDRESS: server.url})
        await used(another, taken)
        await ask(gateway)
        await gateway.stop()
        await used(another, 2 * taken)
    finally:
        await server.stop()


@pytest.mark.long
async def test_a_new_period_lets_the_tier_answer_again(model: Model, gateways: Gateways) -> None:
    later = 0.0
    gateway = await gateways.start(spending(model.url, tokens=1), keys={ADDRESS: f"redis://{NOBODY}"}, now=lambda: time.time() + later)
    assert [(await ask(gateway))[1] for _ in range(2)] == ["primary", "static"]
    later = 30 * DAY
    assert (await ask(gateway))[1] == "primary"
