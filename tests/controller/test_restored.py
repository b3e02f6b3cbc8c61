"""A namespace that was restored from a backup without owner references: what says whose it is is taken back, and nothing is made anew."""

import contextlib
from uuid import uuid4

import pytest

from backstop.api.names import ACCEPTED_AT, FINALIZER
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
