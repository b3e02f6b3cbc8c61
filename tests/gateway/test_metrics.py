"""What `/metrics` offers: names, labels and bounds that the analysis asks for, and nothing from callers."""

import asyncio

import aiohttp
import pytest

from backstop.api import metricnames

from .harness import Gateways, Model, make_record, model_tier, static_tier

OWN = {"namespace", "policy", "revision"}
JUNK = 10_000


async def test_every_declared_limit_is_a_bucket_bound(model: Model, gateways: Gateways) -> None:
    slos = [{"name": f"l{ms}", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": ms} for ms in (137, 1234)]
    gateway = await gateways.start(make_record([model_tier(model.url)], slos=slos))
    await gateway.chat()
    samples = await gateway.metrics()
    for name in (metricnames.SERVED_SECONDS, metricnames.FIRST_BYTE_SECONDS, metricnames.REQUEST_SECONDS):
        bounds = {labels["le"] for labels, _ in samples[f"{name}_bucket"]}
        for limit in (0.137, 1.234):
            for multiple in metricnames.LIMIT_MULTIPLES:
                assert metricnames.bound_label(round(limit * multiple, 6)) in bounds
        assert {metricnames.bound_label(bound) for bound in metricnames.GRID} <= bounds


async def test_names_and_labels_are_those_of_the_contract(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier("127.0.0.1:1"), static_tier()], budget=5000))
    await gateway.chat()
    samples = await gateway.metrics()
    labels = {name: set(found[0][0]) for name, found in samples.items() if found}
    assert labels[metricnames.SERVED_TOTAL] == OWN | {"cache", "outcome", "first_tier"}
    assert labels[f"{metricnames.SERVED_SECONDS}_count"] == OWN | {"cache", "first_tier"}
    assert labels[metricnames.SENT_TOTAL] == OWN
    assert labels[metricnames.REQUESTS_TOTAL] == OWN | {"track", "tier", "outcome"}
    assert labels[metricnames.HANDOFFS_TOTAL] == OWN | {"from", "to", "failure_mode", "severity"}
    assert labels[metricnames.ATTEMPTS_TOTAL] == OWN | {"target", "outcome"}
    assert labels[metricnames.REFUSED_TOTAL] == OWN | {"reason"}
    assert labels[metricnames.TARGET_UP] == OWN | {"target"}
    assert labels[metricnames.BREAKER_STATE] == OWN | {"tier"}
    assert labels[metricnames.BUDGET_EXCEEDED_TOTAL] == labels[metricnames.INFLIGHT] == OWN
    assert labels[metricnames.REVISION_INFO] == OWN | {"prompt_version", "prompt_digest"}
    assert samples[metricnames.REVISION_INFO][0][0]["revision"] == gateway.revision


@pytest.mark.long
async def test_w55_what_callers_send_never_becomes_a_series(model: Model, gateways: Gateways, http: aiohttp.ClientSession) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url)]))

    async def ask(number: int) -> None:
        junk = f"junk-{number}"
        await gateway.chat(model=junk, user=junk, headers={"x-backstop-request-id": junk, "x-junk": junk})
        for path in (junk, f"v1/models/{junk}") if number % 100 == 0 else ():
            async with http.get(f"http://{gateway.address}/{path}") as response:
                assert response.status == 404

    await ask(0)
    before = {name: len(found) for name, found in (await gateway.metrics()).items()}
    for first in range(1, JUNK, 50):
        await asyncio.gather(*[ask(number) for number in range(first, first + 50)])
    assert {name: len(found) for name, found in (await gateway.metrics()).items()} == before


async def test_overhead_is_measured_apart_from_waiting(model: Model, gateways: Gateways) -> None:
    from e2e.fakemodel.script import Rule

    model.script(Rule(latency_milliseconds=400))
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    got = await gateway.chat()
    total = await gateway.total("backstop_served_seconds_sum")
    assert total >= 0.4
    assert float(got.said("overhead-ms") or "nan") / 1000 <= total - 0.4 + 0.001
