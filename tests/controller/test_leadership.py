"""Several operators, one of which acts: the Lease on a real API server, and whole processes that are killed and frozen."""

import asyncio
import contextlib
import functools
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backstop.controller.aside import Aside
from backstop.controller.leadership import Leadership, LeadershipLost, lost_in
from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import NotFound, NotLeading
from backstop.kube.lease import LeaseObject
from backstop.kube.resources import CONFIG_MAPS, LEASES, POLICIES
from backstop.main import LOST
from e2e.cluster.apiserver import ApiServer
from e2e.cluster.ports import free_port

from .test_main import SOURCE, START
from .test_outage import wire
from .until import until
from .world import MANAGER, Behaviour, World, condition

pytestmark = pytest.mark.apiserver

NEVER = 3600  # seconds: a Lease that nobody takes over because it ran out


def candidate(client: Client, world: World, *, name: str, seconds: int) -> Leadership:
    lease = LeaseObject(client, namespace=world.namespace, name="backstop", manager=MANAGER)
    return Leadership(lease, identity=name, seconds=seconds, clock=time.time, monotonic=time.monotonic, jitter=lambda: 0.0)


async def holder(client: Client, world: World) -> str:
    lease = await client.get(LEASES, namespace=world.namespace, name="backstop")
    return str(lease["spec"]["holderIdentity"])


async def test_the_second_leads_as_soon_as_the_first_lets_go(client: Client, world: World) -> None:
    first, second = (candidate(client, world, name=name, seconds=NEVER) for name in ("first", "second"))
    await first.gain()
    waiting = asyncio.create_task(second.gain())
    done, _ = await asyncio.wait({waiting}, timeout=1.0)
    assert not done
    assert (first.leads(), second.leads()) == (True, False)
    await first.let_go()
    assert not first.leads()
    async with asyncio.timeout(10):
        await waiting
    assert second.leads()
    assert await holder(client, world) == "second"


async def test_a_lease_that_is_not_renewed_is_taken_and_its_holder_has_stopped_acting_before(client: Client, world: World) -> None:
    first, second = (candidate(client, world, name=name, seconds=2) for name in ("first", "second"))
    await first.gain()
    async with asyncio.timeout(20):
        await second.gain()
    assert second.leads()
    assert not first.leads()
    with pytest.raises(LeadershipLost):
        await first.keep()


async def test_a_holder_that_renews_goes_on_and_nobody_else_leads(client: Client, world: World) -> None:
    first, second = (candidate(client, world, name=name, seconds=2) for name in ("first", "second"))
    await first.gain()
    keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.gain())
    done, _ = await asyncio.wait({keeping, waiting}, timeout=6.0)
    assert not done
    assert first.leads()
    for task in (keeping, waiting):
        task.cancel()


async def test_somebodys_annotation_on_the_lease_changes_nothing(client: Client, world: World) -> None:
    first = candidate(client, world, name="first", seconds=2)
    await first.gain()
    lease = await client.get(LEASES, namespace=world.namespace, name="backstop")
    lease["metadata"]["annotations"] = {"looked-at": "yes"}
    await client.replace(LEASES, body=lease, manager=MANAGER)
    keeping = asyncio.create_task(first.keep())
    done, _ = await asyncio.wait({keeping}, timeout=4.0)
    assert not done
    assert first.leads()
    keeping.cancel()


async def test_a_lease_that_somebody_deletes_is_made_anew_by_who_leads(client: Client, world: World) -> None:
    first = candidate(client, world, name="first", seconds=2)
    await first.gain()
    lease = await client.get(LEASES, namespace=world.namespace, name="backstop")
    await client.delete(LEASES, namespace=world.namespace, name="backstop", uid=lease["metadata"]["uid"])
    keeping = asyncio.create_task(first.keep())
    done, _ = await asyncio.wait({keeping}, timeout=4.0)
    assert not done
    assert first.leads()
    assert await holder(client, world) == "first"
    keeping.cancel()


async def test_who_finds_anothers_name_on_the_lease_ends_and_leaves_it_there(client: Client, world: World) -> None:
    first = candidate(client, world, name="first", seconds=3)
    await first.gain()
    lease = LeaseObject(client, namespace=world.namespace, name="backstop", manager=MANAGER)
    await lease.write(await lease.read(), holder="second", seconds=NEVER, now=time.time())
    async with asyncio.timeout(20):
        with pytest.raises(LeadershipLost, match="`second` holds the Lease"):
            await first.keep()
    assert not first.leads()
    assert await holder(client, world) == "second"


async def test_a_holder_stops_acting_while_a_fifth_of_the_leases_time_is_left(client: Client, world: World) -> None:
    now = [1000.0]
    lease = LeaseObject(client, namespace=world.namespace, name="backstop", manager=MANAGER)
    first = Leadership(lease, identity="first", seconds=100, clock=time.time, monotonic=lambda: now[0], jitter=lambda: 0.0)
    await first.gain()
    now[0] = 1079.0
    assert first.leads()
    now[0] = 1081.0
    assert not first.leads(), "a write that was just sent would arrive after another leads"
    assert (await lease.read()).seconds == 100


