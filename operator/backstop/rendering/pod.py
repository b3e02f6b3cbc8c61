"""The pod template of a revision's gateways. Rendered once, kept in the revision record, never rendered again.

Knows how a gateway is started, probed and ended; knows nothing of replicas, Deployments or roles.
"""

import math
from collections.abc import Sequence
from typing import Final

from ..api.fallbackpolicy import Timeouts
from ..api.gatewayvariable import GatewayVariable
from ..api.names import (
    CACHE_MOUNT,
    CALLERS_MOUNT,
    GATEWAY_CONTAINER,
    METRICS_PORT,
    RECORD_KEY,
    RECORD_MOUNT,
    TICKETS_MOUNT,
    TRAFFIC_PORT,
    gateway_account,
    revision_object,
)
from ..api.podtemplate import PodTemplate
from ..api.probe import ProbeVariable
from ..api.record import RevisionRecord, secrets_of_record
from ..api.serving import Resources, Serving
from ..api.workload import WorkloadVariable
from .owner import Body, labels, pod_selector

# Longer than endpoints and gateways need to learn that a pod is going: until then it accepts what still comes.
DRAIN_SECONDS: Final = 5
# Between the end of the last stream and the kill: room for the error events of streams that did not finish.
MARGIN_SECONDS: Final = 5
# Beside the file of a cold cache: its log of what is being written. A pod that takes more than its volume may is put out.
CACHE_MARGIN_MEBIBYTES: Final = 32
# What a ticket takes on its volume at most; and the log beside the file.
TICKET_KIBIBYTES: Final = 128
TICKETS_MARGIN_KIBIBYTES: Final = 32 << 10
# A user that exists in no image, so that file permissions there decide nothing.
USER: Final = 65532


def render_template(
    record: RevisionRecord, *, image: str, serving: Serving, pull_secrets: Sequence[str], variables: Sequence[GatewayVariable] = ()
) -> Body:
    """The pod template of `record`'s gateways. `pull_secrets`: names of Secrets in the policy's namespace; `variables`: the
    installation's, for those that the policy does not set.
    """
    grace = grace_seconds(record)
    template = _template(record, image=image, resources=serving.resources, grace=grace)
    template["spec"]["containers"][0]["env"] += _declared([*variables, *serving.env])
    if pull_secrets:
        template["spec"]["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    return with_added(template, added=serving.podTemplate)


def with_added(template: Body, *, added: PodTemplate | None) -> Body:
    """The template with what its author adds. What is ours stays as it is, whatever its author says."""
    if added is None:
        return template
    declared = added.model_dump(mode="json", exclude_none=True)
    metadata, spec = template["metadata"], template["spec"]
    merged = {name: declared[name] | metadata[name] for name in ("labels", "annotations")}
    where = {name: declared[name] for name in ("nodeSelector", "tolerations", "affinity") if declared.get(name)}
    classes = {name: declared[name] for name in ("priorityClassName", "runtimeClassName") if name in declared}
    (spread,) = spec["topologySpreadConstraints"]
    spreads = [spread | constraint for constraint in declared["topologySpreadConstraints"]] or [spread]
    return {"metadata": metadata | merged, "spec": where | classes | spec | {"topologySpreadConstraints": spreads}}


def _template(record: RevisionRecord, *, image: str, resources: Resources, grace: int) -> Body:
    return {
        "metadata": {
            "labels": labels(record.policy, revision=record.revision),
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"},
        },
        "spec": {
            "serviceAccountName": gateway_account(record.policy),
            "automountServiceAccountToken": True,  # a gateway watches its traffic object
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
                **_group(record),
            },
            "topologySpreadConstraints": [spread_over_nodes(record.policy, revision=record.revision)],
            "containers": [_container(record, image=image, resources=resources, grace=grace)],
            "volumes": [
                {
                    "name": "record",
                    "configMap": {
                        "name": revision_object(record.policy, revision=record.revision),
                        "items": [{"key": RECORD_KEY, "path": RECORD_KEY}],
                    },
                },
                *_callers_volume(record),
                *_cache_volume(record),
                *_tickets_volume(record),
            ],
        },
    }


