"""The chain: who answers, in order, inside one budget. The same walk for streams and whole answers.

Knows when a tier may be tried, how long it has, and what a failure hands over to; knows neither HTTP nor the caller.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, assert_never

import aiohttp

from ..api.metricnames import FailureMode, FirstTier
from .answer import check_whole, is_overflow
from .body import ChatRequest
from .breaker import LeftAlone
from .desk import TicketDesk
from .errors import Failure
from .metrics import GatewayMetrics
from .replay import Replay
from .revision import STATIC_MODEL, AnyTier, CacheTier, HumanTier, ModelTier, RulesTier, StaticTier, model_of
from .rules import RuleEngine
from .static import FixedAnswer
from .targets import TargetGate
from .ticket import Asking, acknowledgement
from .upstream import Failed, PassedBack, Streaming, Upstream, Whole


@dataclass
class Walk:
    """How far a request has come along the chain. Times in seconds; `budget`: from `started` to the first of an answer."""

    started: float
    budget: float
    hurried: bool = False  # its caller gives less than the policy does: to be late for it is no failure of a target's
    attempts: int = 0
    hand_offs: int = 0
    waited: float = 0.0  # for targets
    first_tier: FirstTier = FirstTier.SKIPPED
    failures: list[Failure] = field(default_factory=list)
    outgrown: int = 0  # tokens of the largest window that was too small; 0: none was


@dataclass(frozen=True)
class Answered:
    """A tier answered."""

    tier: str
    model: str
    answer: Whole | Streaming | PassedBack | StaticTier | Replay | FixedAnswer
    upstream: ModelTier | None
    attempt_started: float


@dataclass(frozen=True)
class Exhausted:
    """No tier answered; `failure` is the first one's of those that were for this request."""

    failure: Failure


Result = Whole | Streaming | PassedBack | Failure


class Cache(Protocol):
    """What a cache does for one request on its way along the chain."""

    async def ask_first(self, ask: Callable[[], Awaitable[Result]], *, until: float, walk: Walk) -> Result:
        """What the first tier answers: `ask`, or another request like this one that is asking already, until then."""

    def instead(self) -> Replay | None:
        """A kept answer in place of one that the tiers before have failed to give."""


