"""The whole way of an answer that is not true, and of a thumb: a gateway's counters, a Prometheus that scrapes them, and a verdict."""

import asyncio
import json
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import objectives_of
from backstop.analysis.prometheus import PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.reading import Breached, SLOReading
from backstop.analysis.source import fetched_by_batch
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.problems import parse_strictly
from backstop.api.reasons import Reason
from e2e.fakemodel.script import Rule
from tests.analysis.conftest import SCRAPE_SECONDS, Prometheus, prometheus  # noqa: F401 - a fixture
from tests.analysis.history import live_policy

from .harness import NAMESPACE, POLICY, Gateway, Gateways, Got, Model, TrafficApi, make_record, model_tier, state
from .test_usage_to_verdict import endpoint_of

pytestmark = pytest.mark.prometheus

PARTS: dict[str, Any] = {
    "quality": {"samplePercent": 100, "scorers": [{"name": "figures", "type": "NumbersAndLinks"}]},
    "feedback": {"keyRef": {"name": "feedback", "key": "key"}},
}
SLOS = [
    {"name": "hallucination", "indicator": "HallucinationRate", "maxPercent": "2"},
    {"name": "feedback", "indicator": "NegativeFeedbackRate", "maxIncreasePercent": "3"},
]
KEYS = {"BACKSTOP_FEEDBACK_KEY": "k" * 32}


async def test_b12_a_canary_that_makes_figures_up_and_is_disliked_is_breached_by_both_beside_a_stable_that_is_not(
    model: Model,
    gateways: Gateways,
    api: TrafficApi,
    prometheus: Prometheus,  # noqa: F811 - the fixture
) -> None:
    chain = [model_tier(model.url)]
    stable, canary = make_record(chain, **PARTS), make_record(chain, prompt="You are the canary prompt.", **PARTS)
    model.script(Rule(match="canary", text="From 10:45 on."), Rule(text="From ten on."))
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=500))
    entries = [await gateways.start(record, api=api, keys=KEYS, seed=seed) for seed, record in enumerate((stable, canary))]
    for entry in entries:
        await entry.acts_on(2)
    prometheus.scrape([endpoint_of(entry) for entry in entries])
    await prometheus.start()
    config = MetricsSourceConfig(name="default", url=prometheus.url, scrape_interval_seconds=SCRAPE_SECONDS)
    declared = {"promptVersion": "support-1", "latencyBudgetMilliseconds": 5000, "chain": chain, "slos": SLOS, **PARTS}
    policy = replace(
        live_policy(
            *objectives_of(parse_strictly(FallbackPolicySpec, declared, prefix="spec")),
            since=time.time(),
            canary=canary.revision,
            stable=stable.revision,
        ),
        namespace=NAMESPACE,
        name=POLICY,
        from_zero=True,
    )

    async def tell(entry: Gateway, answer: Got) -> None:
        label = "negative" if "10:45" in answer.text else "positive"
        await entry.post(json.dumps({"request_id": answer.said("request-id"), "label": label}).encode(), path="/v1/feedback")

    kept = AnalysisState()
    readings: tuple[SLOReading, ...] = ()
    with closing(PrometheusSource(config)) as source:
        async with asyncio.timeout(60):
            while not (readings and all(isinstance(reading.state, Breached) for reading in readings)):
                answers = await asyncio.gather(*(entries[0].chat(stream=number % 4 == 0) for number in range(12)))
                await asyncio.gather(*(tell(entries[0], answer) for answer in answers))
                asked = replace(policy, state=kept)
                async for fetched in fetched_by_batch([asked], source=source, now=time.time()):
                    result = evaluate(fetched[NAMESPACE, POLICY], policy=asked, now=time.time(), scrape_interval=SCRAPE_SECONDS)
                resumed = unpack(pack(result.state))
                assert isinstance(resumed, AnalysisState)
                readings, kept = result.readings, resumed
    hallucination, feedback = readings
    assert (hallucination.reason, feedback.reason) == (Reason.HALLUCINATION_RATE_BREACH, Reason.FEEDBACK_BREACH)
    assert (hallucination.value, feedback.value) == ("100", "100")
    assert hallucination.stable is not None
    assert (hallucination.stable.bad, hallucination.stable.total > 0) == (0, True)
    assert "canary requests answered without grounds, of those that were judged (100 %, allowed 2 %) against 0 of" in hallucination.evidence
