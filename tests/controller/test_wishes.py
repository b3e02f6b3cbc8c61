"""What the author asks for while something is running, and what cannot be asked for."""

import pytest

from backstop.api.names import traffic_object
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import CONFIG_MAPS, PROMPT_VERSIONS, SERVICES, Body

from .operators import running
from .until import until
from .world import MANAGER, Behaviour, World, condition

pytestmark = pytest.mark.apiserver

LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}


async def at_40_percent(world: World) -> None:
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG)
    await world.stable_on("v1")
    await world.apply("v2", canary=LONG)
    await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))


async def test_c01_another_revision_in_mid_canary_starts_anew_from_weight_0(connection: Connection, world: World) -> None:
    async with running(connection, world):
        await at_40_percent(world)
        world.behaviour["v3"] = Behaviour(ready=False)
        await world.apply("v3", canary=LONG)
        status = await world.canary_is("v3")
        assert (status["stable"]["promptVersion"], status["canary"]["weight"]) == ("v1", 0)
        assert (await world.route()).permille == 0
        world.behaviour["v3"] = Behaviour(ready=True)
        await world.until_status("v3 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
    assert await world.shares() == [0, 400, 0, 400]


async def test_c03_asking_for_stable_again_returns_at_once(connection: Connection, world: World) -> None:
    async with running(connection, world):
        await at_40_percent(world)
        await world.apply("v1", canary=LONG)
        status = await world.until_status("v2 is ended", lambda s: "canary" not in s and condition(s, "Ready")["status"] == "True")
    assert status["lastRollout"]["outcome"] == "Superseded"
    assert status["rejected"] == []
    assert await world.shares() == [0, 400, 0]


async def test_b06_a_canary_that_cannot_start_is_rolled_back_at_its_deadline(connection: Connection, world: World) -> None:
    world.behaviour["v2"] = Behaviour(ready=False, waiting="ImagePullBackOff")
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
    assert status["lastRollout"]["reason"] == "CanaryUnavailable"
    assert "image `gateway:test` cannot be pulled" in status["lastRollout"]["message"]
    assert await world.shares() == [0]


async def test_r09_a_malformed_policy_says_why_and_others_go_on(connection: Connection, world: World, client: Client) -> None:
    await world.prompt("v1")
    await client.create(PROMPT_VERSIONS, body=broken_prompt(world), manager=MANAGER)
    await world.apply("nowhere", name="without-prompt")
    await world.apply("broken", name="with-broken-prompt")
    await world.apply("v1", name="without-source", metricsSource="elsewhere")
    shape = {"name": "shape", "type": "JSONSchema", "jsonSchema": {"definition": '{"type": "objekt"}'}}
    await world.apply("v1", name="without-schema", quality={"scorers": [shape]})
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        said = {}
        for name in ("without-prompt", "with-broken-prompt", "without-source", "without-schema"):

            async def stalled(name: str = name) -> str | None:
                found = condition(await world.status(name), "Stalled")
                return f"{found['reason']}: {found['message']}" if found["status"] == "True" else None

            said[name] = await until(f"{name} says why", stalled)
    assert said["without-prompt"].startswith("PromptVersionNotFound: `spec.promptVersion` names `nowhere`")
    assert said["with-broken-prompt"].startswith("PromptVersionInvalid: PromptVersion `broken` cannot be used: ")
    assert "`missing`" in said["with-broken-prompt"]
    assert said["without-source"].startswith("MetricsSourceNotFound: `spec.metricsSource` names `elsewhere`")
    assert said["without-schema"].startswith('Invalid: `spec.quality.scorers[0].jsonSchema.definition` cannot be used: `type`: "objekt" is')


async def test_a_prompt_version_that_is_created_later_is_taken_up(connection: Connection, world: World) -> None:
    await world.apply("v1")
    async with running(connection, world):
        await world.until_status("it is missed", lambda s: condition(s, "Stalled")["reason"] == "PromptVersionNotFound")
        await world.prompt("v1")
        await world.stable_on("v1")


async def test_an_object_of_somebody_else_is_left_alone_and_named(connection: Connection, world: World, client: Client) -> None:
    await world.prompt("v1")
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "support", "namespace": world.namespace},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    before = await client.create(SERVICES, body=theirs, manager=MANAGER)
    await world.apply("v1")
    async with running(connection, world):
        status = await world.until_status("it says so", lambda s: condition(s, "Accepted")["reason"] == "ObjectNotOurs")
        assert "Service `support`" in condition(status, "Accepted")["message"]
        after = await client.get(SERVICES, namespace=world.namespace, name="support")
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        await client.delete(SERVICES, namespace=world.namespace, name="support", uid=before["metadata"]["uid"])
        await world.until_status("it is well", lambda s: condition(s, "Accepted")["status"] == "True", within=60)


