"""The canary's share over many requests."""

import math

import pytest

from e2e.tests.scenario import ALSO_GOOD, GOOD, Scenario, policy, prompt

pytestmark = pytest.mark.cluster

REQUESTS = 20_000


@pytest.mark.parametrize("replicas", [1, 5])
async def test_t05_5_percent_of_20000_requests_are_5_percent(scenario: Scenario, replicas: int) -> None:
    await scenario.apply(
        prompt("1.0.0", text=GOOD),
        prompt("2.0.0", text=ALSO_GOOD),
        policy("1.0.0", steps=[(5, 3600), (100, 5)], replicas=replicas, slos=[]),
    )
    await scenario.until_stable("1.0.0")
    await scenario.want("2.0.0")
    await scenario.until_weight(5)
    async with scenario.load("--requests", str(REQUESTS), "--callers", "16") as load:
        await load.until(REQUESTS, within=240)
    assert len(load.answers) == REQUESTS
    canary = sum(answer.track == "canary" for answer in load.answers)
    # Five standard deviations of a binomial: a right split fails once in 1.7 million runs.
    spread = 5 * math.sqrt(REQUESTS * 0.05 * 0.95)
    assert abs(canary - 0.05 * REQUESTS) <= spread, f"{canary} of {REQUESTS}"
