"""What is known of ConfigMaps where a watch tells nothing, on a real API server."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from backstop.api.record import ContentKind, content_digest
from backstop.controller.contents import Content, Contents, Found, MapKey, Unread
from backstop.controller.keys import PolicyKey
from backstop.controller.references import MapName
from backstop.controller.seen import declared
from backstop.controller.store import Store
from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.resources import POLICIES
from e2e.cluster.apiserver import ApiServer

from .proxy import Proxy, Refusal, Request, proxy
from .test_knowledge import NEW, OLD, put
from .until import alongside, until
from .world import World

pytestmark = pytest.mark.apiserver

KEY = "answers.yaml"


def of_maps(request: Request) -> bool:
    return request.path.endswith("/configmaps")


REFUSALS = {
    "it may not list": Refusal(403, fits=lambda request: of_maps(request) and not request.watch),
    "it may not watch": Refusal(403, fits=lambda request: of_maps(request) and request.watch),
    # As where the version that it goes on from has not come yet, because the API server's memory was restored.
    "a watch that says nothing": Refusal(200, fits=lambda request: of_maps(request) and request.watch),
}


def store_with(policy: PolicyKey, *, referring_to: str) -> Store:
    spec: dict[str, Any] = {"chain": [{"name": "static", "static": {"knowledgeBaseRef": {"name": referring_to, "key": KEY}}}]}
    metadata = {"name": policy.name, "namespace": policy.namespace, "uid": "u", "resourceVersion": "1"}
    store = Store()
    store.put(declared({"metadata": metadata, "spec": spec}, resource=POLICIES))
    return store


async def requests_of(between: Proxy, *, more: int) -> None:
    """Wait until the watch has begun so many times more, or tried to."""
    seen = len([request for request in between.requests if of_maps(request)])

    async def begun() -> bool:
        return len([request for request in between.requests if of_maps(request)]) >= seen + more

    await until("it was begun again", begun)


@contextlib.asynccontextmanager
async def known(
    kubeconfig: Path, *, of: PolicyKey, wake: Callable[[PolicyKey], None], clock: Callable[[], float], jitter: float
) -> AsyncIterator[Contents]:
    """What is known of ConfigMaps, while the context lasts, through this kubeconfig; the policy refers to `kb`."""
    client = Client((await connect(kubeconfig)).api_client(), timeout=10.0)
    store = store_with(of, referring_to="kb")
    contents = Contents(client, store=store, namespaces=[of.namespace], wake=wake, clock=clock, jitter=lambda: jitter)
    try:
        async with alongside(contents.run()):
            yield contents
    finally:
        await client.close()


async def read(contents: Contents, of: MapName, *, by: PolicyKey) -> Content:
    """What is under the key, once it has been read."""

    async def look() -> Content | None:
        at = MapKey(of, KEY, ContentKind.KNOWLEDGE_BASE)
        found = contents.look([at], by=by)
        return found[at] if found is not None else None

    return await until("it is read", look)


async def test_c08_what_a_watch_is_heard_of_is_not_read_again(api_server: ApiServer, world: World, tmp_path: Path) -> None:
    kb, policy = MapName(world.namespace, "kb"), PolicyKey(world.namespace, "support")
    woken: list[PolicyKey] = []
    now = 1000.0
    async with (
        proxy(api_server, folder=tmp_path) as (between, kubeconfig),
        known(kubeconfig, of=policy, wake=woken.append, clock=lambda: now, jitter=0.0) as contents,
    ):

        async def is_woken() -> bool:
            return bool(woken)

        async def watches() -> bool:
            return between.watches == 1

        await put(world, OLD)
        await read(contents, kb, by=policy)
        await until("it is watched", watches)
        await read(contents, kb, by=policy)
        for note in ("a", "b", "c"):
            now += 200.0
            woken.clear()
            await put(world, OLD, notes=note)
            await until("it is heard", is_woken)
            await read(contents, kb, by=policy)
        woken.clear()
        seen = len(between.requests)
        between.freeze_watches()
        await put(world, NEW)

        async def held() -> bool:
            return bool(between.held)

        await until("it would be told", held)
        between.end_watches()
        await until("the next watch tells of it", is_woken)
        assert await read(contents, kb, by=policy) == Found(content_digest(NEW))
        assert [(r.path.rsplit("/", 1)[1], r.watch) for r in between.requests[seen:]] == [("configmaps", True), ("kb", False)]


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_c08_what_no_watch_tells_of_is_read_again_after_minutes(
    api_server: ApiServer, world: World, tmp_path: Path, refusal: Refusal
) -> None:
    kb, policy = MapName(world.namespace, "kb"), PolicyKey(world.namespace, "support")
    woken: list[PolicyKey] = []
    now = 1000.0
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig):
        between.refusal = refusal
        async with known(
            kubeconfig, of=policy, wake=woken.append, clock=lambda: now, jitter=-0.95
        ) as contents:  # of the pauses between two watches
            await put(world, OLD)
            assert await read(contents, kb, by=policy) == Found(content_digest(OLD))
            await requests_of(between, more=4)
            assert await read(contents, kb, by=policy) == Found(content_digest(OLD))
            woken.clear()
            await put(world, NEW)
            await requests_of(between, more=4)
            # Not with each attempt, of which there may be one every five seconds.
            assert woken == []
            now += 300.0

            async def is_woken() -> bool:
                return bool(woken)

            await until("its policy is woken", is_woken)
            assert woken == [policy]
            assert await read(contents, kb, by=policy) == Found(content_digest(NEW))
            woken.clear()
            await requests_of(between, more=4)
            assert woken == []


async def test_a_text_that_changes_faster_than_it_can_be_read_is_said_to_be_unread_and_keeps_no_turn_from_others(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    kb, policy = MapName(world.namespace, "kb"), PolicyKey(world.namespace, "support")
    async with (
        proxy(api_server, folder=tmp_path) as (between, kubeconfig),
        known(kubeconfig, of=policy, wake=lambda _: None, clock=lambda: 1000.0, jitter=0.0) as contents,
    ):

        async def watches() -> bool:
            return between.watches == 1

        async def change() -> None:
            for number in itertools.count():
                await put(world, OLD, notes=str(number))

        await put(world, OLD)
        await read(contents, kb, by=policy)
        await until("it is watched", watches)
        between.delay = 1.0  # for which it is changed many times
        async with alongside(change()):

            async def unread() -> bool:
                found = contents.look([MapKey(kb, KEY, ContentKind.KNOWLEDGE_BASE)], by=policy)
                return found is not None and isinstance(found[MapKey(kb, KEY, ContentKind.KNOWLEDGE_BASE)], Unread)

            await until("it is given up for now", unread, within=60)
        between.delay = 0.0

        async def is_read() -> bool:
            return await read(contents, kb, by=policy) == Found(content_digest(OLD))

        await until("it is read when it changes no more", is_read)
