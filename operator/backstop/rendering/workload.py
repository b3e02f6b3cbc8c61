"""The pod template of a workload of its author's own. Rendered once, kept in the revision record, never rendered again.

Knows how a container that is not ours is probed and ended so that no caller notices; knows nothing of what it does.
"""

from collections.abc import Sequence

from ..api.names import LABEL_COMPONENT, LABEL_NAME, WORKLOAD_COMPONENT, WORKLOAD_CONTAINER
from ..api.record import WorkloadRecord
from ..api.serving import Serving
from ..api.workload import Workload
from .owner import Body, labels
from .pod import DRAIN_SECONDS, declared_variable, spread_over_nodes, with_added


def render_workload(record: WorkloadRecord, *, serving: Serving, pull_secrets: Sequence[str]) -> Body:
    """The pod template of `record`'s workload. `pull_secrets`: names of Secrets in the policy's namespace."""
    workload = record.workload
    named = {LABEL_NAME: f"backstop-{WORKLOAD_COMPONENT}", LABEL_COMPONENT: WORKLOAD_COMPONENT}
    spec: Body = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + workload.stopSeconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [spread_over_nodes(record.policy, revision=record.revision)],
        "containers": [_container(record, serving=serving)],
    }
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    metadata = {"labels": labels(record.policy, revision=record.revision) | named, "annotations": _scraped(workload)}
    return with_added({"metadata": metadata, "spec": spec}, added=serving.podTemplate)


def _scraped(workload: Workload) -> dict[str, str]:
    if workload.metricsPort is None:
        return {}
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(workload.metricsPort), "prometheus.io/path": "/metrics"}


def _container(record: WorkloadRecord, *, serving: Serving) -> Body:
    workload = record.workload
    asked: Body = {"tcpSocket": {"port": "http"}}
    if workload.readinessPath is not None:
        asked = {"httpGet": {"path": workload.readinessPath, "port": "http"}}
    container: Body = {
        "name": WORKLOAD_CONTAINER,
        "image": workload.image,
        "env": [
            {"name": "BACKSTOP_POLICY", "value": record.policy},
            {"name": "BACKSTOP_REVISION", "value": record.revision},
            *(declared_variable(variable) for variable in workload.env),
        ],
        "ports": [{"name": "http", "containerPort": workload.port, "protocol": "TCP"}],
        "resources": serving.resources.model_dump(mode="json", exclude_none=True),
        "readinessProbe": asked | {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 3},
        # Nodes learn of a pod's end a moment after it is told to stop: until then callers still come, and it must still serve.
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if workload.command:
        container["command"] = list(workload.command)
    if workload.args:
        container["args"] = list(workload.args)
    return container
