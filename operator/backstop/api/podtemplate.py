"""What an author may say of the gateways' pods: what they are called, and where they run. Nothing that changes what runs in them."""

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic.config import JsonDict

from .model import ApiModel, Rule

# A name with an optional prefix, as Kubernetes spells the keys of labels, annotations and taints.
_KEY: Final = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_OURS: Final = ("backstop.dev/", "app.kubernetes.io/", "prometheus.io/")

Key = Annotated[str, Field(min_length=1, max_length=317, pattern=_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
AnnotationValue = Annotated[str, Field(max_length=4096)]
DNSName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]

PRESERVED: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}
LIST_MAP_BY_TOPOLOGY: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["topologyKey"]}

# A part of a pod whose type is Kubernetes' own and large; what is in it is checked when pods are made.
KubernetesPart = Annotated[dict[str, Any], Field(max_length=2, json_schema_extra=PRESERVED)]


def _keys_are_names(field: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || self.{field}.all(k, k.matches('{_KEY}'))",
        message=f"`spec.serving.podTemplate.{field}`: a key is a name of up to 63 letters, digits, `-`, `_` and `.`, "
        "with an optional prefix such as `example.com/`",
        holds=lambda template: all(_matches(key) for key in getattr(template, field)),
    )


def _keys_are_not_ours(field: str) -> Rule:
    ours = ", ".join(f"'{prefix}'" for prefix in _OURS)
    return Rule(
        cel=f"!has(self.{field}) || self.{field}.all(k, ![{ours}].exists(p, k.startsWith(p)) && !k.contains('.security.'))",
        message=f"`spec.serving.podTemplate.{field}`: keys of `backstop.dev/`, `app.kubernetes.io/` and `prometheus.io/`, "
        "and those that set a pod's security, are not the author's",
        holds=lambda template: not any(key.startswith(_OURS) or ".security." in key for key in getattr(template, field)),
    )


def _matches(key: str) -> bool:
    return re.fullmatch(_KEY, key) is not None


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class TolerationOperator(StrEnum):
    """How a toleration is compared with a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class Toleration(ApiModel):
    """A taint of nodes that the gateways' pods put up with."""

    key: Key | None = Field(None, description="Key of the taint. Unset, with `operator: Exists`: every taint.")
    operator: TolerationOperator | None = Field(None, description="`Equal`, also where unset: the value too. `Exists`: any value.")
    value: LabelValue | None = Field(None, description="Value of the taint.")
    effect: TaintEffect | None = Field(None, description="`NoSchedule`, `PreferNoSchedule` or `NoExecute`. Unset: all of them.")
    tolerationSeconds: int | None = Field(
        None, ge=0, le=604_800, description="How long a pod stays on a node that gets the taint. Unset: for ever."
    )
    rules = (
        Rule(
            cel="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            message="`spec.serving.podTemplate.tolerations`: without `key`, `operator` must be `Exists`",
            holds=lambda t: t.key is not None or t.operator is TolerationOperator.EXISTS,
        ),
        Rule(
            cel="!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
            message="`spec.serving.podTemplate.tolerations`: with `operator: Exists` there is no `value`",
            holds=lambda t: t.value is None or t.operator is not TolerationOperator.EXISTS,
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="`spec.serving.podTemplate.tolerations`: `tolerationSeconds` is only for `effect: NoExecute`",
            holds=lambda t: t.tolerationSeconds is None or t.effect is TaintEffect.NO_EXECUTE,
        ),
    )


class Unsatisfiable(StrEnum):
    """What becomes of a pod that cannot be spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class Spread(ApiModel):
    """How a revision's pods are spread over nodes, zones and the like."""

    topologyKey: Key = Field(description="Label of nodes; nodes with the same value are one place.")
    maxSkew: int = Field(1, ge=1, le=500, description="By how many pods places may differ.")
    whenUnsatisfiable: Unsatisfiable = Field(
        Unsatisfiable.SCHEDULE_ANYWAY, description="`ScheduleAnyway`, or `DoNotSchedule`: the pod waits for a better place."
    )


class Affinity(ApiModel):
    """Which nodes the pods are drawn to, and which pods they run near to or apart from; each as in a pod's own `spec.affinity`."""

    nodeAffinity: KubernetesPart | None = Field(None, description="As `spec.affinity.nodeAffinity` of a pod.")
    podAffinity: KubernetesPart | None = Field(None, description="As `spec.affinity.podAffinity` of a pod.")
    podAntiAffinity: KubernetesPart | None = Field(None, description="As `spec.affinity.podAntiAffinity` of a pod.")


class PodTemplate(ApiModel):
    """What is added to the gateways' pods."""

    labels: dict[str, LabelValue] = Field(default_factory=dict, max_length=32, description="More labels.")
    annotations: dict[str, AnnotationValue] = Field(default_factory=dict, max_length=32, description="More annotations.")
    nodeSelector: dict[str, LabelValue] = Field(default_factory=dict, max_length=32, description="Labels of the nodes to run on.")
    tolerations: list[Toleration] = Field(default_factory=list, max_length=16, description="Taints of nodes that are put up with.")
    affinity: Affinity | None = Field(None, description="Which nodes and pods to run near to or apart from.")
    topologySpreadConstraints: list[Spread] = Field(
        default_factory=list,
        max_length=4,
        description="How pods of a revision are spread. None: over nodes, where that is possible.",
        json_schema_extra=LIST_MAP_BY_TOPOLOGY,
    )
    priorityClassName: DNSName | None = Field(None, description="PriorityClass of the pods.")
    runtimeClassName: DNSName | None = Field(None, description="RuntimeClass of the pods.")
    rules = (
        _keys_are_names("labels"),
        _keys_are_names("annotations"),
        _keys_are_names("nodeSelector"),
        _keys_are_not_ours("labels"),
        _keys_are_not_ours("annotations"),
    )
