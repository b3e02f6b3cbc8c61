"""Objects as the store keeps them: only what a pass reads. Turns API bodies into these; judges nothing."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec

from ..api.names import (
    ANNOTATION_MARK,
    ANNOTATION_ROLLOUT,
    GROUP,
    LABEL_MANAGED_BY,
    LABEL_POLICY,
    LABEL_PROBE,
    LABEL_REVISION,
    MANAGED_BY,
    RECORD_KEY,
)
from ..crdgen.filled import Filled, without
from ..kube.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JOBS,
    PODS,
    POLICIES,
    PROMPT_VERSIONS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Body,
    Resource,
)
from ..rollout.observed import ProbeState
from .podrefusal import refused_pods

IMAGE_TROUBLES: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
LONGEST_TROUBLE: Final = 200

Text = TypeVar("Text", str, str | None)


@dataclass(frozen=True, slots=True)
class Seen:
    """What every object has."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    version: str
    deleting: bool


@dataclass(frozen=True, slots=True)
class Declared(Seen):
    """A policy or a prompt version: spec and status as the API server gave them. `annotations`: those of this API alone.

    `deleted_at`: when its deletion was asked for, RFC 3339.
    """

    generation: int
    packed_annotations: bytes
    packed_spec: bytes
    packed_status: bytes
    finalizers: tuple[str, ...] = ()
    deleted_at: str | None = None
    created: str = ""

    @property
    def annotations(self) -> dict[str, str]:
        """By their whole names."""
        return _unpacked(self.packed_annotations)

    @property
    def spec(self) -> dict[str, Any]:
        """As its author wrote it, with the defaults that this operator knows."""
        return _unpacked(self.packed_spec)

    def without(self, filled: Iterable[Filled]) -> "Declared":
        """The same, without what the API server has filled in that this operator does not know."""
        return replace(self, packed_spec=_packed(without(self.spec, filled)))

    @property
    def status(self) -> dict[str, Any]:
        """As it was last written."""
        return _unpacked(self.packed_status)


@dataclass(frozen=True, slots=True)
class Child(Seen):
    """An object that belongs to a policy. `owner`: uid of the controlling owner, `owning_policy` its name where it is a policy.
    `content`: what is compared with what it should be.
    """

    policy: str
    revision: str | None
    owner: str | None
    owning_policy: str | None
    created: str
    packed_annotations: bytes
    packed_content: bytes

    @property
    def annotations(self) -> dict[str, str]:
        """All but what kubectl keeps there."""
        return _unpacked(self.packed_annotations)

    @property
    def content(self) -> dict[str, Any]:
        """The part of it that is compared."""
        return _unpacked(self.packed_content)


@dataclass(frozen=True, slots=True)
class DeploymentSeen(Child):
    """A gateway Deployment, without its pod template."""

    generation: int
    replicas: int
    failure: str | None


@dataclass(frozen=True, slots=True)
class JobSeen(Child):
    """A probe's Job. `rollout`: when the rollout began that it belongs to. `ended`: the reason of its end, where it failed.

    `mark`: of the probe that it was made from.
    """

    probe: str
    rollout: str
    state: ProbeState
    ended: str
    mark: str


@dataclass(frozen=True, slots=True)
class PodSeen(Seen):
    """A gateway pod. `trouble`: in words, why it is not ready, where the cluster says so.

    `exits`: how often its containers ended with a code other than 0.
    """

    policy: str
    revision: str | None
    ready: bool
    address: str | None
    trouble: str | None
    exits: int


def declared(body: Body, *, resource: Resource) -> Declared:
    """A policy or prompt version."""
    return Declared(
        **_common(body, resource=resource),
        generation=body["metadata"].get("generation", 0),
        packed_annotations=_packed({k: v for k, v in (body["metadata"].get("annotations") or {}).items() if k.startswith(f"{GROUP}/")}),
        packed_spec=_packed(_mapping(body.get("spec"))),
        packed_status=_packed(_mapping(body.get("status"))),
        finalizers=tuple(body["metadata"].get("finalizers") or ()),
        deleted_at=body["metadata"].get("deletionTimestamp"),
        created=body["metadata"].get("creationTimestamp", ""),
    )


