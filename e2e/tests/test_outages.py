"""Parts that are gone for a while: Prometheus, the operator. No caller notices."""

import asyncio
import time
from typing import Any

import pytest

from backstop.api.clock import parse_time
from backstop.kube.client import Client
from backstop.kube.resources import DEPLOYMENTS, LEASES, PODS
from e2e.cluster import Cluster
from e2e.tests.scenario import ALSO_GOOD, GOOD, MANAGER, SLOW, Scenario, condition, policy, prompt

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

OPERATOR_NAMESPACE = "backstop"


async def scale(client: Client, *, namespace: str, name: str, replicas: int) -> None:
    """Scale a Deployment and wait until its pods are as many, and ready."""
    body: dict[str, Any] = await client.get(DEPLOYMENTS, namespace=namespace, name=name)
    body["spec"]["replicas"] = replicas
    await client.replace(DEPLOYMENTS, body=body, manager=MANAGER)
    end = time.monotonic() + 60
    while True:
        status = (await client.get(DEPLOYMENTS, namespace=namespace, name=name)).get("status", {})
        if (status.get("replicas", 0), status.get("readyReplicas", 0)) == (replicas, replicas):
            return
        assert time.monotonic() < end, f"{name} did not scale to {replicas}"
        await asyncio.sleep(0.2)


async def test_m01_without_prometheus_the_rollout_holds_and_goes_on_where_it_was(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(25, 15), (100, 5)]))
    await scenario.until_stable("1.0.0")
    async with scenario.load():
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(25)
        await scale(scenario.client, namespace="monitoring", name="prometheus", replicas=0)
        try:
            await scenario.until(lambda s: condition(s, "MetricsAvailable") == "False", within=30, what="MetricsAvailable=False")
            gone = time.time()
            while time.time() < gone + 25:
                status = await scenario.status()
                assert status["canary"]["revision"] == canary["revision"]
                assert status["canary"]["weight"] == 25
                await asyncio.sleep(1)
        finally:
            await scale(scenario.client, namespace="monitoring", name="prometheus", replicas=1)
        await scenario.until(lambda s: condition(s, "MetricsAvailable") == "True", within=60, what="MetricsAvailable=True")
        status = await scenario.until_stable("2.0.0", within=120)
    assert status.get("rejected", []) == []


async def test_r01_an_operator_that_is_killed_in_mid_step_goes_on_where_it_was(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(25, 25), (100, 5)]))
    await scenario.until_stable("1.0.0")
    async with scenario.load():
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(25)
        for pod in (await scenario.client.list(PODS, namespace=OPERATOR_NAMESPACE))[0]:
            await kill(scenario.client, pod)
        held = await scenario.until(
            lambda s: s["canary"] if s.get("canary", {}).get("weight") == 100 else None, within=120, what="the next step"
        )
        assert parse_time(held["stepStartedAt"]) - parse_time(canary["weightVerifiedAt"]) >= 25, "the step was shortened"
        await scenario.until_stable("2.0.0", within=90)
    reasons = await scenario.reasons()
    assert reasons.count("CanaryStarted") == 1
    assert reasons.count("StepStarted") == 2


async def kill(client: Client, pod: dict[str, Any]) -> None:
    """Delete a pod without grace: its processes get SIGKILL."""
    path = PODS.path(namespace=pod["metadata"]["namespace"], name=pod["metadata"]["name"])
    await client._request("DELETE", path, body={"gracePeriodSeconds": 0})


async def leader(client: Client) -> dict[str, Any]:
    """The pod of the operator that acts."""
    holder = (await client.get(LEASES, namespace=OPERATOR_NAMESPACE, name="backstop"))["spec"]["holderIdentity"]
    pods = (await client.list(PODS, namespace=OPERATOR_NAMESPACE))[0]
    (pod,) = (pod for pod in pods if holder.startswith(f"{pod['metadata']['name']}-"))
    return pod


def signal_pod(cluster: Cluster, pod: dict[str, Any], *, signal: str) -> None:
    """Send every process of a pod a signal; found by the name that the pod's own processes know it by."""
    script = 'for p in /proc/[0-9]*; do [ "$(cat $p/root/etc/hostname 2>/dev/null)" = "$0" ] && kill -s "$1" "${p#/proc/}" || true; done'
    cluster.run(["sh", "-c", script, pod["metadata"]["name"], signal])


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_r02_a_breach_is_acted_on_by_another_operator_when_the_leader_is_gone(scenario: Scenario, cluster: Cluster, how: str) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=SLOW), policy("1.0.0", steps=[(25, 120), (100, 5)]))
    await scenario.until_stable("1.0.0")
    async with scenario.load():
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(25)
        await scenario.until(
            lambda s: any(slo["state"] == "Breaching" for slo in s.get("slos", [])), within=60, what="a breach that is not decided yet"
        )
        gone = await leader(scenario.client)
        if how == "killed":
            await kill(scenario.client, gone)
        else:
            signal_pod(cluster, gone, signal="STOP")
        last = await scenario.until_ended(canary["revision"], within=90)
        assert (last["outcome"], last["reason"]) == ("RolledBack", "LatencyBreach")
        assert (await leader(scenario.client))["metadata"]["uid"] != gone["metadata"]["uid"]
        before = await scenario.status()
        if how == "frozen":
            signal_pod(cluster, gone, signal="CONT")
        await available(scenario.client, namespace=OPERATOR_NAMESPACE, name="backstop")
    assert (await scenario.status())["rejected"] == before["rejected"]
    assert (await scenario.traffic()).permille == 0
    assert (await scenario.reasons()).count("RolledBack") == 1


async def available(client: Client, *, namespace: str, name: str) -> None:
    """Wait until all pods of a Deployment are ready."""
    end = time.monotonic() + 120
    while True:
        body = await client.get(DEPLOYMENTS, namespace=namespace, name=name)
        if body.get("status", {}).get("readyReplicas", 0) == body["spec"]["replicas"]:
            return
        assert time.monotonic() < end, f"the pods of {name} did not all get ready"
        await asyncio.sleep(0.2)
