"""Pods that come and go for the cluster's own reasons: nodes that are drained, an autoscaler. No caller notices."""

import asyncio
import time
from typing import Any

import pytest

from backstop.kube.client import Client
from backstop.kube.errors import Unavailable
from backstop.kube.resources import AUTOSCALERS, DEPLOYMENTS, POLICIES, Resource
from e2e.tests.scenario import ALSO_GOOD, GOOD, MANAGER, POLICY, Scenario, policy, prompt

pytestmark = pytest.mark.cluster


async def evict(client: Client, pod: dict[str, Any], *, within: float = 120) -> int:
    """Evict a pod as `kubectl drain` does: ask until it may go. Returns how often it might not."""
    metadata = pod["metadata"]
    eviction = Resource("", "v1", f"pods/{metadata['name']}/eviction", "Eviction")
    names = {"name": metadata["name"], "namespace": metadata["namespace"]}
    refused, end = 0, time.monotonic() + within
    while True:
        try:
            await client.create(eviction, body={"apiVersion": "policy/v1", "kind": "Eviction", "metadata": names}, manager=MANAGER)
        except Unavailable:  # 429: its budget does not allow it now
            refused += 1
        else:
            return refused
        assert time.monotonic() < end, f"{metadata['name']} may not be evicted"
        await asyncio.sleep(0.2)


async def replaced(scenario: Scenario, *, gone: set[str], pods: int) -> None:
    """Until these pods are gone and as many as there should be are ready again."""
    end = time.monotonic() + 90
    while True:
        present = await scenario.pods()
        ready = [p for p in present if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))]
        if not gone & {pod["metadata"]["uid"] for pod in present} and len(ready) == len(present) == pods:
            return
        assert time.monotonic() < end, "evicted pods were not replaced"
        await asyncio.sleep(0.2)


async def test_t01_every_gateway_pod_is_evicted_in_turn_and_no_request_fails(scenario: Scenario) -> None:
    """All are asked to go at once: that they go in turn is what their budget is for."""
    declared = policy("1.0.0", steps=[(20, 600), (100, 5)], replicas=5)
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), declared)
    stable = (await scenario.until_stable("1.0.0"))["stable"]["revision"]
    async with scenario.load():
        await scenario.want("2.0.0")
        await scenario.until_weight(20)
        present = await scenario.pods()
        assert len(present) == 6
        refused = await asyncio.gather(*(evict(scenario.client, pod) for pod in present))
        mine = [times for pod, times in zip(present, refused, strict=True) if pod["metadata"]["labels"]["backstop.dev/revision"] == stable]
        assert min(mine) == 0, "one may always go"
        assert max(mine) > 0, "all of stable's pods were let go at once"
        await replaced(scenario, gone={pod["metadata"]["uid"] for pod in present}, pods=6)
        await scenario.until_weight(20, within=60)


async def test_the_only_pod_of_a_policy_may_be_evicted(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), policy("1.0.0", steps=[(100, 5)], replicas=1))
    await scenario.until_stable("1.0.0")
    (pod,) = await scenario.pods()
    await evict(scenario.client, pod, within=60)
    await replaced(scenario, gone={pod["metadata"]["uid"]}, pods=1)
    await scenario.until_stable("1.0.0")


async def test_c05_an_autoscaler_moves_stable_and_canary_and_is_taken_over_without_a_dip(scenario: Scenario) -> None:
    def scaled(least: int) -> dict[str, Any]:
        resources = {"requests": {"cpu": "50m", "memory": "64Mi"}}
        return {"replicas": 2, "autoscaling": {"minReplicas": least, "maxReplicas": 6}, "resources": resources}

    steps = [(50, 5), (100, 600)]
    versions = [prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD)]
    await scenario.apply(*versions, policy("1.0.0", steps=steps, serving=scaled(2)))
    before = (await scenario.until_stable("1.0.0"))["stable"]["revision"]
    async with scenario.load():
        await scenario.want("2.0.0")
        canary = (await scenario.until_weight(100))["revision"]
        await scenario.apply(policy("2.0.0", steps=steps, serving=scaled(3)))
        await until_sizes(scenario, {before: 3, canary: 3})
        body = {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind}
        await scenario.apply({**body, "metadata": {"name": POLICY, "annotations": {"backstop.dev/promote": "now"}}}, manager="person")
        sizes = []
        end = time.monotonic() + 60
        while not await promoted(scenario, canary):
            sizes.append((await sizes_of(scenario))[canary])
            assert time.monotonic() < end
        sizes.append((await sizes_of(scenario))[canary])
        assert set(sizes) == {3}
        await scenario.apply(policy("2.0.0", steps=steps, serving=scaled(4)))
        await until_sizes(scenario, {canary: 4})


async def sizes_of(scenario: Scenario) -> dict[str, int]:
    """Replicas by revision."""
    found, _ = await scenario.client.list(DEPLOYMENTS, namespace=scenario.namespace)
    return {item["metadata"]["labels"]["backstop.dev/revision"]: item["spec"]["replicas"] for item in found}


async def until_sizes(scenario: Scenario, wanted: dict[str, int]) -> None:
    end = time.monotonic() + 90
    while not wanted.items() <= (sizes := await sizes_of(scenario)).items():
        assert time.monotonic() < end, f"{sizes} instead of {wanted}"
        await asyncio.sleep(0.2)


async def promoted(scenario: Scenario, revision: str) -> bool:
    """Whether this revision is stable, and what the autoscaler scales."""
    status = await scenario.status()
    scaler = await scenario.client.get(AUTOSCALERS, namespace=scenario.namespace, name=POLICY)
    target = str(scaler["spec"]["scaleTargetRef"]["name"])
    return status["stable"]["revision"] == revision and target == f"{POLICY}-{revision}"
