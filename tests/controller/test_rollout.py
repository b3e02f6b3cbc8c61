"""Whole rollouts through the real operator on a real API server."""

import getpass

import pytest

from backstop.kube.connection import Connection

from .operators import running
from .until import until
from .world import Behaviour, World, condition, policy_spec

pytestmark = pytest.mark.apiserver


async def test_a01_the_first_revision_becomes_stable_without_a_canary(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        status = await world.stable_on("v1")
        route = await world.route()
    assert "canary" not in status
    assert (route.stable, route.canary, route.permille) == (status["stable"]["revision"], None, 0)


async def test_the_operator_runs_under_a_user_without_a_name(connection: Connection, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise KeyError("uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", no_name)
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")


async def test_a03_a_good_revision_is_promoted_through_its_steps(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        status = await world.stable_on("v2", within=60)
    assert status["lastRollout"]["outcome"] == "Promoted"
    assert await world.shares() == [0, 200, 1000, 0]


async def test_b17_a_canary_worse_than_stable_but_within_its_limit_is_promoted(connection: Connection, world: World) -> None:
    world.behaviour |= {"v1": Behaviour(bad=0.01), "v2": Behaviour(bad=0.025)}  # of requests 5 % may be late
    # Long enough for evidence that it is worse: that alone would take four seconds or five.
    canary = {"steps": [{"weight": 50, "holdSeconds": 12}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", canary=canary)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=canary)
        status = await world.stable_on("v2", within=60)
    assert status["lastRollout"]["outcome"] == "Promoted"
    (seen,) = status["slos"]
    assert seen["canary"]["bad"] > 0
    assert 1 < float(seen["value"]) < 5


async def test_m07_in_a_dry_run_a_breach_is_told_and_nothing_changes(connection: Connection, world: World) -> None:
    world.behaviour["v2"] = Behaviour(bad=0.5)
    dry = {"rollback": policy_spec("v1")["rollback"] | {"mode": "DryRun"}}
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", **dry)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", **dry)

        async def told() -> bool:
            return "WouldRollBack" in await world.events()

        await until("the breach is told", told, within=60)
        await world.quiet()
        status, route = await world.status(), await world.route()
    (seen,) = status["slos"]
    assert seen["state"] == "Breached"
    assert route.permille == 200
    assert status["stable"]["promptVersion"] == "v1"
    assert not status.get("rejected")
    assert await world.shares() == [0, 200]


async def test_b01_a_breach_takes_traffic_back_and_rejects_policy_and_prompt(connection: Connection, world: World) -> None:
    world.behaviour["v2"] = Behaviour(bad=0.5)
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
    assert status["stable"]["promptVersion"] == "v1"
    assert status["lastRollout"]["reason"] == "LatencyBreach"
    assert condition(status, "Stalled")["status"] == "True"
