"""What is changed while a policy runs: its spec, its operator, the state that its stable revision is in."""

from typing import Any

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS

from .operators import running
from .until import until
from .world import Behaviour, World, condition

pytestmark = pytest.mark.apiserver

LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 1}], "analysis": {"warmUpSeconds": 0}}


async def at_40_percent(world: World, name: str) -> dict[str, Any]:
    return await world.until_status(
        f"{name} is at 40 %",
        lambda s: s.get("canary", {}).get("promptVersion") == name and s["canary"].get("weightVerifiedAt"),
    )


async def test_c06_edited_steps_do_not_forgive_a_rejected_version(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    world.behaviour["v2"] = Behaviour(bad=0.5)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
        world.behaviour["v2"] = Behaviour()
        await world.apply("v2", canary=LONG, slos=[], rollback={"keepPreviousSeconds": 20})
        generation = (await world.apply("v2", canary=LONG, slos=[], serving={"replicas": 2}))["metadata"]["generation"]
        await world.until_status("the operator has seen it", lambda s: s["observedGeneration"] == generation)
        await world.quiet()
        status = await world.status()
    assert "canary" not in status
    assert status["stable"]["promptVersion"] == "v1"
    assert condition(status, "Stalled")["reason"] == "RolledBack"
    assert (await world.shares())[-1] == 0


async def test_c07_an_operator_with_another_default_image_rolls_nothing_and_uses_it_for_the_next_revision(
    connection: Connection, client: Client, world: World
) -> None:
    async def images() -> dict[str, str]:
        found, _ = await client.list(DEPLOYMENTS, namespace=world.namespace)
        templates = {item["metadata"]["labels"]["backstop.dev/revision"]: item["spec"]["template"] for item in found}
        return {world.prompts.get(name, name): template["spec"]["containers"][0]["image"] for name, template in templates.items()}

    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1")
    async with running(connection, world, image="registry.example/backstop:1"):
        await world.stable_on("v1")
        await world.quiet()
    async with running(connection, world, image="registry.example/backstop:2", sweep_seconds=0.5) as upgraded:
        await upgraded.lists(4)
        assert upgraded.writes == []
        assert await images() == {"v1": "registry.example/backstop:1"}
        await world.apply("v2", canary=LONG)
        await at_40_percent(world, "v2")
        assert await images() == {"v1": "registry.example/backstop:1", "v2": "registry.example/backstop:2"}


async def test_c09_a_limit_that_no_bucket_holds_is_told_and_does_nothing_else(connection: Connection, world: World) -> None:
    def slos(limit: int) -> list[dict[str, Any]]:
        return [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": limit, "minRequests": 20}]

    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", canary=LONG)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=LONG)
        before = await at_40_percent(world, "v2")
        records = await world.names(CONFIG_MAPS)
        await world.apply("v2", canary=LONG, slos=slos(137))
        status = await world.until_status("it is told", lambda s: condition(s, "MetricsAvailable")["reason"] == "BucketBoundaryMissing")
        assert condition(status, "MetricsAvailable")["status"] == "False"
        assert (status["canary"]["revision"], status["canary"]["weight"]) == (before["canary"]["revision"], 40)
        assert await world.names(CONFIG_MAPS) == records
        await world.apply("v2", canary=LONG, slos=slos(150))
        status = await world.until_status("it can be seen again", lambda s: condition(s, "MetricsAvailable")["status"] == "True")
        assert (status["canary"]["revision"], status["canary"]["weight"]) == (before["canary"]["revision"], 40)
    assert await world.shares() == [0, 400]


async def test_b13_a_fix_is_promoted_over_a_stable_that_breaches_its_own_objectives(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("fix")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        world.behaviour["v1"] = Behaviour(bad=0.5)
        await until("stable has answered slowly", lambda: slow(world))
        await world.apply("fix")
        status = await world.stable_on("fix", within=60)
    assert status["lastRollout"]["outcome"] == "Promoted"
    assert status["rejected"] == []


async def slow(world: World) -> bool:
    return any(counted["bad"] > 1000 for counted in world.counters.values())
