"""A step that ends before its hold does, on a whole cluster: evidence that the canary is good enough comes out of real scrapes."""

import pytest

from backstop.api.clock import parse_time
from e2e.tests.scenario import ALSO_GOOD, GOOD, Scenario, policy, prompt

pytestmark = pytest.mark.cluster

HOLD_SECONDS = 600


async def test_a_step_ends_early_when_every_slo_is_known_to_be_good_enough(scenario: Scenario) -> None:
    slos = [
        {"name": "errors", "indicator": "ErrorRate", "maxPercent": "20"},
        {"name": "handed", "indicator": "FallbackRate", "maxPercent": "20"},
    ]
    canary = {
        "steps": [{"weight": 50, "holdSeconds": HOLD_SECONDS}, {"weight": 100, "holdSeconds": 3}],
        "analysis": {"warmUpSeconds": 0, "promoteEarly": True},
    }
    await scenario.apply(
        prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[], replicas=1, slos=slos, canary=canary)
    )
    await scenario.until_stable("1.0.0")
    async with scenario.load():
        await scenario.want("2.0.0")
        step = await scenario.until_weight(50)
        status = await scenario.until(
            lambda s: s if any("end the step early" in slo["evidence"] for slo in s.get("slos", [])) else None,
            within=30,
            what="what is missing for an early end",
        )
        assert {slo["name"] for slo in status["slos"]} == {"errors", "handed"}
        promoted = await scenario.until_stable("2.0.0", within=90)
    assert promoted["lastRollout"]["outcome"] == "Promoted"
    assert parse_time(promoted["lastRollout"]["shiftedAt"]) - parse_time(step["weightVerifiedAt"]) < HOLD_SECONDS / 4
    assert (await scenario.reasons()).count("StepPassedEarly") == 1
