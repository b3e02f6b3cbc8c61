"""Which requests are bad, of which: the indicators of the SLOs over the counters that the entry pods keep.

`cancelled` requests and the caller's own errors are in none of them. What is said of the first tier counts against the
revision even where a later tier answered in time: a chain that hides a slow or failing model still shows it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import assert_never

from ..api.fallbackpolicy import Indicator
from ..api.metricnames import (
    ASKED_A_MODEL,
    FEEDBACK_TOTAL,
    GROUNDED_TOTAL,
    JUDGED_OUTCOMES,
    SENT_TOTAL,
    SERVED_SECONDS,
    SERVED_TOKENS,
    SERVED_TOTAL,
    SERVED_USAGE,
    FeedbackLabel,
    FirstTier,
    Outcome,
    QualityLabel,
    TokenType,
    UsageType,
)
from .deltas import Counted
from .objective import LatencyLimit, Objective, OwnCounters, OwnHistogram, TargetPrice
from .reading import Counts
from .rule import BoundCounts
from .samples import Counter
from .sequential.mean import Sum

SECONDS_COUNT = f"{SERVED_SECONDS}_count"
SECONDS_BUCKET = f"{SERVED_SECONDS}_bucket"
# What an SLO's own counters are called here, whatever their own names are.
OWN_BAD = "promQL.bad"
OWN_TOTAL = "promQL.total"


def counts_of(objective: Objective, *, counted: Counted, revision: str, beside: bool = False) -> Counts | None:
    """Bad and judged requests of one revision; None where there is no total. A bad series that is missing is zero bad.

    `beside`: to be compared with those of another revision, so only of those that a model was asked for: a canary begins with cold caches.
    """
    cold = beside or objective.above_stable
    match objective.indicator:
        case Indicator.LATENCY:
            assert objective.latency is not None, "a Latency objective has its limit"
            return _latency(objective.latency, counted=counted, revision=revision, cold=cold)
        case Indicator.ERROR_RATE:
            return _share(
                counted,
                revision=revision,
                judged=lambda c: c.outcome in JUDGED_OUTCOMES and (c.cache in ASKED_A_MODEL or not cold),
                bad=_is_error,
            )
        case Indicator.FALLBACK_RATE:
            # Answers that the cache gave at once say nothing about the chain.
            return _share(
                counted,
                revision=revision,
                judged=lambda c: c.outcome == Outcome.SUCCESS and c.cache in ASKED_A_MODEL,
                bad=lambda c: c.first_tier != FirstTier.ANSWERED,
            )
        case Indicator.HALLUCINATION_RATE:
            judged = [(c, n) for c, n in counted.get((GROUNDED_TOTAL, revision), ()) if c.scorers == objective.scorers]
            return _labelled(judged, bad=QualityLabel.FAIL, good=(QualityLabel.PASS,))
        case Indicator.NEGATIVE_FEEDBACK_RATE:
            told = counted.get((FEEDBACK_TOTAL, revision), ())
            return _labelled(told, bad=FeedbackLabel.NEGATIVE, good=(FeedbackLabel.POSITIVE, FeedbackLabel.NEUTRAL))
        case Indicator.TOKENS_PER_REQUEST | Indicator.COST_PER_REQUEST:
            raise AssertionError("of a mean nothing is bad: its sums are asked for")
        case None:
            assert objective.counters is not None, "an objective without an indicator has counters of its own"
            return _own(objective.counters, counted=counted, revision=revision)
    assert_never(objective.indicator)


def sum_of(objective: Objective, *, counted: Counted, revision: str) -> tuple[Sum, int]:
    """What requests of one revision came to, and how many more there were of which that is not known: models say so, and the policy what
    they cost.
    """
    assert objective.mean is not None, "only means are sums"
    prices = None if objective.mean.prices is None else {price.target: price for price in objective.mean.prices}
    amount, requests, unknown = 0.0, 0.0, 0.0
    for counter, n in counted.get((SERVED_USAGE, revision), ()):
        if counter.type == UsageType.KNOWN and (prices is None or counter.target in prices):
            requests += n
        else:
            unknown += n
    for counter, n in counted.get((SERVED_TOKENS, revision), ()):
        if prices is None:
            amount += n
        elif counter.target in prices:
            amount += n * _price(prices[counter.target], kind=counter.type)
    return Sum(amount=amount, requests=round(requests)), round(unknown)


def judged_requests(counted: Counted, *, revision: str) -> int:
    """Requests of a revision with an outcome that is judged."""
    return _sum(n for c, n in counted.get((SERVED_TOTAL, revision), ()) if c.outcome in JUDGED_OUTCOMES)


def sent_requests(counted: Counted, *, revision: str) -> int:
    """Requests that entry pods sent to a revision, whether or not they ever ended."""
    return _sum(n for _, n in counted.get((SENT_TOTAL, revision), ()))


def missing_bound(limit: LatencyLimit, *, targets: Iterable[Mapping[Counter, float]], revision: str) -> tuple[float, ...] | None:
    """None when every target that has counted answers of the revision has a bucket at the limit; else the bounds of one that has not.

    Each target by itself: pods of two revisions have different buckets, and those that count are not those that serve. Without any bounds
    where it is the histogram that is missing: what scrapes may leave it out, or keep it in another form.
    """
    for target in targets:
        mine = [(counter, value) for counter, value in target.items() if counter.revision == revision]
        if any(value > 0 and (c.metric == SECONDS_COUNT or c.outcome == Outcome.SUCCESS) for c, value in mine):
            bounds = {c.le for c, _ in mine if c.metric == SECONDS_BUCKET and c.le is not None and math.isfinite(c.le)}
            if limit.seconds not in bounds:
                return tuple(sorted(bounds))
    return None


def counts_over(bounds: Sequence[float], *, targets: Iterable[Counted], canary: str, stable: str) -> tuple[BoundCounts, ...]:
    """Requests of both arms over each latency bound (seconds), of those that a model was asked for: a canary begins with cold caches.

    Of a target that lacks a bound for a revision, none of that revision's are counted there: what is over it is not known.
    """
    wanted = frozenset(bounds)
    totals = {(revision, bound): 0.0 for revision in (canary, stable) for bound in bounds}
    in_time = dict(totals)
    for target in targets:
        for revision in (canary, stable):
            has: set[float] = set()
            for counter, n in target.get((SECONDS_BUCKET, revision), ()):
                if counter.le is not None and counter.le in wanted and counter.cache in ASKED_A_MODEL:
                    has.add(counter.le)
                    in_time[revision, counter.le] += n if counter.first_tier != FirstTier.LATE else 0.0
            count = sum(n for c, n in target.get((SECONDS_COUNT, revision), ()) if c.cache in ASKED_A_MODEL)
            for bound in has:
                totals[revision, bound] += count

    def over(revision: str, bound: float) -> Counts:
        total = round(totals[revision, bound])
        return Counts(bad=max(0, total - round(in_time[revision, bound])), total=total)

    return tuple(BoundCounts(over(canary, bound), stable=over(stable, bound)) for bound in bounds)


def _latency(limit: LatencyLimit, *, counted: Counted, revision: str, cold: bool) -> Counts | None:
    """`cold`: of those that a model was asked for."""
    buckets = [(c, n) for c, n in counted.get((SECONDS_BUCKET, revision), ()) if c.le == limit.seconds]
    answered = counted.get((SECONDS_COUNT, revision), ())
    if cold:
        buckets, answered = _asked(buckets), _asked(answered)
    if not answered or not buckets:
        return None
    in_time = _sum(n for c, n in buckets if c.first_tier != FirstTier.LATE)
    total = _sum(n for _, n in answered)
    return Counts(bad=max(0, total - in_time), total=total)


def _asked(counted: Iterable[tuple[Counter, float]]) -> list[tuple[Counter, float]]:
    """What counts those that a model was asked for."""
    return [(c, n) for c, n in counted if c.cache in ASKED_A_MODEL]


def _share(counted: Counted, *, revision: str, judged: Callable[[Counter], bool], bad: Callable[[Counter], bool]) -> Counts | None:
    served = counted.get((SERVED_TOTAL, revision))
    if not served:
        return None
    total = [(c, n) for c, n in served if judged(c)]
    return Counts(bad=_sum(n for c, n in total if bad(c)), total=_sum(n for _, n in total))


def _labelled(mine: Sequence[tuple[Counter, float]], *, bad: str, good: Sequence[str]) -> Counts | None:
    """What has one of these labels; any other says nothing of the revision, such as one of a newer gateway."""
    if not mine:
        return None
    return Counts(bad=_sum(n for c, n in mine if c.label == bad), total=_sum(n for c, n in mine if c.label in (bad, *good)))


def _own(counters: OwnCounters | OwnHistogram, *, counted: Counted, revision: str) -> Counts | None:
    totals, bads = ([n for c, n in counted.get((metric, revision), ()) if c.part == counters.part] for metric in (OWN_TOTAL, OWN_BAD))
    if not totals:
        return None
    # Two processes may count the two; what is bad and not yet among the total is no evidence.
    return Counts(bad=min(_sum(bads), _sum(totals)), total=_sum(totals))


def _price(price: TargetPrice, *, kind: str) -> float:
    """Of one token."""
    match kind:
        case TokenType.INPUT:
            return price.input
        case TokenType.OUTPUT:
            return price.output
        case _:
            return math.nan  # of a newer gateway: what it comes to is not known


def _is_error(counter: Counter) -> bool:
    return counter.outcome in (Outcome.ERROR, Outcome.TRUNCATED) or counter.first_tier == FirstTier.FAILED


def _sum(counts: Iterable[float]) -> int:
    return round(sum(counts))
