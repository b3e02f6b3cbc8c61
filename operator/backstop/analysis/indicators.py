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


def counts_of(objective: Objective, *, added: Mapping[Counter, float], revision: str, beside: bool = False) -> Counts | None:
    """Bad and judged requests of one revision; None where there is no total. A bad series that is missing is zero bad.

    `beside`: to be compared with those of another revision, so only of those that a model was asked for: a canary begins with cold caches.
    """
    cold = beside or objective.above_stable
    match objective.indicator:
        case Indicator.LATENCY:
            assert objective.latency is not None, "a Latency objective has its limit"
            return _latency(objective.latency, added=added, revision=revision, cold=cold)
        case Indicator.ERROR_RATE:
            return _share(
                added,
                revision=revision,
                judged=lambda c: c.outcome in JUDGED_OUTCOMES and (c.cache in ASKED_A_MODEL or not cold),
                bad=_is_error,
            )
        case Indicator.FALLBACK_RATE:
            # Answers that the cache gave at once say nothing about the chain.
            return _share(
                added,
                revision=revision,
                judged=lambda c: c.outcome == Outcome.SUCCESS and c.cache in ASKED_A_MODEL,
                bad=lambda c: c.first_tier != FirstTier.ANSWERED,
            )
        case Indicator.HALLUCINATION_RATE:
            judged = {c: n for c, n in added.items() if c.metric == GROUNDED_TOTAL and c.scorers == objective.scorers}
            return _labelled(judged, revision=revision, bad=QualityLabel.FAIL, good=(QualityLabel.PASS,))
        case Indicator.NEGATIVE_FEEDBACK_RATE:
            told = {c: n for c, n in added.items() if c.metric == FEEDBACK_TOTAL}
            return _labelled(told, revision=revision, bad=FeedbackLabel.NEGATIVE, good=(FeedbackLabel.POSITIVE, FeedbackLabel.NEUTRAL))
        case Indicator.TOKENS_PER_REQUEST | Indicator.COST_PER_REQUEST:
            raise AssertionError("of a mean nothing is bad: its sums are asked for")
        case None:
            assert objective.counters is not None, "an objective without an indicator has counters of its own"
            return _own(objective.counters, added=added, revision=revision)
    assert_never(objective.indicator)


def sum_of(objective: Objective, *, added: Mapping[Counter, float], revision: str) -> tuple[Sum, int]:
    """What requests of one revision came to, and how many more there were of which that is not known: models say so, and the policy what
    they cost.
    """
    assert objective.mean is not None, "only means are sums"
    prices = None if objective.mean.prices is None else {price.target: price for price in objective.mean.prices}
    amount, requests, unknown = 0.0, 0.0, 0.0
    for counter, n in added.items():
        if counter.revision != revision:
            continue
        is_priced = prices is None or counter.target in prices
        if counter.metric == SERVED_USAGE and counter.type == UsageType.KNOWN and is_priced:
            requests += n
        elif counter.metric == SERVED_USAGE:
            unknown += n
        elif counter.metric == SERVED_TOKENS and is_priced:
            amount += n * (1.0 if prices is None else _price(prices[counter.target], kind=counter.type))
    return Sum(amount=amount, requests=round(requests)), round(unknown)


def judged_requests(added: Mapping[Counter, float], *, revision: str) -> int:
    """Requests of a revision with an outcome that is judged."""
    return _sum(n for c, n in added.items() if c.metric == SERVED_TOTAL and c.revision == revision and c.outcome in JUDGED_OUTCOMES)


def sent_requests(added: Mapping[Counter, float], *, revision: str) -> int:
    """Requests that entry pods sent to a revision, whether or not they ever ended."""
    return _sum(n for c, n in added.items() if c.metric == SENT_TOTAL and c.revision == revision)


def missing_bound(limit: LatencyLimit, *, targets: Iterable[Mapping[Counter, float]], revision: str) -> tuple[float, ...] | None:
    """None when every target that has counted requests of the revision has a bucket at the limit; else the bounds of one that has not.

    Each target by itself: pods of two revisions have different buckets, and those that count are not those that serve.
    """
    for target in targets:
        mine = [(counter, value) for counter, value in target.items() if counter.revision == revision]
        if any(counter.metric == SECONDS_COUNT and value > 0 for counter, value in mine):
            bounds = {c.le for c, _ in mine if c.metric == SECONDS_BUCKET and c.le is not None and math.isfinite(c.le)}
            if limit.seconds not in bounds:
                return tuple(sorted(bounds))
    return None


