"""The chart on a real API server: what an install, an upgrade and an uninstall leave, and what the operator may then do."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from backstop.api.names import FINALIZER, OPERATOR_MANAGER
from backstop.controller.keys import PolicyKey, PromptKey
from backstop.controller.letgo import let_go
from backstop.controller.sources import WATCHED, list_all
from backstop.controller.store import Store
from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.events import event
from backstop.kube.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    JOBS,
    POLICIES,
    PROMPT_VERSIONS,
    SERVICES,
    resource_of,
)
from backstop.traffic.shares import set_shares
from e2e.cluster.apiserver import ApiServer
from tests.apiserver.kubectl import Refused, kubectl
from tests.rendering.scene import everything

from .helm import CHART, IMAGE, ROOT, helm, hooks, settings

pytestmark = pytest.mark.apiserver

NAMESPACE = "backstop"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:backstop"
DEFINITION = "fallbackpolicies.backstop.dev"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """An API server that has never heard of Backstop."""
    with ApiServer() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A place for Helm's own files."""
    return tmp_path / "helm"


@pytest.fixture
def released(server: ApiServer, home: Path) -> Iterator[Path]:
    """The admin's kubeconfig of a server on which the chart is installed."""
    helm(
        "install", "backstop", str(CHART), "--namespace", NAMESPACE, "--create-namespace", *settings(*IMAGE),
        kubeconfig=server.kubeconfig, home=home,
    )  # fmt: skip
    kubectl("wait", "--for=condition=Established", "crd", "--all", kubeconfig=server.kubeconfig)
    yield server.kubeconfig
    helm("uninstall", "backstop", "--namespace", NAMESPACE, "--ignore-not-found", "--no-hooks", kubeconfig=server.kubeconfig, home=home)


def test_an_uninstall_keeps_policies_and_a_new_install_takes_them_up(released: Path, home: Path) -> None:
    kubectl("apply", "-n", "default", "-f", str(ROOT / "manifests" / "samples"), kubeconfig=released)
    # Nobody runs a Job here: what the hook does is seen on a whole cluster.
    helm("uninstall", "backstop", "--namespace", NAMESPACE, "--no-hooks", kubeconfig=released, home=home)
    assert "support" in kubectl("get", "fbp", "-n", "default", kubeconfig=released)
    assert kubectl("get", "deployment,clusterrole", "-A", "-l", "app.kubernetes.io/name=backstop", kubeconfig=released) == ""
    helm("install", "backstop", str(CHART), "--namespace", NAMESPACE, *settings(*IMAGE), kubeconfig=released, home=home)
    assert "support-1-0-0" in kubectl("get", "pmv", "-n", "default", kubeconfig=released)


def test_an_upgrade_takes_the_definitions_along(released: Path, home: Path, tmp_path: Path) -> None:
    newer = tmp_path / "backstop"
    shutil.copytree(CHART, newer)
    file = newer / "files" / "crds" / f"{DEFINITION}.yaml"
    body = yaml.safe_load(file.read_text(encoding="utf-8"))
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "Of a newer version."
    file.write_text(yaml.safe_dump(body), encoding="utf-8")
    helm("upgrade", "backstop", str(newer), "--namespace", NAMESPACE, *settings(*IMAGE), kubeconfig=released, home=home)
    live = json.loads(kubectl("get", "crd", DEFINITION, "-o", "json", kubeconfig=released))
    assert live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] == "Of a newer version."


async def test_r08_the_operators_rights_are_enough_for_all_that_it_does(released: Path, server: ApiServer) -> None:
    operator = server.identity_kubeconfig(OPERATOR)
    kubectl("create", "namespace", "shop", kubeconfig=released)
    kubectl("apply", "-n", "shop", "-f", str(ROOT / "manifests" / "samples"), kubeconfig=released)
    client = Client((await connect(operator)).api_client(), timeout=10.0)
    try:
        await _write_all(client)
        store = Store()
        async for _ in list_all(client, namespaces=[], store=store):
            pass
        policy = PolicyKey("shop", "support")
        assert {policy, PolicyKey("shop", "support-busy")} <= set(store.policies())
        assert {PromptKey("shop", name) for name in ("support-1-0-0", "support-1-1-0")} <= set(store.prompts())
        found = {
            resource: len(store.children(policy, resource=resource))
            for resource in (DEPLOYMENTS, SERVICES, AUTOSCALERS, DISRUPTION_BUDGETS)
        }
        assert (found, store.pods(policy)) == ({DEPLOYMENTS: 4, SERVICES: 4, AUTOSCALERS: 1, DISRUPTION_BUDGETS: 1}, [])
        await _delete_all(client)
    finally:
        await client.close()
    for resource in WATCHED:
        name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        assert kubectl("auth", "can-i", "watch", name, "--all-namespaces", kubeconfig=operator).strip() == "yes"


