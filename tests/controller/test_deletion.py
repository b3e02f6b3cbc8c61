"""Policies that are deleted, and others that are created under their names, through the real operator on a real API server."""

import asyncio
import sys
import time

import pytest

from backstop.api.clock import parse_time, render_time
from backstop.api.names import ACCEPTED_AT, FINALIZER, KEEP_UNTIL, LABEL_REVISION, traffic_object
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import CHILDREN, CONFIG_MAPS, DEPLOYMENTS, POLICIES, SERVICES, Body, Resource
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .test_main import SOURCE, START
from .until import until
from .world import MANAGER, Behaviour, World, condition

pytestmark = pytest.mark.apiserver

LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
DAY = 24 * 3600
THEIRS = "example.com/audit"


async def at_40_percent(world: World) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG)
    await world.stable_on("v1")
    await world.apply("v2", canary=LONG)
    await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))


async def read(world: World) -> Body | None:
    """The policy, if there is one."""
    try:
        return await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
    except NotFound:
        return None


async def delete(world: World) -> None:
    """Somebody deletes the policy."""
    policy = await read(world)
    assert policy is not None
    await world.client.delete(POLICIES, namespace=world.namespace, name=world.policy, uid=policy["metadata"]["uid"])


async def audit(world: World, *, finalizers: list[str]) -> None:
    """Somebody else holds the policy, or lets go of it."""
    metadata = {"name": world.policy, "namespace": world.namespace, "finalizers": finalizers}
    body = {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind, "metadata": metadata}
    await world.client.apply(POLICIES, body=body, manager="audit")


async def gone(world: World) -> None:
    """Wait until the policy is gone; then do what Kubernetes' garbage collector does, which this API server is alone without."""

    async def is_gone() -> bool:
        return await read(world) is None

    await until("the policy is gone", is_gone)
    for resource in reversed(CHILDREN):
        for body in (await world.client.list(resource, namespace=world.namespace))[0]:
            metadata = body["metadata"]
            if metadata.get("ownerReferences"):
                await world.client.delete(resource, namespace=world.namespace, name=metadata["name"], uid=metadata["uid"])


async def ours(world: World) -> dict[str, list[str]]:
    """Names of all that is of the policy, by kind."""
    found = {}
    for resource in CHILDREN:
        bodies, _ = await world.client.list(resource, namespace=world.namespace, labels=f"backstop.dev/policy={world.policy}")
        if bodies:
            found[resource.kind] = [body["metadata"]["name"] for body in bodies]
    return found


async def record_of(world: World, revision: str) -> Body:
    """A revision's record."""
    return await world.client.get(CONFIG_MAPS, namespace=world.namespace, name=f"{world.policy}-{revision}")


async def rolled_back(world: World) -> str:
    """v2 is rolled back; v1 serves. Returns the revision of v1."""
    world.behaviour["v2"] = Behaviour(bad=0.5)
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1")
    stable = await world.stable_on("v1")
    await world.apply("v2")
    await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
    await world.until_prompt_status("v2", "v2 is rejected", lambda s: s.get("rejections"))
    await world.quiet()
    return str(stable["stable"]["revision"])


async def test_g07_a_policy_deleted_in_mid_canary_goes_when_every_gateway_serves_stable_alone(connection: Connection, world: World) -> None:
    async with running(connection, world) as operator:
        await at_40_percent(world)
        held = await read(world)
        assert held is not None
        assert held["metadata"]["finalizers"] == [FINALIZER]
        stable = held["status"]["stable"]["revision"]
        writes = [write for write in operator.writes if write.endswith(("/fallbackpolicies/support", "support-traffic"))]
        assert [write.split(" ")[0] for write in writes[:2]] == ["PATCH", "PUT"], "the finalizer is there before the weight"
        await audit(world, finalizers=[THEIRS])
        world.behaviour["v1"] = Behaviour(acts=False)
        await delete(world)
        await world.until_status("it says why it stays", lambda s: s.get("phase") == "Leaving")
        assert (await world.route()).permille == 0
        status = await world.status()
        assert (status["lastRollout"]["outcome"], status["lastRollout"]["reason"]) == ("Superseded", "PolicyDeleted")
        assert "shiftedAt" not in status["lastRollout"]
        held = await read(world)
        assert held is not None
        assert FINALIZER in held["metadata"]["finalizers"]
        world.behaviour["v1"] = Behaviour()

        async def let_go() -> Body | None:
            policy = await read(world)
            return policy if policy is not None and FINALIZER not in policy["metadata"]["finalizers"] else None

        left = await until("it is let go", let_go)
        assert left["metadata"]["finalizers"] == [THEIRS], "the finalizer of somebody else is left alone"
        assert "shiftedAt" in left["status"]["lastRollout"]

        async def told() -> bool:
            return {"PolicyDeleted", "TrafficShifted"} <= await world.events()

        await until("both events are there, which nothing waits for", told)
        await audit(world, finalizers=[])
        await gone(world)
        assert await ours(world) == {"ConfigMap": [f"support-{stable}"]}, "the record of what was accepted last, and nothing else"


