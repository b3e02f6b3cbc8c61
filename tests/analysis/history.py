"""Requests that gateway pods served → the samples that a scraper would have taken of them. Times are seconds."""

from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.policy import LivePolicy
from backstop.analysis.samples import Counter, Sample, Series
from backstop.analysis.state import AnalysisState
from backstop.api.fallbackpolicy import SLO, EvaluationRule, PromQL

BOUNDS = (0.1, 0.15, 0.2, 0.3)
ANSWERED = ("success", "truncated")


class Request(NamedTuple):
    """One request that ended at `at`. A tuple, as tests make a million of them."""

    at: float
    revision: str = "canary"
    seconds: float = 0.05
    outcome: str = "success"
    first_tier: str = "answered"


@dataclass(frozen=True)
class Pod:
    """One scrape target. It exists from `born` to `gone`, and its counters start at 0 again at each of `restarts`."""

    name: str
    requests: tuple[Request, ...]
    offset: float = 0.0
    born: float = 0.0
    gone: float = float("inf")
    restarts: tuple[float, ...] = ()
    missed: tuple[float, ...] = ()  # scrapes that failed


def scrape_times(pod: Pod, *, interval: float, until: float) -> list[float]:
    """When the pod was scraped, up to and including `until`."""
    times = (pod.offset + interval * i for i in range(int(until // interval) + 1))
    return [at for at in times if pod.born <= at <= min(until, pod.gone) and at not in pod.missed]


def scraped(pods: Iterable[Pod], *, interval: float, until: float) -> Sample:
    """All samples up to and including `until`."""
    series = []
    for pod in pods:
        points: dict[Counter, list[tuple[float, float]]] = {}
        ends: dict[tuple[Counter, ...], list[float]] = {}  # of requests, by the counters that each of them raises
        for request in sorted(pod.requests, key=lambda request: request.at):
            raised = _raised(request.revision, outcome=request.outcome, first_tier=request.first_tier, seconds=request.seconds)
            ends.setdefault(raised, []).append(request.at)
        for at in scrape_times(pod, interval=interval, until=until):
            begun = max((restart for restart in pod.restarts if restart <= at), default=float("-inf"))
            tally: Tally[Counter] = Tally()
            for raised, times in ends.items():
                if count := bisect_right(times, at) - bisect_right(times, begun):
                    tally.update(dict.fromkeys(raised, count))
                    # A histogram that has counted shows all of its buckets.
                    tally.update(dict.fromkeys(_buckets(raised), 0))
            for counter, value in tally.items():
                points.setdefault(counter, []).append((at, float(value)))
        series += [Series(target=pod.name, counter=counter, points=tuple(found)) for counter, found in points.items()]
    return Sample(tuple(series))


def visible(sample: Sample, *, until: float, after: float = float("-inf")) -> Sample:
    """The part of the samples in (after, until]."""
    parts = (Series(s.target, s.counter, tuple(point for point in s.points if after < point[0] <= until)) for s in sample.series)
    return Sample(tuple(part for part in parts if part.points))


@cache
def _raised(revision: str, *, outcome: str, first_tier: str, seconds: float) -> tuple[Counter, ...]:
    """The counters that such a request raises by one."""
    served = Counter("backstop_served_total", revision, "miss", outcome, first_tier)
    raised = (Counter("backstop_sent_total", revision), served)
    if outcome not in ANSWERED:
        return raised
    count = Counter("backstop_served_seconds_count", revision, "miss", "", first_tier)
    return (*raised, count, *(bucket for bucket in _buckets((count,)) if bucket.le is not None and seconds <= bucket.le))


@cache
def _buckets(raised: tuple[Counter, ...]) -> tuple[Counter, ...]:
    """The buckets of the histogram among these counters."""
    counts = (counter for counter in raised if counter.metric == "backstop_served_seconds_count")
    return tuple(counter._replace(metric="backstop_served_seconds_bucket", le=bound) for counter in counts for bound in BOUNDS)


def steady(
    start: float, end: float, *, per_second: float, revision: str = "canary", seconds: float = 0.05, outcome: str = "success"
) -> tuple[Request, ...]:
    """Evenly spaced requests in (start, end)."""
    count = round((end - start) * per_second)
    return tuple(Request(start + (i + 0.5) / per_second, revision=revision, seconds=seconds, outcome=outcome) for i in range(count))


def latency_objective(
    *, for_seconds: int = 30, min_requests: int = 20, milliseconds: int = 150, evaluation: EvaluationRule = EvaluationRule.THRESHOLD
) -> Objective:
    """p95 of the first byte within 150 ms."""
    return objective_of(
        SLO(
            name="latency",
            indicator="Latency",
            quantilePercent=95,
            maxMilliseconds=milliseconds,
            forSeconds=for_seconds,
            minRequests=min_requests,
            evaluation=evaluation,
        )
    )


def errors_objective(
    *, percent: str = "1", for_seconds: int = 0, min_requests: int = 20, evaluation: EvaluationRule = EvaluationRule.THRESHOLD
) -> Objective:
    """Errors of at most `percent` of all requests."""
    return objective_of(
        SLO(
            name="errors",
            indicator="ErrorRate",
            maxPercent=percent,
            forSeconds=for_seconds,
            minRequests=min_requests,
            evaluation=evaluation,
        )
    )


def live_policy(
    *objectives: Objective,
    since: float | None = 0.0,
    state: AnalysisState | None = None,
    canary: str = "canary",
    stable: str = "stable",
    share: float | None = None,
) -> LivePolicy:
    """A policy under judgement."""
    return LivePolicy(
        namespace="shop",
        name="support",
        source="default",
        canary=canary,
        stable=stable,
        objectives=objectives,
        since=since,
        state=state or AnalysisState(),
        share=share,
    )


def own_objective(
    *,
    percent: str = "1",
    for_seconds: int = 0,
    min_requests: int = 20,
    revision_label: str | None = None,
    name: str = "own",
    required: bool = True,
) -> Objective:
    """Failures of the author's own counters, of at most `percent` of all."""
    counters = PromQL(bad='jobs_total{state="failed"}', total="jobs_total", revisionLabel=revision_label)
    slo = SLO(name=name, promQL=counters, maxPercent=percent, forSeconds=for_seconds, minRequests=min_requests, required=required)
    return objective_of(slo.model_copy(update={"evaluation": EvaluationRule.THRESHOLD}))
