"""Where news of the cluster comes from: kopf's watches, and fresh lists.

kopf runs in a thread with an event loop of its own, because it ends every task of its loop when it stops. Its handlers shrink an
object and hand it over; they store nothing in the cluster: no finalizers, no annotations, no events.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import kopf

# There is no public name for it, only the public argument `memories`.
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from ..api.names import LABEL_MANAGED_BY, LABEL_POLICY, MANAGED_BY
from ..kube.client import Client
from ..kube.connection import Connection
from ..kube.resources import (
    CHILDREN,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    POLICIES,
    PROMPT_VERSIONS,
    SERVICES,
    Body,
    Resource,
)
from .keys import Key
from .seen import Seen, seen
from .store import Listing, Store
from .watchsession import Where, watch_session

WATCHED: Final = (POLICIES, PROMPT_VERSIONS, CONFIG_MAPS, DEPLOYMENTS, SERVICES, PODS, JOBS)
OURS: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_POLICY}"

LOGIN_AGAIN_SECONDS: Final = 2.0

# (what was seen, whether it is gone)
OnNews = Callable[[Seen, bool], None]
OnBodies = Callable[[Resource, Sequence[Body]], None]


class WatchesEnded(Exception):  # noqa: N818 - the name says what happened
    """News of the cluster does not come in any more; the text says why."""


class Watches:
    """kopf, watching in a thread of its own. `on_news` and `on_begin` are called in the loop that made this object.

    `on_begin`: a watch tells of what comes from now on; what is there already has to be listed after this call.
    """

    def __init__(self, connection: Connection, *, namespaces: Sequence[str], on_news: OnNews, on_begin: Callable[[Where], None]) -> None:
        self._connection = connection
        self._namespaces = namespaces
        self._on_news = on_news
        self._on_begin = on_begin
        self._logged_in = False
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    async def ended(self) -> None:
        """Wait until the watches have ended; raises what ended them."""
        await asyncio.shield(self._ended)

    async def stop(self, *, within: float) -> None:
        """End the watches; gives up waiting after `within` seconds, for the thread ends with the process."""
        # From here on kopf's connections are closed under its requests, and it would call that errors.
        logging.getLogger("kopf").setLevel(logging.CRITICAL)
        self._stop.set()
        # What ended them before is told by `ended`.
        with contextlib.suppress(TimeoutError, WatchesEnded):
            async with asyncio.timeout(within):
                await asyncio.shield(self._ended)

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread is handed to the loop that waits for it
            why = WatchesEnded(repr(error))
        else:
            why = WatchesEnded("they stopped by themselves")
        self._report(lambda: self._end(why))

    def _end(self, why: WatchesEnded) -> None:
        if self._ended.done():
            return
        if self._stop.is_set():
            self._ended.set_result(None)
        else:
            self._ended.set_exception(why)

    async def _watch(self) -> None:
        where: dict[str, Any] = {"namespaces": list(self._namespaces)} if self._namespaces else {"clusterwide": True}
        # Without an identity it asks who runs it, and in a container the user has no name.
        identity: Any = "backstop"
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            identity=identity,
            stop_flag=self._stop,
            memories=_Forgetful(),
            **where,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for resource in WATCHED:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(self._handler(resource))
        return registry

    def _handler(self, resource: Resource) -> Callable[..., Awaitable[None]]:
        async def on_event(event: Any, **_: Any) -> None:
            news, gone = seen(event["object"], resource=resource), event["type"] == "DELETED"
            self._report(lambda: self._on_news(news, gone))

        return on_event

    def _report(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the operator has ended, and wants no news
            self._loop.call_soon_threadsafe(call)

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        if self._logged_in:  # and let in no longer: a token that has run out is soon another one, and else it is not asked without end
            await asyncio.sleep(LOGIN_AGAIN_SECONDS)
        self._logged_in = True
        given = await self._connection.credentials()
        scheme, _space, token = (given.authorization or "").partition(" ")
        info = kopf.ConnectionInfo(
            server=given.server,
            ca_path=given.ca_file,
            insecure=not given.verify,
            certificate_path=given.certificate_file,
            private_key_path=given.key_file,
            scheme=scheme or None,
            token=token or None,
        )
        prefix = urlsplit(given.server).path.rstrip("/")
        watched = {prefix + where[0].path(namespace=where[1]): where for where in _everywhere(WATCHED, namespaces=self._namespaces)}
        session = watch_session(info, watched=watched, on_begin=lambda where: self._report(lambda: self._on_begin(where)))
        return kopf.AiohttpSession(server=given.server, aiohttp_session=session)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.queueing.worker_limit = None
    # It keeps a task, a queue and the whole object for so long after an event: where many policies move, one of each for all of them.
    settings.queueing.idle_timeout = 0.1
    settings.watching.chunk_size = 500
    settings.watching.initial_streaming = False  # where a watch begins is told by the list before it
    settings.watching.connect_timeout = 10.0
    settings.networking.request_timeout = 30.0
    settings.networking.error_backoffs = _Patience()
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    for resource in WATCHED:
        if resource not in (POLICIES, PROMPT_VERSIONS):
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = OURS
    return settings


class _Forgetful(ResourceMemories):
    """No memory of objects: handlers of bare events need none, and those of a large cluster's objects take 100 MB."""

    async def recall(self, raw_body: Any, *, ephemeral: bool = True, **rest: Any) -> ResourceMemory:
        return await super().recall(raw_body, ephemeral=True, **rest)


class _Patience:
    """Pauses between attempts, without an end: an API server that is gone for long is no reason to give up watching."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 4.0), itertools.repeat(5.0))


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing is remembered in the cluster."""

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Nothing is remembered in the cluster."""

    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def _everywhere(resources: Iterable[Resource], *, namespaces: Sequence[str]) -> Iterator[Where]:
    everywhere: Sequence[str | None] = [None]
    return ((resource, namespace) for resource in resources for namespace in namespaces or everywhere)


async def list_all(
    client: Client, *, namespaces: Sequence[str], store: Store, on_news: OnBodies = lambda _resource, _bodies: None
) -> AsyncIterator[frozenset[Key]]:
    """Compare everything that the store keeps with a fresh list, a page at a time. Yields whom the news concerns.

    `on_news` gets the whole objects of each page that the store does not have, before the store.
    """
    for where in _everywhere((POLICIES, PROMPT_VERSIONS, *CHILDREN, PODS), namespaces=namespaces):
        async for concerned in list_one(client, where=where, store=store, on_news=on_news):
            yield concerned


async def list_one(
    client: Client, *, where: Where, store: Store, on_news: OnBodies = lambda _resource, _bodies: None
) -> AsyncIterator[frozenset[Key]]:
    """The same of one resource, in one namespace or in all."""
    resource, namespace = where
    labels = None if resource in (POLICIES, PROMPT_VERSIONS) else OURS
    present: set[tuple[str, str]] = set()
    version = ""
    async for page in client.pages(resource, namespace=namespace, labels=labels):
        version = page.version
        present.update((item.namespace, item.name) for item in page.items)
        news = [
            item.body() for item in page.items if not store.has(resource, namespace=item.namespace, name=item.name, version=item.version)
        ]
        on_news(resource, news)
        yield frozenset(key for body in news for key in store.put(seen(body, resource=resource)))
    yield store.retire(Listing(resource, namespace, version, frozenset(present)))