class Chain:
    """Walks the tiers of one revision. `check` raises MalformedError for a whole answer that is none."""

    def __init__(
        self,
        tiers: Sequence[AnyTier],
        *,
        session: aiohttp.ClientSession,
        gate: TargetGate,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        check: Callable[[bytes], None] = check_whole,
        desk: TicketDesk | None = None,
    ) -> None:
        self._tiers = tiers
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._desk = desk
        self._first_model = next((t.model for t in tiers if isinstance(t, ModelTier)), STATIC_MODEL)
        self._engines = {t.name: RuleEngine(t.rules, headers=t.headers) for t in tiers if isinstance(t, RulesTier)}
        self._upstreams = {t.name: Upstream(t, session=session, clock=clock, check=check) for t in tiers if isinstance(t, ModelTier)}

    async def answer(
        self, request: ChatRequest, *, trace: Mapping[str, str], walk: Walk, cache: Cache | None = None
    ) -> Answered | Exhausted:
        """The first good answer. `walk` is filled in as it goes, so that it tells the truth also when the caller leaves.

        `cache`: set where a tier is one.
        """
        too_long: Answered | None = None  # what the last tier that was asked says, where the request does not fit into it
        for position, tier in enumerate(self._tiers):
            if too_long is not None and isinstance(tier, StaticTier | RulesTier | HumanTier):
                return too_long
            reached = await self._reach(position, request=request, trace=trace, walk=walk, cache=cache)
            if isinstance(reached, Answered):
                if not self._has_larger(position, answer=reached.answer):
                    if position == 0:
                        walk.first_tier = FirstTier.ANSWERED
                    return reached
                too_long, walk.outgrown = reached, (reached.upstream and reached.upstream.window) or 0
                if position == 0:
                    walk.first_tier = FirstTier.SKIPPED  # also for who has waited for another that asked the same
                reached = Failure(FailureMode.PROMPT_ERROR, f"the request does not fit into tier `{tier.name}`")
            elif reached.mode is not FailureMode.PROMPT_ERROR:
                too_long = None  # a larger one could have taken it, and failed
            walk.failures.append(reached)
            if position + 1 < len(self._tiers):
                walk.hand_offs += 1
                self._metrics.count_handoff(tier.name, to=self._tiers[position + 1].name, mode=reached.mode)
        return too_long or Exhausted(next((f for f in walk.failures if f.mode is not FailureMode.PROMPT_ERROR), walk.failures[0]))

    async def _reach(
        self, position: int, *, request: ChatRequest, trace: Mapping[str, str], walk: Walk, cache: Cache | None
    ) -> Answered | Failure:
        tier, started = self._tiers[position], self._clock()
        match tier:
            case StaticTier():
                return Answered(tier=tier.name, model=STATIC_MODEL, answer=tier, upstream=None, attempt_started=started)
            case CacheTier():
                replay = cache.instead() if cache is not None else None
                if replay is None:
                    return walk.failures[-1]  # with nothing kept, what led here leads on
                return Answered(tier=tier.name, model=self._first_model, answer=replay, upstream=None, attempt_started=started)
            case RulesTier():
                decision = self._engines[tier.name].decide(request)
                self._metrics.count_rules(tier.name, answered=decision.answer is not None, failed=decision.failed)
                if decision.answer is None:
                    return walk.failures[-1]  # it is no failure that no rule holds
                fixed = FixedAnswer(decision.answer, model_of(tier))
                return Answered(tier=tier.name, model=fixed.model, answer=fixed, upstream=None, attempt_started=started)
            case HumanTier():
                return await self._hand_on(tier, request=request, walk=walk)
            case ModelTier():
                if (unfit := _unfit(tier, request=request, outgrown=walk.outgrown)) is not None:
                    return unfit
                ask = partial(self._try, tier, request=request, trace=trace, walk=walk)
                until = content_deadline(tier, now=started, budget_end=walk.started + walk.budget)
                result = await (cache.ask_first(ask, until=until, walk=walk) if cache is not None and position == 0 else ask())
                if isinstance(result, Failure):
                    return result
                return Answered(tier=tier.name, model=tier.model, answer=result, upstream=tier, attempt_started=started)
            case _:
                assert_never(tier)

    async def _hand_on(self, tier: HumanTier, *, request: ChatRequest, walk: Walk) -> Answered | Failure:
        """Open a ticket. None for a probe's request, which no person waits for the answer of."""
        started = self._clock()
        if request.synthetic or self._desk is None:
            return walk.failures[-1]
        asking = Asking(request.identity, request.question, request.history, request.values, request.languages, walk.failures[0].mode.value)
        try:
            opened = await self._desk.open(asking, within=walk.started + walk.budget - started)
        finally:
            walk.waited += self._clock() - started
        if isinstance(opened, Failure):
            return opened
        fixed = FixedAnswer(acknowledgement(tier, identity=opened), model_of(tier))
        return Answered(tier=tier.name, model=fixed.model, answer=fixed, upstream=None, attempt_started=started)

    def _has_larger(self, position: int, *, answer: object) -> bool:
        """Whether the tier at `position` says that the request does not fit, and a later one has a larger window."""
        tier = self._tiers[position]
        if not isinstance(answer, PassedBack) or not isinstance(tier, ModelTier) or tier.window is None:
            return False
        later = (t.window or 0 for t in self._tiers[position + 1 :] if isinstance(t, ModelTier))
        return max(later, default=0) > tier.window and is_overflow(answer.body)

    async def _try(
        self, tier: ModelTier, *, request: ChatRequest, trace: Mapping[str, str], walk: Walk
    ) -> Whole | Streaming | PassedBack | Failure:
        started = self._clock()
        content_by = content_deadline(tier, now=started, budget_end=walk.started + walk.budget)
        if content_by <= started:
            return Failure(FailureMode.LATENCY_BREACH, f"no time was left for tier `{tier.name}`")
        result = await self._attempt(tier, request=request, trace=trace, walk=walk, content_by=content_by)
        for _ in range(tier.retries):
            if not (isinstance(result, Failed) and result.safe_to_retry) or self._clock() >= content_by:
                break
            again = await self._attempt(tier, request=request, trace=trace, walk=walk, content_by=content_by)
            if isinstance(again, LeftAlone):
                break
            result = again
        match result:
            case LeftAlone(mode=mode):
                failure = Failure(mode, f"tier `{tier.name}` is left alone after it failed ({mode})", left_alone=True)
            case Failed(failure=failure):
                pass
            case _:
                return result
        # Left alone or not: a canary with a broken target must not look healthy between two tries.
        if tier is self._tiers[0]:
            walk.first_tier = FirstTier.LATE if failure.mode is FailureMode.LATENCY_BREACH else FirstTier.FAILED
        return failure

    async def _attempt(
        self, tier: ModelTier, *, request: ChatRequest, trace: Mapping[str, str], walk: Walk, content_by: float
    ) -> Whole | Streaming | PassedBack | Failed | LeftAlone:
        permit = self._gate.enter(tier.name)
        if isinstance(permit, LeftAlone):
            return permit
        walk.attempts += 1
        started = self._clock()
        result: Whole | Streaming | PassedBack | Failed | None = None
        try:
            result = await self._upstreams[tier.name].attempt(
                request.for_model(tier.model, asks_usage=tier.asks_usage), trace=trace, wanted=request.wanted, content_by=content_by
            )
            return result
        finally:
            self._gate.leave(tier.name, permit=permit, result=None if walk.hurried and _is_late(result) else result)
            self._metrics.count_attempt(tier.name, outcome=_outcome(result))
            walk.waited += self._clock() - started


def _unfit(tier: ModelTier, *, request: ChatRequest, outgrown: int) -> Failure | None:
    """Why it makes no sense to ask a tier."""
    if outgrown and (tier.window or 0) <= outgrown:
        return Failure(FailureMode.PROMPT_ERROR, f"the request does not fit into tier `{tier.name}`")
    lacking = tier.lacks(request.needs) if request.needs else ()
    if lacking:
        return Failure(FailureMode.PROMPT_ERROR, f"tier `{tier.name}` is not offered for {', '.join(sorted(lacking))}")
    return None


def content_deadline(tier: ModelTier, *, now: float, budget_end: float) -> float:
    """Until when a tier may bring content: its own time from now, or what the budget leaves after the later tiers' times."""
    if tier.first_token is None:
        return budget_end - tier.reserved
    return min(now + tier.first_token, budget_end)


def _is_late(result: Whole | Streaming | PassedBack | Failed | None) -> bool:
    return isinstance(result, Failed) and result.failure.mode is FailureMode.LATENCY_BREACH


def _outcome(result: Whole | Streaming | PassedBack | Failed | None) -> str:
    match result:
        case Whole() | Streaming():
            return "success"
        case PassedBack():
            return "passed_back"
        case Failed():
            return result.failure.mode.value
        case None:
            return "cancelled"