def child(body: Body, *, resource: Resource) -> Child:
    """A policy's child; the contents of a revision record are left where they are."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    owner: Mapping[str, Any] = next((ref for ref in metadata.get("ownerReferences") or () if ref.get("controller")), {})
    common = _common(body, resource=resource) | {
        # Of what does not say that it is this operator's, other labels say nothing.
        "policy": _shared(labels.get(LABEL_POLICY, "") if labels.get(LABEL_MANAGED_BY) == MANAGED_BY else ""),
        "revision": _shared(labels.get(LABEL_REVISION)),
        "owner": _shared(owner.get("uid")),
        "owning_policy": _shared(owner.get("name")) if owner.get("kind") == POLICIES.kind else None,
        "created": _shared(metadata.get("creationTimestamp", "")),
        "packed_annotations": _packed({k: v for k, v in (metadata.get("annotations") or {}).items() if "last-applied" not in k}),
        "packed_content": _packed(_content(body, resource=resource)),
    }
    conditions = _mapping(body.get("status")).get("conditions") or ()
    if resource is JOBS:
        said = metadata.get("annotations") or {}
        rollout, mark = said.get(ANNOTATION_ROLLOUT, ""), said.get(ANNOTATION_MARK, "")
        return _job(common, probe=labels.get(LABEL_PROBE, ""), rollout=rollout, mark=mark, conditions=conditions)
    if resource is not DEPLOYMENTS:
        return Child(**common)
    return DeploymentSeen(
        **common,
        generation=metadata.get("generation", 0),
        replicas=_mapping(body.get("spec")).get("replicas", 1),
        failure=refused_pods(conditions),
    )


def _job(common: Mapping[str, Any], *, probe: str, rollout: str, mark: str, conditions: Iterable[Mapping[str, Any]]) -> JobSeen:
    held = {c["type"]: c.get("reason", "") for c in conditions if c["status"] == "True"}
    state = ProbeState.FAILED if "Failed" in held else ProbeState.PASSED if "Complete" in held else ProbeState.RUNNING
    return JobSeen(
        **common,
        probe=probe,
        rollout=rollout,
        state=state,
        ended=held.get("Failed", ""),
        mark=mark,
    )


def pod(body: Body) -> PodSeen:
    """A gateway pod."""
    labels = body["metadata"].get("labels") or {}
    status = _mapping(body.get("status"))
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    return PodSeen(
        **_common(body, resource=PODS),
        policy=labels.get(LABEL_POLICY, ""),
        revision=labels.get(LABEL_REVISION),
        ready=conditions.get("Ready", {}).get("status") == "True",
        address=status.get("podIP"),
        trouble=_trouble(status, conditions=conditions),
        exits=_exits(status),
    )


def seen(body: Body, *, resource: Resource) -> Seen:
    """Any object that the store keeps."""
    if resource in (POLICIES, PROMPT_VERSIONS):
        return declared(body, resource=resource)
    return pod(body) if resource is PODS else child(body, resource=resource)


def _common(body: Body, *, resource: Resource) -> dict[str, Any]:
    metadata = body["metadata"]
    return {
        "resource": resource,
        "namespace": _shared(metadata.get("namespace", "")),
        "name": _shared(metadata["name"]),
        "uid": metadata["uid"],
        "version": metadata["resourceVersion"],
        "deleting": "deletionTimestamp" in metadata,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shared(text: Text) -> Text:
    """One string for all objects that say the same: a policy's name is in a dozen of them."""
    return sys.intern(text) if text is not None else text


def _packed(value: Mapping[str, Any]) -> bytes:
    # As JSON, for dicts of dicts take six times the memory, and few of them are ever looked at.
    return msgspec.json.encode(value)


def _unpacked(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(packed)
    return found


def _content(body: Body, *, resource: Resource) -> Mapping[str, Any]:
    match resource:
        case _ if resource is CONFIG_MAPS:
            data = _mapping(body.get("data"))
            binary = _mapping(body.get("binaryData"))
            return {} if RECORD_KEY in data or RECORD_KEY in binary else data
        case _ if resource in (SERVICES, AUTOSCALERS, DISRUPTION_BUDGETS):
            return {"spec": _mapping(body.get("spec"))}
        case _ if resource is ROLES:
            return {"rules": body.get("rules") or []}
        case _ if resource is ROLE_BINDINGS:
            return {"roleRef": body.get("roleRef"), "subjects": body.get("subjects") or []}
        case _ if resource is DEPLOYMENTS or resource is SERVICE_ACCOUNTS or resource is JOBS:
            return {}
        case _:
            raise ValueError(f"{resource.kind} is no child of a policy")


def _trouble(status: Mapping[str, Any], *, conditions: Mapping[str, Any]) -> str | None:
    """One phrase that stays the same while the trouble does: no counters, no back-off times."""
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in IMAGE_TROUBLES:
            return f"image `{container.get('image')}` cannot be pulled"
        if reason == "CrashLoopBackOff":
            ended = _ended(container) or {}
            return f"container `{container['name']}` exited with code {ended.get('exitCode', 'unknown')}"
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {waiting.get('message', '')}"[:LONGEST_TROUBLE].rstrip(": ")
        if "terminated" in (container.get("state") or {}) and (last := _ended(container)) is not None:
            return f"container `{container['name']}` exited with code {last.get('exitCode', 'unknown')}"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', '')}"[:LONGEST_TROUBLE].rstrip(": ")
    return None


def _exits(status: Mapping[str, Any]) -> int:
    """Failed exits of a pod's containers.

    The cluster keeps the number of restarts and the last exit only, so the last one speaks for those before it. A pod that failed
    as a whole was put out by its node, which says nothing about what it ran.
    """
    if status.get("phase") == "Failed":
        return 0
    exits = 0
    for container in status.get("containerStatuses") or ():
        ended = _ended(container)
        if ended is None or ended.get("exitCode", 0) == 0:
            continue
        # Until the container runs again, its last exit is not among the restarts.
        exits += container.get("restartCount", 0) + (0 if "running" in (container.get("state") or {}) else 1)
    return exits


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the container last ended; None when it never has."""
    for state in ("state", "lastState"):
        terminated = (container.get(state) or {}).get("terminated")
        if isinstance(terminated, Mapping):
            return terminated
    return None
