"""Answers in memory: least recently used first out, bounded in bytes and in time, every step O(1). PURE: knows no requests.

What an entry costs is its key, its answer and ENTRY_OVERHEAD; the sum never passes the capacity, not even for a moment.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..api.metricnames import CacheLevel

# Beside the bytes of key and answer: their object headers, the entry, its time, and its place in a table that grows by doubling. About
# 300 bytes of CPython's; the rest is what an allocator loses.
ENTRY_OVERHEAD: Final = 512
# 64 Ki tokens of text. What is longer is rare, and its stream would be held while it comes.
LONGEST_ANSWER: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer: a whole completion as JSON. Times are in seconds of the cache's clock."""

    body: bytes
    has_usage: bool  # a stream whose caller did not ask for it has none
    kept_at: float  # when the model gave it, which may be long before it came here
    fresh_until: float
    origin: CacheLevel  # where it was found; `HOT`: it came from the model


class HotCache:
    """Answers by key. `capacity` in bytes; an answer is fresh for `fresh` seconds, stale for `stale` more, and then gone.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, *, capacity: int, fresh: float, stale: float, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._fresh = fresh
        self._stale = stale
        self._clock = clock
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.held = 0  # bytes

    def __len__(self) -> int:
        """How many answers are held."""
        return len(self._kept)

    def find(self, key: bytes) -> tuple[Kept, float, bool] | None:
        """The answer, its age in seconds, and whether it is fresh."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.fresh_until + self._stale:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept, now - kept.kept_at, now < kept.fresh_until

    def keep(self, key: bytes, *, body: bytes, has_usage: bool) -> None:
        """Keep the newest answer, in place of an older one; one that is longer than LONGEST_ANSWER is not kept."""
        now = self._clock()
        self._put(key, kept=Kept(body, has_usage, now, now + self._fresh, CacheLevel.HOT))

    def promote(self, key: bytes, *, body: bytes, has_usage: bool, age: float, fresh_for: float, origin: CacheLevel) -> None:
        """Keep an answer of `origin`, which is so old and fresh for so many seconds more (below 0: it is stale), and no longer.

        One that is here and fresh for longer stays.
        """
        now = self._clock()
        fresh_until = now + min(fresh_for, self._fresh)
        here = self._kept.get(key)
        if here is None or here.fresh_until < fresh_until:
            self._put(key, kept=Kept(body, has_usage, now - age, fresh_until, origin))

    def _put(self, key: bytes, *, kept: Kept) -> None:
        body = kept.body
        if key in self._kept:
            self._drop(key)
        size = cost(key, body=body)
        if len(body) > LONGEST_ANSWER or size > self._capacity:
            return
        while self.held + size > self._capacity:
            self._drop(next(iter(self._kept)))
        self._kept[key] = kept
        self.held += size

    def _drop(self, key: bytes) -> None:
        self.held -= cost(key, body=self._kept.pop(key).body)


def cost(key: bytes, *, body: bytes) -> int:
    """What an entry counts, in bytes."""
    return len(key) + len(body) + ENTRY_OVERHEAD
