"""The whole way of a token: a model's answer, a gateway's counters, a Prometheus that scrapes them, and a verdict."""

import asyncio
import re
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import objectives_of
from backstop.analysis.prometheus import PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.reading import Breached, SLOReading
from backstop.analysis.source import fetched_by_batch
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import FallbackPolicySpec, Tier
from backstop.api.policystatus import Phase
from backstop.api.problems import parse_strictly
from backstop.api.record import RevisionRecord
from backstop.controller.shown import shown_of
from backstop.rollout.place import Place
from backstop.telemetry.endpoints import serve_endpoints
from backstop.telemetry.metrics import Metrics
from e2e.fakemodel.script import Rule
from tests.analysis.conftest import SCRAPE_SECONDS, Prometheus, prometheus  # noqa: F401 - a fixture
from tests.analysis.history import live_policy

from .harness import NAMESPACE, POLICY, ROOT, Gateway, Gateways, Model, TrafficApi, eventually, make_record, model_tier, state

pytestmark = pytest.mark.prometheus

SLOS = [
    {"name": "tokens", "indicator": "TokensPerRequest", "maxTokensPerRequest": 100},
    {"name": "cost", "indicator": "CostPerRequest", "maxCostPerRequest": "0.002"},
]
PRICE = {"inputPerMillionTokens": "100", "outputPerMillionTokens": "20.00", "currency": "EUR"}


@dataclass
class Endpoint:
    """Where a gateway has its metrics."""

    port: int


def endpoint_of(gateway: Gateway) -> Endpoint:
    return Endpoint(int(gateway.metrics_address.rpartition(":")[2]))


def spec(model: Model) -> FallbackPolicySpec:
    """The policy as it is now: its price came after both revisions were made."""
    declared: dict[str, Any] = {"promptVersion": "support-1", "latencyBudgetMilliseconds": 5000, "slos": SLOS}
    return parse_strictly(FallbackPolicySpec, declared | {"chain": [model_tier(model.url) | {"price": PRICE}]}, prefix="spec")


async def test_a_canary_that_writes_too_much_is_breached_by_what_its_model_says(
    model: Model,
    gateways: Gateways,
    api: TrafficApi,
    stable: RevisionRecord,
    canary: RevisionRecord,
    prometheus: Prometheus,  # noqa: F811 - the fixture
) -> None:
    model.script(Rule(match="canary", tokens=400), Rule(tokens=12))
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=500))
    entries = [await gateways.start(record, api=api, seed=seed) for seed, record in enumerate((stable, canary))]
    for entry in entries:
        await entry.acts_on(2)
    prometheus.scrape([endpoint_of(entry) for entry in entries])
    await prometheus.start()
    config = MetricsSourceConfig(name="default", url=prometheus.url, scrape_interval_seconds=SCRAPE_SECONDS)
    policy = replace(
        live_policy(*objectives_of(spec(model)), since=time.time(), canary=canary.revision, stable=stable.revision),
        namespace=NAMESPACE,
        name=POLICY,
        from_zero=True,
    )

    async def look(source: PrometheusSource, kept: AnalysisState) -> tuple[tuple[SLOReading, ...], AnalysisState]:
        asked = replace(policy, state=kept)
        async for fetched in fetched_by_batch([asked], source=source, now=time.time()):
            result = evaluate(fetched[NAMESPACE, POLICY], policy=asked, now=time.time(), scrape_interval=SCRAPE_SECONDS)
        resumed = unpack(pack(result.state))
        assert isinstance(resumed, AnalysisState)
        return result.readings, resumed

    kept = AnalysisState()
    readings: tuple[SLOReading, ...] = ()
    with closing(PrometheusSource(config)) as source:
        async with asyncio.timeout(60):
            while not (readings and all(isinstance(reading.state, Breached) for reading in readings)):
                await asyncio.gather(*(entries[0].chat() for _ in range(10)), *(entries[0].chat(stream=True) for _ in range(2)))
                readings, kept = await look(source, kept)
    tokens, cost = readings
    # The model says 8 tokens of every request, and one for each piece of its answers: 408 and 20. At their prices that is 0.0008 and
    # 0.008, or 0.00024.
    assert (tokens.value, tokens.stable_mean) == ("408", "20")
    assert (cost.value, cost.stable_mean) == ("0.0088", "0.00104")
    assert tokens.evidence.startswith("tokens: 408 tokens per request over ")
    assert cost.evidence.startswith("cost: 0.0088 EUR per request over ")
    assert "not judged, as what they came to is not known" in tokens.evidence, "streams whose callers did not ask for the usage"


def question(number: int) -> str:
    """One of the page's questions, asked of all that was counted: what a day's increase is depends on when it is asked."""
    page = (ROOT / "docs" / "concepts" / "indicators.md").read_text(encoding="utf-8")
    found = re.findall(r"```promql\n(.*?)```", page, re.DOTALL)[number]
    return re.sub(r"increase\(([^()]*)\[1d\]\)", r"\1", found)


async def asked(prometheus: Prometheus, query: str, *, by: str) -> dict[str, float]:  # noqa: F811 - the type of the fixture
    async with aiohttp.ClientSession() as http, http.get(f"{prometheus.url}/api/v1/query", params={"query": query}) as response:
        answer = await response.json()
    assert answer["status"] == "success", answer
    return {series["metric"][by]: float(series["value"][1]) for series in answer["data"]["result"]}


async def test_costs_are_tokens_by_the_prices_that_the_operator_shows_and_what_has_none_is_told(
    model: Model,
    other_model: Model,
    gateways: Gateways,
    prometheus: Prometheus,  # noqa: F811 - the fixture
) -> None:
    model.script(Rule(tokens=12))
    other_model.script(Rule(tokens=5))
    tiers = [model_tier(model.url), model_tier(other_model.url, name="second", firstTokenMilliseconds=1000)]
    gateway = await gateways.start(make_record(tiers))
    metrics = Metrics()
    chain = [parse_strictly(Tier, tier, prefix="") for tier in (tiers[0] | {"price": PRICE}, tiers[1])]
    metrics.show_policy(NAMESPACE, POLICY, shown=shown_of(Place(), phase=Phase.IDLE, chain=chain))
    async with serve_endpoints(metrics.registry, port=0, alive=lambda: None, ready=lambda: None) as port:
        for _ in range(3):
            await gateway.chat()
        await gateway.chat(stream=True)  # of which nobody asks the usage
        model.script(Rule(error_percent=100))
        assert (await gateway.chat()).said("tier") == "second"
        prometheus.scrape([endpoint_of(gateway), Endpoint(port)])
        await prometheus.start()

        async def costs() -> dict[str, float]:
            return await asked(prometheus, question(0), by="currency")

        # Three times 8 tokens of the request at 100 a million, and 12 of the answer at 20.
        assert await eventually(costs, within=30) == {"EUR": pytest.approx(3 * (8 * 100 + 12 * 20) / 1e6)}
        unpriced = await asked(prometheus, question(1), by="target")
        assert [(target.partition("@")[0], tokens) for target, tokens in unpriced.items()] == [("second", 8 + 5)]
        unknown = await asked(prometheus, question(2), by="target")
        assert {target.partition("@")[0]: answers for target, answers in unknown.items()} == {"primary": 1}
