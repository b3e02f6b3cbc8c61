"""How often gateways are asked, where few and where very many policies wait, and what their answers wake."""

import asyncio
from itertools import accumulate

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from backstop.api.names import LABEL_POLICY, LABEL_REVISION
from backstop.controller.keys import PolicyKey
from backstop.controller.seen import pod
from backstop.controller.store import Store
from backstop.controller.verification import ASK_AGAIN_SECONDS, ASKED_PER_SECOND, LONGEST_PAUSE_SECONDS, Verification, pause_after
from backstop.kube.client import Client
from backstop.rollout.observed import Known
from backstop.rollout.place import is_losing
from backstop.rollout.progress import VERIFY_SECONDS
from backstop.rollout.route import SWITCH_SECONDS
from backstop.traffic.acting import Acting
from tests.rollout.world import World, policy, started
from tests.traffic.test_acting import acts_on, gateways


def moments(waiting: int) -> list[float]:
    """When a policy is asked, beside so many, in seconds since the first question; jitter makes each pause a quarter longer at most."""
    return list(accumulate(1.25 * pause_after(asked, waiting=waiting, least=ASK_AGAIN_SECONDS) for asked in range(40)))


@pytest.mark.parametrize("waiting", [1, 100, 1000, 3000, 100_000])
def test_however_many_wait_each_is_asked_several_times_while_its_weight_has_time(waiting: int) -> None:
    assert len([at for at in moments(waiting) if at <= SWITCH_SECONDS]) >= 4
    assert len([at for at in moments(waiting) if 1.0 < at <= VERIFY_SECONDS]) >= 4


@pytest.mark.parametrize("waiting", [26, 100, 700])
def test_many_that_wait_for_long_are_asked_as_often_in_all_as_is_allowed(waiting: int) -> None:
    times = moments(waiting)
    assert waiting / (times[-1] - times[-2]) <= ASKED_PER_SECOND
    assert times[-1] - times[-2] <= 1.25 * LONGEST_PAUSE_SECONDS


def test_few_are_asked_several_times_a_second() -> None:
    assert len([at for at in moments(25) if at <= 1.0]) >= 3


def deaf_at_first_weight() -> World:
    world = started(policy=policy(steps=((50, 60), (100, 60))))
    world.want("2")
    while world.route is None or world.route.permille == 0:
        world.rest()
        world.settle()
        world.deaf = world.place.canary is not None and world.place.canary.step_started_at is not None
        world.now += 1
    world.deaf = True
    return world


def test_a_weight_that_is_taken_back_to_0_comes_before_those_that_rise() -> None:
    world = deaf_at_first_weight()
    assert not is_losing(world.place)
    world.acting = 0
    world.run(VERIFY_SECONDS + 3)
    canary = world.place.canary
    assert canary is not None
    assert (canary.weight, canary.verified_at) == (0, None)
    assert canary.generation is not None
    assert is_losing(world.place)


def test_a_canary_that_waits_for_its_probes_comes_after_those_that_fall() -> None:
    world = started(policy=policy(probes=("smoke",)))
    world.deaf = True
    world.want("2")
    world.run(5)
    canary = world.place.canary
    assert canary is not None
    assert canary.generation is not None
    assert not is_losing(world.place)


@pytest.mark.parametrize("falling", [True, False])
async def test_that_a_canarys_traffic_has_ended_waits_behind_no_other_policy(falling: bool) -> None:
    woken: asyncio.Queue[tuple[PolicyKey, bool]] = asyncio.Queue()
    store, key = Store(), PolicyKey("shop", "support")
    async with gateways(acts_on(7)) as [gateway], ApiClient(Configuration()) as api:
        store.put(pod(ready_pod(gateway.pod, of=key, address=gateway.address)))
        client = Client(api, timeout=1.0)
        verification = Verification(store, client=client, wake=lambda *woke: woken.put_nowait(woke), clock=lambda: 12.0, jitter=lambda: 0.0)
        verification.keep_asking(key, waiting=True, falling=falling)
        try:
            async with asyncio.timeout(10.0):
                assert await woken.get() == (key, falling)
            assert verification.acting(key) == Acting(Known(7), 7)
            assert verification.acting_since(key) == 12.0
        finally:
            await verification.close()


async def test_a_gateway_that_is_ahead_of_all_that_was_decided_is_news_though_another_is_behind_as_before() -> None:
    woken: asyncio.Queue[tuple[PolicyKey, bool]] = asyncio.Queue()
    store, key, ahead = Store(), PolicyKey("shop", "support"), Moving(5)
    times = iter((12.0, 13.0))
    async with gateways(acts_on(5), ahead.answer) as asked, ApiClient(Configuration()) as api:
        for gateway in asked:
            store.put(pod(ready_pod(gateway.pod, of=key, address=gateway.address)))
        client = Client(api, timeout=1.0)
        verification = Verification(
            store, client=client, wake=lambda *woke: woken.put_nowait(woke), clock=lambda: next(times), jitter=lambda: 0.0
        )
        verification.keep_asking(key, waiting=True, decided=5)
        try:
            async with asyncio.timeout(10.0):
                await woken.get()
                verification.keep_asking(key, waiting=True, decided=6)
                await ahead.moves_to(6)
                assert woken.empty(), "it has taken up what was decided, and the other one has not"
                await ahead.moves_to(9)
                assert await woken.get() == (key, False)
            assert verification.acting(key) == Acting(Known(5), 9)
            assert verification.acting_since(key) == 12.0, "when the one that is behind first said so"
        finally:
            await verification.close()


class Moving:
    """A gateway whose generation becomes another one."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._asked = asyncio.Semaphore(0)

    async def answer(self, _: web.Request) -> web.Response:
        self._asked.release()
        return web.json_response({"generation": self._generation})

    async def moves_to(self, generation: int) -> None:
        """And says so: when it is asked for the second time, its first answer has been heard."""
        self._generation = generation
        while not self._asked.locked():
            await self._asked.acquire()
        for _ in range(2):
            await self._asked.acquire()


def ready_pod(name: str, *, of: PolicyKey, address: str) -> dict[str, object]:
    return {
        "metadata": {
            "namespace": of.namespace,
            "name": name,
            "uid": name,
            "resourceVersion": "1",
            "labels": {LABEL_POLICY: of.name, LABEL_REVISION: "6b8f"},
        },
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }
