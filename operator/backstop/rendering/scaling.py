"""What sets the number of a policy's gateways, and what keeps enough of them while nodes are drained."""

from typing import Final

from ..api.names import GATEWAY_CONTAINER, WORKLOAD_CONTAINER, revision_object
from ..api.serving import Serving
from .owner import Body, Owner, metadata, pod_selector

# Rounded up by Kubernetes, so that one pod may always go: a policy of a single pod must not hold up a drain for ever.
MAY_BE_AWAY: Final = "10%"


def autoscaler(owner: Owner, *, serving: Serving, revision: str, may_shrink: bool) -> Body:
    """The HorizontalPodAutoscaler of a policy, which scales the revision that serves. `serving.autoscaling` must be set."""
    assert serving.autoscaling is not None
    container = GATEWAY_CONTAINER if serving.workload is None else WORKLOAD_CONTAINER
    target = {"type": "Utilization", "averageUtilization": serving.autoscaling.targetCPUPercent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(owner, name=owner.name),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": revision_object(owner.name, revision=revision)},
            "minReplicas": serving.least,
            "maxReplicas": serving.autoscaling.maxReplicas,
            # Of this one alone: a container that something else puts into the pod may request nothing.
            "metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": container, "target": target}}],
            "behavior": {"scaleDown": {"selectPolicy": "Max" if may_shrink else "Disabled"}},
        },
    }


def disruption_budget(owner: Owner, *, revision: str) -> Body:
    """How many pods of a revision may be evicted at a time. Pods that are not ready never keep a node from being drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, name=revision_object(owner.name, revision=revision), revision=revision),
        "spec": {
            "maxUnavailable": MAY_BE_AWAY,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": pod_selector(owner.name, revision=revision)},
        },
    }
