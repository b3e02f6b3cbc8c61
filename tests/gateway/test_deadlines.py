"""A caller's own deadline: it may be shorter than the policy's, and then it says nothing of the revision and its targets."""

import pytest

from e2e.fakemodel.script import Fault, Rule

from .harness import Gateways, Model, TrafficApi, guarded_tier, make_record, model_tier, state, static_tier

SOON = {"x-backstop-deadline-ms": "300"}  # time enough to reach a target, also on a busy machine
BREAKER = {"minRequests": 2, "failurePercent": 50}


@pytest.mark.parametrize("stream", [False, True])
async def test_w08_the_callers_shorter_deadline_holds(model: Model, gateways: Gateways, stream: bool) -> None:
    model.script(Rule(fault=Fault.HANG))
    gateway = await gateways.start(make_record([guarded_tier(model.url, breaker=BREAKER), static_tier()], budget=60_000))
    for _ in range(3):
        got = await gateway.chat(headers=SOON, stream=stream)  # within what a test waits, where the policy would let it wait for a minute
        assert (got.status, got.text, got.said("reason")) == (200, "Not now.", "LatencyBreach")
    assert await gateway.total("backstop_served_total") == 0, "such requests are no evidence"
    assert await gateway.total("backstop_sent_total") == 0
    assert await gateway.total("backstop_requests_total", outcome="success") == 3
    assert await gateway.total("backstop_breaker_state") == 0, "and teach the breaker nothing"
    assert model.fake.total == 3


async def test_w08_a_deadline_goes_along_to_the_canary(model: Model, gateways: Gateways, api: TrafficApi) -> None:
    model.script(Rule(fault=Fault.HANG))
    record = make_record([model_tier(model.url)], budget=60_000)
    canary = await gateways.start(make_record([model_tier(model.url)], prompt="The canary.", budget=60_000), api=api)
    gateway = await gateways.start(record, api=api)
    api.write(state(1, stable=record.revision, canary=canary.revision, permille=1000))
    await gateway.acts_on(1)
    await canary.acts_on(1)
    got = await gateway.chat(headers=SOON)
    assert (got.status, got.said("track"), got.json["error"]["code"]) == (504, "canary", "LatencyBreach")
    assert await gateway.total("backstop_sent_total") == await gateway.total("backstop_served_total") == 0


async def test_w08_a_longer_deadline_changes_nothing(model: Model, gateways: Gateways) -> None:
    model.script(Rule(fault=Fault.HANG))
    gateway = await gateways.start(make_record([model_tier(model.url), static_tier()], budget=200))
    got = await gateway.chat(headers={"x-backstop-deadline-ms": "600000"})
    assert (got.text, got.said("first-tier")) == ("Not now.", "late")
    assert await gateway.total("backstop_served_total", first_tier="late") == 1


async def test_a_deadline_that_is_none_is_refused(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    for wrong in ("0", "-5", "1.5", "soon", "", "9999999999"):
        got = await gateway.chat(headers={"x-backstop-deadline-ms": wrong})
        assert (got.status, got.json["error"]["param"]) == (400, "x-backstop-deadline-ms")
    assert model.fake.total == 0
