"""The chain: who answers, in order, inside one budget. The same walk for streams and whole answers.

Knows when a tier may be tried, how long it has, and what a failure hands over to; knows neither HTTP nor the caller.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import aiohttp

from ..api.metricnames import FailureMode, FirstTier
from .body import ChatRequest
from .errors import Failure
from .metrics import GatewayMetrics
from .replay import Replay
from .revision import STATIC_MODEL, CacheTier, ModelTier, Revision, StaticTier
from .targets import TargetGate
from .upstream import Failed, PassedBack, Streaming, Upstream, Whole


@dataclass
class Walk:
    """How far a request has come along the chain. Times in seconds."""

    started: float
    attempts: int = 0
    hand_offs: int = 0
    waited: float = 0.0  # for targets
    first_tier: FirstTier = FirstTier.SKIPPED
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Answered:
    """A tier answered."""

    tier: str
    model: str
    answer: Whole | Streaming | PassedBack | StaticTier | Replay
    upstream: ModelTier | None
    attempt_started: float


@dataclass(frozen=True)
class Exhausted:
    """No tier answered; `failure` is the first one's."""

    failure: Failure


Result = Whole | Streaming | PassedBack | Failure


class Cache(Protocol):
    """What a cache does for one request on its way along the chain."""

    async def ask_first(self, ask: Callable[[], Awaitable[Result]], *, until: float, walk: Walk) -> Result:
        """What the first tier answers: `ask`, or another request like this one that is asking already, until then."""

    def instead(self) -> Replay | None:
        """A kept answer in place of one that the tiers before have failed to give."""


class Chain:
    """Walks the tiers of one revision."""

    def __init__(
        self, revision: Revision, *, session: aiohttp.ClientSession, gate: TargetGate, metrics: GatewayMetrics, clock: Callable[[], float]
    ) -> None:
        self._tiers = revision.tiers
        self._budget = revision.budget
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._first_model = next((t.model for t in revision.tiers if isinstance(t, ModelTier)), STATIC_MODEL)
        self._upstreams = {t.name: Upstream(t, session=session, clock=clock) for t in revision.tiers if isinstance(t, ModelTier)}

    async def answer(
        self, request: ChatRequest, *, trace: Mapping[str, str], walk: Walk, cache: Cache | None = None
    ) -> Answered | Exhausted:
        """The first good answer. `walk` is filled in as it goes, so that it tells the truth also when the caller leaves.

        `cache`: set where a tier is one.
        """
        for position, tier in enumerate(self._tiers):
            if isinstance(tier, StaticTier):
                if position == 0:
                    walk.first_tier = FirstTier.ANSWERED
                return Answered(tier=tier.name, model=STATIC_MODEL, answer=tier, upstream=None, attempt_started=self._clock())
            started = self._clock()
            if isinstance(tier, CacheTier):
                replay = cache.instead() if cache is not None else None
                if replay is not None:
                    return Answered(tier=tier.name, model=self._first_model, answer=replay, upstream=None, attempt_started=started)
                result: Result = walk.failures[-1]  # with nothing kept, what led here leads on
            else:
                ask = partial(self._try, tier, request=request, trace=trace, walk=walk)
                until = content_deadline(tier, now=started, budget_end=walk.started + self._budget)
                result = await (cache.ask_first(ask, until=until, walk=walk) if cache is not None and position == 0 else ask())
            if not isinstance(result, Failure):
                assert isinstance(tier, ModelTier)
                if position == 0:
                    walk.first_tier = FirstTier.ANSWERED
                return Answered(tier=tier.name, model=tier.model, answer=result, upstream=tier, attempt_started=started)
            walk.failures.append(result)
            if position + 1 < len(self._tiers):
                walk.hand_offs += 1
                self._metrics.count_handoff(tier.name, to=self._tiers[position + 1].name, mode=result.mode)
        return Exhausted(walk.failures[0])

    async def _try(
        self, tier: ModelTier, *, request: ChatRequest, trace: Mapping[str, str], walk: Walk
    ) -> Whole | Streaming | PassedBack | Failure:
        started = self._clock()
        content_by = content_deadline(tier, now=started, budget_end=walk.started + self._budget)
        if content_by <= started:
            return Failure(FailureMode.LATENCY_BREACH, f"no time was left for tier `{tier.name}`")
        if not self._gate.enter(tier.name):
            # A canary with a wrong key must not look healthy between two tries.
            if tier is self._tiers[0]:
                walk.first_tier = FirstTier.FAILED
            return Failure(FailureMode.DEPENDENCY_FAILURE, f"tier `{tier.name}` does not take the configured key")
        walk.attempts += 1
        refused: bool | None = None
        outcome = "cancelled"
        try:
            result = await self._upstreams[tier.name].attempt(
                request.for_model(tier.model), trace=trace, stream=request.wanted.stream, content_by=content_by
            )
            refused, outcome = _learned(result), _outcome(result)
        finally:
            self._gate.leave(tier.name, refused=refused)
            self._metrics.count_attempt(tier.name, outcome=outcome)
            walk.waited += self._clock() - started
        if not isinstance(result, Failed):
            return result
        if tier is self._tiers[0]:
            walk.first_tier = FirstTier.LATE if result.failure.mode is FailureMode.LATENCY_BREACH else FirstTier.FAILED
        return result.failure


def content_deadline(tier: ModelTier, *, now: float, budget_end: float) -> float:
    """Until when a tier may bring content: its own time from now, or what the budget leaves after the later tiers' times."""
    if tier.first_token is None:
        return budget_end - tier.reserved
    return min(now + tier.first_token, budget_end)


def _learned(result: Whole | Streaming | PassedBack | Failed) -> bool | None:
    """Whether the target refused our key; None when it did not get as far as saying."""
    if isinstance(result, Failed):
        return True if result.refused_key else None
    return False


def _outcome(result: Whole | Streaming | PassedBack | Failed) -> str:
    match result:
        case Whole() | Streaming():
            return "success"
        case PassedBack():
            return "passed_back"
        case Failed():
            return result.failure.mode.value
