"""The metrics loops: while canaries have traffic, one batched question per source and evaluation, and each policy gets its readings.

Knows which policies are live, because a pass says so. Readings belong to a source, a revision and a step: what was read in another step
never counts as healthy in this one, and what another source said counts as nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, assert_never

from ..analysis.objective import GATEWAYS, Objective, objectives_of
from ..analysis.policy import Evaluation, LivePolicy, Told
from ..analysis.queries import poll_seconds
from ..analysis.reading import Breached, Healthy, SLOReading, Unknown, Waiting
from ..analysis.state import AnalysisState, UnreadableState, is_of_version_before, pack, unpack, with_source
from ..analysis.tick import Answer, Evaluator, EvaluatorEnded, Newest, NotEvaluated, NothingNew, Question, Quiet
from ..analysis.unseen import unseen
from ..api.fallbackpolicy import Canary, FallbackPolicySpec
from ..api.reasons import Reason
from ..rollout.judged import judged
from ..rollout.place import CanaryPlace, Place
from ..telemetry.log import fields
from .keys import PolicyKey
from .wanted import source_not_found

# While only counts change, they are told this often: each time is a pass and a write of status. Well inside of the time for which
# counters are read again, so that a restart loses nothing.
JUDGED_SECONDS: Final = 30.0
WATCHED_SECONDS: Final = 60.0  # a stable that is watched for long, and where very many are live
TOLD_PER_SECOND: Final = 16
# As long as the steps of a policy that declares none: holds of nothing are waited out all the same, for approvals and for requests.
SHORTEST_PLAN_SECONDS: Final = float(sum(step.holdSeconds for step in Canary().steps))
# How long what evaluates is kept while nothing is live: the next canary often comes soon.
KEPT_SECONDS: Final = 300.0

# Ticks at the same time, each in a process of its own. Of policies with own counters, in each but the last some have selectors that take
# long. Of the others the first takes long where a thousand are evaluated, and what becomes due meanwhile has the second.
OWN_TICKS: Final = 4
GATEWAY_TICKS: Final = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judgement:
    """The latest evaluation of a policy that is told, made at `at` from the samples of `source`. `since`: start of what it judged;
    `analysis`: the packed state, once there is one to keep; `requests`: judged requests of all steps, None where none could be counted.
    """

    canary: str
    stable: str
    objectives: tuple[Objective, ...]
    since: float | None
    at: float
    readings: tuple[SLOReading, ...]
    analysis: str | None
    requests: int | None
    source: str


def live_policy(key: PolicyKey, *, spec: FallbackPolicySpec, place: Place, state: AnalysisState) -> LivePolicy | None:
    """What is to be judged at this place; None when nothing is: no canary, no traffic to it, or no objective."""
    subject = judged(place, policy=spec)
    if subject is None:
        return None
    return LivePolicy(
        namespace=key.namespace,
        name=key.name,
        source=spec.metricsSource,
        canary=subject.revision,
        stable=subject.beside,
        objectives=objectives_of(spec),
        since=subject.since,
        state=state,
        from_zero=subject.from_zero,
        watched=subject.watched,
        share=place.canary.weight / 100 if place.canary is not None else None,
        planned_seconds=max(SHORTEST_PLAN_SECONDS, float(sum(step.holdSeconds for step in spec.canary.steps))),
    )


def readings_for(place: Place, *, spec: FallbackPolicySpec, judgement: Judgement | None, sources: frozenset[str]) -> tuple[SLOReading, ...]:
    """The readings that hold at this place. A breach outlives a change of step; health does not, and nothing a change of source.

    `sources`: names of those that are configured; of one that is not, nothing can be known.
    """
    subject = judged(place, policy=spec)
    if subject is None:
        return ()
    if spec.metricsSource not in sources:
        why = source_not_found(spec.metricsSource, sources=sources)
        return unseen(objectives_of(spec), why=why, reason=Reason.METRICS_SOURCE_NOT_FOUND)
    if judgement is None or (judgement.canary, judgement.stable) != (subject.revision, subject.beside):
        return ()
    if judgement.source != spec.metricsSource:
        return ()
    if judgement.objectives != objectives_of(spec):
        return ()  # an edited objective is judged anew: what was healthy by the old limit says nothing
    if judgement.since == subject.since:
        return judgement.readings
    fewest = {slo.name: slo.minRequests for slo in spec.slos}
    return tuple(
        replace(r, state=Waiting(fewest.get(r.name, 1)), step_requests=0, promotable=False) if isinstance(r.state, Healthy | Waiting) else r
        for r in judgement.readings
    )


def requests_of(canary: CanaryPlace | None, *, judgement: Judgement | None) -> int | None:
    """Judged requests of this canary in the whole rollout; None where that is not known."""
    return judgement.requests if canary is not None and judgement is not None and judgement.canary == canary.revision.name else None


class Judging:
    """Two loops per source. `wake(key, urgent)` is called when a policy has new readings."""

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        *,
        wake: Callable[[PolicyKey, bool], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._evaluators = evaluators
        self._wake = wake
        self._clock = clock
        self._jitter = jitter
        self._live: dict[PolicyKey, LivePolicy] = {}
        # What each policy's readings were last made from: the policy without its state, and the newest samples.
        self._evaluated: dict[PolicyKey, tuple[LivePolicy, Newest]] = {}
        # Where its evaluation has gone on since its state was told. Nobody here looks into it.
        self._went_on: dict[PolicyKey, bytes] = {}
        self._judgements: dict[PolicyKey, Judgement] = {}
        self._due: dict[PolicyKey, float] = {}
        self._asked: set[PolicyKey] = set()  # with a question under way
        self._changed = asyncio.Event()

    def judgement(self, key: PolicyKey) -> Judgement | None:
        """The latest evaluation, if the policy is live and was evaluated."""
        return self._judgements.get(key)

    def watch(self, key: PolicyKey, *, spec: FallbackPolicySpec, place: Place, analysis: str | None) -> None:
        """From now on judge the policy at this place. `analysis`: the packed state in status, to go on from after a restart."""
        known = self._live.get(key)
        live = live_policy(key, spec=spec, place=place, state=known.state if known else _unpacked(analysis))
        if live is None:
            self.forget(key)
            return
        if known is not None and (live.canary, live.stable) != (known.canary, known.stable):
            # Nothing that was found of one pair of revisions outlives it: the same pair may come back, with clean counters.
            self.forget(key)
            live = replace(live, state=AnalysisState())
        elif known is not None and live.source != known.source:
            # When it is asked again, what it said before is no news.
            self.forget(key)
        if live.source in self._evaluators:  # else nothing is counted, and what was goes on when its source is named again
            live = replace(live, state=with_source(live.state, source=live.source))
        if live != known:
            self._live[key] = live
            self._due.pop(key, None)
            self._changed.set()

    def forget(self, key: PolicyKey) -> None:
        """The policy is not judged any more."""
        self._live.pop(key, None)
        self._evaluated.pop(key, None)
        self._went_on.pop(key, None)
        self._judgements.pop(key, None)
        self._due.pop(key, None)

    async def run(self, source: str) -> None:
        """Evaluate the source's live policies for ever, once per poll interval; ask nothing while there are none.

        Those with counters of their own have ticks of their own, several at the same time: how long an author's selectors take holds up
        nobody else.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for own in (False, True):
                    tasks.create_task(self._ticks(source, own=own))
        finally:
            await self._evaluators[source].rest()

    async def _ticks(self, source: str, *, own: bool) -> None:
        evaluator, running = self._evaluators[source], set[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as ticks:
            while True:
                live = {key: policy for key, policy in self._live.items() if policy.source == source and _has_own(policy) is own}
                if not live and not running:
                    await self._until_live(source)
                    continue
                now = self._clock()
                interval = evaluator.scrape_interval
                free = {key: policy for key, policy in live.items() if key not in self._asked}
                due = {key: policy for key, policy in free.items() if self._is_due(key, now=now, interval=interval)}
                if due and len(running) < (OWN_TICKS if own else GATEWAY_TICKS):
                    tick = ticks.create_task(self._tick(evaluator, due=due))
                    running.add(tick)
                    tick.add_done_callback(running.discard)
                await asyncio.sleep(poll_seconds(interval) * (1 - self._jitter() / 10))

    def _is_due(self, key: PolicyKey, *, now: float, interval: float) -> bool:
        """Nothing is due later than a scrape from now: what says so is from before the clock was set back."""
        return not now < self._due.get(key, now) <= now + interval

    async def _until_live(self, source: str) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(KEPT_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            # Whoever called looks again: what becomes live meanwhile is told of once, and the loop of another source may hear it first.
            if not any(policy.source == source for policy in self._live.values()):
                await self._evaluators[source].rest()

    async def _tick(self, evaluator: Evaluator, *, due: Mapping[PolicyKey, LivePolicy]) -> None:
        waiting = dict(due)
        self._asked |= due.keys()
        questions = [self._question(key, policy=policy) for key, policy in due.items()]
        try:
            async for answers in evaluator.evaluate(questions):
                for answer in answers:
                    key = PolicyKey(answer.namespace, answer.name)
                    self._asked.discard(key)
                    self._learn(key, policy=waiting.pop(key), answer=answer)
                    await asyncio.sleep(0)  # a large state takes milliseconds to pack, and a route may be waiting
        except EvaluatorEnded as ended:
            _log.error(str(ended), extra=fields(policies=len(waiting)))
            for key, policy in waiting.items():
                if (present := self._live.get(key)) is not None and present.source == policy.source:
                    self._blind(key, why=str(ended))
        finally:
            self._asked -= waiting.keys()

    def _question(self, key: PolicyKey, *, policy: LivePolicy) -> Question:
        before, same = self._before(key, policy=policy)
        told = None
        if before is not None and same:
            quiet = WATCHED_SECONDS if policy.watched else quiet_seconds(len(self._live))
            told = Told(tuple(reading.standing for reading in before.readings), until=before.at + quiet)
        return Question(policy, seen=self._seen(key, policy=policy), told=told, went_on=self._went_on.get(key))

    def _before(self, key: PolicyKey, *, policy: LivePolicy) -> tuple[Judgement | None, bool]:
        """What was told of this pair of revisions, and whether of the same step and objectives."""
        before = self._judgements.get(key)
        if before is None or (before.canary, before.stable) != (policy.canary, policy.stable):
            return None, False
        return before, (before.since, before.objectives) == (policy.since, policy.objectives)

    def _seen(self, key: PolicyKey, *, policy: LivePolicy) -> Newest | None:
        question, newest = self._evaluated.get(key, (None, None))
        return newest if question == replace(policy, state=AnalysisState()) else None

    def _blind(self, key: PolicyKey, *, why: str) -> None:
        """Nothing can be said of any objective, as where the source does not answer. Told once; the same samples are evaluated again."""
        policy = self._live.get(key)
        self._evaluated.pop(key, None)
        if policy is None:
            return
        before, same = self._before(key, policy=policy)
        readings = _settled(unseen(policy.objectives, why=why), before=before.readings if before and same else ())
        if before and same and readings == before.readings:
            return
        analysis, requests = (before.analysis, before.requests) if before else (None, None)
        now = self._clock()
        after = Judgement(policy.canary, policy.stable, policy.objectives, policy.since, now, readings, analysis, requests, policy.source)
        self._judgements[key] = after
        self._wake(key, False)

    def _learn(self, key: PolicyKey, *, policy: LivePolicy, answer: Answer) -> None:
        present = self._live.get(key)
        if present is None or replace(present, state=policy.state) != policy:
            return  # it went on meanwhile; the next answer is for where it is now
        self._due[key] = answer.due
        match answer.found:
            case NothingNew():
                pass
            case Quiet(state):
                self._went_on[key] = state
                self._evaluated[key] = (replace(policy, state=AnalysisState()), answer.newest)
            case NotEvaluated(why):
                _log.error("the evaluation failed", extra=fields(namespace=key.namespace, policy=key.name, error=why))
                self._blind(key, why="the evaluation failed; the log of the operator says how")
            case Evaluation():
                self._judge(key, policy=policy, result=answer.found, newest=answer.newest, now=answer.at)
            case _:
                assert_never(answer.found)

    def _judge(self, key: PolicyKey, *, policy: LivePolicy, result: Evaluation, newest: Newest, now: float) -> None:
        self._evaluated[key] = (replace(policy, state=AnalysisState()), newest)
        self._live[key] = replace(policy, state=result.state)
        self._went_on.pop(key, None)
        before, same = self._before(key, policy=policy)
        readings = _settled(result.readings, before=before.readings if before and same else ())
        requests = result.state.requests if result.state.block_end is not None and GATEWAYS in policy.parts else None
        analysis = pack(result.state) if result.state.block_end is not None else before.analysis if before else None
        after = Judgement(policy.canary, policy.stable, policy.objectives, policy.since, now, readings, analysis, requests, policy.source)
        self._judgements[key] = after
        if before is None or replace(after, at=before.at) != before:
            self._wake(key, any(isinstance(r.state, Breached) for r in readings))


def quiet_seconds(live: int) -> float:
    """How long mere counts of a canary are not told, among so many live policies."""
    return min(max(JUDGED_SECONDS, live / TOLD_PER_SECOND), WATCHED_SECONDS)


def _has_own(policy: LivePolicy) -> bool:
    return any(part != GATEWAYS for part in policy.parts)


def _settled(readings: tuple[SLOReading, ...], *, before: tuple[SLOReading, ...]) -> tuple[SLOReading, ...]:
    """What cannot be seen is told as it was first told: ages and counts in the sentence are no news."""
    unseen = {(r.name, r.reason): r for r in before if isinstance(r.state, Unknown)}
    return tuple(unseen.get((r.name, r.reason), r) if isinstance(r.state, Unknown) else r for r in readings)


def _unpacked(analysis: str | None) -> AnalysisState:
    state = unpack(analysis) if analysis else AnalysisState()
    if isinstance(state, UnreadableState):
        _log.warning(state.sentence)
        return AnalysisState()
    if analysis and is_of_version_before(analysis):
        _log.info("`status.analysis` is of an older version: counting goes on, and SLOs with sequential tests begin them anew")
    return state
