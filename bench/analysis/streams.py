"""Streams of requests: what two arms count between two scrapes, drawn anew for each seed. Knows no judge."""

import math
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

from backstop.analysis.reading import Counts
from backstop.analysis.rule import ArmBlock, BoundCounts

SCRAPE_SECONDS = 5.0
HISTORY_SECONDS = 600.0
STABLE_PER_CANARY = 9
# Standard deviations of a Poisson variable beyond which nothing is drawn (one in 10^15).
REACH = 8.0
# What requests come to is counted in whole thousandths, as a block's counts are whole.
THOUSANDTHS = 1000

Share = Callable[[float], float]


@dataclass(frozen=True)
class Truth:
    """What is so: the bad shares of both arms over time (seconds from the canary's first request).

    `correlation` (ICC): each arm's share of each block is drawn from a Beta distribution around the truth; `stays`: the chance that it is
    the one of the block before instead, so that bursts go on. `missing`: the part of all scrapes that fail; what came in is then in the
    block after. `tails`: at further latency bounds, the two shares. `cached`: the part of stable's requests that its cache answers at once,
    and well; the shares are then of what a model was asked for, which is all of the canary's. `pods`: of stable, with bursts that all of
    them have at once. `before`: stable's share of before the canary; None: as it is at 0. `shape`: the two are not shares but what a
    request comes to on average, each drawn from a Gamma distribution of this shape; blocks have that as what is bad, in thousandths.
    """

    canary: Share
    stable: Share
    correlation: float = 0.0
    stays: float = 0.0
    missing: float = 0.0
    tails: tuple[tuple[float, float], ...] = ()
    cached: float = 0.0
    shape: float | None = None
    pods: int = 1
    before: Share | None = None


@dataclass(frozen=True)
class Stream:
    """One run: stable's blocks of before the canary, and the blocks of the run."""

    history: tuple[ArmBlock, ...]
    blocks: tuple[ArmBlock, ...]


def always(share: float) -> Share:
    """The same share at all times."""
    return lambda _: share


def stream(truth: Truth, *, rate: float, seconds: float, seed: str) -> Stream:
    """A run of so many seconds at `rate` canary requests per second, and nine times as many on stable."""
    rng = random.Random(seed)
    canary_arm, stable_arm = (_Arm(truth=truth, rng=rng, tail=tail) for tail in (0, 1))
    before = truth.before or always(truth.stable(0.0))
    history = []
    for index in range(round(HISTORY_SECONDS / SCRAPE_SECONDS)):
        at = index * SCRAPE_SECONDS - HISTORY_SECONDS
        stable, at_bounds, pods = stable_arm.counted(rate=(STABLE_PER_CANARY + 1) * rate, share=before(at))
        bounds = tuple(BoundCounts(canary=Counts(), stable=one) for one in at_bounds)
        block = ArmBlock(start=at, end=at + SCRAPE_SECONDS, canary=Counts(), stable=stable, bounds=bounds, stable_pods=pods)
        history.append(_with_cache(block, truth=truth, rng=rng))
    blocks: list[ArmBlock] = []
    pending: list[ArmBlock] = []
    for index in range(round(seconds / SCRAPE_SECONDS)):
        at = index * SCRAPE_SECONDS
        canary, canary_bounds, _ = canary_arm.counted(rate=rate, share=truth.canary(at))
        stable, stable_bounds, pods = stable_arm.counted(rate=STABLE_PER_CANARY * rate, share=truth.stable(at))
        bounds = tuple(BoundCounts(canary=c, stable=s) for c, s in zip(canary_bounds, stable_bounds, strict=True))
        block = ArmBlock(start=at, end=at + SCRAPE_SECONDS, canary=canary, stable=stable, bounds=bounds, stable_pods=pods)
        pending.append(_with_cache(block, truth=truth, rng=rng))
        if truth.missing and rng.random() < truth.missing:
            continue
        blocks.append(_as_one(pending))
        pending = []
    return Stream(history=tuple(history), blocks=tuple(blocks))


