"""The rights that are shipped are enough, cluster-wide and in one namespace alone."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.resources import AUTOSCALERS, JOBS, PROMPT_VERSIONS, ROLE_BINDINGS, ROLES, Resource
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .ownworld import OwnWorld
from .test_probes import canary_with, end, job_of, leave_pod
from .until import until
from .world import MANAGER, Behaviour, World, living

pytestmark = pytest.mark.apiserver

SHIPPED = Path(__file__).parents[2] / "manifests" / "base" / "backstop.yaml"
RBAC = "rbac.authorization.k8s.io"


def shipped_rules() -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(SHIPPED.read_text())
    return next(list(d["rules"]) for d in documents if d and d["kind"] == "ClusterRole")


async def grant(client: Client, *, user: str, namespace: str) -> None:
    """The shipped rules for `user`, in this namespace and nowhere else."""
    metadata = {"name": "shipped", "namespace": namespace}
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": shipped_rules()}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "shipped"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
    }
    kinds: list[tuple[Resource, dict[str, Any]]] = [(ROLES, role), (ROLE_BINDINGS, binding)]
    for resource, body in kinds:
        await client.create(resource, body=body, manager=MANAGER)


async def test_the_shipped_rights_are_enough_for_a_promotion_and_a_rollback(api_server: ApiServer, client: Client, world: World) -> None:
    user = f"operator-of-{world.namespace}"
    await grant(client, user=user, namespace=world.namespace)
    connection = await connect(api_server.identity_kubeconfig(user))
    world.behaviour["v3"] = Behaviour(bad=0.5)
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        await world.stable_on("v2", within=60)
        await world.apply("v2", serving={"replicas": 1, "autoscaling": {"maxReplicas": 2}})
        await until("there is an autoscaler", lambda: world.names(AUTOSCALERS))
        await world.apply("v3", serving={"replicas": 1})
        await world.until_status("v3 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack", within=60)

        async def told() -> bool:
            assert not await world.names(AUTOSCALERS)
            of_versions = {event["reason"] for event in await world.told(of=PROMPT_VERSIONS)}
            of_policies = {event["reason"] for event in await world.told()}
            return {"Accepted", "RolledBack"} <= of_versions and {
                "FirstRevision",
                "CanaryStarted",
                "StepStarted",
                "Promoted",
                "RolledBack",
            } <= of_policies

        await until("every transition has its event", told)


async def test_the_shipped_rights_are_enough_for_a_workload_of_its_own(api_server: ApiServer, client: Client) -> None:
    async with living(OwnWorld(client, f"t-{uuid4().hex[:8]}")) as world:
        user = f"operator-of-{world.namespace}"
        await grant(client, user=user, namespace=world.namespace)
        connection = await connect(api_server.identity_kubeconfig(user))
        world.behaviour["w:3"] = Behaviour(bad=0.5)
        await world.run_image("w:1")
        async with running(connection, world):
            await world.stable_on("w:1")
            await world.run_image("w:2")
            await world.stable_on("w:2", within=60)
            await world.run_image("w:3")
            await world.until_status("w:3 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack", within=60)


async def test_the_shipped_rights_are_enough_for_a_probe_and_what_it_said(api_server: ApiServer, client: Client, world: World) -> None:
    user = f"operator-of-{world.namespace}"
    await grant(client, user=user, namespace=world.namespace)
    connection = await connect(api_server.identity_kubeconfig(user))
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=canary_with())
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=canary_with("golden", "smoke"))
        revision = str((await world.canary_is("v2"))["canary"]["revision"])
        smoke, golden = await job_of(world, revision, "smoke"), await job_of(world, revision, "golden")
        await leave_pod(world, golden, code=3)
        await end(world, golden, passed=False)
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
        said = status["lastRollout"]["message"]
        assert "exited with code 3" in said
        assert "its log cannot be read" in said, "no kubelet is there"
        assert "forbidden" not in said

        async def only_the_failed_one_is_left() -> bool:
            return await world.names(JOBS) == {golden["metadata"]["name"]}

        await until(f"{smoke['metadata']['name']} is ended", only_the_failed_one_is_left)
