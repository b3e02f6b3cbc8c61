"""The gateway's metrics: names and bounds come from the shared API, labels from the revision alone.

Children are looked up once and kept: a request costs increments, not lookups. A registry of its own, handed in by the wiring.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..api import metricnames as names
from ..api.metricnames import (
    SEVERITY,
    CacheLevel,
    CacheLookup,
    CacheWrite,
    FailureMode,
    Outcome,
    Overload,
    QualityDrop,
    QualityLabel,
    RuleResult,
    SpanResult,
    TicketResult,
)
from .allowance import Allowance
from .breaker import Breaker
from .entrymetrics import EntryMetrics
from .revision import ModelTier, Revision, RulesTier
from .tally import LoopCounter, LoopHistogram
from .usage import Usage

_OWN: Final = (names.NAMESPACE, names.POLICY, names.REVISION)
_SCORE_BOUNDS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_OVERHEAD_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class GatewayMetrics:
    """Every metric of one gateway."""

    def __init__(self, revision: Revision, *, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._labels = labels = (revision.namespace, revision.policy, revision.name)
        own, bounds = _OWN, revision.latency_bounds
        track = (*own, "track")
        self.entry = EntryMetrics(revision, registry=registry)
        self._grounded = Counter(
            names.GROUNDED_TOTAL,
            "Judged answers, each once, by what the grounding scorers say of it together.",
            (*own, "scorers", "label"),
            registry=registry,
        )
        self._samples = Counter(
            names.QUALITY_SAMPLES_TOTAL, "Judged answers, by each scorer's verdict.", (*own, "scorer", "label"), registry=registry
        )
        self._scores = Histogram(
            names.QUALITY_SCORE, "Scores of judged answers.", (*own, "scorer"), buckets=_SCORE_BOUNDS, registry=registry
        )
        self._dropped = Counter(
            names.QUALITY_DROPPED_TOTAL, "Answers that were drawn and are not judged.", (*own, "reason"), registry=registry
        )
        self._grounded_children: dict[QualityLabel, Counter] = {}
        self._sample_children: dict[tuple[str, QualityLabel], Counter] = {}
        self._score_children: dict[str, Histogram] = {}
        self._dropped_children: dict[QualityDrop, Counter] = {}
        self._token_counts = LoopCounter(
            names.TOKENS_TOTAL, "Tokens that answers of this pod's chain took, as models say.", (*own, "tier", "type"), registry=registry
        )
        self._requests = LoopCounter(
            names.REQUESTS_TOTAL, "Requests this pod served, by the tier that answered.", (*track, "tier", "outcome"), registry=registry
        )
        self._request_seconds = LoopHistogram(
            names.REQUEST_SECONDS, "Seconds to the end of the answer.", (*track, "tier"), buckets=bounds, registry=registry
        )
        self._first_byte_seconds = LoopHistogram(
            names.FIRST_BYTE_SECONDS, "Seconds to the first byte of the answer.", (*track, "tier"), buckets=bounds, registry=registry
        )
        self._overhead_seconds = LoopHistogram(
            names.OVERHEAD_SECONDS,
            "Seconds to the first byte that were not spent waiting for a target, or for a level of the cache.",
            track,
            buckets=_OVERHEAD_BOUNDS,
            registry=registry,
        )
        self._attempts = LoopCounter(
            names.ATTEMPTS_TOTAL, "Attempts at a target, by how they ended.", (*own, "target", "outcome"), registry=registry
        )
        self._handoffs = Counter(
            names.HANDOFFS_TOTAL,
            "Hand-offs from one tier to the next.",
            (*own, "from", "to", "failure_mode", "severity"),
            registry=registry,
        )
        self._passed_over = Counter(
            names.PASSED_OVER_TOTAL,
            "Requests that passed a target over, because it has lately taken longer than was left of their time.",
            (*own, "target"),
            registry=registry,
        )
        self._continued = Counter(
            names.CONTINUED_TOTAL,
            "Streams that one tier began and another one finished.",
            (*own, "from", "to"),
            registry=registry,
        )
        self._hedges = Counter(
            names.HEDGES_TOTAL,
            "Tiers that were asked while an earlier one was waited for, by whether theirs was the answer.",
            (*own, "from", "to", "result"),
            registry=registry,
        )
        self._budget = Counter(
            names.BUDGET_EXCEEDED_TOTAL, "Requests whose first byte came after the latency budget.", own, registry=registry
        ).labels(*labels)
        self._target_up = Gauge(
            names.TARGET_UP,
            "1 while the target can be used, 0 while it is taken out for refusing our key, or for its certificate.",
            (*own, "target"),
            registry=registry,
        )
        self._breaker_state = Gauge(
            names.BREAKER_STATE,
            "This pod's breaker of a tier's target, or of a level of the cache: 0 closed, 1 half-open, 2 open.",
            (*own, "tier"),
            registry=registry,
        )
        self._split = Counter(
            names.SPLIT_TOTAL, "Requests at the entry that went elsewhere, or came back.", (*own, "to", "reason"), registry=registry
        )
        refused = Counter(
            names.REFUSED_TOTAL, "Requests this pod had no room for, by what was used up.", (*own, "reason"), registry=registry
        )
        self._refused = {reason: refused.labels(*labels, reason.value) for reason in Overload}
        self._unauthorized = Counter(
            names.UNAUTHORIZED_TOTAL,
            "Requests without a key that this pod knows: a 401, and nothing else is counted.",
            own,
            registry=registry,
        ).labels(*labels)
        self._lookups = LoopCounter(
            names.CACHE_LOOKUPS_TOTAL, "Requests by what they found in the cache.", (*own, "level", "result"), registry=registry
        )
        self._writes = Counter(
            names.CACHE_WRITES_TOTAL,
            "Answers to be kept below memory, by what became of them.",
            (*own, "level", "result"),
            registry=registry,
        )
        self._cache_bytes = Gauge(names.CACHE_BYTES, "Bytes that kept answers take.", (*own, "level"), registry=registry)
        info = Gauge(
            names.REVISION_INFO, "1, with what the revision runs on.", (*own, "prompt_version", "prompt_digest"), registry=registry
        )
        info.labels(*labels, revision.prompt_version, revision.prompt_digest).set(1)
        self._tickets_waiting = Gauge(
            names.TICKETS_WAITING, "Tickets for people that the webhook has not taken yet.", (*own, "tier"), registry=registry
        )
        tickets = Counter(
            names.TICKETS_TOTAL,
            "Tickets for people, and tries to send them, by what became of them.",
            (*own, "tier", "result"),
            registry=registry,
        )
        self._ticket_children = lru_cache(maxsize=32)(lambda tier, result: tickets.labels(*labels, tier, result.value))
        rules = Counter(names.RULES_TOTAL, "Requests by what the rules of a tier came to.", (*own, "tier", "result"), registry=registry)
        self._rules = {
            (tier.name, result): rules.labels(*labels, tier.name, result.value)
            for tier in revision.tiers
            if isinstance(tier, RulesTier)
            for result in RuleResult
        }
        for tier in revision.tiers:
            if isinstance(tier, ModelTier):
                self.set_target_up(tier.name, up=True)
        # Bounded: tiers, tracks and outcomes are few and come from configuration.
        self._request_children = lru_cache(maxsize=512)(lambda track, tier, outcome: self._requests.labels(*labels, track, tier, outcome))
        self._tier_children = lru_cache(maxsize=512)(
            lambda track, tier: (self._request_seconds.labels(*labels, track, tier), self._first_byte_seconds.labels(*labels, track, tier))
        )
        self._overhead_children = lru_cache(maxsize=8)(lambda track: self._overhead_seconds.labels(*labels, track))
        self._attempt_children = lru_cache(maxsize=512)(lambda target, outcome: self._attempts.labels(*labels, target, outcome))
        self._token_children = lru_cache(maxsize=64)(lambda tier, kind: self._token_counts.labels(*labels, tier, kind.value))
        self._lookup_children = lru_cache(maxsize=32)(lambda level, result: self._lookups.labels(*labels, level.value, result.value))
        self._write_children = lru_cache(maxsize=32)(lambda level, result: self._writes.labels(*labels, level.value, result.value))

    def count_request(
        self, *, track: str, tier: str, outcome: Outcome, seconds: float, first_byte: float | None, overhead: float | None
    ) -> None:
        """A request that this pod served has ended. Times in seconds."""
        self._request_children(track, tier, outcome.value).inc()
        total, first = self._tier_children(track, tier)
        total.observe(seconds)
        if first_byte is not None:
            first.observe(first_byte)
        if overhead is not None:
            self._overhead_children(track).observe(overhead)

    def count_attempt(self, target: str, *, outcome: str) -> None:
        """An attempt ended: `success`, `passed_back`, `cancelled`, or a failure mode."""
        self._attempt_children(target, outcome).inc()

    def count_handoff(self, source: str, *, to: str, mode: FailureMode) -> None:
        """One tier handed over to the next."""
        self._handoffs.labels(*self._labels, source, to, mode.value, SEVERITY[mode]).inc()

    def count_passed_over(self, target: str) -> None:
        """A target was not asked, for it has lately taken longer than there was time."""
        self._passed_over.labels(*self._labels, target).inc()

    def show_in_flight(self, in_flight: Callable[[], int]) -> None:
        """Tell how many requests are in flight whenever it is asked for."""
        gauge = Gauge(names.INFLIGHT, "Requests in flight whose body is there.", _OWN, registry=self.registry)
        gauge.labels(*self._labels).set_function(in_flight)

    def show_allowance(self, allowance: Allowance) -> None:
        """There is one; tell what is used of it whenever it is asked for."""
        own = (_OWN, self.registry)
        used = Gauge(
            names.SPEND_TOKENS, "Tokens of the allowance that are used in this period, as far as this pod knows.", own[0], registry=own[1]
        )
        used.labels(*self._labels).set_function(lambda: allowance.used)
        whole = Gauge(names.SPEND_ALLOWANCE, "Tokens that may be used in a period.", own[0], registry=own[1])
        whole.labels(*self._labels).set(allowance.settings.tokens)

    def show_spans(self) -> Callable[[SpanResult, int], None]:
        """Traces are collected; gives what counts what became of so many spans, in any thread."""
        spans = Counter(names.SPANS_TOTAL, "Spans of traces, by what became of them.", (*_OWN, "result"), registry=self.registry)
        children = {result: spans.labels(*self._labels, result.value) for result in SpanResult}
        return lambda result, count: children[result].inc(count)

    def count_continued(self, source: str, *, to: str) -> None:
        """A stream that broke off at `source` was finished by `to`."""
        self._continued.labels(*self._labels, source, to).inc()

    def count_hedge(self, source: str, *, to: str, won: bool) -> None:
        """`to` was asked beside `source`, and the request is over."""
        self._hedges.labels(*self._labels, source, to, "won" if won else "lost").inc()

    def count_tokens(self, tier: str, *, usage: Usage) -> None:
        """A model that this pod asked has said what its answer took."""
        self._token_children(tier, names.TokenType.INPUT).inc(usage.input)
        self._token_children(tier, names.TokenType.OUTPUT).inc(usage.output)

    def count_rules(self, tier: str, *, answered: bool, failed: int) -> None:
        """The rules of a tier were asked; so many conditions could not be evaluated."""
        self._rules[tier, RuleResult.ANSWERED if answered else RuleResult.MISSED].inc()
        self._rules[tier, RuleResult.FAILED].inc(failed)

    def show_tickets(self, tier: str, *, waiting: Callable[[], int]) -> None:
        """There is a tier of people, with so many tickets that wait for its webhook."""
        self._tickets_waiting.labels(*self._labels, tier).set_function(waiting)
        for result in TicketResult:
            self._ticket_children(tier, result)

    def count_ticket(self, tier: str, *, result: TicketResult) -> None:
        """What became of a ticket, or of a try to send one."""
        self._ticket_children(tier, result).inc()

    def count_budget_exceeded(self) -> None:
        """The first byte came after the budget."""
        self._budget.inc()

    def count_split(self, to: str, *, reason: str) -> None:
        """An entry request left for `to`, or came back to `self`."""
        self._split.labels(*self._labels, to, reason).inc()

    def count_refused(self, reason: Overload) -> None:
        """This pod had no room for a request."""
        self._refused[reason].inc()

    def count_unauthorized(self) -> None:
        """A request came without a key that is known."""
        self._unauthorized.inc()

    def show_cache(self, level: CacheLevel, *, held: Callable[[], int]) -> None:
        """There is a cache of this level, which holds so many bytes."""
        self._cache_bytes.labels(*self._labels, level.value).set_function(held)
        for result in CacheLookup:
            if result is not CacheLookup.FAILED:
                self._lookup_children(level, result)

    def show_level(self, level: CacheLevel, *, held: Callable[[], int] | None) -> None:
        """There is a level below memory, which holds so many bytes; None: who else holds it knows."""
        if held is not None:
            self._cache_bytes.labels(*self._labels, level.value).set_function(held)
        for result in CacheLookup:
            if result is not CacheLookup.BYPASS:
                self._lookup_children(level, result)
        for written in CacheWrite:
            self._write_children(level, written)

    def count_cache_lookup(self, level: CacheLevel, *, result: CacheLookup) -> None:
        """A request looked, or passed by."""
        self._lookup_children(level, result).inc()

    def count_cache_write(self, level: CacheLevel, *, result: CacheWrite) -> None:
        """An answer was to be kept below memory."""
        self._write_children(level, result).inc()

    def show_quality(self, scorers: Iterable[str], *, digest: str) -> None:
        """Answers are judged by these scorers. `digest`: of the grounding ones; empty: there are none."""
        for scorer in scorers:
            self._score_children[scorer] = self._scores.labels(*self._labels, scorer)
            for label in QualityLabel:
                self._sample_children[scorer, label] = self._samples.labels(*self._labels, scorer, label.value)
        if digest:
            self._grounded_children = {label: self._grounded.labels(*self._labels, digest, label.value) for label in QualityLabel}
        self._dropped_children = {reason: self._dropped.labels(*self._labels, reason.value) for reason in QualityDrop}

    def count_quality(self, scorer: str, *, label: QualityLabel, score: float | None) -> None:
        """A scorer has judged an answer."""
        self._sample_children[scorer, label].inc()
        if score is not None:
            self._score_children[scorer].observe(score)

    def count_grounded(self, label: QualityLabel) -> None:
        """The grounding scorers have judged an answer, all together."""
        self._grounded_children[label].inc()

    def count_quality_dropped(self, reason: QualityDrop) -> None:
        """An answer was drawn and is not judged."""
        self._dropped_children[reason].inc()

    def set_target_up(self, target: str, *, up: bool) -> None:
        """Whether the target takes our key, and can prove who it is."""
        self._target_up.labels(*self._labels, target).set(1 if up else 0)

    def watch_breaker(self, tier: str, *, breaker: Breaker) -> None:
        """Tell the state of `breaker` whenever it is asked for: time alone changes it."""
        self._breaker_state.labels(*self._labels, tier).set_function(lambda: breaker.state)
