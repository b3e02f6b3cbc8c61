"""Rollouts that go well, on a whole cluster, with callers who must not notice."""

import asyncio
import time

import pytest

from backstop.api.clock import parse_time
from e2e.tests.scenario import ALSO_GOOD, GOOD, Scenario, condition, policy, prompt

pytestmark = pytest.mark.cluster


async def test_a01_the_first_version_becomes_stable_without_a_canary(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), policy("1.0.0", steps=[(5, 10), (100, 10)]))
    status = await scenario.until_stable("1.0.0")
    assert status.get("canary") is None
    assert "CanaryStarted" not in await scenario.reasons()
    async with scenario.load() as load:
        await load.until(80, within=30)
    assert {answer.track for answer in load.answers} == {"stable"}


async def test_a02_the_weight_stays_0_until_a_pod_of_the_canary_is_ready(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(5, 10), (100, 10)]))
    await scenario.until_stable("1.0.0")
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        canary = await scenario.until(lambda status: status.get("canary"), within=20, what="a canary")
        traffic = await scenario.traffic()
        while not (started := (await scenario.status())["canary"].get("stepStartedAt")):
            assert traffic.permille == 0
            traffic = await scenario.traffic()
        ready = [
            c["lastTransitionTime"]
            for pod in await scenario.pods(canary["revision"])
            for c in pod["status"]["conditions"]
            if c["type"] == "Ready" and c["status"] == "True"
        ]
        assert ready, "the weight rose with no ready pod"
        assert min(ready)[:19] <= started[:19]
        await scenario.until_weight(5)
    assert all(answer.ended >= parse_time(started) for answer in load.answers if answer.track == "canary")


async def test_a03_t02_t07_steps_are_exact_and_the_pods_that_were_judged_are_the_pods_that_serve(scenario: Scenario) -> None:
    """Callers keep their connections through all steps and the promotion: none is refused, and 10 s later none gets the old revision."""
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(5, 12), (50, 6), (100, 6)]))
    before = await scenario.until_stable("1.0.0")
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        canary_pods: set[str] = set()
        for weight in (5, 50, 100):
            canary = await scenario.until_weight(weight, within=90)
            traffic = await scenario.traffic()
            assert (traffic.canary, traffic.permille) == (canary["revision"], weight * 10)
            canary_pods = {pod["metadata"]["uid"] for pod in await scenario.pods(canary["revision"])}
        await scenario.until_stable("2.0.0", within=90)
        promoted = time.time()
        assert {pod["metadata"]["uid"] for pod in await scenario.pods(canary["revision"])} == canary_pods
        # 10 s are what the promise is about.
        while time.time() < promoted + 14:
            await scenario.status()
            await asyncio.sleep(0.5)
    late = load.since(promoted + 10)
    assert len(late) > 50
    assert {answer.revision for answer in late} == {canary["revision"]}
    assert {answer.revision for answer in load.answers} == {before["stable"]["revision"], canary["revision"]}
    reasons = await scenario.reasons()
    assert reasons.count("StepStarted") == 3
    assert reasons.count("Promoted") == 1


async def test_c03_naming_stable_again_in_mid_canary_returns_at_once(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(40, 600), (100, 10)]))
    await scenario.until_stable("1.0.0")
    async with scenario.load():
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(40)
        await scenario.want("1.0.0")
        last = await scenario.until_ended(canary["revision"], within=10)
        status = await scenario.until_stable("1.0.0", within=10)
    assert last["outcome"] == "Superseded"
    assert (await scenario.traffic()).permille == 0
    assert status.get("rejected", []) == []
    assert condition(status, "Stalled") is None
