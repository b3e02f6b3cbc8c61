"""The cache beside the chain: what one request finds in it, waits for, and leaves behind.

Kept is what the chain's first tier answers, never a fallback: it would outlive the failure that it stood in for. Given is only what is in
memory: what a lower level has is taken there first, with the time it has left. Knows levels, keys and flights; what an answer is made of
is known in `replay`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ..api.metricnames import CacheLevel, CacheLookup, CacheUse
from .body import ChatRequest, Wanted
from .cachekey import CacheControl, key_of, read_cache_control
from .flights import Flights
from .hotcache import LONGEST_ANSWER, HotCache
from .lowerlevel import LowerLevel
from .metrics import GatewayMetrics
from .replay import Recorder, Replay, keepable
from .revision import CacheTier, ModelTier, Revision
from .storedentry import Entry
from .upstream import Streaming, Whole
from .usage import Usage
from .walk import Result, Walk

_NOT_KEPT: Final = CacheControl(may_keep=False, max_age=0.0)


class AnswerCache:
    """The cache of a revision that has one. `lower`: the levels below memory, from the fastest on.

    `clock` is monotonic, `now` the wall clock, in seconds.
    """

    def __init__(
        self,
        tier: CacheTier,
        *,
        revision: Revision,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        now: Callable[[], float],
        lower: Sequence[LowerLevel] = (),
    ) -> None:
        first = revision.tiers[0]
        assert isinstance(first, ModelTier), "a chain with a cache begins with a model"
        self.tier = tier
        self.first = first
        self.hot = HotCache(capacity=tier.hot_bytes, fresh=tier.fresh, stale=tier.stale, clock=clock)
        self.flights = Flights(clock=clock)
        self.metrics = metrics
        self.lower = tuple(lower)
        self.clock = clock
        self._now = now
        self._longest = max([tier.fresh, *(level.settings.fresh for level in self.lower)])
        self._prompt_digest = revision.prompt_digest
        metrics.show_cache(CacheLevel.HOT, held=lambda: self.hot.held)

    def open(
        self, request: ChatRequest, *, cache_control: str, partition: bytes | None, allowed: frozenset[str] | None = None
    ) -> "CacheAccess":
        """The cache, for one request. `cache_control`: its caller's header; empty: none. `partition`: who shares it; None: nobody.

        `allowed`: jurisdictions that anything of it may be kept in; None: all.
        """
        control = read_cache_control(cache_control) if cache_control else CacheControl()
        key = None
        if control.may_keep and partition is not None:
            key = key_of(request, target=self.first, prompt_digest=self._prompt_digest, partition=partition, match=self.tier.match)
        levels = self.lower
        if allowed is not None:
            levels = tuple(level for level in levels if level.settings.jurisdiction is None or level.settings.jurisdiction in allowed)
        return CacheAccess(self, key=key, control=control if key is not None else _NOT_KEPT, wanted=request.wanted, levels=levels)

    def keep(self, key: bytes, *, body: bytes, has_usage: bool, levels: Sequence[LowerLevel]) -> None:
        """Keep an answer of the model's in memory and in `levels`."""
        self.hot.keep(key, body=body, has_usage=has_usage)
        now = self._now()
        for level in levels:
            level.keep(key, entry=Entry(body, has_usage, now, now + level.settings.fresh))

    async def promote(self, key: bytes, *, levels: Sequence[LowerLevel], source: int, within: float) -> CacheLookup:
        """Take what a level (its place among `levels`) has into those above it, for the time it has left; whether it had anything.

        `within`: seconds that its caller has.
        """
        level = levels[source]
        found = await level.look(key, within=within)
        if not isinstance(found, Entry):
            return found
        fit = keepable(found.body)
        if fit is None:  # a seal is no signature, and what is given again must be an answer
            return CacheLookup.MISS
        now = self._now()
        # No longer than the policy lets any answer live today: one with a longer time may have kept it.
        fresh_until = min(found.fresh_until, found.kept_at + self._longest)
        for above in levels[:source]:
            above.keep(key, entry=replace(found, fresh_until=min(fresh_until, now + above.settings.fresh)))
        self.hot.promote(
            key,
            body=found.body,
            has_usage=fit.has_usage,
            age=now - found.kept_at,
            fresh_for=fresh_until - now,
            origin=level.settings.level,
        )
        return CacheLookup.HIT

    def status(self) -> dict[str, Any]:
        """What the levels hold, and how those below memory are, for people."""
        hot = {"answers": len(self.hot), "bytes": self.hot.held}
        return {CacheLevel.HOT.value: hot} | {level.settings.level.value: level.status() for level in self.lower}