async def test_an_unreadable_traffic_object_holds_the_rollout_and_says_so(connection: Connection, world: World, client: Client) -> None:
    async with running(connection, world):
        await at_40_percent(world)
        body = await client.get(CONFIG_MAPS, namespace=world.namespace, name=traffic_object("support"))
        broken = await client.replace(CONFIG_MAPS, body=body | {"data": body["data"] | {"permille": "many"}}, manager=MANAGER)
        status = await world.until_status("it says so", lambda s: s.get("reason") == "TrafficUnreadable")
        assert "`permille`" in condition(status, "Progressing")["message"]
        # When traffic has to leave the canary, it is written anew.
        await world.apply("v1", canary=LONG)
        await world.until_status("v2 is ended", lambda s: "canary" not in s)
        assert (await world.route()).permille == 0
        assert broken["data"]["permille"] == "many"


@pytest.mark.parametrize("written_first", ["fallbackpolicies/support/status", "support-traffic"])
async def test_whoever_writes_first_is_read_again_and_nothing_is_lost(connection: Connection, world: World, written_first: str) -> None:
    async with running(connection, world) as operator:
        await at_40_percent(world)
        touched: list[str] = []

        async def touch() -> None:
            touched.append(await (world.touch_route() if written_first == "support-traffic" else world.touch_status()))

        operator.interfere(written_first, touch)
        await world.apply("v1", canary=LONG)
        status = await world.until_status("v2 is ended", lambda s: "canary" not in s and "lastRollout" in s)
        assert len(touched) == 1
        assert (status["stable"]["promptVersion"], status["lastRollout"]["outcome"]) == ("v1", "Superseded")
        assert await world.shares() == [0, 400, 0]


async def test_m01_metrics_that_cannot_be_had_hold_the_rollout_until_they_can(connection: Connection, world: World) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    steps = {"steps": [{"weight": 20, "holdSeconds": 3}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
    await world.apply("v1", canary=steps)
    async with running(connection, world):
        await world.stable_on("v1")
        world.metrics_up = False
        await world.apply("v2", canary=steps)
        held = await world.until_status("it holds", lambda s: condition(s, "MetricsAvailable")["status"] == "False")
        assert held["canary"]["weight"] == 20
        world.metrics_up = True
        status = await world.stable_on("v2", within=60)
    assert status["rejected"] == []


async def test_a_stable_deployment_that_somebody_deletes_is_made_anew_from_its_record(
    connection: Connection, world: World, client: Client
) -> None:
    """In mid-canary, and though the PromptVersion that it was made of is gone: the canary is not promoted in its place."""
    async with running(connection, world):
        await at_40_percent(world)
        status = await world.status()
        name = f"support-{status['stable']['revision']}"
        before = await world.deployment(name)
        prompt = await client.get(PROMPT_VERSIONS, namespace=world.namespace, name="v1")
        await client.delete(PROMPT_VERSIONS, namespace=world.namespace, name="v1", uid=prompt["metadata"]["uid"])
        await world.delete_deployment(name)

        async def made_anew() -> Body | None:
            try:
                body = await world.deployment(name)
            except NotFound:
                return None
            return body if body["metadata"]["uid"] != before["metadata"]["uid"] else None

        after = await until("it is made anew", made_anew)
        assert after["spec"]["template"] == before["spec"]["template"]
        assert after["spec"]["replicas"] == before["spec"]["replicas"]
        await world.quiet()
        status = await world.status()
        assert (status["stable"]["promptVersion"], status["canary"]["weight"]) == ("v1", 40)
        assert (await world.route()).permille == 400


def broken_prompt(world: World) -> Body:
    return {
        "apiVersion": "backstop.dev/v1alpha1",
        "kind": "PromptVersion",
        "metadata": {"name": "broken", "namespace": world.namespace},
        "spec": {"prompt": "p", "version": "1.0.0", "messages": [{"role": "system", "content": "Hello {{missing}}"}]},
    }
