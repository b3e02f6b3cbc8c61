"""The rule for means, such as cost or tokens per request: bets on whole blocks, however skewed requests are.

The evidence is that of `betting` with restarts, against "the mean is at most the target": of the canary, and of stable beside it. It is
valid for any figures that are not negative, without a bound above, and under any dependence inside a block, as long as a block's mean is
expected at or under the target given all before. One request that costs a thousand times the target is evidence of ln 1000 at most.

Figures without a bound have no two-sample e-value of this kind. So a block in which stable is over the target as well is bet against what
stable came to in it, and a tenth: q_t = p0, or 1.1·y_t where y_t > p0. As q_t ≥ p0 always, a canary within the target is expected to win
nothing, whatever stable does; and one that shares an incident loses. Where stable's own evidence, which is bet against the target, says
that it breaks it, and the canary is over it by no more, the incident is shared, and held until both are within the target again. Where
stable had no request, a breach is only suspected. A breach is dated by a running sum of one bet (Page), in which a block counts as twice
the target at most, so that one request of a thousand times the target is no long breach. Knows nothing of units, queries or revisions.

Symbols: x, y mean of a block of the canary and of stable, p0 target, q what the canary's is bet against, λ part of the capital that is
bet. Source: as `betting`; E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..reading import Breached, Breaching, Healthy
from ..rule import Verdict
from .betting import LEAST_LIMIT, LN_STAKE_WEIGHTS, log_bets
from .promotion import more_needed
from .restarts import Restarts, log_value, settled, started, with_block
from .risk import Risk
from .window import CLOCK_SLACK_SECONDS

# How far above stable's mean a canary may be in an incident that both share.
TOLERATED = 1.1
# The stake by which a breach is dated, and how many times the target a block counts for it at most.
DATING_STAKE, DATING_MOST = 0.2, 2.0


@dataclass(frozen=True)
class Sum:
    """What so many requests came to, in the unit of the target."""

    amount: float = 0.0
    requests: int = 0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(amount=self.amount + other.amount, requests=self.requests + other.requests)

    @property
    def mean(self) -> float | None:
        """Per request; None where there is none, or the sum is no amount."""
        if self.requests <= 0 or not math.isfinite(self.amount) or self.amount < 0:
            return None
        return self.amount / self.requests


@dataclass(frozen=True)
class MeanBlock:
    """What came in after `start`, up to `end` (seconds since the epoch). `after_gap`: it does not continue the block before."""

    start: float
    end: float
    canary: Sum
    stable: Sum = field(default_factory=Sum)
    after_gap: bool = False
    unknown: int = 0  # requests of the canary whose amount nobody said


@dataclass(frozen=True)
class MeanEpisode:
    """A running breach: ends of its first and newest blocks over the target, and what its `blocks` with a request came to."""

    first_bad: float
    newest_bad: float
    blocks: int
    canary: Sum
    stable: Sum


@dataclass(frozen=True)
class MeanState:
    """Of one objective. `drift`: the running sum that dates. `newest_is_bad`: of the newest block with a request; `seen_until`: its end.

    `all_canary`, `all_stable`: of all blocks, for people; `unknown`: requests of the canary whose amount nobody said.
    """

    canary: Restarts = field(default_factory=lambda: started(len(LN_STAKE_WEIGHTS)))
    stable: Restarts = field(default_factory=lambda: started(len(LN_STAKE_WEIGHTS)))
    episode: MeanEpisode | None = None
    drift: float = 0.0
    newest_is_bad: bool = False
    seen_until: float = 0.0
    all_canary: Sum = field(default_factory=Sum)
    all_stable: Sum = field(default_factory=Sum)
    unknown: int = 0

    @property
    def told(self) -> tuple[Sum, Sum]:
        """What is told of both arms: of the running breach, or else of all blocks."""
        return (self.episode.canary, self.episode.stable) if self.episode is not None else (self.all_canary, self.all_stable)


@dataclass(frozen=True)
class Mean:
    """The rule for one objective. `target`: the most that a request may come to on average, 0 or more; `planned_blocks`: of the rollout."""

    target: float
    for_seconds: int
    risk: Risk
    planned_blocks: int

    def start(self) -> MeanState:
        """Nothing seen yet."""
        return MeanState()

    def observe(self, state: MeanState, *, block: MeanBlock) -> MeanState:
        """Adds one closed block. One whose sum is no amount (NaN, infinite, negative) says nothing of its arm."""
        if block.after_gap:
            state = self._ended(state)
        mean, beside = block.canary.mean, block.stable.mean
        state = replace(
            state,
            canary=self._bet(state.canary, mean=mean, limit=self._tolerable(beside)),
            stable=self._bet(state.stable, mean=beside, limit=self.target),
            all_canary=state.all_canary if mean is None else state.all_canary + block.canary,
            all_stable=state.all_stable if beside is None else state.all_stable + block.stable,
            unknown=state.unknown + block.unknown,
        )
        if mean is None:
            return state
        gain = min(mean / max(self.target, LEAST_LIMIT), DATING_MOST) - 1
        drift = max(0.0, state.drift + math.log1p(DATING_STAKE * gain))
        bad = mean > self.target
        if not bad and beside is not None and beside <= self.target and self._value(state.stable) > self.risk.ln_pass:
            # The incident that both shared is over, and is not held against what comes after it.
            drift, state = 0.0, replace(state, stable=settled(state.stable, planned=self.planned_blocks))
        state = replace(state, drift=drift, newest_is_bad=bad, seen_until=block.end)
        if drift == 0:
            return self._ended(state)
        stable = Sum() if beside is None else block.stable
        before = state.episode or MeanEpisode(first_bad=block.end, newest_bad=block.end, blocks=0, canary=Sum(), stable=Sum())
        episode = MeanEpisode(
            first_bad=before.first_bad,
            newest_bad=block.end if bad else before.newest_bad,
            blocks=before.blocks + 1,
            canary=before.canary + block.canary,
            stable=before.stable + stable,
        )
        return replace(state, episode=episode)

    def judge(self, state: MeanState) -> Verdict:
        """`Breached` on enough evidence, and with `for_seconds` only while a breach has lasted as long and goes on."""
        episode, ln_e = state.episode, self.evidence(state)
        told_canary, told_stable = state.told
        is_over = [one.mean is not None and one.mean > self.target for one in (told_canary, told_stable)]
        if episode is not None and ln_e < self.risk.ln_threshold and all(is_over) and self._value(state.stable) >= self.risk.ln_threshold:
            return Breaching(since=episode.first_bad, shared=True)
        since = episode.first_bad if episode else state.seen_until
        if self.for_seconds and episode is None:
            return Healthy()
        if ln_e < self.risk.ln_threshold:
            return Breaching(since=since) if self.for_seconds or ln_e > self.risk.ln_pass else Healthy()
        if self.for_seconds and episode is not None:
            long_enough = episode.newest_bad - episode.first_bad >= self.for_seconds - CLOCK_SLACK_SECONDS
            if not (state.newest_is_bad and long_enough):
                return Breaching(since=since)
        return Breached(since=since, suspected=told_stable.mean is None)

    def evidence(self, state: MeanState) -> float:
        """ln E that the canary's mean is over the target."""
        return self._value(state.canary)

    def blocks_needed(self, state: MeanState) -> int | None:
        """How many more blocks like those of the running breach, on both arms, decide; None without one, or where they never would."""
        mean = state.episode.canary.mean if state.episode else None
        if state.episode is None or mean is None or self.evidence(state) >= self.risk.ln_threshold:
            return None
        growth = log_bets(mean=mean, limit=self._tolerable(state.episode.stable.mean))
        more = more_needed(state.canary.ln_capital, growth=growth, risk=math.exp(-self.risk.ln_threshold))
        return math.ceil(more) if more is not None and math.isfinite(more) else None

    def _tolerable(self, beside: float | None) -> float:
        """q: what the canary's mean is bet against in a block in which stable's is `beside`."""
        return self.target if beside is None or beside <= self.target else TOLERATED * beside

    def _bet(self, capital: Restarts, *, mean: float | None, limit: float) -> Restarts:
        bets = (0.0,) * len(LN_STAKE_WEIGHTS) if mean is None else log_bets(mean=mean, limit=limit)
        return with_block(capital, ln_e=bets, planned=self.planned_blocks)

    def _value(self, capital: Restarts) -> float:
        return log_value(capital, ln_weights=LN_STAKE_WEIGHTS, planned=self.planned_blocks)

    def _ended(self, state: MeanState) -> MeanState:
        if not self.for_seconds or state.episode is None:
            return replace(state, episode=None, drift=0.0)
        canary, stable = (settled(one, planned=self.planned_blocks) for one in (state.canary, state.stable))
        return replace(state, canary=canary, stable=stable, episode=None, drift=0.0)


