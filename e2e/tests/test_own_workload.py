"""A workload of its author's own on a whole cluster: real endpoints, real kube-proxy, and callers who must not notice."""

from typing import Any

import pytest

from backstop.kube.resources import POLICIES, SERVICES
from e2e.callers import IMAGE
from e2e.tests.scenario import POLICY, Scenario, Status, condition

pytestmark = pytest.mark.cluster


def own_policy(*, late_percent: int) -> dict[str, Any]:
    """The policy; what tells one version from another is an argument of its container."""
    return {
        "apiVersion": POLICIES.api_version,
        "kind": POLICIES.kind,
        "metadata": {"name": POLICY},
        "spec": {
            "slos": [
                {
                    "name": "late",
                    "promQL": {"bad": "answers_late_total", "total": "answers_total"},
                    "maxPercent": "5",
                    "forSeconds": 10,
                }
            ],
            "canary": {
                "steps": [{"weight": 50, "holdSeconds": 20}, {"weight": 100, "holdSeconds": 10}],
                "analysis": {"warmUpSeconds": 0},
                "progressDeadlineSeconds": 120,
            },
            "rollback": {"keepPreviousSeconds": 30, "guardSeconds": 0},
            "serving": {
                "replicas": 2,
                "resources": {"requests": {"cpu": "25m", "memory": "64Mi"}},
                "workload": {
                    "image": IMAGE,
                    "port": 8000,
                    "command": ["python", "-m", "e2e.ownservice", "--late-percent", str(late_percent)],
                    "readinessPath": "/healthz",
                    "metricsPort": 9100,
                },
            },
        },
    }


async def stable(scenario: Scenario, *, but: str = "") -> str:
    """Wait until a revision other than `but` is stable and Ready; returns it."""

    def seen(status: Status) -> str | None:
        revision = str(status.get("stable", {}).get("revision", ""))
        return revision if revision not in ("", but) and condition(status, "Ready") == "True" else None

    revision: str = await scenario.until(seen, within=120, what="a stable revision")
    return revision


async def selected(scenario: Scenario) -> str | None:
    """The revision that the Service selects; None: all of the policy's pods."""
    service = await scenario.client.get(SERVICES, namespace=scenario.namespace, name=POLICY)
    revision: str | None = service["spec"]["selector"].get("backstop.dev/revision")
    return revision


async def test_b01_t01_a_workload_is_rolled_back_by_its_own_counters_and_nobody_notices(scenario: Scenario) -> None:
    await scenario.apply(own_policy(late_percent=0))
    first = await stable(scenario)
    async with scenario.load() as load:
        await scenario.apply(own_policy(late_percent=40))
        canary = await scenario.until_weight(50, within=120)
        assert canary["sharePercent"] == "50.0"
        assert await selected(scenario) is None
        last = await scenario.until_ended(canary["revision"], within=120)
        assert await selected(scenario) == first
        began = max(answer.began for answer in load.answers)
        await scenario.until(lambda status: not status.get("retiring"), within=60, what="the canary's pods retired")
        await load.until(len(load.answers) + 100, within=30)
    assert (last["outcome"], last["reason"]) == ("RolledBack", "PromQLBreach")
    assert {answer.revision for answer in load.answers} == {first, canary["revision"]}
    assert {answer.revision for answer in load.since(began + 2)} == {first}, "rejected, and reached again"


async def test_a03_t02_a_good_workload_is_promoted_with_the_pods_that_were_judged(scenario: Scenario) -> None:
    await scenario.apply(own_policy(late_percent=0))
    first = await stable(scenario)
    async with scenario.load() as load:
        await scenario.apply(own_policy(late_percent=1))
        canary = await scenario.until_weight(50, within=120)
        judged = {pod["metadata"]["uid"] for pod in await scenario.pods(canary["revision"])}
        assert await stable(scenario, but=first) == canary["revision"]
        assert {pod["metadata"]["uid"] for pod in await scenario.pods(canary["revision"])} == judged
        await load.until(len(load.answers) + 100, within=30)
    assert load.answers[-1].revision == canary["revision"]
