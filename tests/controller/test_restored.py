"""A namespace that was restored from a backup without owner references: what says whose it is is taken back, and nothing is made anew."""

import contextlib
from uuid import uuid4

import pytest

from backstop.api.names import ACCEPTED_AT, FINALIZER, traffic_object
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    POLICIES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Body,
)

from .operators import running
from .ownworld import OwnWorld
from .test_wishes import LONG
from .until import until
from .world import MANAGER, World, condition, living

pytestmark = pytest.mark.apiserver

CHILDREN = (AUTOSCALERS, CONFIG_MAPS, DEPLOYMENTS, DISRUPTION_BUDGETS, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, SERVICES)
OURS = "app.kubernetes.io/managed-by=backstop"


async def children(world: World) -> list[Body]:
    """All that the policy owns, or owned."""
    found = []
    for resource in CHILDREN:
        bodies, _ = await world.client.list(resource, namespace=world.namespace, labels=OURS)
        found += [body | {"kind": resource.kind} for body in bodies]
    return found


async def restored(world: World, *, with_status: bool) -> str:
    """The policy is another one, and nothing has an owner any more; returns its uid."""
    policy = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
    assert FINALIZER not in policy["metadata"].get("finalizers", ())
    await world.client.delete(POLICIES, namespace=world.namespace, name=world.policy, uid=policy["metadata"]["uid"])
    for resource in CHILDREN:
        for body in (await world.client.list(resource, namespace=world.namespace, labels=OURS))[0]:
            patch = {"metadata": {"ownerReferences": None}}
            name = body["metadata"]["name"]
            await world.client.patch(resource, namespace=world.namespace, name=name, patch=patch, manager=MANAGER)

    async def gone() -> bool:
        with contextlib.suppress(NotFound):
            await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
            return False
        return True

    await until("the policy is gone", gone)
    metadata = {"name": world.policy, "namespace": world.namespace}
    anew = await world.client.create(POLICIES, body=policy | {"metadata": metadata}, manager=MANAGER)
    if with_status:
        version = anew["metadata"]["resourceVersion"]
        await world.client.patch_status(
            POLICIES, namespace=world.namespace, name=world.policy, patch=policy["status"], resource_version=version, manager=MANAGER
        )
    return str(anew["metadata"]["uid"])


@pytest.mark.parametrize("own", [False, True], ids=["gateways", "own workload"])
@pytest.mark.parametrize("with_status", [False, True], ids=["status was lost", "status was restored"])
async def test_a_namespace_that_was_restored_without_owners_is_taken_back_and_goes_on_serving(
    connection: Connection, client: Client, own: bool, with_status: bool
) -> None:
    async with living((OwnWorld if own else World)(client, f"t-{uuid4().hex[:8]}")) as world:
        if isinstance(world, OwnWorld):
            await world.run_image("w:1")
        else:
            await world.prompt("v1")
            await world.apply("v1")
        first = "w:1" if own else "v1"
        async with running(connection, world):
            await world.stable_on(first)
            await world.quiet()
        before = {(body["kind"], body["metadata"]["name"]): body["metadata"]["uid"] for body in await children(world)}
        uid = await restored(world, with_status=with_status)
        async with running(connection, world):
            await world.stable_on(first, within=60)

            async def taken_back() -> bool:
                owners = {
                    (body["kind"], body["metadata"]["name"]): [ref["uid"] for ref in body["metadata"].get("ownerReferences", ())]
                    for body in await children(world)
                    if ACCEPTED_AT not in (body["metadata"].get("annotations") or {})  # which outlives its policy
                }
                return all(found == [uid] for found in owners.values())

            await until("everything has its owner", taken_back)
            await world.quiet()
            after = {(body["kind"], body["metadata"]["name"]): body["metadata"]["uid"] for body in await children(world)}
            assert after == before, "nothing was made anew"
            assert condition(await world.status(), "Accepted")["status"] == "True"
            assert world.traffic is not None
            assert world.traffic.permille == 0


async def lose_status_and_route(world: World) -> None:
    """A backup is restored that had no status, and of the traffic object something that nobody understands."""
    policy = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
    version = policy["metadata"]["resourceVersion"]
    nothing = dict.fromkeys(policy["status"])
    await world.client.patch_status(
        POLICIES, namespace=world.namespace, name=world.policy, patch=nothing, resource_version=version, manager=MANAGER
    )
    await world.client.patch(
        CONFIG_MAPS, namespace=world.namespace, name=traffic_object(world.policy), patch={"data": {"permille": "?"}}, manager=MANAGER
    )


async def serving(world: World) -> dict[str, object]:
    """What callers are served by: selectors of Services, and sizes of Deployments."""
    services, _ = await world.client.list(SERVICES, namespace=world.namespace, labels=OURS)
    deployments, _ = await world.client.list(DEPLOYMENTS, namespace=world.namespace, labels=OURS)
    return {s["metadata"]["name"]: s["spec"]["selector"] for s in services} | {
        d["metadata"]["name"]: d["spec"]["replicas"] for d in deployments
    }


async def test_where_status_and_route_are_lost_both_all_is_left_as_it_is_until_the_route_is_deleted(
    connection: Connection, world: World
) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=LONG)
        await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        await world.quiet()
    before = await serving(world)
    await lose_status_and_route(world)
    async with running(connection, world):
        status = await world.until_status("it says so", lambda s: condition(s, "Stalled")["reason"] == "TrafficUnreadable")
        assert "stable" not in status
        assert "nobody knows which revision serves, and nothing is changed" in condition(status, "Ready")["message"]
        await world.quiet()
        assert await serving(world) == before
        assert "stable" not in await world.status()
        route = await world.client.get(CONFIG_MAPS, namespace=world.namespace, name=traffic_object(world.policy))
        assert route["data"]["permille"] == "?", "it is left to whoever looks at it"
        await world.client.delete(CONFIG_MAPS, namespace=world.namespace, name=traffic_object(world.policy), uid=route["metadata"]["uid"])
        status = await world.until_status("what was accepted last serves", lambda s: "stable" in s)
        assert status["stable"]["promptVersion"] == "v1"

        async def told() -> bool:
            return {"TrafficUnreadable", "StatusLost"} <= await world.events()

        await until("both are told", told)
    states = [state for _, state in world.history]
    assert {state.stable for state in states} == {status["stable"]["revision"]}, "nothing else was ever called stable"
