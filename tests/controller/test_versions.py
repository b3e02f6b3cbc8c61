"""Prompt versions on a real API server: who uses them, which of two counts, what was rejected."""

from collections.abc import Mapping
from typing import Any

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.resources import DEPLOYMENTS, PROMPT_VERSIONS

from .operators import running
from .world import Behaviour, World, condition

pytestmark = pytest.mark.apiserver

LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 1}], "analysis": {"warmUpSeconds": 0}}


def roles(status: Mapping[str, Any]) -> set[str]:
    return {use["role"] for use in status.get("usedBy", ())}


async def test_a_version_says_who_uses_it_as_what_through_a_rollout(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1", canary=LONG)
    async with running(connection, world):
        await world.until_prompt_status("v1", "v1 is wanted and stable", lambda s: roles(s) == {"Wanted", "Stable"})
        await world.apply("v2", canary=LONG)
        await world.until_prompt_status("v2", "v2 is wanted, and the canary", lambda s: roles(s) == {"Wanted", "Canary"})
        status = await world.until_prompt_status("v1", "v1 is stable alone", lambda s: roles(s) == {"Stable"})
        assert status["users"] == 1
        await world.ask(promote="now")
        await world.until_prompt_status("v2", "v2 is stable", lambda s: roles(s) == {"Wanted", "Stable"})
        await world.until_prompt_status("v1", "v1 is the previous one", lambda s: roles(s) == {"Previous"})
        await world.until_prompt_status("v1", "nobody uses v1 any more", lambda s: s["users"] == 0 and not roles(s))


async def test_a_version_with_another_text_than_an_older_one_is_not_rolled_out_until_that_one_is_gone(
    connection: Connection, client: Client, world: World
) -> None:
    older = await world.prompt("a-first", text="One.", version="1.0.0")
    await world.prompt("b-later", text="Another.", version="1.0.0")
    await world.prompt("v0")
    await world.apply("v0")
    async with running(connection, world):
        await world.stable_on("v0")
        await world.apply("b-later")
        status = await world.until_status("the conflict is told", lambda s: condition(s, "Accepted")["reason"] == "VersionConflict")
        assert (
            "PromptVersion `b-later` cannot be used: version 1.0.0 of prompt `support` is PromptVersion `a-first`"
            in (condition(status, "Accepted")["message"])
        )
        assert condition(status, "Ready")["status"] == "False"
        assert condition(status, "Stalled")["status"] == "True"
        assert "canary" not in status
        assert len(await world.names(DEPLOYMENTS)) == 1
        told = await world.until_prompt_status("b-later", "it says so itself", lambda s: condition(s, "Accepted")["status"] == "False")
        assert condition(told, "Accepted")["reason"] == "VersionConflict"
        await client.delete(PROMPT_VERSIONS, namespace=world.namespace, name="a-first", uid=older["metadata"]["uid"])
        await world.stable_on("b-later", within=60)


async def test_a_version_that_stable_runs_stays_ready_when_an_older_object_takes_its_version(connection: Connection, world: World) -> None:
    """As after a restore from a backup, which gives every object a new time of creation."""
    await world.prompt("b-runs", text="One.", version="1.0.0")
    await world.apply("b-runs")
    async with running(connection, world):
        await world.stable_on("b-runs")
    namespace = world.namespace
    before = await world.client.get(PROMPT_VERSIONS, namespace=namespace, name="b-runs")
    await world.client.delete(PROMPT_VERSIONS, namespace=namespace, name="b-runs", uid=before["metadata"]["uid"])
    # The older of the two, also within one second: then the name decides.
    await world.prompt("a-other", text="Another.", version="1.0.0")
    await world.prompt("b-runs", text="One.", version="1.0.0")
    async with running(connection, world):
        await world.until_prompt_status("b-runs", "the conflict is told", lambda s: condition(s, "Accepted")["status"] == "False")
        await world.quiet()
        status = await world.stable_on("b-runs")
    assert "canary" not in status


async def test_b09_the_rejection_of_a_version_goes_when_it_is_tried_again_although_another_was_rejected_since(
    connection: Connection, world: World
) -> None:
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    world.behaviour["v2"] = world.behaviour["v3"] = Behaviour(bad=0.5)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        for name in ("v2", "v3"):
            await world.apply(name)
            await world.until_prompt_status(name, f"{name} is rejected", lambda s: s.get("rejections"))
        world.behaviour["v2"] = Behaviour()
        await world.apply("v2")
        await world.until_status("v2 is known to be rejected", lambda s: condition(s, "Stalled")["reason"] == "RolledBack")
        await world.ask(retry="now")
        await world.stable_on("v2", within=60)
        status = await world.until_prompt_status("v2", "nothing is held against v2", lambda s: not s["rejections"])
        assert condition(status, "Rejected")["status"] == "Absent"
        await world.until_prompt_status("v3", "v3 stays rejected", lambda s: s["rejections"])


async def test_a_version_that_is_created_anew_with_what_does_not_compile_is_not_rejected_for_what_it_said_before(
    connection: Connection, world: World
) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    world.behaviour["v2"] = Behaviour(bad=0.5)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        await world.until_prompt_status("v2", "v2 is rejected", lambda s: s.get("rejections"))
        rejected = await world.client.get(PROMPT_VERSIONS, namespace=world.namespace, name="v2")
        await world.client.delete(PROMPT_VERSIONS, namespace=world.namespace, name="v2", uid=rejected["metadata"]["uid"])
        await world.prompt("v2", text="Hello {{who}}")
        await world.until_prompt_status("v2", "it does not compile", lambda s: condition(s, "Accepted")["reason"] == "TemplateInvalid")
        await world.quiet()
        status = await world.until_prompt_status("v2", "it is judged", lambda s: condition(s, "Accepted")["status"] == "False")
        assert (status["rejections"], condition(status, "Rejected")["status"]) == ([], "Absent")
