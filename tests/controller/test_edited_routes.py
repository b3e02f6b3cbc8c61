"""A route that somebody changes by hand: what it does is put right, and nobody who keeps changing it is answered write for write."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from backstop.api.names import LABEL_MANAGED_BY, LABEL_POLICY
from backstop.controller import unseen
from backstop.controller.keys import PolicyKey
from backstop.controller.repairs import FORGOTTEN_SECONDS, LONGEST_PAUSE_SECONDS, Repairs
from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.resources import CONFIG_MAPS, SERVICES, Body, Resource
from e2e.cluster.apiserver import ApiServer

from .operators import Mortal, running
from .ownworld import OwnWorld
from .proxy import Refusal, Request, proxy
from .until import until
from .world import MANAGER, Behaviour, World, condition, living

KEY = PolicyKey("shop", "support")
HELD = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}


def test_a_first_repair_is_made_at_once_and_further_ones_after_pauses_that_double() -> None:
    repairs, now, pauses = Repairs(), 1000.0, []
    for _ in range(8):
        due = repairs.due_at(KEY, now=now)
        pauses.append(due - now)
        now = due
        repairs.made(KEY, now=now)
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]
    assert repairs.due_at(KEY, now=now + FORGOTTEN_SECONDS) == now + FORGOTTEN_SECONDS
    assert repairs.due_at(PolicyKey("shop", "other"), now=now) == now


@pytest.fixture
async def own(client: Client) -> AsyncIterator[OwnWorld]:
    async with living(OwnWorld(client, f"t-{uuid4().hex[:8]}")) as world:
        yield world


def does_what_it_should(service: Body, *, stable: str) -> bool:
    spec = service["spec"]
    elsewhere = spec["type"] == "ExternalName" or spec.get("publishNotReadyAddresses")
    return not elsewhere and spec.get("selector", {}).get("backstop.dev/revision") == stable


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ExternalName", "externalName": "elsewhere.example", "clusterIP": None, "clusterIPs": None},
        {"publishNotReadyAddresses": True},
    ],
    ids=["it leads elsewhere", "it leads to pods that are not ready"],
)
async def test_g05_a_service_that_does_not_lead_to_ready_pods_is_put_right(connection: Connection, own: OwnWorld, spec: Body) -> None:
    await own.run_image("w:1")
    async with running(connection, own):
        stable = str((await own.stable_on("w:1"))["stable"]["revision"])
        await own.quiet()
        await own.client.patch(SERVICES, namespace=own.namespace, name=own.policy, patch={"spec": spec}, manager=MANAGER)

        async def back() -> bool:
            return does_what_it_should(await own.service(), stable=stable)

        await until("the Service leads to ready pods", back)


@pytest.mark.apiserver
async def test_a_type_that_only_adds_ways_in_is_left_alone(connection: Connection, own: OwnWorld) -> None:
    await own.run_image("w:1")
    async with running(connection, own, sweep_seconds=1.0) as operator:
        await own.stable_on("w:1")
        await own.quiet()
        writes = len(operator.writes)
        await own.edit_service(type="NodePort")
        await operator.lists(3)
        assert operator.writes[writes:] == []
    assert (await own.service())["spec"]["type"] == "NodePort"


@pytest.mark.apiserver
async def test_somebody_who_keeps_changing_the_service_is_not_answered_write_for_write(connection: Connection, own: OwnWorld) -> None:
    await own.run_image("w:1")
    async with running(connection, own) as operator:
        stable = str((await own.stable_on("w:1"))["stable"]["revision"])
        await own.quiet()
        writes, edits = len(operator.writes), 0
        loop = asyncio.get_running_loop()
        end = loop.time() + 5.0
        while loop.time() < end:
            if does_what_it_should(await own.service(), stable=stable):
                await own.edit_service(selector={"backstop.dev/policy": "support"})
                edits += 1
            await asyncio.sleep(0.01)
        repairs = [write for write in operator.writes[writes:] if write.endswith("/services/support")]
    assert edits > 1, "it was put right, and changed again"
    assert len(repairs) <= 4, "at once, and after 1, 2 and 4 s"


@contextlib.asynccontextmanager
async def at_rest(connection: Connection, *, client: Client, of_pods: bool) -> AsyncIterator[tuple[World, Mortal, Resource, str]]:
    """A world in which nothing changes any more, its operator, and the resource and name of its route."""
    kind = OwnWorld if of_pods else World
    async with living(kind(client, f"t-{uuid4().hex[:8]}")) as world:
        resource: Resource = SERVICES if of_pods else CONFIG_MAPS
        name = world.policy if of_pods else f"{world.policy}-traffic"
        if isinstance(world, OwnWorld):
            await world.run_image("w:1")
        else:
            await world.prompt("v1")
            await world.apply("v1")
        async with running(connection, world) as operator:
            await world.stable_on("w:1" if of_pods else "v1")
            await world.quiet()
            yield world, operator, resource, name


@pytest.mark.apiserver
@pytest.mark.parametrize("of_pods", [False, True], ids=["gateways", "own workload"])
async def test_a_route_whose_labels_somebody_takes_off_is_labelled_again(connection: Connection, client: Client, of_pods: bool) -> None:
    async with at_rest(connection, client=client, of_pods=of_pods) as (world, operator, resource, name):
        writes = len(operator.writes)
        patch = {"metadata": {"labels": {LABEL_POLICY: None, LABEL_MANAGED_BY: None}}}
        await world.client.patch(resource, namespace=world.namespace, name=name, patch=patch, manager=MANAGER)

        async def back() -> bool:
            body = await world.client.get(resource, namespace=world.namespace, name=name)
            return LABEL_POLICY in (body["metadata"].get("labels") or {})

        await until("the labels are back", back)
        await world.quiet()
        assert len(operator.writes) - writes == 1, "none that is refused: it was read before it was to be made anew"


@pytest.mark.apiserver
@pytest.mark.parametrize("of_pods", [False, True], ids=["gateways", "own workload"])
async def test_a_route_that_has_lost_its_owner_is_taken_back(connection: Connection, client: Client, of_pods: bool) -> None:
    async with at_rest(connection, client=client, of_pods=of_pods) as (world, operator, resource, name):
        before, writes = await world.client.get(resource, namespace=world.namespace, name=name), len(operator.writes)
        patch: Body = {"metadata": {"ownerReferences": None}}
        await world.client.patch(resource, namespace=world.namespace, name=name, patch=patch, manager=MANAGER)

        async def owned() -> bool:
            body = await world.client.get(resource, namespace=world.namespace, name=name)
            return bool(body["metadata"].get("ownerReferences") == before["metadata"]["ownerReferences"])

        await until("it has its owner again", owned)
        await world.quiet()
        assert len(operator.writes) - writes == 1


@pytest.mark.apiserver
async def test_a_repair_that_is_refused_is_no_change_of_somebody(
    api_server: ApiServer, own: OwnWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await own.run_image("w:1")
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), own):
        stable = str((await own.stable_on("w:1"))["stable"]["revision"])
        await own.quiet()
        refused: list[Request] = []

        def fits(request: Request) -> bool:
            is_it = request.method == "PATCH" and request.path.endswith("/services/support")
            refused.extend([request] if is_it else [])
            return is_it

        between.refusal = Refusal(403, fits)
        await own.edit_service(selector={"backstop.dev/policy": "support"})
        status = await own.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectRefused")
        assert "Service `support` was refused" in condition(status, "Accepted")["message"]

        async def thrice() -> bool:
            return len(refused) >= 3

        await until("it is tried again", thrice)
        assert "somebody keeps changing" not in caplog.text
        between.refusal = None

        async def back() -> bool:
            return does_what_it_should(await own.service(), stable=stable)

        await until("the Service leads to ready pods", back, within=60)


@pytest.mark.apiserver
async def test_a_breach_over_a_traffic_object_of_something_else_is_no_rollback_until_it_is_one(
    connection: Connection, world: World, client: Client
) -> None:
    name = f"{world.policy}-traffic"

    async def owned_by(references: list[Body]) -> None:
        patch = {"metadata": {"ownerReferences": references}}
        await client.patch(CONFIG_MAPS, namespace=world.namespace, name=name, patch=patch, manager=MANAGER)

    for version in ("v1", "v2"):
        await world.prompt(version)
    await world.apply("v1", canary=HELD)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=HELD)
        await world.until_status("v2 has a share", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
        ours = (await client.get(CONFIG_MAPS, namespace=world.namespace, name=name))["metadata"]["ownerReferences"]
        await owned_by([ours[0] | {"kind": "Helper", "apiVersion": "example.com/v1", "name": "else", "uid": str(uuid4())}])
        world.behaviour["v2"] = Behaviour(bad=0.5)
        told = await world.until_status(
            "that it cannot leave is said", lambda s: "belongs to something else" in condition(s, "Accepted")["message"], within=60
        )
        assert condition(told, "Accepted")["reason"] == condition(told, "Progressing")["reason"] == "ObjectNotOurs"
        assert "delete the traffic object" not in condition(told, "Progressing")["message"], "it is not the policy's to delete"
        assert (told["canary"]["weight"], told.get("lastRollout")) == (40, None), "callers are where they were, and so says status"
        await owned_by(ours)
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
        assert status["lastRollout"]["reason"] == "LatencyBreach"
        assert (await world.route()).permille == 0


@pytest.mark.apiserver
async def test_what_gateways_act_on_is_asked_where_the_object_cannot_be_read_and_followed_by_a_later_generation(
    connection: Connection, world: World, client: Client
) -> None:
    """An operator wrote it and died before it wrote status, by a clock that was ahead; then somebody broke the object."""
    name = f"{world.policy}-traffic"
    for version in ("v1", "v2"):
        await world.prompt(version)
    await world.apply("v1", canary=HELD)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=HELD)
        await world.until_status("v2 has a share", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
        await world.quiet()
        patch = {"data": {"generation": "nonsense"}}
        await client.patch(CONFIG_MAPS, namespace=world.namespace, name=name, patch=patch, manager=MANAGER)
        await world.until_status("it is told", lambda s: condition(s, "Progressing")["reason"] == "TrafficUnreadable")
        assert world.traffic is not None
        ahead = int((time.time() + 3600) * 1000)
        world.traffic = replace(world.traffic, generation=ahead)
        asked = world.asked

        async def asked_again() -> bool:
            return world.asked > asked + 2

        await until("its gateways are asked", asked_again)
        world.behaviour["v2"] = Behaviour(bad=0.5)
        await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
        assert (await world.route()).generation == ahead + 1


@pytest.mark.apiserver
async def test_that_an_object_of_somebody_else_has_gone_is_seen_though_no_watch_tells_of_it(
    connection: Connection, world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "FOREIGN_ROUTE_SECONDS", 1.0)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{world.policy}-traffic", "namespace": world.namespace},
        "data": {"theirs": "yes"},
    }
    theirs = await client.create(CONFIG_MAPS, body=body, manager=MANAGER)
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.quiet()
        assert (await client.get(CONFIG_MAPS, namespace=world.namespace, name=f"{world.policy}-traffic"))["data"] == {"theirs": "yes"}
        said = condition(await world.status(), "Accepted")
        assert (said["reason"], said["status"]) == ("ObjectNotOurs", "False"), "also where nothing is to be written"
        assert said["message"] == (
            f"ConfigMap `{world.policy}-traffic` exists and belongs to something else; rename the policy or take that object away"
        )
        await client.delete(CONFIG_MAPS, namespace=world.namespace, name=f"{world.policy}-traffic", uid=theirs["metadata"]["uid"])
        assert (await world.route()).permille == 0, "ours is made as soon as there is room for it"
        await world.until_status("all is well", lambda s: condition(s, "Accepted")["status"] == "True")
