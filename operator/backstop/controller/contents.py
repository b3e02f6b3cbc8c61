"""What stands in the ConfigMaps that policies refer to: digests, and what is wrong. Read by name when a pass first asks.

A cluster may have tens of thousands of ConfigMaps, of which a few matter. So changes are learned from a watch of metadata, which runs
only while a policy refers to any; what has changed is forgotten and its policies are woken, and their passes read it again. A watch may
have nothing to tell for ever (it is refused, or goes on from a version that the API server has lost), so about every five minutes all is
read again. No text is kept: it is read once more when a revision is recorded. Decides nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..api.knowledge import KnowledgeError, read_knowledge_base
from ..api.record import content_digest
from ..kube.client import Client
from ..kube.errors import Expired, KubeError, NotFound
from ..kube.heads import Head
from ..kube.resources import CONFIG_MAPS
from ..telemetry.log import fields
from .keys import PolicyKey
from .references import MapName
from .store import Store

_log = logging.getLogger(__name__)

# Between the end of a watch and the next one, which goes on where that ended.
REST_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 5.0
# What was read is trusted for so long without a new beginning: less than an undisturbed watch lasts, so that each begins anew.
TRUSTED_SECONDS: Final = 240.0


@dataclass(frozen=True)
class Found:
    """The content is there, and can be used."""

    digest: str


@dataclass(frozen=True)
class NoMap:
    """There is no such ConfigMap."""


@dataclass(frozen=True)
class NoKey:
    """The ConfigMap has no text under this key."""


@dataclass(frozen=True)
class Bad:
    """The content cannot be used; `why` is a sentence for its author."""

    why: str


@dataclass(frozen=True)
class Unread:
    """What is there cannot be told now; `why` is what the API server said, or that it said nothing."""

    why: str


Content = Found | NoMap | NoKey | Bad | Unread


class _Entry:
    """What is known of one ConfigMap, by key. Another object of this class stands for another look at it.

    `before`: what the last look found, so that a text is not judged twice.
    """

    def __init__(self, *, before: Mapping[str, Content] = MappingProxyType({})) -> None:
        self.before = before
        self.contents: dict[str, Content] = {}


class Contents:
    """Knows contents. `namespaces`: the served ones, empty for all. `wake`: for whom what it refers to may have changed.

    `clock`: monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        *,
        store: Store,
        namespaces: Sequence[str],
        wake: Callable[[PolicyKey], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._wake = wake
        self._clock = clock
        self._jitter = jitter
        self._trusted_until: dict[str | None, float] = {}
        self._entries: dict[MapName, _Entry] = {}
        self._needed: dict[str | None, asyncio.Event] = {namespace: asyncio.Event() for namespace in namespaces or (None,)}

    async def look(self, of: MapName, *, key: str) -> Content:
        """What is under this key. A failure is an answer too, for a canary has to be judged and left whether it can be read or not."""
        self._needed[of.namespace if of.namespace in self._needed else None].set()
        entry = self._entries.get(of)
        if entry is not None and (known := entry.contents.get(key)) is not None:
            return known
        content, _ = await self._read(of, key=key)
        return content

    async def text(self, of: MapName, *, key: str) -> tuple[Content, str]:
        """The same, as it is now, and its text; empty where there is none that can be used."""
        return await self._read(of, key=key)

    async def run(self) -> None:
        """See changes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for namespace in self._needed:
                tasks.create_task(self._watch(namespace))

    async def _read(self, of: MapName, *, key: str) -> tuple[Content, str]:
        # A change that is told of while this is read takes the entry away, and with it what is found out here.
        entry = self._entries.setdefault(of, _Entry())
        content, text = await self._judged(of, key=key, before=entry.before.get(key))
        if not isinstance(content, Unread):
            entry.contents[key] = content
        return content, text

    async def _judged(self, of: MapName, *, key: str, before: Content | None) -> tuple[Content, str]:
        try:
            body = await self._client.get(CONFIG_MAPS, namespace=of.namespace, name=of.name)
        except NotFound:
            return NoMap(), ""
        except KubeError as error:
            return Unread(str(error)), ""
        text = (body.get("data") or {}).get(key)
        if text is None:
            return NoKey(), ""
        found = Found(content_digest(text))
        if found == before:
            return found, text
        try:
            # In a thread: a large one takes half a second, in which others' traffic may have to be shifted.
            await asyncio.to_thread(read_knowledge_base, text)
        except KnowledgeError as error:
            return Bad(str(error)), ""
        return found, text

    async def _watch(self, namespace: str | None) -> None:
        while True:
            await self._needed[namespace].wait()
            version = ""
            while self._store.refers(namespace):
                version = await self._hear(namespace, since=version)
            self._needed[namespace].clear()
            self._let_go()

    async def _hear(self, namespace: str | None, *, since: str) -> str:
        """One watch, from its begin to its end. Returns from where to go on; empty: anew."""
        version = since
        self._let_go()
        try:
            if not version:
                version = await self._client.newest(CONFIG_MAPS, namespace=namespace)
                self._read_again(namespace)
            async with aclosing(self._client.heads(CONFIG_MAPS, namespace=namespace, version=version)) as heads:
                async for head in heads:
                    version = head.version
                    self._changed(head)
        except Expired:
            version = ""
            await asyncio.sleep(REST_SECONDS * (1 + self._jitter()))
        except KubeError as error:
            _log.warning("ConfigMaps cannot be watched; trying again", extra=fields(namespace=namespace or "", error=str(error)))
            if self._is_old(namespace):
                self._read_again(namespace)
            await asyncio.sleep(RETRY_SECONDS * (1 + self._jitter()))
        else:
            await asyncio.sleep(REST_SECONDS * (1 + self._jitter()))
        return "" if self._is_old(namespace) else version

    def _is_old(self, namespace: str | None) -> bool:
        return self._clock() >= self._trusted_until.get(namespace, 0.0)

    def _read_again(self, namespace: str | None) -> None:
        self._trusted_until[namespace] = self._clock() + TRUSTED_SECONDS
        self._forget(namespace)
        for key in self._store.referring_in(namespace):
            self._wake(key)

    def _changed(self, head: Head) -> None:
        changed = MapName(head.namespace, head.name)
        self._entries.pop(changed, None)
        for key in self._store.referring(changed):
            self._wake(key)

    def _let_go(self) -> None:
        """Of what nobody refers to any more."""
        self._entries = {of: entry for of, entry in self._entries.items() if self._store.referring(of)}

    def _forget(self, namespace: str | None) -> None:
        self._entries = {
            of: _Entry(before=entry.contents or entry.before) if namespace in (None, of.namespace) else entry
            for of, entry in self._entries.items()
        }
