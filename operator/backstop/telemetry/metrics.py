"""The operator's own metrics. Labels are bounded: reasons, verbs, kinds, and the policies that exist."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..api.metricnames import TokenType

SHIFT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
PASS_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


@dataclass(frozen=True)
class PriceShown:
    """What a million tokens of requests, and of answers, cost at one target, as gateways' metrics of tokens name it."""

    target: str
    currency: str
    input: float
    output: float


@dataclass(frozen=True)
class PolicyShown:
    """What is shown of one policy: where it is, and how its last rollout ended; None where none has. Times in seconds since the epoch."""

    phase: str
    weight: int
    outcome: str | None = None
    decided_at: float | None = None
    shifted_at: float | None = None
    prices: tuple[PriceShown, ...] = ()


class _Policies(Collector):
    """The policies' series, made when they are asked for: ten thousand policies' worth of gauges would outweigh the policies."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, str], PolicyShown] = {}

    def collect(self) -> Iterator[Metric]:
        policy = ("namespace", "policy")
        weight = GaugeMetricFamily(
            "backstop_operator_canary_weight_percent", "Share that the gateways are told to send to the canary.", labels=policy
        )
        phase = GaugeMetricFamily("backstop_operator_policy_phase", "1 for the phase that a policy is in.", labels=(*policy, "phase"))
        outcome = GaugeMetricFamily(
            "backstop_operator_last_rollout_outcome", "1 for how the last rollout of a policy ended.", labels=(*policy, "outcome")
        )
        decided = GaugeMetricFamily(
            "backstop_operator_last_decision_timestamp_seconds", "When the end of a policy's last rollout was decided.", labels=policy
        )
        shifted = GaugeMetricFamily(
            "backstop_operator_last_shift_timestamp_seconds", "When every gateway was seen to act on that decision.", labels=policy
        )
        price = GaugeMetricFamily(
            "backstop_operator_price_per_million_tokens",
            "Price of a target's tokens, as its policy says now; a target without one is not here.",
            labels=(*policy, "target", "type", "currency"),
        )
        for key, one in list(self.shown.items()):  # asked in another thread than the one that changes it
            weight.add_metric(key, one.weight)
            phase.add_metric((*key, one.phase), 1)
            if one.outcome is not None:
                outcome.add_metric((*key, one.outcome), 1)
            if one.decided_at is not None:
                decided.add_metric(key, one.decided_at)
            if one.shifted_at is not None:
                shifted.add_metric(key, one.shifted_at)
            for priced in one.prices:
                price.add_metric((*key, priced.target, TokenType.INPUT.value, priced.currency), priced.input)
                price.add_metric((*key, priced.target, TokenType.OUTPUT.value, priced.currency), priced.output)
        yield from (weight, phase, outcome, decided, shifted, price)


class Metrics:
    """One registry's worth; nothing is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._policies: Final = _Policies()
        self.registry.register(self._policies)
        self.transitions = Counter(
            "backstop_operator_transitions_total",
            "Transitions that were told, by the kind of object they are told of and reason.",
            ("kind", "reason"),
            registry=self.registry,
        )
        self.shift = Histogram(
            "backstop_operator_decision_to_shift_seconds",
            "From the decision that ends a rollout to the last gateway acting on it.",
            registry=self.registry,
            buckets=SHIFT_BUCKETS,
        )
        self.rollouts = Counter(
            "backstop_operator_rollouts_total",
            "Rollouts that have ended, by outcome and reason.",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self.writes = Counter(
            "backstop_operator_api_writes_total",
            "Writes to the Kubernetes API, by HTTP verb and kind.",
            ("verb", "kind"),
            registry=self.registry,
        )
        self.passes = Histogram("backstop_operator_pass_seconds", "Duration of one pass.", registry=self.registry, buckets=PASS_BUCKETS)
        self.failures = Counter(
            "backstop_operator_pass_failures_total", "Passes that will be repeated.", ("cause",), registry=self.registry
        )
        self.report_failures = Counter(
            "backstop_operator_report_failures_total", "Attempts to write or clear away reports that failed.", registry=self.registry
        )
        self.leading = Gauge("backstop_operator_leading", "1 while this operator is the one that acts.", registry=self.registry)
        self.queue_depth = Gauge("backstop_operator_queue_depth", "Keys that wait for a pass.", registry=self.registry)

    def count_write(self, verb: str, kind: str) -> None:
        """One write was sent."""
        self.writes.labels(verb, kind).inc()

    def show_policy(self, namespace: str, name: str, *, shown: PolicyShown) -> None:
        """A policy's place."""
        self._policies.shown[namespace, name] = shown

    def forget_policy(self, namespace: str, name: str) -> None:
        """The policy is gone."""
        self._policies.shown.pop((namespace, name), None)
