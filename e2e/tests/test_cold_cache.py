"""A canary that begins with a cold cache beside a stable with a warm one, on a whole cluster."""

import pytest

from e2e.load import Answer
from e2e.tests.scenario import ALSO_HASTY, HASTY, MODEL_URL, Scenario, policy, prompt

pytestmark = pytest.mark.cluster

HOLD_SECONDS = 45
KNOWN = 600


def hits(answers: list[Answer]) -> float:
    """Share of them that a cache gave at once."""
    return sum(answer.cache == "hit" for answer in answers) / len(answers)


async def test_b18_the_same_model_is_promoted_though_its_cache_is_cold_and_stables_is_warm(scenario: Scenario) -> None:
    # Of what the model is asked for, 30 % fails on both. Of all requests that is some 19 % on stable, and 28 % on the canary.
    chain = [
        {"name": "primary", "model": {"baseURL": MODEL_URL, "name": "large"}, "circuitBreaker": {"failurePercent": 100}},
        {"name": "cache", "cache": {"hot": {}}},
        {"name": "static", "static": {"default": "We cannot answer right now."}},
    ]
    slos = [{"name": "errors", "indicator": "ErrorRate", "maxIncreasePercent": "2"}]
    wanted = policy("1.0.0", steps=[(50, HOLD_SECONDS), (100, 3)], replicas=1, chain=chain, slos=slos)
    await scenario.apply(prompt("1.0.0", text=HASTY), prompt("2.0.0", text=ALSO_HASTY), wanted)
    before = await scenario.until_stable("1.0.0")
    async with scenario.load("--rate", "40", "--callers", "16", "--known", str(KNOWN), "--known-percent", "40") as load:
        await load.until(2 * KNOWN, within=60)
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(50)
        judged = len(load.answers)
        last = await scenario.until_ended(canary["revision"], within=HOLD_SECONDS + 60)
        answers = load.answers[judged:]
    assert last["outcome"] == "Promoted"
    of_stable = [answer for answer in answers if answer.revision == before["stable"]["revision"]]
    of_canary = [answer for answer in answers if answer.revision == canary["revision"] and answer.began < of_stable[-1].began]
    assert hits(of_stable) > 0.3
    assert hits(of_canary) < hits(of_stable) / 2
