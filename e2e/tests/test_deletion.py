"""Policies that are deleted, and others that are created under their names, on a whole cluster, with callers who must not notice."""

import asyncio
import time

import pytest

from backstop.kube.errors import NotFound
from backstop.kube.resources import CHILDREN, PODS, POLICIES, SERVICES, Resource
from e2e.cluster import Cluster
from e2e.platform import OPERATOR_NAMESPACE, available, helm, uninstall
from e2e.tests.conftest import SCRAPE_SECONDS
from e2e.tests.scenario import ALSO_GOOD, GOOD, POLICY, SLOW, Scenario, condition, policy, prompt

pytestmark = pytest.mark.cluster


async def delete(scenario: Scenario) -> None:
    """Delete the policy, as `kubectl delete` does."""
    uid = (await scenario.client.get(POLICIES, namespace=scenario.namespace, name=POLICY))["metadata"]["uid"]
    await scenario.client.delete(POLICIES, namespace=scenario.namespace, name=POLICY, uid=uid)


async def exists(scenario: Scenario, resource: Resource) -> bool:
    """Whether there is one of the policy's name."""
    try:
        await scenario.client.get(resource, namespace=scenario.namespace, name=POLICY)
    except NotFound:
        return False
    return True


async def until_gone(scenario: Scenario, resource: Resource, *, within: float) -> float:
    """Wait until nothing of this resource has the policy's name; when it was last seen, in seconds since the epoch."""
    end, seen = time.monotonic() + within, 0.0
    while True:
        asked = time.time()
        if not await exists(scenario, resource):
            return seen
        seen = asked
        assert time.monotonic() < end, f"{resource.kind} {POLICY} is still there after {within:.0f} s"
        await asyncio.sleep(0.02)


async def remains(scenario: Scenario) -> list[tuple[str, str]]:
    """Everything that carries the policy's label."""
    found = []
    for resource in (*CHILDREN, PODS):
        bodies, _ = await scenario.client.list(resource, namespace=scenario.namespace, labels=f"backstop.dev/policy={POLICY}")
        found += [(resource.kind, body["metadata"]["name"]) for body in bodies]
    return found


async def test_g07_a_policy_deleted_in_mid_canary_fails_no_request_and_leaves_nothing(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(50, 600), (100, 10)]))
    stable = (await scenario.until_stable("1.0.0"))["stable"]["revision"]
    async with scenario.calling() as load:
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(50)
        begun = len(load.answers)
        await load.until(begun + 80, within=30)
        deleted = time.time()
        await delete(scenario)
        last_there = await until_gone(scenario, SERVICES, within=60)
    answers = [answer for answer in load.answers if answer.began <= last_there]
    failed = [answer for answer in answers if answer.failed]
    assert not failed, f"{len(failed)} of {len(answers)} requests failed while the Service was there, the first: {failed[0]}"
    tracks = {answer.revision for answer in answers if deleted - 2 < answer.began < deleted}
    assert tracks == {stable, canary["revision"]}, "the canary had no traffic when the policy was deleted"
    end = time.monotonic() + 60
    while (left := await remains(scenario)) != [("ConfigMap", f"{POLICY}-{stable}")]:
        assert time.monotonic() < end, f"left: {left}"
        await asyncio.sleep(0.2)


async def test_a_policy_created_anew_with_what_was_rolled_back_serves_what_was_accepted_last(scenario: Scenario) -> None:
    wanted = policy("1.0.0", steps=[(50, 600), (100, 10)])
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=SLOW), wanted)
    stable = (await scenario.until_stable("1.0.0"))["stable"]["revision"]
    async with scenario.load():
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(50)
        await scenario.until_ended(canary["revision"], within=90)
    await delete(scenario)
    await until_gone(scenario, SERVICES, within=60)
    await scenario.apply(policy("2.0.0", steps=[(50, 600), (100, 10)]))
    status = await scenario.until(
        lambda s: s if (s.get("stable") or {}).get("readyReplicas") == 2 and condition(s, "Stalled") == "True" else None,
        within=90,
        what="what was accepted last serves, and a person is asked",
    )
    assert status["stable"]["revision"] == stable
    async with scenario.load() as load:
        await load.until(100, within=30)
    assert {answer.revision for answer in load.answers} == {stable}
    await scenario.until_no_deployment(canary["revision"])


@pytest.mark.alone
async def test_after_an_uninstall_gateways_serve_on_and_a_policy_in_mid_canary_can_be_deleted(scenario: Scenario, cluster: Cluster) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[(50, 600), (100, 10)]))
    await scenario.until_stable("1.0.0")
    try:
        async with scenario.load() as load:
            await scenario.want("2.0.0")
            await scenario.until_weight(50)
            await asyncio.to_thread(uninstall, cluster)
            held = await scenario.client.get(POLICIES, namespace=scenario.namespace, name=POLICY)
            assert "finalizers" not in held["metadata"]
            begun = len(load.answers)
            await load.until(begun + 100, within=30)
        left = cluster.kubectl(
            "get", "all,sa,role,rolebinding", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=backstop", "-o", "name"
        )
        assert "let-go" not in left.stdout, "the hook leaves something"
        await delete(scenario)
        await until_gone(scenario, POLICIES, within=10)
        await until_gone(scenario, SERVICES, within=60)
    finally:
        await asyncio.to_thread(helm, cluster, scrape_seconds=SCRAPE_SECONDS)
        await asyncio.to_thread(available, cluster, namespace=OPERATOR_NAMESPACE, name="backstop")