class _Arm:
    """One arm of a stream. `tail`: which of the two shares of a bound is its; what it keeps is where its burst stands."""

    def __init__(self, *, truth: Truth, rng: random.Random, tail: int) -> None:
        self._truth, self._rng, self._tail = truth, rng, tail
        self._burst: tuple[float, float] | None = None

    def counted(self, *, rate: float, share: float) -> tuple[Counts, list[Counts], tuple[Counts, ...]]:
        """Counts of one block: at the limit, at each further bound, and at the limit of each pod, if stable has several."""
        mean, rng = rate * SCRAPE_SECONDS * (1 - self._truth.cached * self._tail), self._rng
        if self._truth.shape is not None:
            requests, shape = _poisson(rng, mean=mean), self._truth.shape
            # The sum of n Gamma variables of one scale is one of n times the shape.
            amount = rng.gammavariate(requests * shape, share / shape) if requests else 0.0
            return Counts(bad=round(THOUSANDTHS * amount), total=requests), [], ()
        if self._truth.correlation:
            share, number = self._in_burst(share), self._truth.pods if self._tail else 1
            parts = (mean * share / number, mean * (1 - share) / number)
            drawn = [[_searched_poisson(rng, mean=part) for part in parts] for _ in range(number)]
            pods = tuple(Counts(bad=bad, total=bad + good) for bad, good in drawn)
            return sum(pods, Counts()), [], pods if number > 1 else ()
        if not self._truth.tails:
            bad, good = (_poisson(rng, mean=part) for part in (mean * share, mean * (1 - share)))
            return Counts(bad=bad, total=bad + good), [], ()
        # Requests over the lowest bound, then how many of them are over the next, and so on: the limit is one of the bounds.
        tails = self._truth.tails
        levels = sorted([(share, -1), *((one[self._tail], index) for index, one in enumerate(tails))], key=lambda level: -level[0])
        total = seen = _poisson(rng, mean=mean)
        at, found = 1.0, {}
        for level, index in levels:
            part = level / at if at > 0 else 0.0
            seen = sum(rng.random() < part for _ in range(seen))
            found[index], at = Counts(bad=seen, total=total), level
        return found[-1], [found[index] for index in range(len(tails))], ()

    def _in_burst(self, share: float) -> float:
        """The share of this block, around the true one: that of the block before, or drawn anew."""
        if not 0 < share < 1:
            return share
        kept = self._burst
        if kept is None or kept[0] != share or not (self._truth.stays and self._rng.random() < self._truth.stays):
            strength = 1 / self._truth.correlation - 1
            kept = self._burst = (share, self._rng.betavariate(share * strength, (1 - share) * strength))
        return kept[1]


def _with_cache(block: ArmBlock, *, truth: Truth, rng: random.Random) -> ArmBlock:
    """The block with what stable's cache answered, and beside it both arms without that."""
    if not truth.cached or block.stable is None:
        return block
    asked = BoundCounts(canary=block.canary, stable=block.stable)
    hits = _poisson(rng, mean=block.stable.total * truth.cached / (1 - truth.cached))
    return replace(block, stable=block.stable + Counts(total=hits), compared=asked)


def _as_one(blocks: list[ArmBlock]) -> ArmBlock:
    if len(blocks) == 1:
        return blocks[0]
    return ArmBlock(
        start=blocks[0].start,
        end=blocks[-1].end,
        canary=sum((block.canary for block in blocks), Counts()),
        stable=sum((block.stable for block in blocks if block.stable is not None), Counts()),
        after_gap=len(blocks) > 2,
    )


def _poisson(rng: random.Random, *, mean: float) -> int:
    if mean <= 0:
        return 0
    low, table = _table(round(mean, 6))
    return low + bisect_left(table, rng.random())


@lru_cache(maxsize=2048)
def _table(mean: float) -> tuple[int, list[float]]:
    """The least value, and the cumulative distribution from there on."""
    reach = REACH * math.sqrt(mean) + REACH
    low, high = max(0, math.floor(mean - reach)), math.ceil(mean + reach)
    table = list(accumulate(_chance(k, mean=mean) for k in range(low, high + 1)))
    table[-1] = 1.0
    return low, table


def _searched_poisson(rng: random.Random, *, mean: float) -> int:
    """For a mean that does not come again: the distribution is gone through from its mode outwards."""
    if mean < 1e-12:
        return 0
    mode = math.floor(mean)
    left = rng.random()
    up = down = _chance(mode, mean=mean)
    left -= up
    high = low = mode
    while left > 0 and (up > 1e-18 or low > 0):
        high += 1
        up *= mean / high
        left -= up
        if left <= 0:
            return high
        if low > 0:
            down *= low / mean
            low -= 1
            left -= down
            if left <= 0:
                return low
    return mode


def _chance(k: int, *, mean: float) -> float:
    return math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
