"""The operator dies in any of its writes, and another begins anew: the same end, and nothing in between that must not be."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import uuid4

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import CONFIG_MAPS, POLICIES

from .operators import Mortal, running
from .until import until
from .world import Behaviour, World, condition, policy_spec, small_world

pytestmark = pytest.mark.apiserver

AT_ONCE = 6
# Worlds that share a busy machine: none of these stories is about the time in which pods get ready.
PATIENT = policy_spec("v1")["canary"] | {"progressDeadlineSeconds": 300}
HELD = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
Story = Callable[[World], Coroutine[Any, Any, None]]


async def rollback(world: World) -> None:
    """v1 becomes stable; v2 breaches and is rolled back."""
    await world.stable_on("v1", within=60)
    await world.apply("v2", canary=PATIENT)
    status = await world.until_status("v2 is rolled back", rolled_back, within=60)
    assert status["stable"]["promptVersion"] == "v1"
    assert [r["promptVersion"] for r in status["rejected"]] == ["v2"]
    assert condition(status, "Stalled")["reason"] == "RolledBack"
    rejections = await world.until_prompt_status("v2", "v2 is rejected", lambda s: s.get("rejections"))
    assert [(r["policy"], r["revision"]) for r in rejections["rejections"]] == [("support", status["rejected"][0]["revision"])]
    route = await world.route()
    assert (route.stable, route.permille) == (status["stable"]["revision"], 0)
    assert route.aborted is not None
    assert route.aborted.revision == status["rejected"][0]["revision"]
    report = await only_report(world)
    assert (report["outcome"], report["revision"]) == ("RolledBack", route.aborted.revision)
    told = [transition["reason"] for transition in report["transitions"]]
    assert told[0] == "CanaryStarted"
    assert "RolledBack" in told


def rolled_back(status: Mapping[str, Any]) -> bool:
    return status.get("lastRollout", {}).get("outcome") == "RolledBack" and "shiftedAt" in status["lastRollout"]


async def promotion(world: World) -> None:
    """v1 becomes stable; v2 is good and is promoted."""
    await world.stable_on("v1", within=60)
    await world.apply("v2", canary=PATIENT)
    status = await world.stable_on("v2", within=90)
    assert status["lastRollout"]["outcome"] == "Promoted"
    assert status["previous"]["promptVersion"] == "v1"
    route = await world.route()
    assert (route.stable, route.canary, route.permille, route.aborted) == (status["stable"]["revision"], None, 0, None)
    report = await only_report(world)
    assert (report["outcome"], report["revision"]) == ("Promoted", status["stable"]["revision"])


async def only_report(world: World) -> Mapping[str, Any]:
    """The report that status names; there is no other."""
    status = await world.until_status("the report is written", lambda s: s["lastRollout"].get("report"), within=60)
    (report,) = await world.reports()
    assert report["metadata"]["name"] == status["lastRollout"]["report"]
    assert "timeline" not in status
    spec: Mapping[str, Any] = report["spec"]
    return spec


async def deletion(world: World) -> None:
    """v1 becomes stable; v2 is its canary when the policy is deleted."""
    await world.stable_on("v1", within=60)
    await world.apply("v2", canary=HELD)
    await world.until_status("v2 has traffic", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
    stable = (await world.status())["stable"]["revision"]
    policy = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
    await world.client.delete(POLICIES, namespace=world.namespace, name=world.policy, uid=policy["metadata"]["uid"])

    async def gone() -> bool:
        try:
            await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
        except NotFound:
            return True
        return False

    await until("the policy is gone", gone, within=60)
    route = await world.route()
    assert (route.stable, route.permille) == (stable, 0)
    assert world.traffic == route, "it went before gateways acted on the end of its canary"
    record = await world.client.get(CONFIG_MAPS, namespace=world.namespace, name=f"{world.policy}-{stable}")
    assert "ownerReferences" not in record["metadata"], "the record of what was accepted goes with the policy"


async def play(connection: Connection, client: Client, story: Story, *, bad: bool, lifetime: int | None) -> Mortal:
    """The story in a world of its own. With a `lifetime`, its first operator dies in that write and a second one takes over."""
    async with small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world:
        world.behaviour["v2"] = Behaviour(bad=0.5 if bad else 0.0)
        await world.prompt("v1")
        await world.prompt("v2")
        await world.apply("v1", canary=PATIENT)
        telling = asyncio.create_task(story(world))
        async with running(connection, world, lifetime=lifetime) as first:
            died = asyncio.create_task(first.died.wait())
            await asyncio.wait((telling, died), return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
        if first.died.is_set():
            async with running(connection, world):
                await telling
        else:
            await telling
        never_again_after_an_abort(world)
        return first


def never_again_after_an_abort(world: World) -> None:
    """Once the traffic object carries a verdict, that revision never has a share."""
    rejected = None
    for _, state in world.history:
        if state.aborted is not None:
            rejected = state.aborted.revision
        if rejected is not None:
            assert state.stable != rejected
            assert state.canary != rejected or state.permille == 0


# In each write that shifts traffic, and in some of the others: a life takes seconds of a core here, and `tests/simulation` dies anywhere.
# With `--every-write` (part of `make nightly`) in each.
@pytest.mark.parametrize(
    ("story", "bad", "every"),
    [(rollback, True, 3), (promotion, False, 6), (deletion, False, 5)],
    ids=lambda of: getattr(of, "__name__", ""),
)
async def test_b14_a_death_in_any_write_leads_to_the_same_end(
    connection: Connection, client: Client, story: Story, bad: bool, every: int, pytestconfig: pytest.Config
) -> None:
    whole = await play(connection, client, story, bad=bad, lifetime=None)
    assert len(whole.writes) > 20
    routed = {number for number, write in enumerate(whole.writes, 1) if write.endswith("-traffic")}
    assert len(routed) > 1
    chosen = range(1, len(whole.writes) + 1, 1 if pytestconfig.getoption("every_write") else every)
    few = asyncio.Semaphore(AT_ONCE)

    async def once(lifetime: int) -> bool:
        async with few:
            try:
                died = await play(connection, client, story, bad=bad, lifetime=lifetime)
            except AssertionError as error:
                raise AssertionError(f"died in write {lifetime}, like {whole.writes[lifetime - 1]}: {error}") from error
            return died.died.is_set()

    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(once(lifetime)) for lifetime in sorted(routed.union(chosen))]
    # How often status is written varies by a little, so the last lives may be longer than the story.
    assert sum(life.result() for life in lives) > 0.8 * len(lives)