async def test_a_breach_at_the_moment_of_a_deletion_rejects_the_revision(connection: Connection, world: World) -> None:
    async with running(connection, world) as operator:
        await at_40_percent(world)
        # Between the decision and its first write.
        operator.interfere("support-traffic", lambda: delete(world))
        world.behaviour["v2"] = Behaviour(bad=0.5)
        await gone(world)
        rejected = await world.until_prompt_status("v2", "v2 is rejected", lambda s: s.get("rejections"))
    assert [(r["policy"], r["reason"]) for r in rejected["rejections"]] == [("support", "LatencyBreach")]


async def test_a_namespace_that_is_going_does_not_wait_for_writes_that_it_refuses(
    connection: Connection, world: World, client: Client
) -> None:
    async with running(connection, world):
        await at_40_percent(world)
    namespace = await client.get(NAMESPACES, namespace="", name=world.namespace)
    await client.delete(NAMESPACES, namespace="", name=world.namespace, uid=namespace["metadata"]["uid"])
    body = await client.get(CONFIG_MAPS, namespace=world.namespace, name=traffic_object("support"))
    await client.delete(CONFIG_MAPS, namespace=world.namespace, name=traffic_object("support"), uid=body["metadata"]["uid"])
    await delete(world)
    async with running(connection, world):
        await gone(world)


async def test_what_was_let_go_after_an_uninstall_can_be_deleted_without_an_operator(
    connection: Connection, world: World, api_server: ApiServer
) -> None:
    async with running(connection, world):
        await at_40_percent(world)
    before = await world.route()
    command = ["let-go", "--kubeconfig", str(api_server.kubeconfig), "--namespace", world.namespace]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", START, *command, env={"PYTHONPATH": str(SOURCE)})
    assert await asyncio.wait_for(process.wait(), timeout=60) == 0
    policy = await read(world)
    assert policy is not None
    assert "finalizers" not in policy["metadata"]
    assert await world.route() == before, "gateways serve on as they were told last"
    await delete(world)
    await gone(world)


async def test_the_record_of_what_was_accepted_last_outlives_its_policy_by_a_day(
    connection: Connection, world: World, client: Client
) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1")
    async with running(connection, world):
        first = (await world.stable_on("v1"))["stable"]["revision"]
        await world.apply("v2")
        second = (await world.stable_on("v2", within=60))["stable"]["revision"]
        await world.quiet()
        assert "ownerReferences" in (await record_of(world, first))["metadata"], "what is stable no longer goes with the policy"
        metadata = (await record_of(world, second))["metadata"]
        assert "ownerReferences" not in metadata
        assert metadata["annotations"].keys() >= {ACCEPTED_AT}
        assert KEEP_UNTIL not in metadata["annotations"]
    # The operator is away when the policy goes.
    await delete(world)
    await gone(world)
    assert await ours(world) == {"ConfigMap": [f"support-{second}"]}
    async with running(connection, world, sweep_seconds=0.5) as operator:

        async def dated() -> str | None:
            annotations = (await record_of(world, second))["metadata"]["annotations"]
            until: str | None = annotations.get(KEEP_UNTIL)
            return until

        until_when = parse_time(await until("it says until when it is kept", dated))
        assert DAY - 60 < until_when - time.time() <= DAY
        before = len(operator.writes)
        await operator.lists(4)
        assert operator.writes[before:] == []
    await date_back(world, second)
    async with running(connection, world):

        async def nothing_left() -> bool:
            return await ours(world) == {}

        await until("its time is over", nothing_left)


