"""The Job of one probe: the user's own container, told how to reach the canary, with no rights and with an end.

Its pod carries none of the labels by which gateways are selected.
"""

from collections.abc import Sequence
from typing import Final

from ..api.names import (
    ANNOTATION_ROLLOUT,
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_PROBE,
    MANAGED_BY,
    PIN_HEADER,
    PROBE_COMPONENT,
    PROBE_CONTAINER,
    probe_job,
    revision_address,
)
from ..api.probe import Probe, ProbeVariable
from .owner import Body, Owner, metadata
from .pod import USER

# How long an ended Job is kept, for its log.
KEPT_SECONDS: Final = 3600
# Beyond the pod's own time, for a pod that no node takes.
UNSCHEDULED_SECONDS: Final = 30


def probe_object(owner: Owner, *, revision: str, prompt_version: str, rollout: str, probe: Probe, pull_secrets: Sequence[str]) -> Body:
    """The Job of `probe` against the canary `revision`. `rollout`: when its rollout began. `pull_secrets`: names of Secrets."""
    meta = metadata(owner, name=probe_job(owner.name, revision=revision, probe=probe.name), revision=revision)
    meta["labels"] |= {LABEL_NAME: "backstop-probe", LABEL_COMPONENT: PROBE_COMPONENT, LABEL_PROBE: probe.name}
    meta["annotations"] = {ANNOTATION_ROLLOUT: rollout}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": probe.job.timeoutSeconds + UNSCHEDULED_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            # A pod that its node had to put out says nothing of the canary: another one is run.
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]},
            "template": _template(owner, revision=revision, prompt_version=prompt_version, probe=probe, pull_secrets=pull_secrets),
        },
    }


def _template(owner: Owner, *, revision: str, prompt_version: str, probe: Probe, pull_secrets: Sequence[str]) -> Body:
    spec: Body = {
        "restartPolicy": "Never",
        # The pod's own end: unlike the Job's, it leaves the pod and with it the log.
        "activeDeadlineSeconds": probe.job.timeoutSeconds,
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(owner, revision=revision, prompt_version=prompt_version, probe=probe)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
    }
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    labels = {
        LABEL_NAME: "backstop-probe",
        LABEL_INSTANCE: owner.name,
        LABEL_COMPONENT: PROBE_COMPONENT,
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_PROBE: probe.name,
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _container(owner: Owner, *, revision: str, prompt_version: str, probe: Probe) -> Body:
    job = probe.job
    container: Body = {
        "name": PROBE_CONTAINER,
        "image": job.image,
        "env": [
            {
                "name": "BACKSTOP_BASE_URL",
                "value": f"http://{revision_address(owner.name, revision=revision, namespace=owner.namespace)}/v1",
            },
            {"name": "BACKSTOP_HEADER", "value": PIN_HEADER},
            {"name": "BACKSTOP_HEADER_VALUE", "value": revision},
            {"name": "BACKSTOP_POLICY", "value": owner.name},
            {"name": "BACKSTOP_REVISION", "value": revision},
            {"name": "BACKSTOP_PROMPT_VERSION", "value": prompt_version},
            *(_variable(variable) for variable in job.env),
        ],
        "resources": job.resources.model_dump(mode="json", exclude_none=True),
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if job.command:
        container["command"] = list(job.command)
    if job.args:
        container["args"] = list(job.args)
    return container


def _variable(variable: ProbeVariable) -> Body:
    if variable.secretKeyRef is None:
        return {"name": variable.name, "value": variable.value}
    return {"name": variable.name, "valueFrom": {"secretKeyRef": variable.secretKeyRef.model_dump(mode="json")}}
