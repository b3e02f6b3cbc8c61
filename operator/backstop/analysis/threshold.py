"""The plain threshold: the canary's share of bad requests over the limit for `for_seconds` without a break.

A *breach episode* runs from the end of its first bad block to the end of its newest bad one. It lasts while the trailing window
(at least 10 s and 20 requests) is over the limit at every block, and ends at a gap in the scrapes. Without `for_seconds` the
window alone decides, as soon as it holds `min_requests`. Blocks without a canary request change nothing.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

from .reading import Breached, Breaching, Counts, Healthy
from .rule import ArmBlock, Verdict

WINDOW_SECONDS = 10.0
WINDOW_REQUESTS = 20
# Bounds the state. Beyond it the two oldest blocks are kept as one: only the window's far edge gets coarser.
WINDOW_BLOCKS = 24
# Scrapes are not exactly periodic: thirty seconds of them may be some milliseconds short of thirty.
CLOCK_SLACK_SECONDS = 0.1


@dataclass(frozen=True)
class Episode:
    """A running breach: ends of its first and newest bad blocks, and what was counted in it, or in the window where that alone decides."""

    first_bad: float
    newest_bad: float
    canary: Counts
    stable: Counts | None


@dataclass(frozen=True)
class ThresholdState:
    """The trailing window, oldest block first, none of them without a canary request; and the episode, if one is running."""

    window: tuple[ArmBlock, ...] = ()
    episode: Episode | None = None


@dataclass(frozen=True)
class Threshold:
    """The rule for one objective. `allowed` is a share from 0 to 1."""

    allowed: Fraction
    for_seconds: int
    min_requests: int

    def start(self) -> ThresholdState:
        """Nothing seen yet."""
        return ThresholdState()

    def observe(self, state: ThresholdState, *, block: ArmBlock) -> ThresholdState:
        """Adds one closed block."""
        if block.after_gap:
            state = self.start()
        if block.canary.total == 0:
            return state
        window = self._trimmed((*state.window, block))
        if not self._over(total_of(window)):
            return ThresholdState(window=window)
        return ThresholdState(window=window, episode=self._continued(state.episode, block=block, window=window))

    def judge(self, state: ThresholdState) -> Verdict:
        """`Breached` only on `min_requests` canary requests: of the window without `for_seconds`, else of the episode."""
        episode = state.episode
        if self.for_seconds == 0:
            seen = total_of(state.window)
            if not self._over(seen):
                return Healthy()
            since = episode.first_bad if episode else state.window[-1].end
            return Breached(since=since) if seen.total >= self.min_requests else Breaching(since=since)
        if episode is None:
            return Healthy()
        long_enough = episode.newest_bad - episode.first_bad >= self.for_seconds - CLOCK_SLACK_SECONDS
        if self._over(state.window[-1].canary) and long_enough and episode.canary.total >= self.min_requests:
            return Breached(since=episode.first_bad)
        return Breaching(since=episode.first_bad)

    def _over(self, counts: Counts) -> bool:
        return counts.bad > self.allowed * counts.total

    def _continued(self, episode: Episode | None, *, block: ArmBlock, window: tuple[ArmBlock, ...]) -> Episode | None:
        bad = self._over(block.canary)
        if episode is None and not bad:
            return None
        first_bad, newest_bad = (block.end, block.end) if episode is None else (episode.first_bad, episode.newest_bad)
        if self.for_seconds == 0:
            # What decides is what is told: of a long breach all that was counted may be within the limit while the window is over it.
            canary, stable = total_of(window), stable_of(window)
        else:
            before = (Counts(), None) if episode is None else (episode.canary, episode.stable)
            canary, stable = before[0] + block.canary, both(before[1], block.stable)
        return Episode(first_bad=first_bad, newest_bad=block.end if bad else newest_bad, canary=canary, stable=stable)

    def _trimmed(self, window: tuple[ArmBlock, ...]) -> tuple[ArmBlock, ...]:
        requests = max(WINDOW_REQUESTS, self.min_requests) if self.for_seconds == 0 else WINDOW_REQUESTS
        while len(window) > 1:
            rest = window[1:]
            if rest[-1].end - rest[0].start < WINDOW_SECONDS - CLOCK_SLACK_SECONDS or total_of(rest).total < requests:
                break
            window = rest
        return coarser(window, blocks=WINDOW_BLOCKS)


def total_of(window: tuple[ArmBlock, ...]) -> Counts:
    """Canary requests of a window."""
    return sum((block.canary for block in window), Counts())


def stable_of(window: tuple[ArmBlock, ...]) -> Counts | None:
    """Stable's requests over the same blocks; None where no block has any such data."""
    total: Counts | None = None
    for block in window:
        total = both(total, block.stable)
    return total


def coarser(window: tuple[ArmBlock, ...], *, blocks: int) -> tuple[ArmBlock, ...]:
    """The window in at most so many blocks (two or more), the oldest ones as one: the newest stays as it is."""
    while len(window) > blocks:
        window = (_joined(window[0], window[1]), *window[2:])
    return window


def both(one: Counts | None, other: Counts | None) -> Counts | None:
    """Sum of what is there."""
    if one is None or other is None:
        return one or other
    return one + other


def _joined(older: ArmBlock, newer: ArmBlock) -> ArmBlock:
    return replace(newer, start=older.start, canary=older.canary + newer.canary, stable=both(older.stable, newer.stable))
