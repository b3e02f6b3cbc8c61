"""The guard window, through the real operator on a real API server."""

from collections.abc import Mapping
from typing import Any

import pytest

from backstop.kube.connection import Connection
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, POLICIES

from .operators import running
from .until import until
from .world import Behaviour, World, condition

pytestmark = pytest.mark.apiserver

GUARD = {"guardSeconds": 600, "keepPreviousSeconds": 600}


async def promoted(world: World, *, rollback: Mapping[str, int] = GUARD) -> None:
    """Version 2 has just replaced version 1, and both can be made to breach."""
    world.behaviour |= {"v1": Behaviour(), "v2": Behaviour()}
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", rollback=rollback)
    await world.stable_on("v1")
    await world.apply("v2", rollback=rollback)
    await world.stable_on("v2", within=60)


async def test_b07_a_breach_after_promotion_returns_to_the_previous_stable_and_rejects_the_prompt(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        await promoted(world)
        world.behaviour["v2"].bad = 0.5
        status = await world.until_status("v1 is stable again", lambda s: s.get("lastRollout", {}).get("reason") == "LatencyBreach")
        assert status["stable"]["promptVersion"] == "v1"
        assert [(r["promptVersion"], r["suspected"]) for r in status["rejected"]] == [("v2", True)]
        route = await world.route()
        assert (route.stable, route.canary, route.permille) == (status["stable"]["revision"], None, 0)
        assert route.aborted is not None
        assert route.aborted.revision == status["rejected"][0]["revision"]
        assert "stable requests" in status["lastRollout"]["message"]
        status = await world.until_status("the verdict is certain", lambda s: not s["rejected"][0].get("suspected"), within=60)
        await world.until_prompt_status("v2", "v2 is rejected", lambda s: s.get("rejections"))
    assert condition(status, "Stalled")["reason"] == "RolledBack"


async def test_b15_a_breach_that_the_previous_stable_shares_is_withdrawn_and_nothing_moves_again(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        await promoted(world)
        world.behaviour["v1"].bad = world.behaviour["v2"].bad = 0.5
        status = await world.until_status("it is an incident", lambda s: s.get("incident"), within=60)
        assert status["incident"]["promptVersion"] == "v2"
        assert status["stable"]["promptVersion"] == "v1"
        assert status["rejected"] == []
        await world.quiet()
        route = await world.route()
        status = await world.status()
    assert (route.permille, route.aborted) == (0, None)
    assert condition(status, "Stalled")["reason"] == "SharedIncident"
    prompt = await world.until_prompt_status("v2", "its status is there", lambda s: s.get("digest"))
    assert not prompt.get("rejections")


async def test_c04_a_return_inside_the_guard_window_takes_no_steps(connection: Connection, world: World) -> None:
    async with running(connection, world):
        await promoted(world)
        before = await world.shares()
        await world.apply("v1", rollback=GUARD)
        status = await world.stable_on("v1")
    assert status["lastRollout"]["reason"] == "ReturnedToPrevious"
    assert await world.shares() == before, "nobody was sent to a canary"


async def test_a_watched_stable_is_evaluated_on_every_scrape_and_written_only_when_something_changes(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        await promoted(world)

        async def version() -> str:
            body = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
            found: str = body["metadata"]["resourceVersion"]
            return found

        def healthy(status: Mapping[str, Any]) -> bool:
            judged = status.get("guard", {}).get("judged")  # which is said once
            at_rest = judged and not status.get("retiring") and "report" in status.get("lastRollout", {})
            return bool(at_rest) and [slo["state"] for slo in status.get("slos", ())] == ["Healthy"]

        await world.until_status("stable is healthy in its guard window", healthy, within=60)
        await world.quiet()
        asked, written = world.queries, await version()

        async def evaluated() -> bool:
            return world.queries >= asked + 10

        await until("it is evaluated on", evaluated)
        assert await version() == written
        world.behaviour["v2"].bad = 0.5
        await world.until_status("a change is seen at once", lambda s: s.get("lastRollout", {}).get("reason") == "LatencyBreach")


async def test_the_record_of_what_can_be_returned_to_stays_without_its_pods_and_though_no_history_is_kept(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        await promoted(world, rollback={"guardSeconds": 600, "keepPreviousSeconds": 15, "revisionHistoryLimit": 0})
        name = f"{world.policy}-{(await world.status())['previous']['revision']}"

        async def gone() -> bool:
            return name not in await world.names(DEPLOYMENTS)

        await until("its pods are kept no more", gone, within=60)
        await world.quiet()
        assert name in await world.names(CONFIG_MAPS)
        world.behaviour["v2"].bad = 0.5
        await world.until_status("v1 is stable again", lambda s: s.get("lastRollout", {}).get("reason") == "LatencyBreach", within=60)
        assert name in await world.names(DEPLOYMENTS), "made anew, from its record"
