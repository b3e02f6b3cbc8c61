"""The operator's own metrics. Labels are bounded: reasons, verbs, kinds, and the policies that exist."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SHIFT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
PASS_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class _Places(Collector):
    """Where each policy is: a pair of values each, from which series are made when somebody asks. Gauges take eighty times the memory."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], tuple[str, int]] = {}

    def show(self, namespace: str, name: str, *, phase: str, weight: int) -> None:
        self._of[namespace, name] = phase, weight

    def forget(self, namespace: str, name: str) -> None:
        self._of.pop((namespace, name), None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        policy = ("namespace", "policy")
        weights = GaugeMetricFamily(
            "backstop_operator_canary_weight_percent", "Share that the gateways are told to send to the canary.", labels=policy
        )
        phases = GaugeMetricFamily("backstop_operator_policy_phase", "1 for the phase that a policy is in.", labels=(*policy, "phase"))
        for (namespace, name), (phase, weight) in list(self._of.items()):  # asked from another thread
            weights.add_metric((namespace, name), weight)
            phases.add_metric((namespace, name, phase), 1)
        yield weights
        yield phases


class Metrics:
    """One registry's worth; nothing is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._places: Final = _Places()
        self.registry.register(self._places)
        self.transitions = Counter(
            "backstop_operator_transitions_total", "Transitions of rollouts, by reason.", ("reason",), registry=self.registry
        )
        self.shift = Histogram(
            "backstop_operator_decision_to_shift_seconds",
            "From the decision that ends a rollout to the last gateway acting on it.",
            registry=self.registry,
            buckets=SHIFT_BUCKETS,
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
        self.leading = Gauge("backstop_operator_leading", "1 while this operator is the one that acts.", registry=self.registry)
        self.queue_depth = Gauge("backstop_operator_queue_depth", "Keys that wait for a pass.", registry=self.registry)

    def count_write(self, verb: str, kind: str) -> None:
        """One write was sent."""
        self.writes.labels(verb, kind).inc()

    def show_policy(self, namespace: str, name: str, *, phase: str, weight: int) -> None:
        """A policy's place."""
        self._places.show(namespace, name, phase=phase, weight=weight)

    def forget_policy(self, namespace: str, name: str) -> None:
        """The policy is gone."""
        self._places.forget(namespace, name)