class CacheAccess:
    """What a cache does for one request on its way. `lookup` says what it found."""

    def __init__(
        self, cache: AnswerCache, *, key: bytes | None, control: CacheControl, wanted: Wanted, levels: Sequence[LowerLevel]
    ) -> None:
        self._cache = cache
        self._key = key
        self._control = control
        self._wanted = wanted
        self._levels = levels
        self.lookup = CacheLookup.BYPASS if key is None or control.max_age == 0 else CacheLookup.MISS

    async def fresh(self, walk: Walk) -> Replay | None:
        """An answer that may be given at once. `walk` is told how long a lower level was waited for."""
        found = self._find(CacheUse.HIT)
        if found is not None:
            self.lookup = CacheLookup.HIT
        self._cache.metrics.count_cache_lookup(CacheLevel.HOT, result=self.lookup)
        if self.lookup is not CacheLookup.MISS or self._key is None:
            return found
        for number, level in enumerate(self._levels):
            with walk.wait(self._cache.clock):
                within = walk.started + walk.budget - self._cache.clock()
                result = await self._cache.promote(self._key, levels=self._levels, source=number, within=within)
            # In any case: while the level was asked, a request like this one may have been answered.
            found = self._find(CacheUse.HIT)
            if found is not None:
                self.lookup = CacheLookup.HIT
            elif result is CacheLookup.HIT:
                result = CacheLookup.MISS  # what it has is stale, or not for this caller
            self._cache.metrics.count_cache_lookup(level.settings.level, result=result)
            if found is not None:
                return found
        return None

    def instead(self) -> Replay | None:
        """An answer in place of one that the tiers before have failed to give, of any age."""
        found = self._find(CacheUse.STALE)
        if found is not None:
            self.lookup = CacheLookup.STALE
            self._cache.metrics.count_cache_lookup(found.level, result=self.lookup)
        return found

    async def ask_first(self, ask: Callable[[], Awaitable[Result]], *, until: float, walk: Walk) -> Result:
        """What the first tier answers, to this request or to one like it; it is kept, if it may be.

        Streams are not held behind each other: the first token of one could only come when all of another has.
        """
        if self._key is None or self._wanted.stream:
            return await ask()
        if self._control.max_age == 0:  # wants an answer of its own, which others may have
            result = await ask()
            if isinstance(result, Whole):
                self._keep(result)
            return result
        return await self._cache.flights.ask(self._key, ask=ask, shares=self._keep, until=until, walk=walk)

    def recorded(self, stream: Streaming, *, tier: str) -> "Streaming | RecordedStream":
        """The stream of the tier, kept at its end, if it may be."""
        if self._key is None or tier != self._cache.first.name:
            return stream
        return RecordedStream(stream, keep=self._keep)

    def _keep(self, answer: Whole) -> bool:
        """Keep it; whether it is for others too. To look into a long one would take milliseconds."""
        kept = keepable(answer.body) if len(answer.body) <= LONGEST_ANSWER else None
        if kept is None or self._key is None:
            return False
        self._cache.keep(self._key, body=kept.body, has_usage=kept.has_usage, levels=self._levels)
        return True

    def _find(self, use: CacheUse) -> Replay | None:
        if self.lookup is CacheLookup.BYPASS or self._key is None:
            return None
        found = self._cache.hot.find(self._key)
        if found is None:
            return None
        kept, age, is_fresh = found
        if age > self._control.max_age:
            return None
        if use is CacheUse.HIT and not (is_fresh and (kept.has_usage or self._does_without_usage)):
            return None
        return Replay(kept.body, age, use, kept.origin)

    @property
    def _does_without_usage(self) -> bool:
        """Whether nobody misses the usage, which a stream only has when its caller asked for it."""
        return self._wanted.stream and not self._wanted.include_usage


class RecordedStream:
    """A stream that is kept when it ends as it should; used as a `Streaming` is."""

    def __init__(self, stream: Streaming, *, keep: Callable[[Whole], bool]) -> None:
        self._stream = stream
        self._keep = keep
        self._recorder = Recorder(longest=LONGEST_ANSWER)
        self._recorder.take(stream.head)
        self.head = stream.head

    async def more(self) -> tuple[bytes, bool] | None:
        """As of `Streaming`."""
        piece = await self._stream.more()
        if piece is not None:
            self._recorder.take(piece[0])
        elif (body := self._recorder.whole()) is not None:
            self._keep(Whole(body))
        return piece

    async def close(self, *, late: bool = False) -> None:
        """As of `Streaming`."""
        await self._stream.close(late=late)

    @property
    def usage(self) -> Usage | None:
        """As of `Streaming`."""
        return self._stream.usage
