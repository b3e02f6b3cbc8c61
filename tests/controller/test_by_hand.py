"""What people ask for with annotations, through the real operator on a real API server."""

import pytest

from backstop.kube.connection import Connection

from .operators import running
from .world import Behaviour, World, condition

pytestmark = pytest.mark.apiserver

QUICK = {"steps": [{"weight": 20, "holdSeconds": 1, "approval": True}, {"weight": 100, "holdSeconds": 1}], "analysis": {"warmUpSeconds": 0}}


async def test_a05_a_step_waits_for_its_approval_and_passes_with_it(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", canary=QUICK)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=QUICK)
        await world.until_status("it waits for a person", lambda s: s.get("reason") == "WaitingForApproval")
        await world.ask(approve="1")
        status = await world.stable_on("v2", within=60)
    assert status["acknowledged"] == {"approve": "1"}
    assert await world.shares() == [0, 200, 1000, 0]


@pytest.mark.parametrize("guard", [0, 600], ids=["stable is not watched", "stable is watched in between"])
async def test_b09_a_version_that_was_rolled_back_is_tried_again_with_clean_counters_and_its_rejection_is_withdrawn(
    connection: Connection, world: World, guard: int
) -> None:
    rollback = {"keepPreviousSeconds": 15, "guardSeconds": guard}
    world.behaviour["v2"] = Behaviour(bad=0.5)
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", rollback=rollback)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", rollback=rollback)
        await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
        await world.until_prompt_status("v2", "v2 is rejected", lambda s: s.get("rejections"))
        world.behaviour["v2"].bad = 0.0
        await world.ask(retry="1")
        status = await world.stable_on("v2", within=60)
        prompt = await world.until_prompt_status("v2", "the rejection is withdrawn", lambda s: not s.get("rejections"))
    assert status["rejected"] == []
    assert condition(prompt, "Rejected")["status"] == "Absent"
    assert (await world.route()).aborted is None


async def test_in_pause_mode_a_breach_waits_for_a_person_who_promotes_nevertheless(connection: Connection, world: World) -> None:
    world.behaviour["v2"] = Behaviour(bad=0.5)
    await world.prompt("v1")
    await world.prompt("v2")
    rollback = {"mode": "Pause", "keepPreviousSeconds": 15}
    await world.apply("v1", rollback=rollback)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", rollback=rollback)
        status = await world.until_status("it is halted", lambda s: s.get("phase") == "Halted", within=60)
        assert condition(status, "Stalled")["reason"] == "Halted"
        assert (await world.route()).permille == 0
        await world.ask(promote="1")
        status = await world.stable_on("v2", within=60)
    assert status["lastRollout"]["reason"] == "PromotedByHand"
    assert status["rejected"] == []


async def test_refresh_makes_the_same_spec_anew_on_the_present_image(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        first = (await world.stable_on("v1"))["stable"]["revision"]
        before = (await world.deployment(f"support-{first}"))["spec"]["template"]
        await world.ask(refresh="2026-11")
        status = await world.until_status("it is stable anew", lambda s: s["stable"]["revision"] != first, within=60)
    assert status["stable"]["promptVersion"] == "v1"
    assert status["acknowledged"] == {"refresh": "2026-11"}
    after = (await world.deployment(f"support-{status['stable']['revision']}"))["spec"]["template"]
    assert after["spec"]["containers"][0]["image"] == before["spec"]["containers"][0]["image"]
