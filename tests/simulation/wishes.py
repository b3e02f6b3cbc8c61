"""What people ask for, and what they do to objects by hand. Bodies alone; who writes them where is elsewhere."""

from enum import StrEnum
from typing import Final

from backstop.api.names import LABEL_POLICY
from backstop.kube.resources import Body

POLICY: Final = "support"
REPLICAS: Final = 2
MOST_PODS: Final = 5  # of an autoscaler
# Metric sources: one that tells the truth, one that sees nothing, and one that no operator has.
SEEING, UNSEEING, MISSING = "default", "blind", "elsewhere"


class Edit(StrEnum):
    """What somebody changes of a Service by hand."""

    LABELS = "its labels are taken off"
    SELECTOR = "it selects all pods of the policy"
    PORTS = "it has another port"
    TYPE = "it leads elsewhere"


EDITS: Final[dict[Edit, Body]] = {
    Edit.SELECTOR: {"selector": {LABEL_POLICY: POLICY}},
    Edit.PORTS: {"ports": [{"name": "http", "port": 81, "targetPort": "http", "protocol": "TCP"}]},
    Edit.TYPE: {"type": "ExternalName", "externalName": "elsewhere.example"},
}


def spec(
    prompt: str,
    *,
    own: bool = False,
    mode: str = "Automatic",
    approval: tuple[int, ...] = (),
    paused: bool = False,
    bar: int | None = None,
    source: str = SEEING,
    most: int | None = None,
    scaled: bool = False,
) -> Body:
    """A policy with three steps and one latency objective. `bar`: what a probe before traffic asks for; None: there is no probe.

    `own`: it runs a workload of its author's own, whose image has the name of the prompt. `most`: seconds for which a step may be held;
    `scaled`: an autoscaler says how many pods there are.
    """
    probes = [] if bar is None else [{"name": "golden", "job": {"image": "prober:1", "args": [str(bar)]}}]
    runs: Body = {
        "promptVersion": prompt,
        "latencyBudgetMilliseconds": 400,
        "chain": [
            {"name": "primary", "model": {"baseURL": "http://model/v1", "name": "m"}},
            {"name": "static", "static": {"default": "Sorry."}},
        ],
        "slos": [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150}],
        "serving": {"replicas": REPLICAS},
    }
    if own:
        runs = {
            "slos": [{"name": "latency", "promQL": {"bad": "late_total", "total": "all_total"}, "maxPercent": "5"}],
            "serving": {"replicas": REPLICAS, "workload": {"image": prompt, "port": 80}},
        }
    if scaled:
        runs["serving"] |= {"autoscaling": {"maxReplicas": MOST_PODS}, "resources": {"requests": {"cpu": "100m"}}}
    return runs | {
        "metricsSource": source,
        "canary": {
            "steps": [{"weight": w, "holdSeconds": 8, "approval": w in approval} for w in (5, 50, 100)],
            "analysis": {"warmUpSeconds": 0, "maxHoldSeconds": most},
            "progressDeadlineSeconds": 60,
            "paused": paused,
            "probes": probes,
        },
        "rollback": {"mode": mode, "keepPreviousSeconds": 40, "guardSeconds": 20},
    }
