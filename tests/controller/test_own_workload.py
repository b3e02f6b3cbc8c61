"""A workload of its author's own, by the real operator on a real API server: the Service is the route, and nothing of ours runs in it."""

import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from backstop.api.traffic import TrafficState
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import Conflict, NotFound
from backstop.kube.resources import CONFIG_MAPS, PODS, POLICIES, ROLES, SERVICE_ACCOUNTS, SERVICES, Body

from .operators import Mortal, running
from .ownworld import OwnWorld, said
from .test_deletion import delete, gone
from .test_probes import canary_with, end, job_of
from .until import until
from .world import MANAGER, Behaviour, condition, living

pytestmark = pytest.mark.apiserver

ROUTE = "/services/support?"
HELD = {"steps": [{"weight": 20, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}


@pytest.fixture
async def world(client: Client) -> AsyncIterator[OwnWorld]:
    async with living(OwnWorld(client, f"t-{uuid4().hex[:8]}")) as world:
        yield world


def reaches(service: Body) -> str | None:
    """The one revision that a Service selects; None: all of the policy's pods."""
    selector = service["spec"]["selector"]
    assert selector["backstop.dev/policy"] == "support"
    revision = selector.get("backstop.dev/revision")
    return str(revision) if revision is not None else None


async def shared(world: OwnWorld) -> str:
    """Run the second image until it has a verified share; returns its revision."""
    await world.run_image("w:2", canary=HELD)
    status = await world.until_status("w:2 has a share", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
    assert reaches(await world.service()) is None
    return str(status["canary"]["revision"])


async def until_rolled_back(world: OwnWorld) -> Body:
    return await world.until_status("w:2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)


def never_reached_after_its_abort(world: OwnWorld, revision: str) -> None:
    """Once the Service carries the verdict, no endpoint of that revision comes back."""
    last = max(position for position, reached in enumerate(world.reached) if revision in reached)
    assert all(revision not in reached for reached in world.reached[last + 1 :])
    seen: TrafficState | None = None
    for _, state in world.history:
        seen = state if state.aborted is not None or seen is None else seen
        if seen.aborted is not None:
            assert (state.canary, state.permille) != (revision, 1000)
            assert state.stable != revision
            assert state.permille == 0 or state.canary != revision


async def test_a01_the_first_revision_serves_through_the_service_alone(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        status = await world.stable_on("w:1")
        stable = str(status["stable"]["revision"])

        async def routed() -> bool:
            return reaches(await world.service()) == stable

        await until("the Service selects stable", routed)
    assert status["router"] == "Replicas"
    assert await world.names(SERVICE_ACCOUNTS) <= {"default"}
    assert await world.names(ROLES) == set()
    assert "support-traffic" not in await world.names(CONFIG_MAPS)


async def test_a03_t02_a_good_image_is_promoted_and_its_pods_go_on_serving(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        first = (await world.stable_on("w:1"))["stable"]["revision"]
        await world.run_image("w:2")
        second = (await world.canary_is("w:2"))["canary"]["revision"]

        async def both() -> bool:
            return frozenset({first, second}) in world.reached

        await until("both are reached", both, within=60)
        before = {name for name in await world.names(PODS) if second in name}
        status = await world.stable_on("w:2", within=60)
    assert status["lastRollout"]["outcome"] == "Promoted"
    assert await world.shares() == [0, 500, 1000, 0]
    assert world.reached[-3:] == [frozenset({first}), frozenset({first, second}), frozenset({second})]
    assert before <= await world.names(PODS)
    assert reaches(await world.service()) == second


async def test_b01_b05_a_breach_moves_the_service_before_anything_else(connection: Connection, world: OwnWorld) -> None:
    world.behaviour["w:2"] = Behaviour(bad=0.5)
    await world.run_image("w:1")
    async with running(connection, world) as operator:
        first = (await world.stable_on("w:1"))["stable"]["revision"]
        seen: list[tuple[Body, int]] = []

        async def look() -> None:
            seen.append((await world.status(), len(operator.writes)))

        await world.run_image("w:2", canary=HELD)
        await world.until_status("w:2 is shared", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
        operator.interfere(ROUTE, look)
        status = await until_rolled_back(world)
    revision = status["lastRollout"]["revision"]
    (before, writes), *_ = seen
    assert (before["canary"]["weight"], before["rejected"]) == (20, []), "the route was written first"
    assert operator.writes[writes] == f"PATCH api/v1/namespaces/{world.namespace}/services/support"
    assert status["lastRollout"]["reason"] == "PromQLBreach"
    assert [r["revision"] for r in status["rejected"]] == [revision]
    assert condition(status, "Stalled")["reason"] == "RolledBack"
    service = await world.service()
    assert reaches(service) == first
    assert revision in service["metadata"]["annotations"]["backstop.dev/aborted"]
    never_reached_after_its_abort(world, revision)


async def test_b14_a_death_right_after_the_service_was_moved_is_finished_from_it(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world) as first:
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        revision = await shared(world)

        async def die() -> None:
            die_in_the_next_write(first)

        first.interfere(ROUTE, die)
        world.behaviour["w:2"] = Behaviour(bad=0.5)
        await first.died.wait()

        async def moved() -> bool:
            return reaches(await world.service()) == stable

        await until("the write takes effect", moved)
    between = await world.status()
    assert (between["canary"]["weight"], between["rejected"]) == (20, []), "nothing but the Service was written"
    world.behaviour["w:2"] = Behaviour()
    async with running(connection, world):
        status = await until_rolled_back(world)
    assert [r["revision"] for r in status["rejected"]] == [revision]
    never_reached_after_its_abort(world, revision)


def die_in_the_next_write(operator: Mortal) -> None:
    operator.lifetime = len(operator.writes) + 1


async def test_b01_a_service_that_somebody_else_writes_at_that_moment_is_left_all_the_same(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world) as operator:
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await shared(world)

        async def touch() -> None:
            await world.touch_route()

        operator.interfere(ROUTE, touch)
        world.behaviour["w:2"] = Behaviour(bad=0.5)
        await until_rolled_back(world)
        service = await world.service()
    assert reaches(service) == stable
    assert "touched" in service["metadata"]["annotations"], "what others put there stays"


async def test_a_canary_whose_status_somebody_takes_away_loses_its_share_and_begins_anew(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1", canary=HELD)
    async with running(connection, world):
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        canary = await shared(world)
        shares, before = len(world.history), said(await world.service())

        async def taken_away() -> bool:
            policy = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
            where = {"namespace": world.namespace, "name": world.policy, "resource_version": policy["metadata"]["resourceVersion"]}
            with contextlib.suppress(Conflict):
                await world.client.patch_status(POLICIES, **where, patch=dict.fromkeys(policy["status"]), manager=MANAGER)
                return True
            return False

        await until("the status is gone", taken_away)
        status = await world.until_status("it has a share again", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
    after = said(await world.service())
    assert (status["stable"]["revision"], status["stable"]["promptVersion"]) == (stable, "w:1")
    assert (status["canary"]["revision"], status["canary"]["step"]) == (canary, 0)
    assert {state.stable for _, state in world.history[shares:]} == {stable}
    # Who looks now and then may miss it at 0. But what says the same is not written, and each write has the next number.
    assert after.permille == 200
    assert after.generation >= before.generation + 2


async def test_c03_the_image_from_before_is_returned_to_at_once(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await shared(world)
        await world.run_image("w:1", canary=HELD)
        status = await world.stable_on("w:1")
        assert reaches(await world.service()) == stable
    assert status["stable"]["revision"] == stable
    assert "canary" not in status
    assert status["lastRollout"]["outcome"] == "Superseded"
    assert await world.shares() == [0, 200, 0]


async def test_c01_a_third_image_is_not_reached_beside_the_second(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        first = (await world.stable_on("w:1"))["stable"]["revision"]
        second = await shared(world)
        await world.run_image("w:3", canary=HELD)
        third = (await world.canary_is("w:3"))["canary"]["revision"]

        async def both() -> bool:
            return frozenset({first, third}) in world.reached

        await until("the third is reached beside stable", both, within=60)
    assert not [reached for reached in world.reached if {second, third} <= reached]


async def test_g07_a_policy_that_is_deleted_leaves_its_service_with_stable_alone(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await shared(world)
        policy = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
        assert policy["metadata"]["finalizers"] == ["backstop.dev/rollout"]
        await world.client.delete(POLICIES, namespace=world.namespace, name=world.policy, uid=policy["metadata"]["uid"])

        async def let_go() -> bool:
            try:
                await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
            except NotFound:
                return True
            return False

        await until("the policy is gone", let_go, within=60)
        assert world.reached[-1] == frozenset({stable}), "it went before the endpoints had followed"
    assert reaches(await world.service()) == stable


async def test_an_image_that_was_rolled_back_is_not_begun_by_another_policy_of_the_name(connection: Connection, world: OwnWorld) -> None:
    world.behaviour["w:2"] = Behaviour(bad=0.5)
    await world.run_image("w:1")
    async with running(connection, world):
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await world.run_image("w:2")
        rejected = (await until_rolled_back(world))["rejected"][0]["revision"]
        await world.quiet()
    await delete(world)
    await gone(world)
    async with running(connection, world):
        await world.run_image("w:2")
        status = await world.until_status("what was accepted serves", lambda s: s.get("stable", {}).get("revision") == stable)
        assert (await world.route()).stable == stable
        assert reaches(await world.service()) == stable
    assert [r["revision"] for r in status["rejected"]] == [rejected]


async def test_m06_a_share_counts_from_when_the_endpoints_have_followed(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        await world.stable_on("w:1")
        world.endpoints_stand_still = True
        await world.run_image("w:2", canary=HELD)
        await world.until_status("w:2 has its weight", lambda s: s.get("canary", {}).get("weight") == 20)
        status = await world.until_status(
            "it is not seen",
            lambda s: "not seen at the endpoints" in condition(s, "Progressing")["message"] or s["canary"]["weight"] == 0,
            within=60,
        )
        assert "weightVerifiedAt" not in status["canary"]
        world.endpoints_stand_still = False
        await world.until_status("it is verified", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)


async def test_a02_a_probe_reaches_the_canary_itself_before_its_first_share(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        await world.stable_on("w:1")
        await world.run_image("w:2", canary=canary_with("golden"))
        revision = str((await world.canary_is("w:2"))["canary"]["revision"])
        job = await job_of(world, revision, "golden")
        assert (await world.route()).permille == 0
        (container,) = job["spec"]["template"]["spec"]["containers"]
        told = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert told["BACKSTOP_BASE_URL"] == f"http://support-{revision}.{world.namespace}.svc:8080"
        assert "BACKSTOP_HEADER" not in told
        await end(world, job, passed=True)
        await world.until_status("it has a share", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)


async def test_g05_a_selector_that_somebody_edits_is_put_back(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await world.quiet()
        await world.edit_service(selector={"backstop.dev/policy": "support"})

        async def back() -> bool:
            return reaches(await world.service()) == stable

        await until("the selector is back", back)


async def test_g05_a_service_whose_state_somebody_makes_unreadable_is_written_anew(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world):
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await world.quiet()
        patch = {"metadata": {"annotations": {"backstop.dev/generation": None}}, "spec": {"selector": {"backstop.dev/revision": "none"}}}
        await world.client.patch(SERVICES, namespace=world.namespace, name=world.policy, patch=patch, manager=MANAGER)

        async def back() -> bool:
            return reaches(await world.service()) == stable

        await until("the selector is back", back)
        assert (await world.route()).stable == stable


def ports(service: Body) -> list[tuple[str, int]]:
    return [(port["name"], port["port"]) for port in service["spec"]["ports"]]


async def test_b01_a_service_whose_port_somebody_renumbers_at_that_moment_is_left_all_the_same(
    connection: Connection, world: OwnWorld
) -> None:
    await world.run_image("w:1")
    async with running(connection, world) as operator:
        stable = str((await world.stable_on("w:1"))["stable"]["revision"])
        await shared(world)

        async def renumber() -> None:
            await world.edit_service(ports=[{"name": "http", "port": 8081, "targetPort": "http"}])

        operator.interfere(ROUTE, renumber)
        world.behaviour["w:2"] = Behaviour(bad=0.5)
        await until_rolled_back(world)

        async def repaired() -> bool:
            return ports(await world.service()) == [("http", 8080)]

        await until("the port is back", repaired)
        assert reaches(await world.service()) == stable


async def test_g05_a_port_that_somebody_adds_is_taken_off_in_one_write(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world, sweep_seconds=1.0) as operator:
        await world.stable_on("w:1")
        await world.quiet()
        writes = len(operator.writes)
        declared = (await world.service())["spec"]["ports"]
        await world.edit_service(ports=[*declared, {"name": "admin", "port": 9000, "targetPort": 9000}])

        async def repaired() -> bool:
            return ports(await world.service()) == [("http", 8080)]

        await until("the port is gone", repaired)
        await operator.lists(3)
    assert operator.writes[writes:] == [f"PATCH api/v1/namespaces/{world.namespace}/services/support"]


async def test_a_service_of_somebody_else_is_never_written(connection: Connection, world: OwnWorld) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "support", "namespace": world.namespace},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
    }
    await world.client.create(SERVICES, body=body, manager=MANAGER)
    await world.run_image("w:1")
    async with running(connection, world):
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectNotOurs")
    assert "Service `support` exists and belongs to something else" in condition(status, "Accepted")["message"]
    assert (await world.service())["spec"]["selector"] == {"app": "other"}


async def test_r03_a_policy_at_rest_is_written_nothing_of(connection: Connection, world: OwnWorld) -> None:
    await world.run_image("w:1")
    async with running(connection, world, sweep_seconds=1.0) as operator:
        await world.stable_on("w:1")
        await world.quiet()
        writes = len(operator.writes)
        await operator.lists(3)
        assert operator.writes[writes:] == []
