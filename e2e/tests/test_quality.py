"""A version whose answers are fast, and not true, on a whole cluster."""

import pytest

from e2e.tests.scenario import GOOD, INVENTS, Scenario, policy, prompt

pytestmark = pytest.mark.cluster


async def test_b12_a_version_that_makes_figures_up_is_rolled_back_though_it_is_fast(scenario: Scenario) -> None:
    slos = [
        {"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150, "forSeconds": 30},
        {"name": "hallucination", "indicator": "HallucinationRate", "maxPercent": "2"},
    ]
    quality = {"samplePercent": 100, "scorers": [{"name": "figures", "type": "NumbersAndLinks"}]}
    wanted = policy("1.0.0", steps=[(20, 60), (100, 10)], slos=slos, quality=quality)
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=INVENTS), wanted)
    before = await scenario.until_stable("1.0.0")
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(20)
        last = await scenario.until_ended(canary["revision"], within=40)
        status = await scenario.status()
    assert (last["outcome"], last["reason"]) == ("RolledBack", "HallucinationRateBreach")
    assert "canary requests answered without grounds" in last["message"]
    assert status["stable"]["revision"] == before["stable"]["revision"]
    assert [(r["revision"], r["suspected"]) for r in status["rejected"]] == [(canary["revision"], False)], "stable was judged beside it"
    judged = [answer for answer in load.answers if answer.revision == canary["revision"]]
    assert judged
    assert sum(answer.seconds > 0.150 for answer in judged) < len(judged) / 2, "latency is fine"
