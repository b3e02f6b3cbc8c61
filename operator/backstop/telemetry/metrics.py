"""The operator's own metrics. Labels are bounded: reasons, verbs, kinds, and the policies that exist."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SHIFT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
PASS_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class Metrics:
    """One registry's worth; nothing is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._phase_of: dict[tuple[str, str], str] = {}
        policy = ("namespace", "policy")
        self.weight = Gauge(
            "backstop_operator_canary_weight_percent",
            "Share that the gateways are told to send to the canary.",
            policy,
            registry=self.registry,
        )
        self.phase = Gauge(
            "backstop_operator_policy_phase", "1 for the phase that a policy is in.", (*policy, "phase"), registry=self.registry
        )
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
        self.weight.labels(namespace, name).set(weight)
        known = self._phase_of.get((namespace, name))
        if known is not None and known != phase:
            self.phase.remove(namespace, name, known)
        self._phase_of[namespace, name] = phase
        self.phase.labels(namespace, name, phase).set(1)

    def forget_policy(self, namespace: str, name: str) -> None:
        """The policy is gone."""
        phase = self._phase_of.pop((namespace, name), None)
        if phase is not None:
            self.phase.remove(namespace, name, phase)
            self.weight.remove(namespace, name)
