"""The chain: who answers, in order, inside one budget. The same walk for streams and whole answers.

Knows when a tier may be tried, how long it has, and what a failure hands over to; knows neither HTTP nor the caller.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, assert_never

from ..api.metricnames import FailureMode, FirstTier
from .allowance import Allowance
from .answer import check_whole, is_overflow
from .body import ChatRequest
from .breaker import LeftAlone, Permit
from .client import Client
from .desk import TicketDesk
from .errors import NOT_FOR_THIS, Failure
from .hedge import Course, HeadStarts
from .holdback import held_back
from .metrics import GatewayMetrics
from .pace import Paces
from .replay import Replay
from .revision import STATIC_MODEL, AnyTier, CacheTier, HumanTier, ModelTier, RulesTier, StaticTier, model_of
from .rules import RuleEngine
from .static import FixedAnswer
from .targets import TargetGate
from .ticket import Asking, acknowledgement
from .tracing import Trace
from .upstream import Failed, PassedBack, Streaming, Upstream, Whole
from .walk import Result, Walk


class Answered(NamedTuple):
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


class Cache(Protocol):
    """What a cache does for one request on its way along the chain."""

    async def ask_first(self, ask: Callable[[], Awaitable[Result]], *, until: float, walk: Walk) -> Result:
        """What the first tier answers: `ask`, or another request like this one that is asking already, until then."""

    def instead(self) -> Replay | None:
        """A kept answer in place of one that the tiers before have failed to give."""


class Chain:
    """Walks the tiers of one revision. `check` raises MalformedError for a whole answer that is none; `hold_back`: seconds, of streams."""

    def __init__(
        self,
        tiers: Sequence[AnyTier],
        *,
        client: Client,
        gate: TargetGate,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        check: Callable[[bytes], None] = check_whole,
        hold_back: float = 0.0,
        allowance: Allowance | None = None,
        desk: TicketDesk | None = None,
    ) -> None:
        self._tiers = tiers
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._desk = desk
        self._first_model = next((t.model for t in tiers if isinstance(t, ModelTier)), STATIC_MODEL)
        self._engines = {t.name: RuleEngine(t.rules, headers=t.headers) for t in tiers if isinstance(t, RulesTier)}
        self._hedges = any(isinstance(t, ModelTier) and t.hedge_after is not None for t in tiers[:-1])
        self._paces = Paces(clock=clock)
        self._hold_back = hold_back
        self._allowance = allowance
        answering = [position for position, tier in enumerate(tiers) if isinstance(tier, ModelTier | StaticTier)]
        self._last = answering[-1] if answering else 0
        self._closing: set[asyncio.Task[None]] = set()
        self._upstreams = {t.name: Upstream(t, client=client, clock=clock, check=check) for t in tiers if isinstance(t, ModelTier)}

    async def answer(self, request: ChatRequest, *, trace: Trace, walk: Walk, cache: Cache | None = None) -> Answered | Exhausted:
        """The first good answer. `walk` is filled in as it goes, so that it tells the truth also when the caller leaves.

        `cache`: set where a tier is one.
        """
        ask = partial(self._ask, request=request, trace=trace, walk=walk, cache=cache)
        if not self._hedges:
            return await self._walk(request, walk=walk, cache=cache, reach=partial(_in_turn, ask))
        starts: HeadStarts[Answered | Failure] = HeadStarts(
            Course(
                ask, patience=self._patience, after=partial(self._after, request=request, walk=walk), is_good=_is_good, let_go=self._let_go
            )
        )
        given: Answered | Exhausted | None = None
        try:
            given = await self._walk(request, walk=walk, cache=cache, reach=starts.reach)
            return given
        finally:
            starts.end(given)
            for beside, begun in starts.begun if given is not None else ():
                won = isinstance(given, Answered) and given.tier == self._tiers[begun].name
                self._metrics.count_hedge(self._tiers[beside].name, to=self._tiers[begun].name, won=won)

    async def _walk(
        self,
        request: ChatRequest,
        *,
        walk: Walk,
        cache: Cache | None,
        reach: Callable[[int], Awaitable[tuple[int, Answered | Failure]]],
    ) -> Answered | Exhausted:
        too_long: Answered | None = None  # what the last tier that was asked says, where the request does not fit into it
        for position, tier in enumerate(self._tiers):
            if too_long is not None and isinstance(tier, StaticTier | RulesTier | HumanTier):
                return too_long
            reached = await self._reach(position, request=request, walk=walk, cache=cache, reach=reach)
            if isinstance(reached, Answered):
                if not self._has_larger(position, answer=reached.answer):
                    if position == 0:  # of one that was not waited for nothing is known
                        walk.first_tier = FirstTier.SKIPPED if walk.hedged else FirstTier.ANSWERED
                    return reached
                too_long, walk.outgrown = reached, (reached.upstream and reached.upstream.window) or 0
                if position == 0:
                    walk.first_tier = FirstTier.SKIPPED  # also for who has waited for another that asked the same
                reached = Failure(FailureMode.PROMPT_ERROR, f"the request does not fit into tier `{tier.name}`")
            elif reached.mode not in NOT_FOR_THIS:
                too_long = None  # a larger one could have taken it, and failed
            walk.failures.append(reached)
            if reached.final:
                return Exhausted(reached)
            if position + 1 < len(self._tiers):
                walk.hand_offs += 1
                self._metrics.count_handoff(tier.name, to=self._tiers[position + 1].name, mode=reached.mode)
        return too_long or Exhausted(next((f for f in walk.failures if f.mode not in NOT_FOR_THIS), walk.failures[0]))

    async def _reach(
        self,
        position: int,
        *,
        request: ChatRequest,
        walk: Walk,
        cache: Cache | None,
        reach: Callable[[int], Awaitable[tuple[int, Answered | Failure]]],
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
                if (unfit := self._barred(tier, request=request, walk=walk)) is not None:
                    return unfit
                whose, reached = await reach(position)
                walk.hedged = whose != position
                return reached
            case _:
                assert_never(tier)

    async def _ask(self, position: int, *, request: ChatRequest, trace: Trace, walk: Walk, cache: Cache | None) -> Answered | Failure:
        """What the model tier at `position` gives."""
        tier, started = self._tiers[position], self._clock()
        assert isinstance(tier, ModelTier)
        ask = partial(self._try, tier, request=request, trace=trace, walk=walk)
        until = content_deadline(tier, now=started, budget_end=walk.started + walk.budget)
        result = await (cache.ask_first(ask, until=until, walk=walk) if cache is not None and position == 0 else ask())
        if isinstance(result, Failure):
            return result
        return Answered(tier=tier.name, model=tier.model, answer=result, upstream=tier, attempt_started=started)

    def _barred(self, tier: ModelTier, *, request: ChatRequest, walk: Walk) -> Failure | None:
        """Why a tier is not asked now."""
        unfit = _unfit(tier, request=request, walk=walk)
        if unfit is None and self._allowance is not None and self._allowance.bars(tier.name):
            said = f"the allowance of tokens of tier `{tier.name}` is used up"
            return Failure(FailureMode.RESOURCE_EXHAUSTION, said, 429, final=self._allowance.settings.refuses)
        return unfit

    def _patience(self, position: int) -> float | None:
        tier = self._tiers[position]
        return tier.hedge_after if isinstance(tier, ModelTier) else None

    def _after(self, position: int, *, request: ChatRequest, walk: Walk) -> int | None:
        """The next model tier that an attempt at can begin now."""
        for later in range(position + 1, len(self._tiers)):
            tier = self._tiers[later]
            if isinstance(tier, ModelTier) and self._barred(tier, request=request, walk=walk) is None and self._gate.admits(tier.name):
                return later
        return None

    def _let_go(self, reached: Answered | Failure) -> None:
        """It answered too late to be of use."""
        if isinstance(reached, Answered) and isinstance(reached.answer, Streaming):
            closing = asyncio.create_task(reached.answer.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _hand_on(self, tier: HumanTier, *, request: ChatRequest, walk: Walk) -> Answered | Failure:
        """Open a ticket. None for a probe's request, which no person waits for the answer of."""
        started = self._clock()
        if request.synthetic or self._desk is None:
            return walk.failures[-1]
        if walk.allowed is not None and tier.jurisdiction not in walk.allowed:
            return _abroad(tier)
        asking = Asking(request.identity, request.question, request.history, request.values, request.languages, walk.failures[0].mode.value)
        with walk.wait(self._clock):
            opened = await self._desk.open(asking, within=walk.started + walk.budget - started)
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
        return max(later, default=0) > tier.window and is_overflow(answer.status, answer.body)

    async def _try(self, tier: ModelTier, *, request: ChatRequest, trace: Trace, walk: Walk) -> Whole | Streaming | PassedBack | Failure:
        started = self._clock()
        content_by = content_deadline(tier, now=started, budget_end=walk.started + walk.budget)
        if content_by <= started:
            return Failure(FailureMode.LATENCY_BREACH, f"no time was left for tier `{tier.name}`")
        if not self._is_in_time(tier, left=walk.started + walk.budget - started, walk=walk, stream=request.wanted.stream):
            self._metrics.count_passed_over(tier.name)
            return Failure(FailureMode.LATENCY_BREACH, f"tier `{tier.name}` has lately needed more time than was left")
        attempt = partial(self._attempt, tier, request=request, trace=trace, walk=walk, content_by=content_by, hold_back=self._hold_back)
        result = await attempt()
        for _ in range(tier.retries):
            if not (isinstance(result, Failed) and result.safe_to_retry) or self._clock() >= content_by:
                break
            again = await attempt()
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
            walk.first_tier = _became(result, mode=failure.mode)
        return failure

    async def _attempt(
        self,
        tier: ModelTier,
        *,
        request: ChatRequest,
        trace: Trace,
        walk: Walk,
        content_by: float,
        hold_back: float = 0.0,
    ) -> Whole | Streaming | PassedBack | Failed | LeftAlone:
        permit = self._gate.enter(tier.name)
        if isinstance(permit, LeftAlone):
            return permit
        walk.attempts += 1
        walk.asked.add(tier.name)
        came: Whole | Streaming | PassedBack | Failed | None = None
        result: Whole | Streaming | PassedBack | Failed | None = None
        told, started, took = trace.ask(tier, request=request), self._clock(), 0.0
        try:
            with walk.wait(self._clock):
                came = await self._upstreams[tier.name].attempt(
                    request.for_model(tier.model, asks_usage=tier.asks_usage),
                    trace=told.headers,
                    wanted=request.wanted,
                    content_by=content_by,
                )
                took = self._clock() - started
                if hold_back and isinstance(came, Streaming):
                    result = await held_back(came, tier=tier.name, until=min(self._clock() + hold_back, content_by), clock=self._clock)
                else:
                    result = came
            return result
        finally:
            lesson = None if walk.hurried and _is_late(result) else result
            settle = partial(
                self._settle, tier, permit=permit, came=came, seconds=took, stream=request.wanted.stream, result=result, lesson=lesson
            )
            if isinstance(result, Whole | Streaming):
                asyncio.get_running_loop().call_soon(settle)  # nobody asks before the loop's next turn, and by then it is on its way
            else:
                settle()
            told.came(result, seconds=took)

    def _settle(
        self,
        tier: ModelTier,
        *,
        permit: Permit,
        came: Whole | Streaming | PassedBack | Failed | None,
        seconds: float,
        stream: bool,
        result: Whole | Streaming | PassedBack | Failed | None,
        lesson: Whole | Streaming | PassedBack | Failed | None,
    ) -> None:
        """What an attempt teaches, and how it counts. `came`: what the target gave, after so long; `result`: what was made of it."""
        if came is not None:
            self._learn_pace(tier, result=came, seconds=seconds, stream=stream)
        self._gate.leave(tier.name, permit=permit, result=lesson)
        self._metrics.count_attempt(tier.name, outcome=outcome_of(result))

    def _is_in_time(self, tier: ModelTier, *, left: float, walk: Walk, stream: bool) -> bool:
        """Whether what is left of the budget is enough, by how long the tier has lately taken.

        With all of the policy's budget the first tier always tries: how late it may be its breaker decides. And there must be another
        one to answer.
        """
        if (tier is self._tiers[0] and not walk.hurried) or tier is self._tiers[self._last]:
            return True
        return self._paces.fits(tier.name, stream=stream, seconds=left)

    def _learn_pace(self, tier: ModelTier, *, result: Whole | Streaming | PassedBack | Failed, seconds: float, stream: bool) -> None:
        if isinstance(result, Whole | Streaming):
            self._paces.of(tier.name, stream=stream).came(seconds)
        elif _is_late(result):
            self._paces.of(tier.name, stream=stream).was_late(seconds)

    def behind(self, tier: ModelTier, *, request: ChatRequest, walk: Walk) -> list[ModelTier]:
        """The model tiers that may finish what `tier` has begun, in order."""
        later = self._tiers[self._tiers.index(tier) + 1 :]
        return [t for t in later if isinstance(t, ModelTier) and self._barred(t, request=request, walk=walk) is None]

    async def finish(self, tier: ModelTier, request: ChatRequest, *, trace: Trace, walk: Walk) -> Streaming | None:
        """A stream of a tier that goes on with another's answer. Its caller waits for as long as for any other piece."""
        content_by = self._clock() + tier.stall
        result = await self._attempt(tier, request=request, trace=trace, walk=walk, content_by=content_by)
        return result if isinstance(result, Streaming) else None


