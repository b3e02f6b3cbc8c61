"""Judges of a stream: each says when it would have rolled back, in seconds from the canary's first request, or None for never.

Threshold rules of others as their documentation recommends them. They are given exact counts of their window, which is more than
`rate()` would give them, and are asked at every tick from the first full window on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from backstop.analysis.reading import Breached, Counts
from backstop.analysis.rule import ArmBlock
from backstop.analysis.sequential.mean import Mean, MeanBlock, Sum
from backstop.analysis.sequential.risk import Risk
from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable, Sequential
from backstop.analysis.threshold import Threshold

from .streams import SCRAPE_SECONDS, THOUSANDTHS, Stream

Judge = Callable[[Stream], float | None]
PLANNED_SECONDS = 1800.0
KAYENTA = "Kayenta, Mann-Whitney"


@dataclass(frozen=True)
class Ours:
    """The sequential rule, by which SLOs are judged unless they ask for a threshold; α of one objective."""

    limit: AtMost | NoMoreThanStable
    for_seconds: int = 0
    risk: float = 0.005
    comparisons: int = 1
    history: bool = True  # whether what stable did before is known
    alone: bool = False  # as where stable has no such requests, then and now

    def rule(self) -> Sequential:
        """As an objective of a canary of 30 minutes would have it."""
        return Sequential(
            limit=self.limit,
            for_seconds=self.for_seconds,
            risk=Risk(share=self.risk, tests=1),
            planned_blocks=round(PLANNED_SECONDS / SCRAPE_SECONDS),
            comparisons=self.comparisons,
        )

    def __call__(self, stream: Stream) -> float | None:
        rule, as_judged = self.rule(), _asked if isinstance(self.limit, NoMoreThanStable) else _alone if self.alone else _whole
        state = rule.start()
        if self.history and not self.alone:
            state = rule.seeded(state, history=map(as_judged, stream.history))
        for block in map(as_judged, stream.blocks):
            state = rule.observe(state, block=block)
            if isinstance(rule.judge(state), Breached):
                return block.end
        return None


@dataclass(frozen=True)
class OurMeans:
    """The rule of means, such as cost per request, against a target."""

    target: float
    for_seconds: int = 0
    risk: float = 0.005

    def __call__(self, stream: Stream) -> float | None:
        rule = Mean(
            target=self.target,
            for_seconds=self.for_seconds,
            risk=Risk(share=self.risk, tests=1),
            planned_blocks=round(PLANNED_SECONDS / SCRAPE_SECONDS),
        )
        state = rule.start()
        for block in stream.blocks:
            canary, stable = _sum(block.canary), _sum(_stable(block))
            state = rule.observe(state, block=MeanBlock(block.start, block.end, canary, stable=stable, after_gap=block.after_gap))
            if isinstance(rule.judge(state), Breached):
                return block.end
        return None


def _sum(counts: Counts) -> Sum:
    return Sum(amount=counts.bad / THOUSANDTHS, requests=counts.total)


def _whole(block: ArmBlock) -> ArmBlock:
    return block


def _alone(block: ArmBlock) -> ArmBlock:
    return replace(block, stable=None, stable_pods=(), compared=None)


def _asked(block: ArmBlock) -> ArmBlock:
    """Both arms without what caches answered, as an increase over stable is judged."""
    return block if block.compared is None else replace(block, canary=block.compared.canary, stable=block.compared.stable, compared=None)


@dataclass(frozen=True)
class Shipped:
    """The threshold of `evaluation: Threshold`; `allowed` is a share. The defaults are those of an SLO."""

    allowed: Fraction
    for_seconds: int = 0
    min_requests: int = 20

    def __call__(self, stream: Stream) -> float | None:
        rule = Threshold(allowed=self.allowed, for_seconds=self.for_seconds, min_requests=self.min_requests)
        state = rule.start()
        for block in stream.blocks:
            state = rule.observe(state, block=block)
            if isinstance(rule.judge(state), Breached):
                return block.end
        return None


@dataclass(frozen=True)
class Failures:
    """A query over `window` every `interval`, over the limit or without a request: a failure; so many of them: rolled back.

    Argo Rollouts: `failureLimit` + 1 of them, at once (`consecutiveErrorLimit` counts errors of the provider, of which there are none
    here). Flagger: `threshold` of them, acted on at the next tick (`late`). Both count failures, not failures in a row.
    """

    limit: float
    interval: float
    window: float
    failures: int
    late: bool = False

    def __call__(self, stream: Stream) -> float | None:
        failed = 0
        for tick, counts in _windows(stream.blocks, interval=self.interval, window=self.window):
            if failed >= self.failures:
                return tick
            failed += not (counts.total > 0 and counts.bad <= self.limit * counts.total)
            if failed >= self.failures and not self.late:
                return tick
        return None


@dataclass(frozen=True)
class MannWhitney:
    """Kayenta's judge: one point a minute and arm, judged every ten minutes over all points so far.

    "High" when the 98 % interval of the shift is wholly above a quarter of the estimated shift (Hodges and Lehmann); normal
    approximation with ties.
    """

    every: float = 600.0
    step: float = 60.0
    z: float = 2.326
    tolerance: float = 0.25

    def __call__(self, stream: Stream) -> float | None:
        canary = [(tick, counts) for tick, counts in _windows(stream.blocks, interval=self.step, window=self.step)]
        stable = [counts for _, counts in _windows(stream.blocks, interval=self.step, window=self.step, arm=_stable)]
        looks = range(round(self.every / self.step), len(canary) + 1, round(self.every / self.step))
        for points in looks:
            x = [counts.bad / counts.total for _, counts in canary[:points] if counts.total]
            y = [counts.bad / counts.total for counts in stable[:points] if counts.total]
            if x and y and self._is_high(x, y=y):
                return canary[points - 1][0]
        return None

    def _is_high(self, x: list[float], *, y: list[float]) -> bool:
        m, n = len(x), len(y)
        shifts = sorted(one - other for one in x for other in y)
        pooled = sorted(x + y)
        ties = sum(c**3 - c for c in (pooled.count(v) for v in set(pooled)))
        spread = math.sqrt(m * n / 12 * ((m + n + 1) - ties / ((m + n) * (m + n - 1))))
        rank = math.floor(m * n / 2 - self.z * spread)
        if not 0 <= rank < len(shifts):
            return False
        estimate = (shifts[(m * n - 1) // 2] + shifts[m * n // 2]) / 2
        return shifts[rank] > self.tolerance * abs(estimate)


def _canary(block: ArmBlock) -> Counts:
    return block.canary


def _stable(block: ArmBlock) -> Counts:
    return block.stable or Counts()


def _windows(
    blocks: tuple[ArmBlock, ...], *, interval: float, window: float, arm: Callable[[ArmBlock], Counts] = _canary
) -> list[tuple[float, Counts]]:
    """At each tick, what was counted by the scrapes of the window before it."""
    ends = [block.end for block in blocks]
    ticks = [interval * index for index in range(math.ceil(window / interval), math.floor(ends[-1] / interval + 1e-9) + 1)]
    found, first, last = [], 0, 0
    bad = total = 0
    for tick in ticks:
        while last < len(blocks) and ends[last] <= tick + 1e-9:
            bad, total, last = bad + arm(blocks[last]).bad, total + arm(blocks[last]).total, last + 1
        while first < last and ends[first] <= tick - window + 1e-9:
            bad, total, first = bad - arm(blocks[first]).bad, total - arm(blocks[first]).total, first + 1
        found.append((tick, Counts(bad=bad, total=total)))
    return found


def shipped(*, limit: Fraction) -> dict[str, Judge]:
    """What judges policies today: an SLO as it is without further fields, and as the README writes it."""
    percent = f"{float(100 * limit):g} %"
    return {
        f"Backstop's threshold, {percent}, at once": Shipped(limit),
        f"Backstop's threshold, {percent} for 30 s": Shipped(limit, for_seconds=30),
    }


def others(*, limit: float) -> dict[str, Judge]:
    """What others recommend, against a limit of the bad share."""
    return {
        "Argo Rollouts 5 min / 3 (its example)": Failures(limit, interval=300, window=300, failures=4),
        "Argo Rollouts 60 s / 3": Failures(limit, interval=60, window=60, failures=4),
        "Argo Rollouts 10 s / 0": Failures(limit, interval=10, window=60, failures=1),
        "Flagger 1 min / 5 (its example)": Failures(limit, interval=60, window=60, failures=5, late=True),
        "Flagger 10 s / 1": Failures(limit, interval=10, window=60, failures=1, late=True),
        KAYENTA: MannWhitney(),
    }