def to_numbers(state: MeanState, *, origin: float) -> list[float]:
    """The state as a flat list; times are seconds before `origin`."""
    numbers = [state.drift, int(state.newest_is_bad), origin - state.seen_until, state.unknown]
    numbers += [state.all_canary.amount, state.all_canary.requests, state.all_stable.amount, state.all_stable.requests]
    for capital in (state.canary, state.stable):
        numbers += [capital.blocks, *capital.ln_capital]
    if (episode := state.episode) is not None:
        numbers += [origin - episode.first_bad, origin - episode.newest_bad, episode.blocks]
        numbers += [episode.canary.amount, episode.canary.requests, episode.stable.amount, episode.stable.requests]
    return numbers


def from_numbers(numbers: Sequence[float], *, origin: float) -> MeanState:
    """The inverse of `to_numbers`. Raises ValueError for anything that it cannot have written."""
    fixed = 8 + 2 * (1 + len(LN_STAKE_WEIGHTS))
    if len(numbers) not in (fixed, fixed + 7) or any(math.isnan(one) or one == math.inf for one in numbers):
        raise ValueError("the state of an objective on means is damaged")
    left = iter(numbers)
    drift, newest_is_bad, seen, unknown = next(left), bool(next(left)), next(left), int(next(left))
    all_canary, all_stable = (Sum(amount=next(left), requests=int(next(left))) for _ in range(2))
    canary, stable = _restarts_in(left), _restarts_in(left)
    episode = None
    if len(numbers) > fixed:
        first, newest, blocks, amount, requests, beside, others = left
        episode = MeanEpisode(
            first_bad=origin - first,
            newest_bad=origin - newest,
            blocks=int(blocks),
            canary=Sum(amount=amount, requests=int(requests)),
            stable=Sum(amount=beside, requests=int(others)),
        )
    return MeanState(
        canary=canary,
        stable=stable,
        episode=episode,
        drift=drift,
        newest_is_bad=newest_is_bad,
        seen_until=origin - seen,
        all_canary=all_canary,
        all_stable=all_stable,
        unknown=unknown,
    )


def _restarts_in(left: Iterator[float]) -> Restarts:
    blocks = int(next(left))
    return Restarts(ln_capital=tuple(next(left) for _ in LN_STAKE_WEIGHTS), blocks=blocks)
