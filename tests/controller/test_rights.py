"""The rights that are shipped: enough, cluster-wide and in one namespace alone, and none that nothing is done with."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import yaml

from backstop.api.names import GROUP, VERSION, probe_job
from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.openapi import openapi_path
from backstop.kube.resources import AUTOSCALERS, CONFIG_MAPS, JOBS, PROMPT_VERSIONS, ROLE_BINDINGS, ROLES, Resource
from e2e.cluster.apiserver import ApiServer
from tests.conftest import establish_crds

from .operators import running
from .ownworld import OwnWorld
from .test_leadership import candidate
from .test_probes import canary_with, end, job_of, leave_pod
from .until import until
from .world import MANAGER, Behaviour, World, living, small_world

pytestmark = pytest.mark.apiserver

SHIPPED = Path(__file__).parents[2] / "manifests" / "base" / "backstop.yaml"
RBAC = "rbac.authorization.k8s.io"
USER = "operator-with-the-shipped-rights"
AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata", "users": [USER]}, {"level": "None"}]}


class Right(NamedTuple):
    """As RBAC asks for it."""

    group: str
    resource: str  # with its subresource
    verb: str


def shipped_rules(kind: str) -> list[dict[str, Any]]:
    """Of the `ClusterRole`, for what the operator does; of the `Role`, for who of several acts."""
    documents = yaml.safe_load_all(SHIPPED.read_text())
    (rules,) = [list(d["rules"]) for d in documents if d and d["kind"] == kind]
    return rules


def shipped_rights() -> set[Right]:
    return {
        Right(group, resource, verb)
        for rule in (*shipped_rules("ClusterRole"), *shipped_rules("Role"))
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def grant(client: Client, *, user: str, namespace: str, kind: str = "ClusterRole") -> None:
    """The shipped rules for `user`, in this namespace and nowhere else."""
    metadata = {"name": "shipped", "namespace": namespace}
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": shipped_rules(kind)}
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


class Audited:
    """An API server that writes down what the user asks of it."""

    def __init__(self, folder: Path) -> None:
        self._log, policy = folder / "audit.log", folder / "policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        more = (f"--audit-policy-file={policy}", f"--audit-log-path={self._log}", "--audit-log-mode=blocking-strict")
        self.server = ApiServer(more=more)

    def answers_to(self, path: str) -> set[int]:
        """The status of each answer to a request for this path."""
        answered = [event for event in self._events() if "responseStatus" in event]
        return {event["responseStatus"]["code"] for event in answered if event["requestURI"] == path}

    def _events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def asked(self) -> tuple[set[Right], set[Right]]:
        """What was done, and what was refused."""
        answers: dict[bool, set[Right]] = defaultdict(set)
        for event in self._events():
            if "objectRef" not in event or "responseStatus" not in event:
                continue  # which groups and versions there are; or it is not answered yet
            asked, code = event["objectRef"], event["responseStatus"]["code"]
            resource = "/".join(part for part in (asked["resource"], asked.get("subresource")) if part)
            verbs = {event["verb"]}
            if event["verb"] == "patch" and code == 201:
                verbs.add("create")  # an object that is applied is made where there is none, and that right is asked for too
            answers[code == 403] |= {Right(asked.get("apiGroup", ""), resource, verb) for verb in verbs}
        return answers[False], answers[True]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    found = Audited(tmp_path_factory.mktemp("audit"))
    with found.server as server:
        establish_crds(server)
        yield found


async def promotes_and_rolls_back(server: ApiServer, client: Client) -> None:
    """Gateways, with an autoscaler for a while, and somebody who writes at the same moment now and then."""
    async with small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world:
        await grant(client, user=USER, namespace=world.namespace)
        connection = await connect(server.identity_kubeconfig(USER))
        world.behaviour["v3"] = Behaviour(bad=0.5)
        for name in ("v1", "v2", "v3"):
            await world.prompt(name)
        few = {"reportHistoryLimit": 1, "revisionHistoryLimit": 0, "keepPreviousSeconds": 15, "guardSeconds": 0}
        await world.apply("v1", rollback=few)
        async with running(connection, world) as operator:
            await world.stable_on("v1")
            operator.interfere("fallbackpolicies/support/status", world.touch_status)
            await world.apply("v2", rollback=few)
            await world.stable_on("v2", within=60)
            await world.apply("v2", rollback=few, serving={"replicas": 1, "autoscaling": {"maxReplicas": 2}})
            await until("there is an autoscaler", lambda: world.names(AUTOSCALERS))
            operator.interfere("promptversions/v3/status", lambda: world._touched(PROMPT_VERSIONS, name="v3"))
            await world.apply("v3", rollback=few, serving={"replicas": 2})
            await world.until_status("v3 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack", within=60)
            await until("every transition has its event", lambda: _all_is_told(world))
            await until("one report is left of two", lambda: _is_left(world))


async def _all_is_told(world: World) -> bool:
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


async def _is_left(world: World) -> bool:
    """One report, and no record of the first revision."""
    records = {name for name in await world.names(CONFIG_MAPS) if name.startswith("support-")}
    return len(await world.reports()) == 1 and len(records) == 3  # the traffic object, what is stable, and what is wanted


async def runs_a_workload_of_its_own(server: ApiServer, client: Client) -> None:
    async with living(OwnWorld(client, f"t-{uuid4().hex[:8]}")) as world:
        await grant(client, user=USER, namespace=world.namespace)
        connection = await connect(server.identity_kubeconfig(USER))
        world.behaviour["w:3"] = Behaviour(bad=0.5)
        await world.run_image("w:1")
        async with running(connection, world):
            await world.stable_on("w:1")
            await world.run_image("w:2")
            await world.stable_on("w:2", within=60)
            await world.run_image("w:3")
            await world.until_status("w:3 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack", within=60)


async def probes_and_reads_what_they_said(server: ApiServer, client: Client) -> None:
    """One probe fails, another is ended, and the name of a third is taken."""
    async with small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world:
        await grant(client, user=USER, namespace=world.namespace)
        connection = await connect(server.identity_kubeconfig(USER))
        for name in ("v1", "v2"):
            await world.prompt(name)
        await world.apply("v1", canary=canary_with())
        async with running(connection, world):
            await world.stable_on("v1")
            await world.apply("v2", canary=canary_with("golden", "smoke"))
            revision = str((await world.canary_is("v2"))["canary"]["revision"])
            smoke, golden = await job_of(world, revision, "smoke"), await job_of(world, revision, "golden")
            taken = probe_job(world.policy, revision=revision, probe="taken")
            theirs = {**golden, "metadata": {"name": taken, "namespace": world.namespace}}
            theirs["spec"] = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}}
            await client.create(JOBS, body=theirs, manager=MANAGER)
            await world.apply("v2", canary=canary_with("golden", "smoke", "taken"))
            await until("the name is found taken", lambda: _is_told(world, "ObjectNotOurs"))
            await leave_pod(world, golden, code=3)
            await end(world, golden, passed=False)
            status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
            said = status["lastRollout"]["message"]
            assert "exited with code 3" in said
            assert "its log cannot be read" in said, "no kubelet is there"
            assert "forbidden" not in said

            async def only_the_failed_one_is_left() -> bool:
                return await world.names(JOBS) == {golden["metadata"]["name"], taken}

            await until(f"{smoke['metadata']['name']} is ended", only_the_failed_one_is_left)


async def hands_over(server: ApiServer, client: Client) -> None:
    """One operator leads, another waits, and takes over when the first goes."""
    async with small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world:
        await grant(client, user=USER, namespace=world.namespace, kind="Role")
        granted = Client((await connect(server.identity_kubeconfig(USER))).api_client(), timeout=10.0)
        try:
            first, second = (candidate(granted, world, name=name, seconds=3600) for name in ("first", "second"))
            await first.gain()
            waiting = asyncio.create_task(second.gain())
            done, _ = await asyncio.wait({waiting}, timeout=1.0)
            assert not done
            await first.let_go()
            async with asyncio.timeout(10):
                await waiting
        finally:
            await granted.close()


async def _is_told(world: World, reason: str) -> bool:
    return reason in await world.events()


async def test_r08_the_shipped_rights_are_enough_and_each_of_them_is_used(audited: Audited) -> None:
    client = Client((await connect(audited.server.kubeconfig)).api_client(), timeout=10.0)
    try:
        async with asyncio.TaskGroup() as stories:
            for story in (promotes_and_rolls_back, runs_a_workload_of_its_own, probes_and_reads_what_they_said, hands_over):
                stories.create_task(story(audited.server, client))
    finally:
        await client.close()
    done, refused = audited.asked()
    assert refused == set()
    assert audited.answers_to(openapi_path(GROUP, VERSION)) - {404} == {200}, "not yet, and then it is; never that it may not"
    assert shipped_rights() - done == set(), "what nothing is done with is not asked for"
    assert done - shipped_rights() == set()