async def _write_all(client: Client) -> None:
    """As the operator writes: records, Jobs and Deployments are created, the traffic object replaced, sizes merged, the rest is applied."""
    bodies = everything()
    for name in [name for name, body in bodies.items() if body["kind"] == "Job"]:
        await client.create(JOBS, body=bodies.pop(name), manager=OPERATOR_MANAGER)
    await client.create(CONFIG_MAPS, body=bodies.pop("record"), manager=OPERATOR_MANAGER)
    shares = bodies.pop("traffic")
    written = await set_shares(client, body=shares, over=None)
    await set_shares(client, body=shares, over=written["metadata"]["resourceVersion"])
    name = bodies["deployment"]["metadata"]["name"]
    await client.create(DEPLOYMENTS, body=bodies["deployment"], manager=OPERATOR_MANAGER)
    await client.patch(DEPLOYMENTS, namespace="shop", name=name, patch={"spec": {"replicas": 3}}, manager=OPERATOR_MANAGER)
    for body in bodies.values():
        await client.apply(resource_of(body), body=body, manager=OPERATOR_MANAGER)
        assert await client.get(resource_of(body), namespace="shop", name=body["metadata"]["name"])
    for resource, name in ((POLICIES, "support"), (PROMPT_VERSIONS, "support-1-0-0")):
        found = await client.get(resource, namespace="shop", name=name)
        await client.patch_status(
            resource,
            namespace="shop",
            name=name,
            patch={"observedGeneration": 1},
            resource_version=found["metadata"]["resourceVersion"],
            manager=OPERATOR_MANAGER,
        )
    for finalizers in ([FINALIZER], []):
        found = await client.get(POLICIES, namespace="shop", name="support")
        await client.patch_metadata(
            POLICIES,
            namespace="shop",
            name="support",
            patch={"finalizers": finalizers},
            resource_version=found["metadata"]["resourceVersion"],
            manager=OPERATOR_MANAGER,
        )
    told = event(
        POLICIES, namespace="shop", name="support", uid="1", reason="Promoted", message="It is.", event_type="Normal",
        component=OPERATOR_MANAGER, instance="test", now=1e9,
    )  # fmt: skip
    await client.create(EVENTS, body=told, manager=OPERATOR_MANAGER)


async def _delete_all(client: Client) -> None:
    name = everything()["record"]["metadata"]["name"]
    for resource in (DEPLOYMENTS, SERVICES, CONFIG_MAPS, DISRUPTION_BUDGETS):
        found = await client.get(resource, namespace="shop", name=name)
        await client.delete(resource, namespace="shop", name=name, uid=found["metadata"]["uid"])
    for resource, named in ((AUTOSCALERS, "support"), (JOBS, everything()["probe"]["metadata"]["name"])):
        found = await client.get(resource, namespace="shop", name=named)
        await client.delete(resource, namespace="shop", name=named, uid=found["metadata"]["uid"])


async def test_what_the_end_of_an_uninstall_may_do_is_enough_to_let_go(released: Path, server: ApiServer) -> None:
    kubectl("create", "namespace", "held", kubeconfig=released)
    kubectl("apply", "-n", "held", "-f", str(ROOT / "manifests" / "samples"), kubeconfig=released)
    for finalizers in ([FINALIZER], [FINALIZER, "example.com/audit"]):
        patch = json.dumps({"metadata": {"finalizers": finalizers}})
        kubectl("patch", "fbp", "support", "-n", "held", "--type=merge", "-p", patch, kubeconfig=released)
    rights = [document for document in hooks(*IMAGE) if document["kind"] != "Job"]
    kubectl("apply", "-f", "-", kubeconfig=released, text=json.dumps({"apiVersion": "v1", "kind": "List", "items": rights}))
    client = Client((await connect(server.identity_kubeconfig(f"{OPERATOR}-let-go"))).api_client(), timeout=10.0)
    try:
        assert await let_go(client, namespaces=[]) == 1
        assert await let_go(client, namespaces=[]) == 0
    finally:
        await client.close()
        kubectl("delete", "-f", "-", kubeconfig=released, text=json.dumps({"apiVersion": "v1", "kind": "List", "items": rights}))
    left = kubectl("get", "fbp", "support", "-n", "held", "-o", "jsonpath={.metadata.finalizers}", kubeconfig=released)
    assert left == '["example.com/audit"]'
    kubectl("patch", "fbp", "support", "-n", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}', kubeconfig=released)


FORBIDDEN = (
    ("get", "secrets"),
    ("list", "secrets"),
    ("update", "fallbackpolicies.backstop.dev"),
    ("delete", "fallbackpolicies.backstop.dev"),
    ("create", "promptversions.backstop.dev"),
    ("update", "rolloutreports.backstop.dev"),
    ("patch", "rolloutreports.backstop.dev"),
    ("patch", "rolloutreports.backstop.dev/status"),
    ("watch", "rolloutreports.backstop.dev"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
    ("create", "pods"),
    ("create", "pods/exec"),
    ("delete", "serviceaccounts"),
    ("delete", "roles.rbac.authorization.k8s.io"),
    ("create", "clusterroles.rbac.authorization.k8s.io"),
    ("create", "serviceaccounts/token"),
    ("delete", "nodes"),
)


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN, ids=lambda word: word)
def test_r08_the_operator_may_not(verb: str, resource: str, released: Path, server: ApiServer) -> None:
    resource, _, subresource = resource.partition("/")
    options = [f"--subresource={subresource}"] if subresource else []
    with pytest.raises(Refused):  # kubectl answers `no` with exit code 1
        kubectl("auth", "can-i", verb, resource, *options, "-n", "default", kubeconfig=server.identity_kubeconfig(OPERATOR))


def test_r08_the_operator_cannot_grant_more_than_it_has(released: Path, server: ApiServer) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "more", "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
    }
    with pytest.raises(Refused, match="attempting to grant RBAC permissions not currently held"):
        kubectl("create", "-f", "-", kubeconfig=server.identity_kubeconfig(OPERATOR), text=json.dumps(role))


def test_the_plain_manifests_install_the_same(server: ApiServer) -> None:
    kubectl(
        "apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests" / "overlays" / "example"), kubeconfig=server.kubeconfig
    )
    live = json.loads(kubectl("get", "deployment", "backstop", "-n", NAMESPACE, "-o", "json", kubeconfig=server.kubeconfig))
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/backstop:0.1.0"
    assert (
        kubectl("auth", "can-i", "patch", "deployments", "-n", "default", kubeconfig=server.identity_kubeconfig(OPERATOR)).strip() == "yes"
    )
