"""What those who wait for a policy see of it: `kubectl wait`, and tools that read conditions by the rules of kstatus."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Body
from e2e.cluster.apiserver import ApiServer
from tests.apiserver.kubectl import Refused, kubectl

from .operators import running
from .until import alongside
from .world import Behaviour, World

pytestmark = pytest.mark.apiserver


def kstatus(body: Body) -> str:
    """As kstatus computes it for a resource that it has no special rules for."""
    metadata, status = body["metadata"], body.get("status", {})
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


class Watched:
    """Every state of the policy that was ever stored."""

    def __init__(self, client: Client, *, world: World) -> None:
        self._client = client
        self._world = world
        self.states: list[Body] = []

    async def watch(self) -> None:
        first = await self._client.get(POLICIES, namespace=self._world.namespace, name=self._world.policy)
        self.states.append(first)
        version = first["metadata"]["resourceVersion"]
        where = {"namespace": self._world.namespace, "name": self._world.policy}
        async for body in self._client.follow(POLICIES, **where, version=version):
            self.states.append(body)

    @contextlib.asynccontextmanager
    async def watching(self) -> Any:
        async with alongside(self.watch()):
            yield self


def is_there(body: Body) -> bool:
    """Whether the operator has seen the spec, can use it, and what it asks for is stable with nothing else on its way."""
    status = body.get("status", {})
    seen = status.get("observedGeneration") == body["metadata"]["generation"] and body["spec"]["metricsSource"] == "default"
    return seen and status.get("stable", {}).get("promptVersion") == body["spec"]["promptVersion"] and "canary" not in status


async def test_g06_kstatus_is_current_when_and_only_when_the_wanted_version_is_stable(
    connection: Connection, client: Client, world: World
) -> None:
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    world.behaviour["v3"] = Behaviour(bad=0.5)
    await world.apply("v1")
    async with Watched(client, world=world).watching() as watched, running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        await world.stable_on("v2", within=60)
        await world.apply("v3")
        await world.until_status("v3 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack", within=60)
        await world.apply("v2")
        await world.stable_on("v2")
        await world.apply("v2", latencyBudgetMilliseconds=400, metricsSource="elsewhere")
        await world.until_status("it is told", lambda s: any(c["reason"] == "MetricsSourceNotFound" for c in s["conditions"]))
    states = [(kstatus(body), is_there(body)) for body in watched.states]
    assert states[0] == ("InProgress", False), "before the operator has seen it"
    assert [state for state, there in states if not there and state == "Current"] == []
    assert [state for state, there in states if there and state != "Current"] == []
    assert states[-1][0] == "Failed", "it names a source that there is none of"
    rolled_back = [body for body in watched.states if "rejected" in body["status"] and body["spec"]["promptVersion"] == "v3"]
    assert kstatus(rolled_back[-1]) == "Failed"
    assert {state for state, _ in states} == {"InProgress", "Current", "Failed"}


async def test_g06_kubectl_wait_returns_when_the_wanted_version_is_stable_and_not_before(
    connection: Connection, api_server: ApiServer, world: World
) -> None:
    def wait(*, seconds: int) -> str:
        arguments = ["wait", "fbp/support", "-n", world.namespace, "--for=condition=Ready", f"--timeout={seconds}s"]
        return kubectl(*arguments, kubeconfig=Path(api_server.kubeconfig))

    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1")
    async with running(connection, world):
        await asyncio.to_thread(wait, seconds=60)
        assert (await world.status())["stable"]["promptVersion"] == "v1"
        await world.apply("v2")
        await asyncio.to_thread(wait, seconds=60)
        assert (await world.status())["stable"]["promptVersion"] == "v2"
        world.behaviour["v1"] = Behaviour(bad=0.5)
        await world.prompt("v1b", text="You are v1b.")
        world.behaviour["v1b"] = Behaviour(ready=False)
        await world.apply("v1b")
        with pytest.raises(Refused, match="timed out"):
            await asyncio.to_thread(wait, seconds=3)


async def test_a_prompt_version_that_cannot_be_used_is_failed_and_one_that_nobody_has_seen_is_not_done(
    connection: Connection, client: Client, world: World
) -> None:
    await world.prompt("broken", text="Hello {{who}}")
    await world.prompt("good")

    async def seen(name: str) -> str:
        return kstatus(await client.get(PROMPT_VERSIONS, namespace=world.namespace, name=name))

    assert (await seen("broken"), await seen("good")) == ("InProgress", "InProgress")
    async with running(connection, world):
        for name in ("broken", "good"):
            await world.until_prompt_status(name, f"{name} is judged", lambda s: s.get("conditions"))
        assert (await seen("broken"), await seen("good")) == ("Failed", "Current")
