"""Scrapes → closed blocks, each scrape in exactly one of them, also across restarts.

The scrapes of all targets are gone through in the order of their times. A block is closed as soon as every live target has given a
scrape that is newer than its watermark, so that the offsets between the targets' scrapes delay nothing; its end is the newest scrape
in it. A target that has missed two scrapes is not waited for. Whatever the times at which this is asked, the blocks are the same.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ..api.metricnames import CacheUse
from .deltas import Counted, Increase, Scrape, by_metric, increases
from .samples import Counter

# Of the scrape interval: scrapes are not exactly periodic.
JITTER = 0.1
MISSED_SCRAPES = 2
# How far queries reach back before what they need, so that a target that is new can be told from one that has missed two scrapes.
MARGIN_INTERVALS = 4


@dataclass(frozen=True)
class Block:
    """What came in on all targets after `start`, up to `end`, summed over targets.

    `watermarks`: the newest scrape of each target that is counted, or from which counting goes on.
    `gaps`: the parts (of samples.Counter) of which no target gave a scrape for more than two intervals before or in it.
    `increases`: what `added` is the sum of, target by target.
    """

    start: float
    end: float
    added: Mapping[Counter, float] = field(hash=False)
    watermarks: Mapping[str, float] = field(hash=False)
    gaps: frozenset[str]
    increases: tuple[Increase, ...] = field(default=(), hash=False)

    @property
    def after_gap(self) -> bool:
        """Whether anything has a gap."""
        return bool(self.gaps)

    @cached_property
    def counted(self) -> Counted:
        """`added`, by metric and revision."""
        return by_metric(self.added)

    @cached_property
    def has_cache_hits(self) -> bool:
        """Whether a cache of a gateway has answered anything for which no model was asked."""
        return any(counter.cache == CacheUse.HIT for counter in self.added)


@dataclass(frozen=True)
class _History:
    """One target: its uncounted increases, and the scrape they start from (None: the target is new)."""

    base: float | None
    pending: list[Increase]


def close_blocks(
    scrapes: Mapping[str, list[Scrape]],
    *,
    watermarks: Mapping[str, float],
    block_end: float | None,
    since: float,
    from_zero: bool = False,
    scrape_interval: float,
) -> list[Block]:
    """The blocks that can be closed now, oldest first. Scrapes before `since` are left out of every count.

    `from_zero`: the canary had no traffic before this step, so the very first block may count from the scrape before `since`: what
    came in after that scrape is of this step, and a verdict does not have to wait for one scrape more.
    `watermarks` and `block_end`: of the block before; what is pending after the last closed block is found again next time.
    """
    patience = (MISSED_SCRAPES + JITTER) * scrape_interval
    reach = (1 + JITTER) * scrape_interval if from_zero and not watermarks else 0.0
    parts = {target: next(iter(seen[-1].values)).part for target, seen in scrapes.items()}
    histories = _histories(scrapes, parts=parts, watermarks=watermarks, since=since, reach=reach, patience=patience)
    last_seen = {target: history.base for target, history in histories.items() if history.base is not None}
    # While samples are skipped (between two steps) nothing is missing.
    start = max([since, *([] if block_end is None else [block_end])])
    resumed = block_end if block_end is not None and block_end >= since else None
    newest = {
        part: _newest(part, parts=parts, watermarks=watermarks, last_seen=last_seen, resumed=resumed, since=since)
        for part in parts.values()
    }

    blocks: list[Block] = []
    added: dict[Counter, float] = {}
    fresh: set[str] = set()
    gaps: set[str] = set()
    inside: list[Increase] = []
    for increase in sorted((i for h in histories.values() for i in h.pending), key=lambda i: (i.at, i.target)):
        part = parts[increase.target]
        if increase.at - newest[part] > patience:
            gaps.add(part)
        newest[part] = max(newest[part], increase.at)  # a late sample is no step back
        last_seen[increase.target] = increase.at
        fresh.add(increase.target)
        inside.append(increase)
        for counter, count in increase.added.items():
            added[counter] = added.get(counter, 0.0) + count
        if all(target in fresh or increase.at - at > patience for target, at in last_seen.items()):
            blocks.append(Block(start, increase.at, added, watermarks=dict(last_seen), gaps=frozenset(gaps), increases=tuple(inside)))
            start, added, fresh, gaps, inside = increase.at, {}, set(), set(), []
    return blocks


def _newest(
    part: str,
    *,
    parts: Mapping[str, str],
    watermarks: Mapping[str, float],
    last_seen: Mapping[str, float],
    resumed: float | None,
    since: float,
) -> float:
    """The newest scrape of a part before what is counted now. `resumed`: end of the block before, if that is of this step."""
    mine = [target for target, other in parts.items() if other == part]
    if resumed is None:
        return min((last_seen[target] for target in mine if target in last_seen), default=since)
    if len(mine) == len(parts):
        return resumed
    return max((watermarks[target] for target in mine if target in watermarks), default=resumed)


def _histories(
    scrapes: Mapping[str, list[Scrape]],
    *,
    parts: Mapping[str, str],
    watermarks: Mapping[str, float],
    since: float,
    reach: float,
    patience: float,
) -> dict[str, _History]:
    # By part: each is asked for apart, so that one answer may reach further back than another.
    oldest: dict[str, float] = {}
    reached: dict[str, float] = {}
    for target, seen in scrapes.items():
        part, mark = parts[target], watermarks.get(target)
        oldest[part] = min(oldest.get(part, math.inf), seen[0].at)
        if mark is not None and mark >= since and any(scrape.at == mark for scrape in seen):
            reached[part] = min(reached.get(part, math.inf), mark)
    histories = {}
    for target, seen in scrapes.items():
        # Had it been there before, the block before would know it, or the answer, which reaches further back, would show an earlier
        # scrape: its counters started at 0. Where the canary had no traffic before, its counters did in any case.
        first, part = seen[0].at, parts[target]
        late = first > reached.get(part, math.inf) or first - oldest[part] > patience
        new = target not in watermarks and first > since and (late or reach > 0)
        base = None if new else _base(seen, watermark=watermarks.get(target), since=since, reach=reach)
        if new or base is not None:
            histories[target] = _History(base=base, pending=increases(seen, target=target, base=base))
    return histories


def _base(seen: Iterable[Scrape], *, watermark: float | None, since: float, reach: float) -> float | None:
    """The scrape to count from: the watermark; or, before the step or where history is lost, the first scrape that there is.

    With a `reach`, the last scrape that is at most so many seconds before `since` will do.

    None: the target has no scrape to count from yet.
    """
    times = [scrape.at for scrape in seen]
    if watermark is not None and watermark >= since and watermark in times:
        return watermark
    if before := [at for at in times if since - reach <= at < since]:
        return before[-1]
    return next((at for at in times if at >= since and (watermark is None or at > watermark)), None)