async def _in_turn(ask: Callable[[int], Awaitable[Answered | Failure]], position: int) -> tuple[int, Answered | Failure]:
    """One tier, with nobody beside it."""
    return position, await ask(position)


def _is_good(reached: Answered | Failure) -> bool:
    return isinstance(reached, Answered) and not isinstance(reached.answer, PassedBack)


def _unfit(tier: ModelTier, *, request: ChatRequest, walk: Walk) -> Failure | None:
    """Why a tier is not asked: it may not be, or it makes no sense."""
    if walk.allowed is not None and tier.jurisdiction not in walk.allowed:
        return _abroad(tier)
    if walk.outgrown and (tier.window or 0) <= walk.outgrown:
        return Failure(FailureMode.PROMPT_ERROR, f"the request does not fit into tier `{tier.name}`")
    lacking = tier.lacks(request.needs) if request.needs else ()
    if lacking:
        return Failure(FailureMode.PROMPT_ERROR, f"tier `{tier.name}` is not offered for {', '.join(sorted(lacking))}")
    return None


def _abroad(tier: ModelTier | HumanTier) -> Failure:
    return Failure(FailureMode.POLICY_VIOLATION, f"tier `{tier.name}` is outside of the jurisdictions that the request may be sent to")


def content_deadline(tier: ModelTier, *, now: float, budget_end: float) -> float:
    """Until when a tier may bring content: its own time from now, or what the budget leaves after the later tiers' times; never after all
    of its time.
    """
    if tier.first_token is None:
        return min(budget_end - tier.reserved, now + tier.total)
    return min(now + tier.first_token, budget_end, now + tier.total)


def _became(result: Failed | LeftAlone, *, mode: FailureMode) -> FirstTier:
    """How the first tier counts that gave nothing. What its breaker does not count says nothing of the revision either."""
    if isinstance(result, Failed) and result.blameless:
        return FirstTier.SKIPPED
    return FirstTier.LATE if mode is FailureMode.LATENCY_BREACH else FirstTier.FAILED


def _is_late(result: Whole | Streaming | PassedBack | Failed | None) -> bool:
    return isinstance(result, Failed) and result.failure.mode is FailureMode.LATENCY_BREACH


def outcome_of(result: Whole | Streaming | PassedBack | Failed | None) -> str:
    """How an attempt counts; None: nobody waited for it any more."""
    match result:
        case Whole() | Streaming():
            return "success"
        case PassedBack():
            return "passed_back"
        case Failed():
            return result.failure.reason
        case None:
            return "cancelled"
