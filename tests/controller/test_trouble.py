"""An API server in trouble: the operator goes on, says what is wrong, keeps no ghosts, and does not hammer it."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from backstop.api.names import KEEP_UNTIL
from backstop.kube.client import MERGE, Client
from backstop.kube.connection import connect
from backstop.kube.errors import NotFound
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, POLICIES, SERVICES
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .proxy import GONE, Proxy, Refusal, Request, proxy
from .until import until
from .world import MANAGER, Behaviour, World, condition

pytestmark = pytest.mark.apiserver

HELD = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
COUNTED_SECONDS = 4.0  # the time in which requests are counted


async def at_40_percent(world: World) -> None:
    world.behaviour["v2"] = Behaviour()
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=HELD)
    await world.stable_on("v1", within=60)
    await world.apply("v2", canary=HELD)
    await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)


async def rolled_back(world: World) -> dict[str, Any]:
    status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=90)
    assert status["lastRollout"]["reason"] == "LatencyBreach"
    assert await world.shares() == [0, 400, 0]
    return status


async def per_minute(between: Proxy, what: str) -> float:
    """Requests of this kind in a minute, as they come now."""

    def fits(request: Request) -> bool:
        return request.write if what == "writes" else not request.watch

    since = time.monotonic()
    await asyncio.sleep(COUNTED_SECONDS)
    return between.count(fits, since=since) * 60 / COUNTED_SECONDS


async def test_r10_slow_answers_slow_a_rollback_and_nothing_else(api_server: ApiServer, world: World, tmp_path: Path) -> None:
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        await at_40_percent(world)
        between.delay = 1.0
        world.behaviour["v2"].bad = 0.5
        await rolled_back(world)


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (500, {}), (503, {})], ids=["429", "500", "503"])
async def test_r10_an_api_server_that_asks_for_patience_is_given_it(
    api_server: ApiServer, world: World, tmp_path: Path, status: int, headers: dict[str, str]
) -> None:
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        await at_40_percent(world)
        between.refusal = Refusal(status, fits=lambda request: True, headers=headers)
        world.behaviour["v2"].bad = 0.5

        async def tried() -> bool:
            return between.count(lambda request: request.write, since=0) > before

        before = between.count(lambda request: request.write, since=0)
        await until("the way back is tried", tried)
        # A pass that fails comes again after pauses that double; in their beginning they are short.
        assert await per_minute(between, "writes") < 200
        assert await per_minute(between, "all") < 200
        between.refusal = None
        await rolled_back(world)


async def test_r10_a_watch_that_is_silently_frozen_hides_nothing_for_longer_than_a_sweep(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world, sweep_seconds=1.0):
        await at_40_percent(world)
        between.freeze_watches()
        await world.apply("v1", canary=HELD)
        # Sooner than kopf would begin a silent watch anew.
        status = await world.until_status("v2 is ended", lambda s: "canary" not in s, within=30)
        assert status["lastRollout"]["outcome"] == "Superseded"
        await world.apply("v2", canary=HELD)
        await world.until_status("v2 is back at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
        assert between.watches > 0, "they were frozen all the time"
        world.behaviour["v2"].bad = 0.5
        await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)


async def test_r10_a_prompt_version_that_its_watch_does_not_tell_of_is_not_said_to_be_missing(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        between.freeze_watches(of="/promptversions")
        await at_40_percent(world)
        await world.apply("nowhere", name="other")

        async def is_missed() -> bool:
            return bool(condition(await world.status("other"), "Stalled")["reason"] == "PromptVersionNotFound")

        await until("that one is missed", is_missed)
        await world.quiet()
        asked = between.count(lambda request: request.path.endswith("/promptversions/nowhere"), since=0)
    told = [(event["regarding"]["name"], event["reason"]) for event in await world.told()]
    assert [name for name, reason in told if reason == "PromptVersionNotFound"] == ["other"]
    assert asked == 1


async def test_r10_what_was_deleted_across_a_410_is_no_ghost(api_server: ApiServer, world: World, tmp_path: Path, client: Client) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    await world.apply("v1", name="doomed")
    async with (
        proxy(api_server, folder=tmp_path) as (between, kubeconfig),
        running(await connect(kubeconfig), world, sweep_seconds=1.0) as operator,
    ):
        stable = (await world.stable_on("v1"))["stable"]["revision"]
        await until("the other one is stable too", lambda: _is_stable(world, "doomed"))
        await world.quiet()
        between.freeze_watches()
        doomed = await delete_with_children(client, world, policy="doomed")
        await world.delete_deployment(f"support-{stable}")
        between.end_watches(GONE)
        await until("what belongs to a policy that lives is made anew", lambda: _exists(world, f"support-{stable}"))
        await operator.lists(3)
        await world.quiet()
        # A sweep that saw the policy and no more its children may have made one of them anew. It goes as they did, and stays away.
        await collect(client, world, owner=doomed)
        await operator.lists(3)
        await world.quiet()
        left = {(resource.kind, name) for resource in (DEPLOYMENTS, SERVICES, CONFIG_MAPS) for name in await world.names(resource)}
        kept = {("ConfigMap", f"doomed-{stable}")}  # the record of what was accepted last
        assert {found for found in left if found[1].startswith("doomed")} == kept


async def test_r10_watches_that_are_not_let_in_go_on_asking_with_patience(api_server: ApiServer, world: World, tmp_path: Path) -> None:
    def watches(request: Request) -> bool:
        return "kopf" in request.agent

    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig):
        between.refusal = Refusal(401, fits=watches)
        async with running(await connect(kubeconfig), world):

            async def asked_again() -> bool:
                return between.count(watches, since=0) > 2

            await until("they are asked for again", asked_again)
            assert await per_minute(between, "all") < 200
            between.refusal = None
            await world.prompt("v1")
            await world.apply("v1")
            await world.stable_on("v1", within=60)


@pytest.mark.parametrize("refused", [0, 2], ids=["at once", "refused at first"])
async def test_r10_what_was_deleted_across_a_410_is_known_without_a_sweep(
    api_server: ApiServer, world: World, tmp_path: Path, client: Client, refused: int
) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    await world.apply("v1", name="doomed")
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        stable = (await world.stable_on("v1"))["stable"]["revision"]
        await until("the other one is stable too", lambda: _is_stable(world, "doomed"))
        await world.quiet()
        between.freeze_watches()
        await delete_with_children(client, world, policy="doomed")
        await world.delete_deployment(f"support-{stable}")
        await until("its deletion is held back", lambda: _is_held(between, "/fallbackpolicies"))
        refusing = Scarce(refused)
        between.refusal = Refusal(503, fits=refusing.fits)
        between.end_watches(GONE)
        await until("what belongs to a policy that lives is made anew", lambda: _exists(world, f"support-{stable}"))
        await until("what is left of the other says until when it stays", lambda: _says_until_when(client, world, f"doomed-{stable}"))
        # A write that finds no policy may have told it before the list did: which is asked for until it is given.
        await until("the list is asked for as often as it is refused", refusing.is_over)


async def test_r10_a_watch_that_ends_with_another_error_is_begun_anew(api_server: ApiServer, world: World, tmp_path: Path) -> None:
    failed = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcdserver: leader changed"}
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        await at_40_percent(world)
        between.freeze_watches()
        await world.apply("v1", canary=HELD)
        between.end_watches(failed)
        await world.until_status("v2 is ended", lambda s: "canary" not in s, within=60)


async def test_r10_a_storm_of_conflicts_delays_a_rollback_and_is_not_answered_with_one(
    api_server: ApiServer, world: World, tmp_path: Path, client: Client
) -> None:
    async def storm() -> None:
        number = 0
        while True:
            number += 1
            patch = {"metadata": {"annotations": {"storm": str(number)}}}
            path = POLICIES.path(namespace=world.namespace, name=world.policy)
            await client._request("PATCH", path, query={"fieldManager": MANAGER}, body=patch, content=MERGE)
            await world.touch_route()

    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        await at_40_percent(world)
        storming = asyncio.create_task(storm())
        try:
            world.behaviour["v2"].bad = 0.5
            since = time.monotonic()
            status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout"), within=90)
            assert status["lastRollout"]["reason"] == "LatencyBreach"
            # 8 writes for each second is far from one for each conflict.
            assert between.count(lambda request: request.write, since=since) < 60 + 8 * (time.monotonic() - since)
        finally:
            storming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await storming
        await rolled_back(world)


async def _exists(world: World, deployment: str) -> bool:
    return deployment in await world.names(DEPLOYMENTS)


async def _is_held(between: Proxy, path: str) -> bool:
    return any(held.endswith(path) for held in between.held)


async def _says_until_when(client: Client, world: World, record: str) -> bool:
    body = await client.get(CONFIG_MAPS, namespace=world.namespace, name=record)
    return KEEP_UNTIL in body["metadata"].get("annotations", {})


class Scarce:
    """Lists of policies by the operator itself, so many of them."""

    def __init__(self, left: int) -> None:
        self.left = left

    def fits(self, request: Request) -> bool:
        if self.left == 0 or request.watch or "kopf" in request.agent or not request.path.endswith("/fallbackpolicies"):
            return False
        self.left -= 1
        return True

    async def is_over(self) -> bool:
        return self.left == 0


async def _is_stable(world: World, name: str) -> bool:
    status: str = condition(await world.status(name), "Ready")["status"]
    return status == "True"


async def delete_with_children(client: Client, world: World, *, policy: str) -> str:
    """What the garbage collector would do, too. Returns whose children they were."""
    uid = str((await client.get(POLICIES, namespace=world.namespace, name=policy))["metadata"]["uid"])
    await client.delete(POLICIES, namespace=world.namespace, name=policy, uid=uid)
    await collect(client, world, owner=uid)
    return uid


async def collect(client: Client, world: World, *, owner: str) -> None:
    """As the garbage collector does: what belongs to what is not there any more goes."""
    for resource in (DEPLOYMENTS, SERVICES, CONFIG_MAPS):
        for item in (await client.list(resource, namespace=world.namespace))[0]:
            if any(reference["uid"] == owner for reference in item["metadata"].get("ownerReferences", ())):
                with contextlib.suppress(NotFound):
                    await client.delete(resource, namespace=world.namespace, name=item["metadata"]["name"], uid=item["metadata"]["uid"])
