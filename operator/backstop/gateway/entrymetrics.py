"""What an entry pod counts for the analysis: each request once, by the revision that served it.

Series of a revision are made before it is asked for anything, so that first events are never lost, and go when many others came after it.
"""

from collections import OrderedDict
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from ..api import metricnames as names
from ..api.metricnames import CacheUse, FeedbackLabel, FirstTier, Outcome
from ..api.traffic import TrafficState
from .revision import Revision
from .tally import LoopCounter, LoopHistogram
from .usage import ModelUse

# Revisions whose series one pod keeps. More than live at once; the oldest goes first.
KEPT_REVISIONS: Final = 8
# Targets of one revision whose tokens are counted: as many as the tiers of a chain. What more a peer may name is left out.
KEPT_TARGETS: Final = 16
_OWN: Final = (names.NAMESPACE, names.POLICY, names.REVISION)


class ServedSeries:
    """What the entry pod counts of one revision, with every child made at the start: first events are never lost.

    Those of kept answers are made when there is one: most revisions have no cache, and the analysis takes them from 0.
    """

    def __init__(
        self,
        served: LoopCounter,
        *,
        seconds: LoopHistogram,
        sent: LoopCounter,
        usage: LoopCounter,
        tokens: LoopCounter,
        feedback: Counter | None,
        labels: tuple[str, str, str],
    ) -> None:
        self._served = lru_cache(maxsize=None)(  # bounded by the three enums
            lambda cache, outcome, first: served.labels(*labels, cache.value, outcome.value, first.value)
        )
        self._seconds = lru_cache(maxsize=None)(lambda cache, first: seconds.labels(*labels, cache.value, first.value))
        self._sent = sent.labels(*labels)
        self._targets: set[str] = set()
        self._usage = lru_cache(maxsize=None)(lambda target, kind: usage.labels(*labels, target, kind.value))  # bounded by `_targets`
        self._tokens = lru_cache(maxsize=None)(lambda target, kind: tokens.labels(*labels, target, kind.value))
        self._feedback = {} if feedback is None else {label: feedback.labels(*labels, label.value) for label in FeedbackLabel}
        for first in FirstTier:
            self._seconds(CacheUse.MISS, first)
            for outcome in Outcome:
                self._served(CacheUse.MISS, outcome, first)

    def count_sent(self) -> None:
        """The request is on its way to this revision."""
        self._sent.inc()

    def count_served(self, outcome: Outcome, *, first: FirstTier, seconds: float | None, cache: CacheUse = CacheUse.MISS) -> None:
        """The request ended; `seconds` to the first byte the caller got, None when there was no answer."""
        self._served(cache, outcome, first).inc()
        if seconds is not None:
            self._seconds(cache, first).observe(seconds)

    def count_feedback(self, label: FeedbackLabel) -> None:
        """A caller has said what it thought of an answer. The revision of this pod takes feedback."""
        self._feedback[label].inc()

    def count_usage(self, use: ModelUse) -> None:
        """A model answered the request in full."""
        if use.target not in self._targets:
            if len(self._targets) >= KEPT_TARGETS:
                return
            self._targets.add(use.target)
        self._usage(use.target, names.UsageType.UNKNOWN if use.usage is None else names.UsageType.KNOWN).inc()
        if use.usage is not None:
            self._tokens(use.target, names.TokenType.INPUT).inc(use.usage.input)
            self._tokens(use.target, names.TokenType.OUTPUT).inc(use.usage.output)


class EntryMetrics:
    """The series of a few revisions."""

    def __init__(self, revision: Revision, *, registry: CollectorRegistry) -> None:
        self._labels = (revision.namespace, revision.policy, revision.name)
        own, bounds = _OWN, revision.latency_bounds
        self._served = LoopCounter(
            names.SERVED_TOTAL,
            "Requests by the revision that served them, counted once, by the entry pod.",
            (*own, "cache", "outcome", "first_tier"),
            registry=registry,
        )
        self._served_seconds = LoopHistogram(
            names.SERVED_SECONDS,
            "Seconds to the first byte the caller got, of answered requests, by the entry pod.",
            (*own, "cache", "first_tier"),
            buckets=bounds,
            registry=registry,
        )
        self._sent = LoopCounter(names.SENT_TOTAL, "Requests that the entry pod sent to a revision.", own, registry=registry)
        self._served_usage = LoopCounter(
            names.SERVED_USAGE,
            "Requests that a model answered in full, by whether it said how many tokens that took, by the entry pod.",
            (*own, "target", "type"),
            registry=registry,
        )
        self._served_tokens = LoopCounter(
            names.SERVED_TOKENS,
            "Tokens of the requests whose usage is known, by the entry pod.",
            (*own, "target", "type"),
            registry=registry,
        )
        self._feedback = None
        if revision.feedback is not None:
            self._feedback = Counter(
                names.FEEDBACK_TOTAL, "What callers thought of answers, by the pod that they told it.", (*own, "label"), registry=registry
            )
        self._series: OrderedDict[str, ServedSeries] = OrderedDict()
        self.of(revision.name)

    def of(self, revision: str) -> ServedSeries:
        """The series of one revision, made when first asked for."""
        series = self._series.get(revision)
        if series is None:
            namespace, policy, _ = self._labels
            series = ServedSeries(
                self._served,
                seconds=self._served_seconds,
                sent=self._sent,
                usage=self._served_usage,
                tokens=self._served_tokens,
                feedback=self._feedback,
                labels=(namespace, policy, revision),
            )
            self._series[revision] = series
        return series

    def prepare(self, state: TrafficState) -> None:
        """Make the series of the revisions that traffic names, and drop the oldest beyond the bound."""
        live = {self._labels[2], state.stable, state.canary}
        for revision in filter(None, (state.stable, state.canary)):
            self.of(revision)
            self._series.move_to_end(revision)
        for revision in [r for r in self._series if r not in live][: max(0, len(self._series) - KEPT_REVISIONS)]:
            del self._series[revision]
            for metric in (self._served, self._served_seconds, self._sent, self._served_usage, self._served_tokens):
                metric.drop(names.REVISION, value=revision)
            if self._feedback is not None:
                self._feedback.remove_by_labels({names.REVISION: revision})

    def counts_for(self, revision: str) -> bool:
        """Whether this pod has series of a revision: it serves, or did so lately."""
        return revision in self._series