async def test_who_cannot_renew_in_time_ends(api_server: ApiServer, tmp_path: Path, world: World) -> None:
    async with wire(api_server, folder=tmp_path) as (line, kubeconfig):
        client = Client((await connect(kubeconfig)).api_client(), timeout=1.0)
        try:
            first = candidate(client, world, name="first", seconds=2)
            await first.gain()
            line.cut()
            async with asyncio.timeout(20):
                with pytest.raises(LeadershipLost):
                    await first.keep()
            assert not first.leads()
        finally:
            await client.close()


async def test_without_leadership_nothing_is_sent(connection: Connection, client: Client, world: World) -> None:
    first = candidate(client, world, name="first", seconds=NEVER)
    fenced = Client(connection.api_client(), timeout=10.0, may_write=first.leads)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": world.namespace}}
    try:
        with pytest.raises(NotLeading):
            await fenced.create(CONFIG_MAPS, body=body, manager=MANAGER)
        assert "mine" not in await world.names(CONFIG_MAPS)
        await first.gain()
        await fenced.create(CONFIG_MAPS, body=body, manager=MANAGER)
        assert "mine" in await world.names(CONFIG_MAPS)
    finally:
        await fenced.close()


@contextlib.asynccontextmanager
async def processes(
    api_server: ApiServer, folder: Path, *, world: World, lease_seconds: int
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Two operators, the first of which leads."""
    started: list[asyncio.subprocess.Process] = []
    try:
        for number in range(2):
            config = folder / f"operator-{number}.json"
            source = {"name": "default", "url": world.metrics_url, "scrapeIntervalSeconds": 1}
            document = {
                "gatewayImage": "localhost/backstop:test",
                "telemetryPort": free_port(),
                "namespaces": [world.namespace],
                "metricsSources": [source],
                "leaderElection": {"namespace": world.namespace, "leaseSeconds": lease_seconds},
            }
            config.write_text(json.dumps(document))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", START, "--config", str(config), "--kubeconfig", str(api_server.kubeconfig)),
                env={"PYTHONPATH": str(SOURCE)},
                stderr=(folder / f"operator-{number}.log").open("wb"),
            )
            started.append(process)
            if number == 0:
                await until("the first operator leads", functools.partial(led_by, world, process.pid))
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def led_by(world: World, pid: int) -> bool:
    with contextlib.suppress(NotFound):
        return f"-{pid}-" in await holder(world.client, world)
    return False


async def at_40_percent(world: World) -> None:
    held = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
    world.behaviour["v2"] = Behaviour()
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=held)
    await world.stable_on("v1")
    await world.apply("v2", canary=held)
    await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))


async def rolled_back(world: World) -> None:
    status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
    assert status["lastRollout"]["reason"] == "LatencyBreach"
    assert condition(status, "Stalled")["status"] == "True"
    assert await world.shares() == [0, 400, 0]


async def test_r02_a_leader_that_is_told_to_end_hands_over_without_waiting_for_the_lease_to_run_out(
    api_server: ApiServer, tmp_path: Path, world: World
) -> None:
    async with processes(api_server, tmp_path, world=world, lease_seconds=300) as (first, second):
        await at_40_percent(world)
        world.behaviour["v2"].bad = 0.5
        first.send_signal(signal.SIGTERM)
        await until("the second operator leads", lambda: led_by(world, second.pid))
        await rolled_back(world)
        async with asyncio.timeout(20):
            assert await first.wait() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_r02_a_breach_is_acted_on_by_another_when_the_leader_is_gone(
    api_server: ApiServer, tmp_path: Path, world: World, how: signal.Signals
) -> None:
    async with processes(api_server, tmp_path, world=world, lease_seconds=3) as (first, second):
        await at_40_percent(world)
        first.send_signal(how)
        world.behaviour["v2"].bad = 0.5
        await until("the second operator leads", lambda: led_by(world, second.pid))
        await rolled_back(world)
        if how is signal.SIGSTOP:
            await world.quiet()
            before = await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
            # What it was about to write is still about to be written.
            first.send_signal(signal.SIGCONT)
            async with asyncio.timeout(20):
                assert await first.wait() == LOST
            await world.quiet()
            assert await world.client.get(POLICIES, namespace=world.namespace, name=world.policy) == before
            assert await led_by(world, second.pid)


async def test_a_loop_that_is_busy_for_longer_than_the_lease_goes_on_leading_and_one_that_is_stuck_does_not(
    client: Client, connection: Connection, world: World
) -> None:
    problem: list[str] = []

    async def make(stack: contextlib.AsyncExitStack) -> Leadership:
        renewals = Client(connection.api_client(), timeout=2.0)
        stack.push_async_callback(renewals.close)
        return candidate(renewals, world, name="first", seconds=2)

    async with Aside(make, problem=lambda: problem[0] if problem else None) as first:
        await first.gain()
        keeping = asyncio.create_task(first.keep())
        await asyncio.sleep(0)  # it has begun in its thread
        busy_until = time.monotonic() + 4.0
        while time.monotonic() < busy_until:
            pass  # no await: this loop has no turn
        assert first.leads()
        assert not keeping.done()
        assert await holder(client, world) == "first"
        problem.append("the event loop has been stuck for 6.0 s")
        with pytest.raises(BaseExceptionGroup) as ended:
            await keeping
        lost = lost_in(ended.value)
        assert lost is not None
        assert str(lost) == problem[0]
