"""A level of the cache below memory: looked up within a deadline, written behind the callers' backs, left alone while it fails.

Knows what a store is asked and what becomes of it; neither which store it is nor what an answer means. One task reads: what many want
at once is asked at once, and a caller that stops waiting breaks off nobody else's question. Another one writes, out of a bounded
queue. Whatever fails is a miss, or an answer that is not kept.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, Protocol

from ..api.metricnames import CacheLevel, CacheLookup, CacheWrite, FailureMode
from .breaker import Breaker, BreakerSettings, BreakerState, Broke, LeftAlone, Lesson, Permit, Unclear, Worked
from .metrics import GatewayMetrics
from .storedentry import LONGEST_ENTRY, Entry, decode, encode

_LOG: Final = logging.getLogger("backstop.gateway")

# A store that takes longer for a question, or for something to keep, has failed. No caller waits for so long.
STORE_SECONDS: Final = 1.0
# Asked at once: with the longest answers, 8 MiB that come in.
BATCH: Final = 32
MOST_WANTED: Final = 1024
# What waits to be written is a copy of nothing: the same bytes are in memory anyway, unless they were displaced there.
QUEUED_BYTES: Final = 4 << 20
# As soon as most of a few lookups came to nothing, nobody waits for the level, but for one request every five seconds.
_BREAKER: Final = BreakerSettings(window=10.0, min_requests=5, failure_percent=50, open=5.0)


class StoreError(Exception):
    """The store failed; the text says how, in our words and without a secret."""


class Store(Protocol):
    """Bytes by key, outside of the process. Every method raises StoreError; what is cancelled leaves nothing behind."""

    async def open(self) -> None:
        """Find out whether it is there."""

    async def read(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """What is under each key; at most LONGEST_ENTRY + 1 bytes of it."""

    async def write(self, key: bytes, *, value: bytes, seconds: float) -> None:
        """Keep `value` for so long."""

    async def close(self) -> None:
        """Let it go."""


@dataclass(frozen=True)
class LevelSettings:
    """`fresh`, `stale` and `timeout` in seconds. `timeout`: how long a caller waits for a lookup. `jurisdiction`: where the store is;
    None: where the gateway is, or it is not known.
    """

    level: CacheLevel
    fresh: float
    stale: float
    timeout: float
    jurisdiction: str | None = None


class LowerLevel:
    """One level. `clock` is monotonic, `now` the wall clock, in seconds; `held`: bytes of the store, where it is this process's own;
    `tend`: what the store does by itself, until cancelled.

    Its tasks run inside `running`.
    """

    def __init__(
        self,
        settings: LevelSettings,
        *,
        tier: str,
        store: Store,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        now: Callable[[], float],
        held: Callable[[], int] | None = None,
        tend: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> None:
        self.settings = settings
        self._tend = tend
        self._store = store
        self._metrics = metrics
        self._now = now
        self._reads, self._writes = Breaker(_BREAKER, clock=clock), Breaker(_BREAKER, clock=clock)
        self._wanted: OrderedDict[bytes, asyncio.Future[bytes | StoreError | None]] = OrderedDict()
        self._queue: OrderedDict[bytes, Entry] = OrderedDict()
        self._queued_bytes = 0
        self._awake, self._to_write = asyncio.Event(), asyncio.Event()
        self._failure = ""
        metrics.show_level(settings.level, held=held)
        metrics.watch_breaker(f"{tier}/{settings.level}", breaker=self._reads)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read and write, until the end of the block."""
        jobs = [self._read_on(), self._write_on(), *([] if self._tend is None else [self._tend()])]
        tasks = [asyncio.create_task(job) for job in jobs]
        for task in tasks:
            task.add_done_callback(self._told_of_end)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._store.close()

    def status(self) -> dict[str, Any]:
        """For people: the state of its breaker, how it failed last while that is not closed, and what waits to be written."""
        state = self._reads.state
        return {
            "state": state.name.lower().replace("_", "-"),
            "failure": self._failure if state is not BreakerState.CLOSED else None,
            "queued": len(self._queue),
        }

    async def look(self, key: bytes, *, within: float) -> Entry | Literal[CacheLookup.MISS, CacheLookup.FAILED]:
        """What is kept, fresh or stale, as soon as it is known: in the level's timeout, and `within` the seconds that its caller has."""
        permit = self._reads.enter()
        if isinstance(permit, LeftAlone):
            return CacheLookup.FAILED
        if key not in self._wanted and len(self._wanted) >= MOST_WANTED:
            self._reads.leave(permit, lesson=Unclear())
            return CacheLookup.FAILED
        lesson: Lesson = Unclear()  # of a caller that leaves
        try:
            async with asyncio.timeout(min(self.settings.timeout, within)):
                raw = await asyncio.shield(self._ask(key))
            if isinstance(raw, StoreError):
                self._failure = str(raw)
                lesson = Broke(FailureMode.DEPENDENCY_FAILURE)
                return CacheLookup.FAILED
            lesson = Worked()
        except TimeoutError:
            if within >= self.settings.timeout:  # else the caller was in a hurry
                self._failure = f"it takes longer than {self.settings.timeout * 1000:.0f} ms"
                lesson = Broke(FailureMode.LATENCY_BREACH)
            return CacheLookup.FAILED
        finally:
            self._learn(permit, lesson=lesson)
        return self._entry(raw, key=key) or CacheLookup.MISS

    def keep(self, key: bytes, *, entry: Entry) -> None:
        """Write it soon; where too much waits already, not at all."""
        old = self._queue.pop(key, None)
        self._queued_bytes -= 0 if old is None else len(old.body)
        if self._queued_bytes + len(entry.body) > QUEUED_BYTES or len(self._queue) >= MOST_WANTED:
            self._metrics.count_cache_write(self.settings.level, result=CacheWrite.DROPPED)
            return
        self._queue[key] = entry
        self._queued_bytes += len(entry.body)
        self._to_write.set()

    def _ask(self, key: bytes) -> asyncio.Future[bytes | StoreError | None]:
        asked = self._wanted.get(key)
        if asked is None:
            asked = self._wanted[key] = asyncio.get_running_loop().create_future()
            self._awake.set()
        return asked

    def _entry(self, raw: bytes | None, *, key: bytes) -> Entry | None:
        now = self._now()
        entry = decode(raw, key=key, now=now) if raw is not None else None
        return entry if entry is not None and now < entry.fresh_until + self.settings.stale else None

    def _learn(self, permit: Permit, *, lesson: Lesson) -> None:
        before = self._reads.state
        self._reads.leave(permit, lesson=lesson)
        after = self._reads.state
        if before is BreakerState.CLOSED and after is not BreakerState.CLOSED:
            _LOG.warning("the %s level of the cache is left alone: %s; requests do without it", self.settings.level, self._failure)
        elif before is not BreakerState.CLOSED and after is BreakerState.CLOSED:
            _LOG.info("the %s level of the cache is used again", self.settings.level)

    def _told_of_end(self, task: asyncio.Task[None]) -> None:
        """It is a mistake of ours. Lookups are late from now on, and requests do without the level."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("the %s level of the cache died: %r; this gateway does without it", self.settings.level, error)

    async def _read_on(self) -> None:
        """Read what is wanted, until cancelled."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.open()
        except (StoreError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            _LOG.warning("the %s level of the cache is not there: %s; requests do without it until it is", self.settings.level, why)
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._wanted:
                batch = dict(islice(self._wanted.items(), BATCH))
                for key in batch:
                    del self._wanted[key]
                found = await self._read(list(batch))
                for number, asked in enumerate(batch.values()):
                    if not asked.done():
                        asked.set_result(found if isinstance(found, StoreError) else found[number])

    async def _read(self, keys: Sequence[bytes]) -> Sequence[bytes | None] | StoreError:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._store.read(keys)
        except TimeoutError:
            return StoreError("it does not answer")
        except StoreError as error:
            return error

    async def _write_on(self) -> None:
        """Write what is queued, until cancelled."""
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            while self._queue:
                key, entry = self._queue.popitem(last=False)
                self._queued_bytes -= len(entry.body)
                self._metrics.count_cache_write(self.settings.level, result=await self._write(key, entry=entry))

    async def _write(self, key: bytes, *, entry: Entry) -> CacheWrite:
        value, seconds = encode(entry, key=key), entry.fresh_until + self.settings.stale - self._now()
        if seconds <= 0 or len(value) > LONGEST_ENTRY:
            return CacheWrite.DROPPED
        permit = self._writes.enter()
        if isinstance(permit, LeftAlone):
            return CacheWrite.DROPPED
        lesson: Lesson = Broke(FailureMode.DEPENDENCY_FAILURE)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.write(key, value=value, seconds=seconds)
            lesson = Worked()
        except (StoreError, TimeoutError):
            return CacheWrite.FAILED
        finally:
            self._writes.leave(permit, lesson=lesson)
        return CacheWrite.WRITTEN
