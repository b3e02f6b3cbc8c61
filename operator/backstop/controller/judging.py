"""The metrics loops: while canaries have traffic, one batched question per source and evaluation, and each policy gets its readings.

Knows which policies are live, because a pass says so. Readings belong to a revision and to a step: what was read in another step
never counts as healthy in this one.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..analysis.due import due_at
from ..analysis.evaluation import evaluate, is_stale, newest_samples
from ..analysis.objective import GATEWAYS, Objective, objective_of
from ..analysis.policy import LivePolicy
from ..analysis.queries import poll_seconds
from ..analysis.reading import Breached, Healthy, SLOReading, Unknown, Waiting, state_name
from ..analysis.samples import Fetched
from ..analysis.source import MetricSource, fetch
from ..analysis.state import AnalysisState, UnreadableState, pack, unpack
from ..api.fallbackpolicy import FallbackPolicySpec
from ..rollout.judged import judged
from ..rollout.place import CanaryPlace, Place
from ..telemetry.log import fields
from .keys import PolicyKey

# While only counts change, they are told this often: each time is a pass and a write of status. Well inside of the time for which
# counters are read again, so that a restart loses nothing.
JUDGED_SECONDS: Final = 30.0
WATCHED_SECONDS: Final = 60.0  # a stable that is watched for long

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judgement:
    """The latest evaluation of a policy that is told, made at `at`. `since`: start of what it judged; `analysis`: the packed state, once
    there is one to keep; `requests`: judged requests of all steps, None where none could be counted.
    """

    canary: str
    stable: str
    objectives: tuple[Objective, ...]
    since: float | None
    at: float
    readings: tuple[SLOReading, ...]
    analysis: str | None
    requests: int | None = None


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
        objectives=tuple(objective_of(slo) for slo in spec.slos),
        since=subject.since,
        state=state,
        from_zero=subject.from_zero,
        watched=subject.watched,
    )


def readings_for(place: Place, *, spec: FallbackPolicySpec, judgement: Judgement | None) -> tuple[SLOReading, ...]:
    """The readings that hold at this place. A breach outlives a change of step; health does not."""
    subject = judged(place, policy=spec)
    if subject is None or judgement is None or (judgement.canary, judgement.stable) != (subject.revision, subject.beside):
        return ()
    if judgement.objectives != tuple(objective_of(slo) for slo in spec.slos):
        return ()  # an edited objective is judged anew: what was healthy by the old limit says nothing
    if judgement.since == subject.since:
        return judgement.readings
    fewest = {slo.name: slo.minRequests for slo in spec.slos}
    return tuple(
        replace(r, state=Waiting(fewest.get(r.name, 1)), step_requests=0) if isinstance(r.state, Healthy | Waiting) else r
        for r in judgement.readings
    )


def requests_of(canary: CanaryPlace | None, *, judgement: Judgement | None) -> int | None:
    """Judged requests of this canary in the whole rollout; None where that is not known."""
    return judgement.requests if canary is not None and judgement is not None and judgement.canary == canary.revision.name else None


class Judging:
    """One loop per source. `wake(key, urgent)` is called when a policy has new readings."""

    def __init__(
        self,
        sources: Mapping[str, MetricSource],
        *,
        wake: Callable[[PolicyKey, bool], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._sources = sources
        self._wake = wake
        self._clock = clock
        self._jitter = jitter
        self._live: dict[PolicyKey, LivePolicy] = {}
        # What each policy's readings were last made from: the policy without its state, and the newest samples.
        self._evaluated: dict[PolicyKey, tuple[LivePolicy, frozenset[tuple[str, float]]]] = {}
        self._judgements: dict[PolicyKey, Judgement] = {}
        self._due: dict[PolicyKey, float] = {}
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
        if live != known:
            self._live[key] = live
            self._due.pop(key, None)
            self._changed.set()

    def forget(self, key: PolicyKey) -> None:
        """The policy is not judged any more."""
        self._live.pop(key, None)
        self._evaluated.pop(key, None)
        self._judgements.pop(key, None)
        self._due.pop(key, None)

    async def run(self, source: str) -> None:
        """Evaluate the source's live policies for ever, once per poll interval; ask nothing while there are none."""
        one = {source: self._sources[source]}
        interval = self._sources[source].config.scrape_interval_seconds
        while True:
            live = {key: policy for key, policy in self._live.items() if policy.source == source}
            if not live:
                self._changed.clear()
                await self._changed.wait()
                continue
            asked = self._clock()
            live = {key: policy for key, policy in live.items() if self._due.get(key, asked) <= asked}
            fetched = await fetch(list(live.values()), sources=one, now=asked)
            for key, policy in live.items():
                answer = fetched[policy.namespace, policy.name]
                await self._evaluate(key, policy=policy, fetched=answer, interval=interval)
                if (after := self._live.get(key)) is not None and replace(after, state=policy.state) == policy:
                    self._due[key] = due_at(answer, state=after.state, now=asked, scrape_interval=interval)
            await asyncio.sleep(poll_seconds(interval) * (1 - self._jitter() / 10))

    async def _evaluate(self, key: PolicyKey, *, policy: LivePolicy, fetched: Fetched, interval: float) -> None:
        now = self._clock()
        question = (replace(policy, state=AnalysisState()), newest_samples(fetched))
        if question == self._evaluated.get(key) and not is_stale(fetched, now=now, scrape_interval=interval):
            return  # it is asked several times between two scrapes
        try:
            # In a thread: routes are shifted while it counts.
            result = await asyncio.to_thread(evaluate, fetched, policy=policy, now=now, scrape_interval=interval)
        except Exception:  # noqa: BLE001 - one policy's series must not end the judging of all others; without readings it holds
            _log.exception("the evaluation failed", extra=fields(namespace=key.namespace, policy=key.name))
            self._judgements.pop(key, None)
            self._wake(key, False)
            return
        present = self._live.get(key)
        if present is None or replace(present, state=policy.state) != policy:
            return  # it went on meanwhile; the next answer is for where it is now
        self._evaluated[key] = question
        self._live[key] = replace(policy, state=result.state)
        before = self._judgements.get(key)
        if before is not None and (before.canary, before.stable) != (policy.canary, policy.stable):
            before = None
        same = before is not None and (before.since, before.objectives) == (policy.since, policy.objectives)
        readings = _settled(result.readings, before=before.readings if before and same else ())
        quiet = WATCHED_SECONDS if policy.watched else JUDGED_SECONDS
        if before and same and now - before.at < quiet and _states(readings) == _states(before.readings):
            return
        requests = result.state.requests if result.state.block_end is not None and GATEWAYS in policy.parts else None
        analysis = pack(result.state) if result.state.block_end is not None else before.analysis if before else None
        after = Judgement(policy.canary, policy.stable, policy.objectives, policy.since, now, readings, analysis, requests)
        self._judgements[key] = after
        if before is None or replace(after, at=before.at) != before:
            self._wake(key, any(isinstance(r.state, Breached) for r in readings))


def _states(readings: tuple[SLOReading, ...]) -> list[tuple[str, str, str]]:
    """What a decision may follow from."""
    return [(reading.name, state_name(reading.state), reading.reason) for reading in readings]


def _settled(readings: tuple[SLOReading, ...], *, before: tuple[SLOReading, ...]) -> tuple[SLOReading, ...]:
    """What cannot be seen is told as it was first told: ages and counts in the sentence are no news."""
    unseen = {(r.name, r.reason): r for r in before if isinstance(r.state, Unknown)}
    return tuple(unseen.get((r.name, r.reason), r) if isinstance(r.state, Unknown) else r for r in readings)


def _unpacked(analysis: str | None) -> AnalysisState:
    state = unpack(analysis) if analysis else AnalysisState()
    if isinstance(state, UnreadableState):
        _log.warning(state.sentence)
        return AnalysisState()
    return state
