"""What an author says of the gateways' pods, on a real API server."""

import pytest

from backstop.kube.connection import Connection

from .operators import running
from .world import World, condition

pytestmark = pytest.mark.apiserver

LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 1}], "analysis": {"warmUpSeconds": 0}}


async def test_a_changed_pod_template_is_rolled_out_as_a_canary_and_leaves_stables_pods_alone(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1", canary=LONG)
    async with running(connection, world):
        stable = f"support-{(await world.stable_on('v1'))['stable']['revision']}"
        before = await world.deployment(stable)
        added = {"labels": {"team": "shop"}, "tolerations": [{"key": "dedicated", "operator": "Exists"}]}
        await world.apply("v1", canary=LONG, serving={"replicas": 1, "podTemplate": added})
        status = await world.until_status("it is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        template = (await world.deployment(f"support-{status['canary']['revision']}"))["spec"]["template"]
        after = await world.deployment(stable)
    assert status["canary"]["promptVersion"] == "v1"
    assert template["metadata"]["labels"]["team"] == "shop"
    assert template["spec"]["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        ({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerm": []}}}, "nodeSelectorTerm"),
        ({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}}, "topologyKey: Required value"),
    ],
)
async def test_an_affinity_that_kubernetes_does_not_take_is_told_in_its_words_and_stable_serves_on(
    connection: Connection, world: World, affinity: dict[str, object], message: str
) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", canary=LONG)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=LONG, serving={"replicas": 1, "podTemplate": {"affinity": affinity}})
        status = await world.until_status("it is told", lambda s: condition(s, "Accepted")["reason"] == "ObjectRefused")
        assert message in condition(status, "Accepted")["message"]
        assert f"Deployment `support-{status['canary']['revision']}` was refused" in condition(status, "Accepted")["message"]
        assert condition(status, "Stalled")["status"] == "True"
        assert status["stable"]["readyReplicas"] == 1
        assert (await world.route()).permille == 0
        await world.apply("v2", canary=LONG, serving={"replicas": 1})
        status = await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
    assert condition(status, "Accepted")["status"] == "True"
