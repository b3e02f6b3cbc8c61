"""What stands in a policy and cannot be read, or means nothing: a canary is judged all the same, and no deletion leaves it its traffic."""

import contextlib
from typing import Any
from uuid import uuid4

import pytest

from backstop.api.names import FINALIZER, traffic_object
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import Conflict
from backstop.kube.resources import CONFIG_MAPS, JOBS, POLICIES

from .operators import Mortal, running
from .ownworld import OwnWorld, own_spec
from .test_deletion import LONG, THEIRS, at_40_percent, audit, delete, gone, read
from .test_own_workload import HELD, reaches, shared
from .until import until
from .world import MANAGER, Behaviour, World, condition, living, policy_spec

pytestmark = pytest.mark.apiserver

NO_CHAT = {"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 1, "request": "When are you open?"}


def nested(levels: int) -> dict[str, Any]:
    within: dict[str, Any] = {}
    for _ in range(levels):
        within = {"and": within}
    return within


# A definition that is newer than the operator lets more through; this one bounds no part whose type is Kubernetes' own.
UNREADABLE = {"podTemplate": {"affinity": {"nodeAffinity": nested(250)}}}


async def with_unreadable_spec(world: World) -> None:
    """Somebody edits the policy so that this operator cannot read its spec."""
    await write(world, spec=policy_spec("v2") | {"canary": LONG, "serving": {"replicas": 1} | UNREADABLE})


async def with_unreadable_status(world: World) -> None:
    """Somebody writes a time into the policy's status that is none."""
    policy = await read(world)
    assert policy is not None
    await world.client.patch_status(
        POLICIES,
        namespace=world.namespace,
        name=world.policy,
        patch={"stable": {"since": "yesterday"}},
        resource_version=policy["metadata"]["resourceVersion"],
        manager=MANAGER,
    )


async def write(world: World, *, spec: dict[str, Any]) -> None:
    while True:
        policy = await read(world)
        assert policy is not None
        with contextlib.suppress(Conflict):
            await world.client.replace(POLICIES, body=policy | {"spec": spec}, manager=MANAGER)
            return


async def blocked(world: World, field: str) -> None:
    """Wait until the operator says that it cannot read this."""
    await world.until_status(f"{field} is blamed", lambda s: field in condition(s, "Accepted")["message"])


async def goes_when_stable_serves_alone(world: World, operator: Mortal) -> None:
    """The policy is deleted, and goes, but not before every gateway was seen to have taken the canary's traffic away."""
    before = len(operator.writes)
    world.behaviour["v1"] = Behaviour(acts=False)
    await delete(world)
    await world.until_status("it says why it stays", lambda s: s.get("phase") == "Leaving")
    assert (await world.route()).permille == 0
    held = await read(world)
    assert held is not None
    assert held["metadata"]["finalizers"] == [FINALIZER]
    assert held["status"]["lastRollout"]["reason"] == "PolicyDeleted"
    world.behaviour["v1"] = Behaviour()
    await gone(world)
    writes = [write for write in operator.writes[before:] if write.endswith(("/fallbackpolicies/support", "/support-traffic"))]
    assert list(dict.fromkeys(write.split(" ")[0] for write in writes)) == ["PUT", "PATCH"], "the route, and then the finalizer"


async def test_a_canary_is_judged_after_a_restart_though_its_probe_has_no_chat_to_send(connection: Connection, world: World) -> None:
    async with running(connection, world):
        await at_40_percent(world)
    await world.apply("v2", canary=LONG | {"probes": [NO_CHAT]})
    world.behaviour["v2"] = Behaviour(bad=0.5)
    async with running(connection, world):
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
    assert (status["lastRollout"]["outcome"], status["lastRollout"]["reason"]) == ("RolledBack", "LatencyBreach")
    assert condition(status, "Accepted")["message"].startswith("`spec.canary.probes[0].request` must be a JSON object")
    assert await world.names(JOBS) == set()
    assert (await world.shares())[-1] == 0


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_policy_deleted_in_mid_canary_whose_spec_cannot_be_read_leaves_it_no_traffic(
    connection: Connection, world: World, restarted: bool
) -> None:
    async with running(connection, world) as operator:
        await at_40_percent(world)
        await with_unreadable_spec(world)
        await blocked(world, "`spec`")
        if not restarted:
            await goes_when_stable_serves_alone(world, operator)
    if restarted:
        async with running(connection, world) as operator:
            await goes_when_stable_serves_alone(world, operator)


@pytest.mark.parametrize("spec_too", [False, True])
async def test_a_policy_deleted_in_mid_canary_whose_status_cannot_be_read_leaves_it_no_traffic(
    connection: Connection, world: World, spec_too: bool
) -> None:
    async with running(connection, world):
        await at_40_percent(world)
    await with_unreadable_status(world)
    if spec_too:
        await with_unreadable_spec(world)
    async with running(connection, world) as operator:
        await blocked(world, "`status`")
        assert (await world.route()).permille == 400
        await goes_when_stable_serves_alone(world, operator)


async def test_the_service_of_an_own_workload_leaves_its_canary_before_a_policy_goes_whose_spec_cannot_be_read(
    connection: Connection, client: Client
) -> None:
    async with living(OwnWorld(client, f"t-{uuid4().hex[:8]}")) as world:
        async with running(connection, world):
            await world.run_image("w:1")
            stable = (await world.stable_on("w:1"))["stable"]["revision"]
            await shared(world)
        spec = own_spec("w:2")
        await write(world, spec=spec | {"canary": HELD, "serving": spec["serving"] | UNREADABLE})
        await audit(world, finalizers=[THEIRS])
        await delete(world)
        async with running(connection, world) as operator:

            async def let_go() -> bool:
                policy = await read(world)
                return policy is not None and policy["metadata"]["finalizers"] == [THEIRS]

            await until("it is let go", let_go)
        assert reaches(await world.service()) == stable
        writes = [write for write in operator.writes if write.endswith(("/fallbackpolicies/support", "/services/support"))]
        assert list(dict.fromkeys(write.rsplit("/", 2)[1] for write in writes)) == ["services", "fallbackpolicies"]
        await audit(world, finalizers=[])
        await gone(world)


async def test_where_neither_status_nor_traffic_object_says_what_is_stable_a_deletion_is_not_held_up(
    connection: Connection, world: World, client: Client
) -> None:
    async with running(connection, world):
        await at_40_percent(world)
    await with_unreadable_status(world)
    body = await client.get(CONFIG_MAPS, namespace=world.namespace, name=traffic_object("support"))
    await client.replace(CONFIG_MAPS, body=body | {"data": body["data"] | {"stable": ""}}, manager=MANAGER)
    await delete(world)
    async with running(connection, world):

        async def is_gone() -> bool:
            return await read(world) is None

        await until("the policy is gone", is_gone)
    body = await client.get(CONFIG_MAPS, namespace=world.namespace, name=traffic_object("support"))
    assert body["data"]["stable"] == "", "nothing was guessed"