def counts_over(
    bounds: Sequence[float], *, targets: Iterable[Mapping[Counter, float]], canary: str, stable: str
) -> tuple[BoundCounts, ...]:
    """Requests of both arms over each latency bound (seconds), of those that a model was asked for: a canary begins with cold caches.

    None of a bound that a target lacks which has counted requests: what is over it is not known there.
    """
    wanted = frozenset(bounds)
    totals = dict.fromkeys((canary, stable), 0.0)
    in_time = {(revision, bound): 0.0 for revision in totals for bound in bounds}
    lacking: set[float] = set()
    for target in targets:
        answered: dict[str, float] = {}
        has: set[tuple[str, float]] = set()
        for counter, count in target.items():
            if counter.cache not in ASKED_A_MODEL or counter.revision not in totals:
                continue
            if counter.metric == SECONDS_COUNT:
                answered[counter.revision] = answered.get(counter.revision, 0.0) + count
            elif counter.metric == SECONDS_BUCKET and counter.le in wanted:
                assert counter.le is not None, "it is one of the bounds"
                has.add((counter.revision, counter.le))
                in_time[counter.revision, counter.le] += count if counter.first_tier != FirstTier.LATE else 0.0
        for revision, count in answered.items():
            totals[revision] += count
            lacking |= {bound for bound in bounds if count > 0 and (revision, bound) not in has}

    def over(revision: str, bound: float) -> Counts:
        total = round(totals[revision])
        return Counts(bad=max(0, total - round(in_time[revision, bound])), total=total)

    return tuple(
        BoundCounts(Counts(), stable=None) if bound in lacking else BoundCounts(over(canary, bound), stable=over(stable, bound))
        for bound in bounds
    )


def _latency(limit: LatencyLimit, *, added: Mapping[Counter, float], revision: str, cold: bool) -> Counts | None:
    """`cold`: of those that a model was asked for."""
    mine = [(c, n) for c, n in added.items() if c.revision == revision and (c.cache in ASKED_A_MODEL or not cold)]
    answered = {c: n for c, n in mine if c.metric == SECONDS_COUNT}
    if not answered:
        return None
    buckets = [(c, n) for c, n in mine if c.metric == SECONDS_BUCKET and c.le == limit.seconds]
    if not buckets:
        return None
    late = FirstTier.LATE
    in_time = _sum(n for c, n in buckets if c.first_tier != late)
    total = _sum(answered.values())
    return Counts(bad=max(0, total - in_time), total=total)


def _share(
    added: Mapping[Counter, float], *, revision: str, judged: Callable[[Counter], bool], bad: Callable[[Counter], bool]
) -> Counts | None:
    served = {c: n for c, n in added.items() if c.metric == SERVED_TOTAL and c.revision == revision}
    if not served:
        return None
    total = {c: n for c, n in served.items() if judged(c)}
    return Counts(bad=_sum(n for c, n in total.items() if bad(c)), total=_sum(total.values()))


def _labelled(counted: Mapping[Counter, float], *, revision: str, bad: str, good: Sequence[str]) -> Counts | None:
    """What has one of these labels; any other says nothing of the revision, such as one of a newer gateway."""
    mine = [(c, n) for c, n in counted.items() if c.revision == revision]
    if not mine:
        return None
    return Counts(bad=_sum(n for c, n in mine if c.label == bad), total=_sum(n for c, n in mine if c.label in (bad, *good)))


def _own(counters: OwnCounters | OwnHistogram, *, added: Mapping[Counter, float], revision: str) -> Counts | None:
    mine = [(c, n) for c, n in added.items() if c.part == counters.part and c.revision == revision]
    if not any(c.metric == OWN_TOTAL for c, _ in mine):
        return None
    total = _sum(n for c, n in mine if c.metric == OWN_TOTAL)
    # Two processes may count the two; what is bad and not yet among the total is no evidence.
    return Counts(bad=min(_sum(n for c, n in mine if c.metric == OWN_BAD), total), total=total)


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