def spread_over_nodes(policy: str, *, revision: str) -> Body:
    """That the pods of a revision are on different nodes, where that is possible."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": pod_selector(policy, revision=revision)},
    }


def declared_variable(variable: ProbeVariable | WorkloadVariable | GatewayVariable) -> Body:
    """An environment variable as its author declared it."""
    if variable.secretKeyRef is None:
        return {"name": variable.name, "value": variable.value}
    return {"name": variable.name, "valueFrom": {"secretKeyRef": variable.secretKeyRef.model_dump(mode="json")}}


def _declared(variables: Sequence[GatewayVariable]) -> list[Body]:
    """Of several with one name, the last. The node's address stands before them: a collector may run on each node."""
    if not variables:
        return []
    node = {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    return [node, *(declared_variable(variable) for variable in {variable.name: variable for variable in variables}.values())]


def grace_seconds(record: RevisionRecord) -> int:
    """Whole seconds from SIGTERM to the kill: the last request that is accepted while draining can still run its full time.

    A gateway leaves as soon as it has nothing to do, so a long time costs nothing where streams are short.
    """
    longest = max(((tier.timeouts or Timeouts()).totalSeconds for tier in record.chain if tier.model), default=0)
    return DRAIN_SECONDS + math.ceil(record.latencyBudgetMilliseconds / 1000) + longest + MARGIN_SECONDS


def _container(record: RevisionRecord, *, image: str, resources: Resources, grace: int) -> Body:
    return {
        "name": GATEWAY_CONTAINER,
        "image": image,
        "command": ["backstop-gateway"],
        "args": [
            "--record",
            f"{RECORD_MOUNT}/{RECORD_KEY}",
            "--port",
            str(TRAFFIC_PORT),
            "--metrics-port",
            str(METRICS_PORT),
            "--drain-seconds",
            str(DRAIN_SECONDS),
            "--grace-seconds",
            str(grace),
            *(["--callers", CALLERS_MOUNT] if _callers_volume(record) else []),
            *(["--cache-folder", CACHE_MOUNT] if _cache_volume(record) else []),
            *(["--tickets-folder", TICKETS_MOUNT] if _tickets_volume(record) else []),
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            *_secrets(record),
        ],
        "ports": [
            {"name": "http", "containerPort": TRAFFIC_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": resources.model_dump(mode="json", exclude_none=True),
        # Readiness moves traffic, so it is asked often; a restart helps only a process that is stuck, so liveness waits.
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "metrics"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "record", "mountPath": RECORD_MOUNT, "readOnly": True},
            *({"name": volume["name"], "mountPath": CALLERS_MOUNT, "readOnly": True} for volume in _callers_volume(record)),
            *({"name": volume["name"], "mountPath": CACHE_MOUNT} for volume in _cache_volume(record)),
            *({"name": volume["name"], "mountPath": TICKETS_MOUNT} for volume in _tickets_volume(record)),
        ],
    }


def _callers_volume(record: RevisionRecord) -> list[Body]:
    """A volume, and not variables: keys that were changed reach a pod that runs."""
    reference = record.access.callerKeysRef if record.access else None
    return [] if reference is None else [{"name": "callers", "secret": {"secretName": reference.name}}]


def _cache_volume(record: RevisionRecord) -> list[Body]:
    cold = next((tier.cache.cold for tier in record.chain if tier.cache), None)
    if cold is None:
        return []
    if cold.volume is not None:
        return [{"name": "answers", "persistentVolumeClaim": {"claimName": cold.volume.claimName}}]
    return [{"name": "answers", "emptyDir": {"sizeLimit": f"{cold.maxMebibytes + CACHE_MARGIN_MEBIBYTES}Mi"}}]


def _tickets_volume(record: RevisionRecord) -> list[Body]:
    human = next((tier.human for tier in record.chain if tier.human), None)
    if human is None:
        return []
    if human.volume is not None:
        return [{"name": "tickets", "persistentVolumeClaim": {"claimName": human.volume.claimName}}]
    kibibytes = human.queueLimit * TICKET_KIBIBYTES + TICKETS_MARGIN_KIBIBYTES
    return [{"name": "tickets", "emptyDir": {"sizeLimit": f"{kibibytes}Ki"}}]


def _group(record: RevisionRecord) -> Body:
    """The group that a claim's files are of, where there is a claim: otherwise only root could write."""
    claimed = any("persistentVolumeClaim" in volume for volume in (*_cache_volume(record), *_tickets_volume(record)))
    return {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"} if claimed else {}


def _secrets(record: RevisionRecord) -> list[Body]:
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}
        for variable, reference in secrets_of_record(record).items()
    ]
