"""Who sets how many pods a revision has, on a real API server; the autoscaler's controller is played by the tests."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from backstop.controller.seen import DeploymentSeen, child
from backstop.controller.store import Store
from backstop.controller.writes import Writes
from backstop.kube.client import MERGE, Client
from backstop.kube.connection import Connection
from backstop.kube.errors import Conflict, NotFound, Rejected
from backstop.kube.resources import AUTOSCALERS, DEPLOYMENTS, DISRUPTION_BUDGETS, Body

from .operators import running
from .until import until
from .world import MANAGER, World

pytestmark = pytest.mark.apiserver

CONTAINERS = {"containers": [{"name": "c", "image": "c:1"}]}
SCALED = {"replicas": 2, "autoscaling": {"minReplicas": 2, "maxReplicas": 6}}
STEPS = {"steps": [{"weight": 34, "holdSeconds": 1}, {"weight": 100, "holdSeconds": 1, "approval": True}], "analysis": {"warmUpSeconds": 0}}


async def autoscaler(world: World) -> Body:
    return await world.client.get(AUTOSCALERS, namespace=world.namespace, name=world.policy)


async def target(world: World) -> str:
    return str((await autoscaler(world))["spec"]["scaleTargetRef"]["name"])


async def scale(world: World, name: str, *, replicas: int) -> None:
    """What the autoscaler's controller does."""
    path = DEPLOYMENTS.path(namespace=world.namespace, name=name, subresource="scale")
    query = {"fieldManager": "kube-controller-manager"}
    await world.client._request("PATCH", path, query=query, body={"spec": {"replicas": replicas}}, content=MERGE)


async def sizes(world: World) -> dict[str, int]:
    """Replicas by PromptVersion."""
    found, _ = await world.client.list(DEPLOYMENTS, namespace=world.namespace)
    named = {item["metadata"]["labels"]["backstop.dev/revision"]: item["spec"]["replicas"] for item in found}
    return {world.prompts.get(revision, revision): size for revision, size in named.items()}


async def until_sizes(world: World, wanted: dict[str, int]) -> None:
    async def so() -> bool:
        return await sizes(world) == wanted

    try:
        await until(f"sizes {wanted}", so)
    except AssertionError:
        assert await sizes(world) == wanted
        raise


async def test_c05_a_canary_keeps_its_share_of_what_an_autoscaler_gives_stable_and_takes_it_over_at_that_size(
    connection: Connection, world: World
) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", serving=SCALED, canary=STEPS)
    async with running(connection, world):
        v1 = f"support-{(await world.stable_on('v1'))['stable']['revision']}"
        assert await target(world) == v1
        await until_sizes(world, {"v1": 2})
        await scale(world, v1, replicas=5)
        await world.apply("v2", serving=SCALED, canary=STEPS)
        v2 = f"support-{(await world.canary_is('v2'))['canary']['revision']}"
        await until_sizes(world, {"v1": 5, "v2": 2})
        await world.until_status("it is at 100 %", lambda s: s["canary"]["weight"] == 100 and s["canary"].get("weightVerifiedAt"))
        assert (await autoscaler(world))["spec"]["behavior"]["scaleDown"]["selectPolicy"] == "Disabled"
        await until_sizes(world, {"v1": 5, "v2": 5})
        await scale(world, v1, replicas=6)
        await until_sizes(world, {"v1": 6, "v2": 6})
        assert await target(world) == v1
        taken_over = asyncio.create_task(size_when_taken_over(world, v2))
        await world.ask(approve="now")
        await world.stable_on("v2")
        assert await taken_over == 6
        await scale(world, v2, replicas=4)
        await world.quiet()
        assert await sizes(world) == {"v1": 6, "v2": 4}, "the previous one stays ready to take it all back"
        assert (await autoscaler(world))["spec"]["behavior"]["scaleDown"]["selectPolicy"] == "Max"


async def size_when_taken_over(world: World, name: str) -> int:
    """The size of a Deployment when the autoscaler is seen to have turned to it."""

    async def turned() -> Any:
        return await target(world) == name

    await until("the autoscaler has turned to the new revision", turned)
    return int((await world.deployment(name))["spec"]["replicas"])


async def test_what_an_autoscaler_set_survives_that_a_template_is_put_right(connection: Connection, world: World) -> None:
    """Server-side apply takes back what its manager no longer names: the number of replicas must never have been its."""
    await world.prompt("v1")
    await world.apply("v1", serving={"replicas": 3})
    async with running(connection, world):
        name = f"support-{(await world.stable_on('v1'))['stable']['revision']}"
        await until_sizes(world, {"v1": 3})
        await world.apply("v1", serving=SCALED | {"replicas": 3})
        await until("there is an autoscaler", lambda: exists(world))
        await world.quiet()
        for replicas in (3, 5):  # set by the operator; set by the autoscaler
            await world.edit_deployment(name, image="somebody.elses/image:1", replicas=replicas)

            async def put_right() -> bool:
                spec = (await world.deployment(name))["spec"]
                assert spec["replicas"] == replicas  # noqa: B023 - awaited before the next turn
                return bool(spec["template"]["spec"]["containers"][0]["image"] == "localhost/backstop:test")

            await until("the template is put right", put_right)
            await world.quiet()
            await put_right()


