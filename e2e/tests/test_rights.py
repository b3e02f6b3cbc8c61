"""The rights that are shipped, on a whole cluster: enough, all there is, and for named namespaces none beyond them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.platform import OPERATOR_NAMESPACE, READY_SECONDS, helm
from e2e.tests.conftest import SCRAPE_SECONDS
from e2e.tests.scenario import ALSO_GOOD, GOOD, SLOW, Scenario, condition, policy, prompt

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:backstop"


def bindings(cluster: Cluster) -> dict[str, set[str]]:
    """Names of the bindings that give the operator's service account anything, by kind."""
    found = json.loads(cluster.kubectl("get", "clusterrolebindings,rolebindings", "-A", "-o", "json").stdout)["items"]
    named: dict[str, set[str]] = {"ClusterRoleBinding": set(), "RoleBinding": set()}
    for binding in found:
        if any(_is_the_operators(subject) for subject in binding.get("subjects") or ()):
            named[binding["kind"]].add(binding["metadata"]["name"])
    return named


def _is_the_operators(subject: dict[str, Any]) -> bool:
    return subject["kind"] == "ServiceAccount" and (subject.get("namespace"), subject["name"]) == (OPERATOR_NAMESPACE, "backstop")


def may(cluster: Cluster, *what: str) -> bool:
    """Whether the operator may do this."""
    return cluster.kubectl("auth", "can-i", *what, "--as", OPERATOR, check=False).stdout.strip() == "yes"


def installed(cluster: Cluster, *namespaces: str) -> None:
    """The release for these namespaces, or for all, with its new pods alone."""
    helm(cluster, scrape_seconds=SCRAPE_SECONDS, namespaces=namespaces)
    cluster.kubectl(
        "rollout", "status", "deployment/backstop", "-n", OPERATOR_NAMESPACE, f"--timeout={READY_SECONDS}s", timeout=READY_SECONDS + 20
    )


@pytest.fixture
def for_one_namespace(cluster: Cluster, scenario: Scenario) -> Iterator[None]:
    """The release has rights in the scenario's namespace alone."""
    installed(cluster, scenario.namespace)
    yield
    installed(cluster)


def test_r08_the_operator_has_the_shipped_rights_and_no_others(cluster: Cluster) -> None:
    pods = json.loads(cluster.kubectl("get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "json").stdout)["items"]
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"backstop"}
    assert bindings(cluster) == {"ClusterRoleBinding": {"backstop-backstop"}, "RoleBinding": {"backstop-leader-election"}}
    assert may(cluster, "list", "fallbackpolicies.backstop.dev", "--all-namespaces")
    for verb in ("get", "list", "watch"):
        assert not may(cluster, verb, "secrets", "--all-namespaces")


@pytest.mark.usefixtures("for_one_namespace")
async def test_r08_a_namespaced_installation_promotes_and_rolls_back_without_a_right_over_the_cluster(
    cluster: Cluster, scenario: Scenario
) -> None:
    namespaced = bindings(cluster)
    assert namespaced["ClusterRoleBinding"] == set()
    assert namespaced["RoleBinding"] == {"backstop-leader-election", "backstop-backstop"}
    assert not may(cluster, "list", "fallbackpolicies.backstop.dev", "--all-namespaces")
    assert may(cluster, "list", "fallbackpolicies.backstop.dev", "-n", scenario.namespace)
    prompts = (prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), prompt("3.0.0", text=SLOW))
    await scenario.apply(*prompts, policy("1.0.0", steps=[(20, 15), (100, 5)]))
    await scenario.until_stable("1.0.0")
    async with scenario.load():
        await scenario.want("2.0.0")
        await scenario.until_stable("2.0.0", within=120)
        await scenario.want("3.0.0")
        canary = await scenario.until_weight(20)
        last = await scenario.until_ended(canary["revision"], within=90)
    assert (last["outcome"], last["reason"]) == ("RolledBack", "LatencyBreach")
    assert condition(await scenario.status(), "Stalled") == "True"
