"""The kinds of the API: their names, columns and whole-object rules, and the CustomResourceDefinition made of each."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from ..api.fallbackpolicy import POLICY_RULES, FallbackPolicySpec
from ..api.model import Rule
from ..api.names import GROUP, VERSION
from ..api.policystatus import FallbackPolicyStatus
from ..api.promptversion import PromptVersionSpec, PromptVersionStatus
from ..api.rolloutreport import RolloutReportSpec, RolloutReportStatus
from .schema import Schema, structural_schema, validations


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. `wide`: only with `-o wide`."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind, and what `kubectl` shows of it."""

    kind: str
    plural: str
    short: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()

    @property
    def object_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


def _condition(condition: str) -> str:
    return f'.status.conditions[?(@.type=="{condition}")].status'


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", type="date")

KINDS: Final = (
    Kind(
        kind="PromptVersion",
        plural="promptversions",
        short="pmv",
        description="One immutable version of a prompt: templated messages, their variables, and what they ask of the model.",
        spec=PromptVersionSpec,
        status=PromptVersionStatus,
        columns=(
            Column("Prompt", ".spec.prompt", "Logical name of the prompt."),
            Column("Version", ".spec.version", "SemVer of this version."),
            Column("Accepted", _condition("Accepted"), "Whether a policy can use it."),
            Column("Rejected", _condition("Rejected"), "Whether a policy rolled it back."),
            Column("Used-by", ".status.users", "How many policies use it.", type="integer"),
            _AGE,
        ),
    ),
    Kind(
        kind="FallbackPolicy",
        plural="fallbackpolicies",
        short="fbp",
        description="What answers a service's requests, in which order, within which time; and how a new revision of it is rolled out.",
        spec=FallbackPolicySpec,
        status=FallbackPolicyStatus,
        rules=POLICY_RULES,
        columns=(
            Column("Stable", ".status.stable.promptVersion", "PromptVersion that serves."),
            Column("Canary", ".status.canary.promptVersion", "PromptVersion under judgement."),
            Column("Weight", ".status.canary.weight", "Percent of requests that go to the canary.", type="integer"),
            Column("Phase", ".status.phase", "Summary of the rollout."),
            Column("Reason", ".status.reason", "Why it is in this phase."),
            Column("Step", ".status.canary.step", "Step in effect, counted from 0.", type="integer", wide=True),
            Column("SLO", ".status.decidingSLO", "The SLO that decided, or is nearest to it.", wide=True),
            Column("Router", ".status.router", "What makes weights true.", wide=True),
            _AGE,
        ),
    ),
    Kind(
        kind="RolloutReport",
        plural="rolloutreports",
        short="ror",
        description="How one rollout went, and why it ended so: written once by the operator when it is over, reviewed by a person.",
        spec=RolloutReportSpec,
        status=RolloutReportStatus,
        columns=(
            Column("Policy", ".spec.policy", "The policy whose rollout it was."),
            Column("Version", ".spec.promptVersion", "PromptVersion that was rolled out."),
            Column("Outcome", ".spec.outcome", "How it ended."),
            Column("Reason", ".spec.reason", "Why."),
            Column("Severity", ".spec.severity", "How much callers felt of it."),
            Column(
                "Shift-ms",
                ".spec.detectionToShiftMilliseconds",
                "Milliseconds from the decision to the last gateway that acts on it.",
                type="integer",
            ),
            Column("Review", ".status.review.state", "What has become of its review."),
            Column("Revision", ".spec.revision", "Revision that was rolled out.", wide=True),
            Column("Team", ".spec.owner.team", "Who answers for the policy.", wide=True),
            Column("Review-due", ".spec.reviewDueAt", "By when it is to be reviewed.", type="date", wide=True),
            _AGE,
        ),
    ),
)


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of `kind`. Raises SchemaError."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": kind.object_name,
            # Custom resources die with their definition, and gateways with them: an uninstall leaves it.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "backstop", "app.kubernetes.io/component": "api"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["backstop"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_printer_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def _root(kind: Kind) -> Schema:
    root: Schema = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"`{GROUP}/{VERSION}`."},
            "kind": {"type": "string", "description": f"`{kind.kind}`."},
            "metadata": {"type": "object"},
            "spec": structural_schema(kind.spec, description="What is wanted; written by its author.", defaults=True),
            "status": structural_schema(kind.status, description="What is; written by the operator.", defaults=False),
        },
    }
    if "observedGeneration" in kind.status.model_fields:
        # Of no generation there is: whoever waits for the object does not take it for done before the operator has seen it.
        root["properties"]["status"]["default"] = {"observedGeneration": -1}
    if kind.rules:
        root["x-kubernetes-validations"] = validations(kind.rules)
    return root


def _printer_column(column: Column) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": column.name, "type": column.type, "description": column.description, "jsonPath": column.path}
    return shown | {"priority": 1} if column.wide else shown
