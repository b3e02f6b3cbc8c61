"""The Job of one probe: the user's own container, or the one that sends requests; told how to reach the canary, with no rights.

Its pod carries none of the labels by which gateways are selected.
"""

from collections.abc import Sequence
from typing import Final

from ..api.names import (
    ANNOTATION_MARK,
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
    REQUEST_KEY_VARIABLE,
    REQUEST_VARIABLE,
    TRAFFIC_PORT,
    probe_job,
    revision_address,
)
from ..api.probe import Probe, ProbeJob, ProbeResources
from .owner import Body, Owner, metadata
from .pod import USER, declared_variable

# How long an ended Job is kept, for its log.
KEPT_SECONDS: Final = 3600
# Beyond the pod's own time, for a pod that no node takes.
UNSCHEDULED_SECONDS: Final = 30
RESTARTS: Final = 100
DEFAULT_REQUEST: Final = '{"model": "any", "messages": [{"role": "user", "content": "Hello"}]}'


def probe_object(
    owner: Owner,
    *,
    revision: str,
    prompt_version: str,
    rollout: str,
    probe: Probe,
    image: str,
    pull_secrets: Sequence[str],
    own: bool = False,
) -> Body:
    """The Job of `probe` against the canary `revision`. `rollout`: when its rollout began. `image`: of what sends requests beside
    callers'. `pull_secrets`: names of Secrets. `own`: the canary is no gateway.
    """
    meta = metadata(owner, name=probe_job(owner.name, revision=revision, probe=probe.name), revision=revision)
    meta["labels"] |= {LABEL_NAME: "backstop-probe", LABEL_COMPONENT: PROBE_COMPONENT, LABEL_PROBE: probe.name}
    meta["annotations"] = {ANNOTATION_ROLLOUT: rollout, ANNOTATION_MARK: probe.mark}
    if probe.job is not None:
        container = _container(owner, revision=revision, prompt_version=prompt_version, job=probe.job, own=own)
        spec = _once(probe.job, template=_template(owner, probe=probe, container=container, pull_secrets=pull_secrets))
    else:
        container = _sender(owner, revision=revision, probe=probe, image=image)
        spec = _as_long_as_wanted(_template(owner, probe=probe, container=container, pull_secrets=pull_secrets))
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def _once(job: ProbeJob, *, template: Body) -> Body:
    # The pod's own end: unlike the Job's, it leaves the pod and with it the log.
    template["spec"] |= {"restartPolicy": "Never", "activeDeadlineSeconds": job.timeoutSeconds}
    return {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "activeDeadlineSeconds": job.timeoutSeconds + UNSCHEDULED_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        # A pod that its node had to put out says nothing of the canary: another one is run.
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]},
        "template": template,
    }


def _as_long_as_wanted(template: Body) -> Body:
    """It ends when the operator takes it away. What ends by itself is begun again."""
    template["spec"] |= {"restartPolicy": "OnFailure"}
    return {"backoffLimit": RESTARTS, "completions": 1, "parallelism": 1, "ttlSecondsAfterFinished": KEPT_SECONDS, "template": template}


def _template(owner: Owner, *, probe: Probe, container: Body, pull_secrets: Sequence[str]) -> Body:
    spec: Body = {
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
        "containers": [container],
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


def _sender(owner: Owner, *, revision: str, probe: Probe, image: str) -> Body:
    """Sends requests through the entry that callers use."""
    url = f"http://{owner.name}.{owner.namespace}.svc:{TRAFFIC_PORT}/v1/chat/completions"
    key = probe.apiKeyRef
    return {
        "name": PROBE_CONTAINER,
        "image": image,
        "command": ["backstop-trickle"],
        "args": ["--url", url, "--canary", revision, "--requests-per-second", str(probe.requestsPerSecond)],
        "env": [
            {"name": REQUEST_VARIABLE, "value": probe.request or DEFAULT_REQUEST},
            *([] if key is None else [{"name": REQUEST_KEY_VARIABLE, "valueFrom": {"secretKeyRef": key.model_dump(mode="json")}}]),
        ],
        "resources": ProbeResources().model_dump(mode="json", exclude_none=True),
        **_confined(),
    }


def _container(owner: Owner, *, revision: str, prompt_version: str, job: ProbeJob, own: bool) -> Body:
    address = f"http://{revision_address(owner.name, revision=revision, namespace=owner.namespace)}"
    pinned = [{"name": "BACKSTOP_HEADER", "value": PIN_HEADER}, {"name": "BACKSTOP_HEADER_VALUE", "value": revision}]
    container: Body = {
        "name": PROBE_CONTAINER,
        "image": job.image,
        "env": [
            {"name": "BACKSTOP_BASE_URL", "value": address if own else f"{address}/v1"},
            *([] if own else pinned),
            {"name": "BACKSTOP_POLICY", "value": owner.name},
            {"name": "BACKSTOP_REVISION", "value": revision},
            {"name": "BACKSTOP_PROMPT_VERSION", "value": prompt_version},
            *(declared_variable(variable) for variable in job.env),
        ],
        "resources": job.resources.model_dump(mode="json", exclude_none=True),
        **_confined(),
    }
    if job.command:
        container["command"] = list(job.command)
    if job.args:
        container["args"] = list(job.args)
    return container


def _confined() -> Body:
    return {
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
