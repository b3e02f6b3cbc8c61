"""The queue of keys that need a pass: each at most once, never two passes of one key at a time, urgent ones first.

`Agenda` holds the order and knows no event loop; `KeyQueue` lets workers wait for it. What comes in while a key's pass runs makes
one more pass after it. Times are seconds since the epoch.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS: Final = 0.1
SPARE_ENTRIES: Final = 64
LONGEST_RETRY_SECONDS: Final = 30.0
# However far the next deadline is, the clock is looked at this often: it may have been set.
LONGEST_WAIT_SECONDS: Final = 30.0


class Agenda(Generic[K]):
    """Dirty keys in order, deadlines in one heap, failures per key."""

    def __init__(self, *, jitter: Callable[[], float]) -> None:
        self._urgent: deque[K] = deque()
        self._normal: deque[K] = deque()
        self._dirty: dict[K, bool] = {}  # the value: urgent
        self._running: set[K] = set()
        self._deadlines: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()
        self._failures: dict[K, int] = {}
        self._jitter = jitter

    def __len__(self) -> int:
        return len(self._dirty)

    def add(self, key: K, *, urgent: bool = False) -> None:
        """The key needs a pass now."""
        known = self._dirty.get(key)
        if known is None or (urgent and not known):
            self._dirty[key] = urgent
            if key not in self._running:
                (self._urgent if urgent else self._normal).append(key)

    def add_at(self, key: K, *, at: float) -> None:
        """The key needs a pass at this time, if nothing comes before. Of several deadlines the earliest holds."""
        if at < self._deadlines.get(key, float("inf")):
            self._deadlines[key] = at
            heapq.heappush(self._heap, (at, next(self._ticket), key))
            if len(self._heap) > 2 * len(self._deadlines) + SPARE_ENTRIES:
                # Most entries are of deadlines that passes have dropped and set anew.
                self._heap = [(when, next(self._ticket), due) for due, when in self._deadlines.items()]
                heapq.heapify(self._heap)

    def is_pressed(self) -> bool:
        """Whether something urgent is in line."""
        return bool(self._urgent)

    def take(self, *, now: float, urgent_only: bool = False) -> K | None:
        """The next key, which is then running until `done`; None when there is nothing to do."""
        self._come_due(now)
        for line in (self._urgent,) if urgent_only else (self._urgent, self._normal):
            while line:
                key = line.popleft()
                if key in self._dirty and key not in self._running:
                    del self._dirty[key]
                    # The pass sets the next deadline anew.
                    self._deadlines.pop(key, None)
                    self._running.add(key)
                    return key
        return None

    def done(self, key: K) -> None:
        """The pass is over; what came in meanwhile makes the key wait in line again."""
        self._running.discard(key)
        if key in self._dirty:
            (self._urgent if self._dirty[key] else self._normal).append(key)

    def failed(self, key: K, *, now: float) -> float:
        """The pass failed: comes again after a pause that doubles, with up to half of it as jitter. Returns the pause."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures, 20))
        pause *= 1 - self._jitter() / 2
        self.add_at(key, at=now + pause)
        return pause

    def succeeded(self, key: K) -> None:
        """The next failure starts with the shortest pause again."""
        self._failures.pop(key, None)

    def forget(self, key: K) -> None:
        """The key is gone: no deadline, no failures."""
        self._deadlines.pop(key, None)
        self._failures.pop(key, None)

    def next_deadline(self) -> float | None:
        """When the next key comes due; None when none will."""
        while self._heap and self._deadlines.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _come_due(self, now: float) -> None:
        while (at := self.next_deadline()) is not None and at <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._deadlines[key]
            self.add(key)


class KeyQueue(Generic[K]):
    """An agenda that workers wait on."""

    def __init__(self, *, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.agenda: Agenda[K] = Agenda(jitter=jitter)
        self._clock = clock
        self._changed = asyncio.Event()
        self._pressing = asyncio.Event()  # something urgent is in line: who takes nothing else waits for that alone

    def add(self, key: K, *, urgent: bool = False) -> None:
        """The key needs a pass now."""
        self.agenda.add(key, urgent=urgent)
        self._tell()

    def add_at(self, key: K, *, at: float) -> None:
        """The key needs a pass at this time."""
        self.agenda.add_at(key, at=at)
        self._changed.set()

    def done(self, key: K) -> None:
        """The pass of the key is over."""
        self.agenda.done(key)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        if self.agenda.is_pressed():
            self._pressing.set()

    async def get(self, *, urgent_only: bool = False) -> K:
        """Wait for the next key, or for the next that is urgent."""
        changed = self._pressing if urgent_only else self._changed
        while True:
            now = self._clock()
            key = self.agenda.take(now=now, urgent_only=urgent_only)
            if key is not None:
                return key
            changed.clear()
            deadline = self.agenda.next_deadline()
            wait = LONGEST_WAIT_SECONDS if deadline is None else min(LONGEST_WAIT_SECONDS, max(0.0, deadline - now))
            try:
                async with asyncio.timeout(wait):
                    await changed.wait()
            except TimeoutError:
                continue
