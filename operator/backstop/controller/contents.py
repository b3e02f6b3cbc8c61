"""What stands in the ConfigMaps that policies refer to: digests, and what is wrong. Read by name when a pass first asks, which does
not wait for it: what takes traffic away must not.

A cluster may have tens of thousands of ConfigMaps, of which a few matter. So changes are learned from a watch of metadata, which runs
only while a policy refers to any; what has changed is forgotten and its policies are woken, and their passes read it again. A watch may
have nothing to tell for ever (it is refused, or goes on from a version that the API server has lost), so after minutes of silence all is
read again. No text is kept: it is read once more when a revision is recorded. Decides nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from ..api.record import ContentError, ContentKind, check_content, content_digest
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
READ_AT_ONCE: Final = 8
# A text that goes on changing while it is read is given up until the next pass, or it would keep a turn from others for ever.
READS: Final = 3
# What was read is trusted for so long after a watch was heard last, if only that nothing has changed, which it says once a minute.
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


class MapKey(NamedTuple):
    """A ConfigMap, a key in it, and what is to stand there."""

    of: MapName
    key: str
    kind: ContentKind


NOT_READ: Final = Unread("it was not read yet")


class _Entry:
    """What is known of one ConfigMap, by key and kind. Another object of this class stands for another look at it.

    `before`: what the last look found, so that a text is not judged twice.
    """

    def __init__(self, *, before: Mapping[tuple[str, ContentKind], Content] = MappingProxyType({})) -> None:
        self.before = before
        self.contents: dict[tuple[str, ContentKind], Content] = {}


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
        self._turns = asyncio.Semaphore(READ_AT_ONCE)
        self._reading: dict[MapKey, asyncio.Task[None]] = {}
        self._waiting: dict[MapKey, dict[PolicyKey, bool]] = {}  # the value: with its text
        # What was read for a policy, until its pass has taken it.
        self._answers: dict[PolicyKey, dict[MapKey, tuple[Content, str]]] = {}
        self._needed: dict[str | None, asyncio.Event] = {namespace: asyncio.Event() for namespace in namespaces or (None,)}

    def look(self, wanted: Collection[MapKey], *, by: PolicyKey) -> Mapping[MapKey, Content] | None:
        """What is under these keys; None while one of them is being read, and `by` is woken when it has been.

        A failure is an answer too, for a canary has to be judged and left whether it can be read or not. It is given once.
        """
        for of, _, _ in wanted:
            self._needed[of.namespace if of.namespace in self._needed else None].set()
        known = {at: content for at in wanted if (content := self._known(at)) is not None}
        answers = self._answers_to([at for at in wanted if at not in known], by=by, whole=False)
        return known | {at: content for at, (content, _) in answers.items()} if answers is not None else None

    def texts(self, wanted: Collection[MapKey], *, by: PolicyKey) -> Mapping[MapKey, tuple[Content, str]] | None:
        """The same, as it is now, and its texts; empty where there is none that can be used."""
        return self._answers_to(wanted, by=by, whole=True)

    def forget(self, by: PolicyKey) -> None:
        """The policy is gone."""
        self._answers.pop(by, None)

    async def run(self) -> None:
        """See changes until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for namespace in self._needed:
                    tasks.create_task(self._watch(namespace))
        finally:
            for reading in self._reading.values():
                reading.cancel()

    def _known(self, at: MapKey) -> Content | None:
        entry = self._entries.get(at[0])
        return entry.contents.get(at[1:]) if entry is not None else None

    def _answers_to(self, wanted: Collection[MapKey], *, by: PolicyKey, whole: bool) -> Mapping[MapKey, tuple[Content, str]] | None:
        """What was read for `by`, once all of it has been; what has not is begun to be read. `whole`: with its text."""
        if not wanted:
            return {}
        mine = self._answers.setdefault(by, {})
        for at in wanted:
            if at not in mine:
                waiting = self._waiting.setdefault(at, {})
                waiting[by] = whole or waiting.get(by, False)
                if at not in self._reading:
                    self._reading[at] = asyncio.create_task(self._answer(at), name=f"read {at}")
        if any(at not in mine for at in wanted):
            return None
        return {at: mine.pop(at) for at in set(wanted)}  # two parts of a policy may refer to the same

    async def _answer(self, at: MapKey) -> None:
        """Read it for whoever waits. In a task of its own: a pass that waited would keep what takes traffic away waiting with it."""
        try:
            async with self._turns:
                answer = await self._read(at)
        finally:
            del self._reading[at]
        for key, whole in self._waiting.pop(at, {}).items():
            # What is known is found without an answer, which would grow old.
            if self._store.policy(key) is not None and (whole or self._known(at) is None):
                self._answers.setdefault(key, {})[at] = answer
            self._wake(key)

    async def _read(self, at: MapKey) -> tuple[Content, str]:
        # A change that is told of while this is read takes the entry away, and with it what is found out here: it is read again.
        for _ in range(READS):
            entry = self._entries.setdefault(at.of, _Entry())
            content, text = await self._judged(at, before=entry.before.get(at[1:]))
            if self._entries.get(at.of) is entry or not self._store.referring(at.of):
                if not isinstance(content, Unread):
                    entry.contents[at[1:]] = content
                return content, text
        return Unread("it changes faster than it can be read"), ""

    async def _judged(self, at: MapKey, *, before: Content | None) -> tuple[Content, str]:
        try:
            body = await self._client.get(CONFIG_MAPS, namespace=at.of.namespace, name=at.of.name)
        except NotFound:
            return NoMap(), ""
        except KubeError as error:
            return Unread(str(error)), ""
        text = (body.get("data") or {}).get(at.key)
        if text is None:
            return NoKey(), ""
        found = Found(content_digest(text))
        if found == before:
            return found, text
        try:
            # In a thread: a large one takes half a second, in which others' traffic may have to be shifted.
            await asyncio.to_thread(check_content, text, kind=at.kind)
        except ContentError as error:
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
                    if int(head.version) < int(version):
                        raise Expired("the API server has gone back behind what was seen")
                    version = head.version
                    # Whoever hears has missed nothing until then, and goes on from there.
                    self._trust(namespace)
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

    def _trust(self, namespace: str | None) -> None:
        self._trusted_until[namespace] = self._clock() + TRUSTED_SECONDS

    def _read_again(self, namespace: str | None) -> None:
        self._trust(namespace)
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
        for by, answers in list(self._answers.items()):
            self._answers[by] = {at: answer for at, answer in answers.items() if by in self._store.referring(at[0])}

    def _forget(self, namespace: str | None) -> None:
        self._entries = {
            of: _Entry(before=entry.contents or entry.before) if namespace in (None, of.namespace) else entry
            for of, entry in self._entries.items()
        }
