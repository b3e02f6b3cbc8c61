"""What admission refuses while all else goes on: objects that a quota counts, pods that PodSecurity will not have.

Said in conditions with what, why and what to do; waited for without haste; and the reason of a rollback where it lasts too long.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backstop.kube.client import MERGE, Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import Rejected
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .ownworld import OwnWorld
from .proxy import Proxy, proxy
from .until import until
from .world import MANAGER, World, condition, living

pytestmark = pytest.mark.apiserver

COUNTED_SECONDS = 4.0  # the time in which writes are counted
PATIENT = {
    "steps": [{"weight": 20, "holdSeconds": 1}, {"weight": 100, "holdSeconds": 1}],
    "analysis": {"warmUpSeconds": 0},
    "progressDeadlineSeconds": 600,
}
# As a service mesh puts it into pods whose traffic it takes over.
SIDECAR = {"name": "mesh", "image": "mesh:test", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}


async def quota(client: Client, world: World, *, of: str, full: bool) -> None:
    """No more objects of this kind in the namespace, or enough. Without its controller, what is used is written by hand."""
    hard = {f"count/{of}": "0" if full else "100"}
    path = f"/api/v1/namespaces/{world.namespace}/resourcequotas"
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}}
    names = {item["metadata"]["name"] for item in (await client._request("GET", path))["items"]}
    if "small" in names:
        await client._request("PATCH", f"{path}/small", query={"fieldManager": MANAGER}, body={"spec": {"hard": hard}}, content=MERGE)
    else:
        await client._request("POST", path, query={"fieldManager": MANAGER}, body=body)
    status = {"status": {"hard": hard, "used": {f"count/{of}": "0"}}}
    await client._request("PATCH", f"{path}/small/status", query={"fieldManager": MANAGER}, body=status, content=MERGE)

    async def in_force() -> bool:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tried"}}
        path, query = f"/api/v1/namespaces/{world.namespace}/configmaps", {"fieldManager": MANAGER, "dryRun": "All"}
        try:
            await client._request("POST", path, query=query, body=body)
        except Rejected:
            return full
        return not full

    if of == "configmaps":
        await until("the quota is in force", in_force)


async def demand(client: Client, world: World, *, level: str) -> None:
    """Label the namespace for PodSecurity."""
    labels = {"pod-security.kubernetes.io/enforce": level}
    path = f"/api/v1/namespaces/{world.namespace}"
    await client._request("PATCH", path, query={"fieldManager": MANAGER}, body={"metadata": {"labels": labels}}, content=MERGE)


async def writes_per_minute(between: Proxy) -> float:
    since = time.monotonic()
    await asyncio.sleep(COUNTED_SECONDS)
    return between.count(lambda request: request.write, since=since) * 60 / COUNTED_SECONDS


async def test_r10_a_quota_that_is_used_up_is_said_and_waited_for_without_haste(
    api_server: ApiServer, world: World, tmp_path: Path, client: Client
) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=PATIENT)
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        await world.stable_on("v1", within=60)
        await quota(client, world, of="deployments.apps", full=True)
        await world.apply("v2", canary=PATIENT)
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectRefused", within=60)
        assert "exceeded quota" in condition(status, "Stalled")["message"]
        assert status["stable"]["promptVersion"] == "v1"

        async def calm() -> bool:
            return await writes_per_minute(between) <= 60

        await until("the pauses have grown", calm)
        await quota(client, world, of="deployments.apps", full=False)
        await world.stable_on("v2", within=90)


async def test_a_canary_whose_record_a_quota_keeps_from_being_made_is_rolled_back_with_that_as_the_reason(
    connection: Connection, world: World, client: Client
) -> None:
    hasty = {"analysis": {"warmUpSeconds": 0}, "progressDeadlineSeconds": 10}
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=hasty)
    async with running(connection, world):
        await world.stable_on("v1", within=60)
        await quota(client, world, of="configmaps", full=True)
        await world.apply("v2", canary=hasty)
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout"), within=90)
    last = status["lastRollout"]
    assert last["reason"] == "CanaryUnavailable"
    assert "0 of " in last["message"]
    assert f"ConfigMap `{world.policy}-{last['revision']}` was refused by the API server" in last["message"]
    assert "exceeded quota" in last["message"]


async def test_r10_gateways_run_where_pod_security_is_restricted_and_pods_that_it_refuses_are_said_and_waited_for(
    api_server: ApiServer, world: World, tmp_path: Path, client: Client
) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await demand(client, world, level="restricted")
    await world.apply("v1", canary=PATIENT)
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        await world.stable_on("v1", within=60)
        world.sidecars = [SIDECAR]
        await world.apply("v2", canary=PATIENT)

        def refused(status: Mapping[str, Any]) -> bool:
            return "violates PodSecurity" in condition(status, "Progressing")["message"]

        status = await world.until_status("it is said", refused, within=60)
        said = condition(status, "Progressing")["message"]
        assert 'its pods are refused: violates PodSecurity "restricted:latest"' in said
        assert 'container "mesh" must' in said, "what breaks it is named"
        assert "`pod-security.kubernetes.io/enforce`" in said, "and what can be done"
        assert status["stable"]["promptVersion"] == "v1"
        assert await writes_per_minute(between) <= 15, "each attempt is for a pod of another name, and none of them is news"
        world.sidecars = []
        await world.stable_on("v2", within=90)


async def test_pods_of_an_own_workload_that_pod_security_refuses_are_the_reason_of_its_rollback(
    connection: Connection, client: Client
) -> None:
    async with living(OwnWorld(client, f"t-{uuid4().hex[:8]}")) as world:
        await demand(client, world, level="restricted")
        hasty = {"analysis": {"warmUpSeconds": 0}, "progressDeadlineSeconds": 10}
        await world.run_image("w:1", canary=hasty)
        async with running(connection, world):
            await world.stable_on("w:1")
            world.sidecars = [SIDECAR]
            await world.run_image("w:2", canary=hasty)
            status = await world.until_status("it is rolled back", lambda s: s.get("lastRollout"), within=60)
    assert status["lastRollout"]["reason"] == "CanaryUnavailable"
    assert "its pods are refused: violates PodSecurity" in status["lastRollout"]["message"]