async def test_an_autoscaler_that_acts_in_the_middle_of_a_pass_is_not_undone(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", serving=SCALED, canary=STEPS)
    async with running(connection, world):
        name = f"support-{(await world.stable_on('v1'))['stable']['revision']}"
        await world.quiet()
    await world.apply("v2", serving=SCALED, canary=STEPS)
    async with running(connection, world) as operator:
        # Between the look and the writes of the first pass, which reads the Deployment anew.
        operator.interfere("fallbackpolicies/support/status", lambda: scale(world, name, replicas=5))
        await until_sizes(world, {"v1": 5, "v2": 2})
        await world.until_status("passes have gone by", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        assert [write for write in operator.writes if write.endswith(f"deployments/{name}")] == []


async def exists(world: World) -> bool:
    try:
        await autoscaler(world)
    except NotFound:
        return False
    return True


async def test_an_autoscaler_goes_with_the_wish_for_it_and_the_declared_size_comes_back(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1", serving=SCALED)
    async with running(connection, world):
        name = f"support-{(await world.stable_on('v1'))['stable']['revision']}"
        await scale(world, name, replicas=6)
        await world.quiet()
        assert await sizes(world) == {"v1": 6}
    async with running(connection, world) as second:  # which has to know of the autoscaler without having made it
        await world.apply("v1", serving={"replicas": 2})
        await until_sizes(world, {"v1": 2})
        assert not await exists(world)
        deleted = second.writes.index(f"DELETE apis/autoscaling/v2/namespaces/{world.namespace}/horizontalpodautoscalers/support")
        scaled = second.writes.index(f"PATCH apis/apps/v1/namespaces/{world.namespace}/deployments/{name}")
        assert deleted < scaled


async def test_r03_an_idle_policy_with_an_autoscaler_costs_no_write_whatever_that_does(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1", serving=SCALED)
    async with running(connection, world, sweep_seconds=0.5) as operator:
        name = f"support-{(await world.stable_on('v1'))['stable']['revision']}"
        await world.quiet()
        await scale(world, name, replicas=4)
        await world.until_status("its pods are ready", lambda s: s["stable"]["readyReplicas"] == 4)
        await world.quiet()
        written = [write for write in operator.writes if "deployments" in write]
        assert len(written) == 1, "when it was made"
        before = len(operator.writes)
        await operator.lists(4)
        assert operator.writes[before:] == []


async def test_each_live_revision_has_a_budget_for_disruptions_which_goes_with_it(
    connection: Connection, client: Client, world: World
) -> None:
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        await world.stable_on("v2", within=60)

        async def alike() -> bool:
            return await world.names(DISRUPTION_BUDGETS) == await world.names(DEPLOYMENTS)

        async def one_each() -> bool:
            return await alike() and len(await world.names(DEPLOYMENTS)) == 1

        await until("stable and previous have one each", alike)
        await until("the previous one's is gone with it", one_each, within=40)
        (name,) = await world.names(DEPLOYMENTS)
        selector = (await world.deployment(name))["spec"]["selector"]
        budget = await client.get(DISRUPTION_BUDGETS, namespace=world.namespace, name=name)
        assert budget["spec"]["selector"] == selector


async def test_a_deployment_that_was_made_anew_by_somebody_is_not_scaled_as_the_one_that_was_seen(client: Client) -> None:
    labels, metadata = {"app": "another"}, {"name": f"d-{uuid4().hex[:8]}", "namespace": "default"}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": CONTAINERS}}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    seen = child(await client.create(DEPLOYMENTS, body=body, manager=MANAGER), resource=DEPLOYMENTS)
    await client.delete(DEPLOYMENTS, **metadata, uid=seen.uid)
    await client.create(DEPLOYMENTS, body=body, manager=MANAGER)
    writes = Writes(client, store=Store(), instance="test", wake=lambda _: None)
    with pytest.raises((Rejected, Conflict)):
        await writes.scale(seen, replicas=3)
    live = await client.get(DEPLOYMENTS, **metadata)
    assert live["spec"]["replicas"] == 1
    scaled = await writes.scale(child(live, resource=DEPLOYMENTS), replicas=3)
    assert isinstance(scaled, DeploymentSeen)
    assert scaled.replicas == 3
    await client.delete(DEPLOYMENTS, **metadata, uid=scaled.uid)
