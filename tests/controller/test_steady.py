"""Nothing is written without a reason; a restart goes on where the operator was."""

import asyncio

import aiohttp
import pytest

from backstop.api.names import GROUP, LABEL_REVISION, OPERATOR_MANAGER, VERSION
from backstop.controller import run
from backstop.controller.children import APPLIED
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.openapi import openapi_path
from backstop.kube.resources import CHILDREN, CONFIG_MAPS, DEPLOYMENTS, PODS, POLICIES, PROMPT_VERSIONS, SERVICES
from backstop.rendering.owner import Owner
from backstop.rendering.revision import deployment, template_of
from e2e.cluster.ports import free_port

from .operators import running
from .until import until
from .world import World, small_world

pytestmark = pytest.mark.apiserver

HISTORY = 2


async def test_r03_an_idle_policy_costs_no_write_not_even_after_a_restart(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world, sweep_seconds=0.5) as first:
        await world.stable_on("v1")
        await world.quiet()
        before = len(first.writes)
        await first.lists(4)
        assert first.writes[before:] == []
    async with running(connection, world, sweep_seconds=0.5) as second:
        await second.lists(4)
        assert second.writes == []


async def test_r05_a_start_over_settled_policies_reads_lists_and_no_object_by_itself(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.quiet()
    async with running(connection, world, sweep_seconds=0.5) as second:
        await second.lists(2)
        listed = {r.plural for r in (POLICIES, PROMPT_VERSIONS, *CHILDREN, PODS)}
        described = openapi_path(GROUP, VERSION)[1:]
        assert {read.rsplit("/", 1)[1] for read in second.reads if read != described} == listed
        assert second.reads.count(described) == 1
        assert second.writes == []


async def test_new_secrets_for_pulling_are_for_new_revisions_and_cost_no_write_before(
    connection: Connection, client: Client, world: World
) -> None:
    async def pull_secrets() -> dict[str, list[str]] | None:
        deployments, _ = await client.list(DEPLOYMENTS, namespace=world.namespace)
        pods = {d["metadata"]["labels"][LABEL_REVISION]: d["spec"]["template"]["spec"] for d in deployments}
        if len(pods) != 2 or not pods.keys() <= world.prompts.keys():
            return None
        return {world.prompts[revision]: [s["name"] for s in pod.get("imagePullSecrets", [])] for revision, pod in pods.items()}

    await world.prompt("v1")
    await world.prompt("v2")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.quiet()
    async with running(connection, world, sweep_seconds=0.5, pull_secrets=("registry",)) as second:
        await second.lists(4)
        assert second.writes == []
        await world.apply("v2")
        await world.canary_is("v2")
        assert await until("both have their pods", pull_secrets) == {"v1": [], "v2": ["registry"]}


async def test_r01_an_operator_stopped_in_mid_hold_goes_on_in_the_same_step(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    steps = {"steps": [{"weight": 20, "holdSeconds": 6}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
    await world.apply("v1", canary=steps)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=steps)
        held = await world.until_status("step 1 is verified", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
    async with running(connection, world):
        status = await world.until_status("the second step begins", lambda s: s.get("canary", {}).get("step") == 1)
        assert status["canary"]["startedAt"] == held["canary"]["startedAt"]
        await world.stable_on("v2", within=60)
    assert await world.shares() == [0, 200, 1000, 0]


async def test_b05_what_is_left_of_an_ended_canary_goes_after_its_traffic_and_old_records_with_it(
    connection: Connection, world: World
) -> None:
    held = {"steps": [{"weight": 100, "holdSeconds": 600}], "analysis": {"warmUpSeconds": 0}}
    rollback = {"keepPreviousSeconds": 15, "guardSeconds": 0, "revisionHistoryLimit": HISTORY}
    versions = [f"v{number}" for number in range(1, HISTORY + 4)]
    for name in versions:
        await world.prompt(name)
    await world.apply("v1", canary=held, rollback=rollback)
    async with running(connection, world):
        stable = (await world.stable_on("v1"))["stable"]["revision"]
        for name in versions[1:]:
            await world.apply(name, canary=held, rollback=rollback)
            await world.canary_is(name)
        await world.until_status("it has traffic", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        await world.apply("v1", canary=held, rollback=rollback)
        await world.until_status("it is ended", lambda s: "canary" not in s)
        assert len(await world.names(DEPLOYMENTS)) > 1
        assert (await world.route()).permille == 0

        async def alone() -> bool:
            return await world.names(DEPLOYMENTS) == {f"support-{stable}"}

        await until("only stable has pods", alone, within=60)
        services = {"support", "support-stable", "support-canary", f"support-{stable}"}

        async def kept() -> bool:
            records = await world.names(CONFIG_MAPS)
            return await world.names(SERVICES) == services and len(records) == len({"stable", "traffic"}) + HISTORY

        await until("no Service and no record is left but those to keep", kept)


async def test_an_operator_for_all_namespaces_serves_them_all(connection: Connection, client: Client, world: World) -> None:
    async with small_world(client, namespace=f"{world.namespace}-b") as other, running(connection, world, everywhere=True):
        for one in (world, other):
            await one.prompt("v1")
            await one.apply("v1")
        await world.stable_on("v1")
        await other.stable_on("v1")


async def test_the_operator_stops_within_seconds(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with asyncio.timeout(30):
        async with running(connection, world):
            await world.stable_on("v1")
            ended = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - ended < 10


async def test_pods_that_are_edited_by_hand_are_put_back(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        status = await world.stable_on("v1")
        name = f"support-{status['stable']['revision']}"
        await world.edit_deployment(name, image="somebody/elses:image", replicas=3)

        async def put_back() -> bool:
            spec = (await world.deployment(name))["spec"]
            image: str = spec["template"]["spec"]["containers"][0]["image"]
            return (spec["replicas"], image) == (1, "localhost/backstop:test")

        await until("the Deployment is as it was recorded", put_back)


async def test_a_pass_that_does_not_come_to_an_end_makes_the_operator_unhealthy(
    connection: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LONGEST_PASS_SECONDS", 0.5)
    port = free_port()
    await world.prompt("v1")
    async with running(connection, world, telemetry_port=port) as operator, aiohttp.ClientSession() as session:

        async def health() -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}/healthz") as response:
                return response.status, await response.text()

        async def fell_ill() -> str | None:
            try:
                status, text = await health()
            except aiohttp.ClientConnectorError:
                return None  # it does not listen yet
            return text if status == 503 else None

        async def is_well() -> bool:
            return await health() == (200, "ok")

        async def hang() -> None:
            await asyncio.Event().wait()

        await until("what becomes of the prompt version is told", lambda: world.told(of=PROMPT_VERSIONS))
        await world.quiet()  # and its pass is over
        operator.interfere("POST", hang)
        await world.apply("v1")
        assert f"{world.namespace}/{world.policy}" in await until("a pass hangs", fell_ill)
        # The API client gives up on its request, and the pass is repeated.
        await until("it goes on", is_well)
        await world.stable_on("v1")


async def test_deployments_whose_size_an_earlier_operator_applied_keep_it(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1", serving={"replicas": 5})
    async with running(connection, world):
        revision = (await world.stable_on("v1"))["stable"]["revision"]
        await world.quiet()
    name = f"support-{revision}"
    owner = Owner(
        world.namespace, "support", (await world.client.get(POLICIES, namespace=world.namespace, name="support"))["metadata"]["uid"]
    )
    record = await world.client.get(CONFIG_MAPS, namespace=world.namespace, name=name)
    body = deployment(owner, revision=revision, template=template_of(record))
    body["spec"]["replicas"] = 5
    await world.delete_deployment(name)
    former = await world.client.apply(DEPLOYMENTS, body=body, manager=OPERATOR_MANAGER)
    sizes: list[int] = []

    async def follow() -> None:
        version = former["metadata"]["resourceVersion"]
        async for seen in world.client.follow(DEPLOYMENTS, namespace=world.namespace, name=name, version=version):
            sizes.append(seen["spec"]["replicas"])  # noqa: PERF401 - as they come: the watch is cut off

    async def written_anew() -> bool:
        return APPLIED in ((await world.deployment(name))["metadata"].get("annotations") or {})

    following = asyncio.create_task(follow())
    async with running(connection, world):
        await until("the Deployment is written anew", written_anew)
        await world.quiet()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert set(sizes) == {5}