async def date_back(world: World, revision: str) -> None:
    """A day goes by."""
    body = await record_of(world, revision)
    await world.client.patch_metadata(
        CONFIG_MAPS,
        namespace=world.namespace,
        name=body["metadata"]["name"],
        patch={"annotations": {KEEP_UNTIL: render_time(time.time() - 1)}},
        resource_version=body["metadata"]["resourceVersion"],
        manager=MANAGER,
    )


async def test_a_record_whose_pods_were_left_to_run_is_kept_for_them(connection: Connection, world: World, client: Client) -> None:
    """`kubectl delete --cascade=orphan`: no owner is left, and the pods need their record whenever they start anew."""
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        revision = (await world.stable_on("v1"))["stable"]["revision"]
        await world.quiet()
    await delete(world)
    for name in (f"support-{revision}",):
        body = await world.deployment(name)
        await client.patch_metadata(
            DEPLOYMENTS,
            namespace=world.namespace,
            name=name,
            patch={"ownerReferences": None},
            resource_version=body["metadata"]["resourceVersion"],
            manager=MANAGER,
        )
    await gone(world)
    await date_back(world, revision)
    async with running(connection, world, sweep_seconds=0.5) as operator:
        await operator.lists(3)
        assert await ours(world) == {"ConfigMap": [f"support-{revision}"], "Deployment": [f"support-{revision}"]}
        await world.delete_deployment(f"support-{revision}")

        async def nothing_left() -> bool:
            return await ours(world) == {}

        await until("nothing needs it any more", nothing_left)


async def test_a_policy_created_anew_with_what_was_rolled_back_serves_what_was_accepted_last(
    connection: Connection, world: World, client: Client
) -> None:
    async with running(connection, world):
        first = await rolled_back(world)
        await delete(world)
        await gone(world)
        await world.apply("v2")
        status = await world.until_status("v1 serves", lambda s: s.get("stable", {}).get("readyReplicas") == 1)
        assert condition(status, "Accepted")["status"] == "True", "what was left of the former policy is no trouble"
        assert status["stable"]["promptVersion"] == "v1"
        assert status["stable"]["revision"] == first
        assert condition(status, "Ready")["status"] == "False"
        assert condition(status, "Stalled")["reason"] == "RolledBack"
        assert "backstop.dev/retry" in condition(status, "Stalled")["message"]
        await world.quiet()
        assert await world.names(DEPLOYMENTS) == {f"support-{first}"}
        service = await client.get(SERVICES, namespace=world.namespace, name="support")
        assert service["spec"]["selector"][LABEL_REVISION] == first
        record = (await record_of(world, first))["metadata"]
        assert "ownerReferences" not in record
        assert KEEP_UNTIL not in record["annotations"]
        world.behaviour["v2"] = Behaviour()
        await world.ask(retry="1")
        await world.stable_on("v2", within=60)
        await world.until_prompt_status("v2", "the rejection is withdrawn", lambda s: not s.get("rejections"))


async def test_without_a_record_a_policy_created_anew_with_what_was_rolled_back_asks_a_person(
    connection: Connection, world: World, client: Client
) -> None:
    async with running(connection, world):
        first = await rolled_back(world)
        await delete(world)
        await gone(world)
        record = await record_of(world, first)
        await client.delete(CONFIG_MAPS, namespace=world.namespace, name=record["metadata"]["name"], uid=record["metadata"]["uid"])
        await world.apply("v2")
        status = await world.until_status("it asks", lambda s: condition(s, "Stalled")["status"] == "True")
        assert "stable" not in status
        assert "makes it the first stable revision" in condition(status, "Stalled")["message"]
        await world.quiet()
        assert await ours(world) == {}
        world.behaviour["v2"] = Behaviour()
        await world.ask(retry="1")
        await world.stable_on("v2")
        await world.until_prompt_status("v2", "the rejection is withdrawn", lambda s: not s.get("rejections"))
