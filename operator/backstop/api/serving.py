"""How a policy's gateways run: how many, resources, image."""

import re
from decimal import ROUND_CEILING, Context, Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from .gatewayvariable import GatewayVariable
from .model import ApiModel, Rule
from .podtemplate import PodTemplate
from .refs import ConfigMapKeyRef
from .workload import LIST_MAP_BY_NAME, Workload

_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_FACTOR: Final = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip

# What is between two billionths counts as the greater one; there is a most of what has a binary unit.
_LEAST: Final = Decimal("1e-9")
_MOST: Final = Decimal(2**63 - 1)
_ROUNDED: Final = Context(prec=64, rounding=ROUND_CEILING)

Quantity = Annotated[str, Field(max_length=32, pattern=_PATTERN)]


def amount(quantity: str) -> Decimal | None:
    """A quantity as the number that the API server takes it for: `1500m` → 1.5. None where it is none."""
    found = re.fullmatch(_PATTERN, quantity)
    if found is None:
        return None
    unit = found[2] or ""
    number = _ROUNDED.multiply(Decimal(quantity.removesuffix(unit)), _FACTOR[unit])
    return _ROUNDED.quantize(min(number, _MOST) if unit.endswith("i") else number, _LEAST)


class ResourceAmounts(ApiModel):
    """Amounts of the two resources a gateway uses."""

    cpu: Quantity | None = Field(None, description="Processor time, such as `250m`.")
    memory: Quantity | None = Field(None, description="Memory, such as `128Mi`.")


def requests_fit(name: Literal["cpu", "memory"], *, of: str) -> Rule:
    """What is asked for is not above what may be used. `of`: the field, for the message."""

    def holds(resources: Any) -> bool:
        asked, most = getattr(resources.requests, name), getattr(resources.limits, name)
        asked, most = amount(asked or ""), amount(most or "")
        return asked is None or most is None or asked <= most

    return Rule(
        cel=f"!has(self.requests.{name}) || !has(self.limits.{name})"
        f" || quantity(self.requests.{name}).compareTo(quantity(self.limits.{name})) <= 0",
        message=f"`{of}`: `requests.{name}` must not be above `limits.{name}`;"
        " where `requests` is not set, it is `cpu: 100m` and `memory: 96Mi`",
        holds=holds,
    )


class Resources(ApiModel):
    """Requests and limits of a gateway container."""

    requests: ResourceAmounts = Field(default=ResourceAmounts(cpu="100m", memory="96Mi"), description="What the scheduler reserves.")
    limits: ResourceAmounts = Field(default=ResourceAmounts(memory="256Mi"), description="What a pod may use at most.")
    rules = (requests_fit("cpu", of="spec.serving.resources"), requests_fit("memory", of="spec.serving.resources"))


class Autoscaling(ApiModel):
    """Bounds and target of a HorizontalPodAutoscaler."""

    minReplicas: int | None = Field(None, ge=1, le=500, description="Least number of pods. Unset: `serving.replicas`.")
    maxReplicas: int = Field(ge=1, le=500, description="Greatest number of pods.")
    targetCPUPercent: int = Field(
        70, ge=1, le=1000, description="Processor time that the gateways shall take on average, in percent of what they request."
    )


class Traces(ApiModel):
    """How the gateways reach the collector of their traces."""

    caBundleRef: ConfigMapKeyRef = Field(
        description="The certificates of the authorities that alone may vouch for the collector, as PEM "
        "(docs/how-to/private-authorities.md); its address begins with `https://`. Their content is part of the revision."
    )


class Serving(ApiModel):
    """How the gateways run."""

    replicas: int = Field(2, ge=1, le=500, description="Gateway pods of the stable revision. Changing it starts no rollout.")
    resources: Resources = Field(default=Resources(), description="Requests and limits of a gateway container.")
    image: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="Gateway image of this policy's new revisions. Unset: the operator's default at that time.",
    )
    autoscaling: Autoscaling | None = Field(
        None,
        description="A HorizontalPodAutoscaler sets the number of stable's pods; `replicas` is then what the first revision begins with. "
        "A canary has its share of what stable has at that time. Changing it starts no rollout.",
    )
    podTemplate: PodTemplate | None = Field(
        None, description="What is added to the gateways' pods. Part of the revision: a change is rolled out like any other."
    )
    env: list[GatewayVariable] = Field(
        default_factory=list,
        max_length=32,
        description="Environment variables of the gateways, those of OpenTelemetry alone: where traces go (docs/how-to/traces.md). "
        "They come before the installation's. Part of the revision.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    traces: Traces | None = Field(
        None,
        description="What the gateways need for the collector beside their variables. Unset: the authorities of the image vouch for it.",
    )
    workload: Workload | None = Field(
        None,
        description="A container of your own that serves instead of gateways, and its port. Part of the revision. Kubernetes shares "
        "callers' connections out over the ready pods, so a weight is what numbers of pods make it (`status.canary.sharePercent`).",
    )
    rules = (
        Rule(
            cel="!has(self.autoscaling)"
            " || (has(self.autoscaling.minReplicas) ? self.autoscaling.minReplicas : self.replicas) <= self.autoscaling.maxReplicas",
            message="`spec.serving.autoscaling`: `minReplicas` must not be above `maxReplicas`;"
            " where `minReplicas` is not set, it is `spec.serving.replicas`",
            holds=lambda s: s.autoscaling is None or s.least <= s.autoscaling.maxReplicas,
        ),
        Rule(
            cel="!has(self.autoscaling) || has(self.resources.requests.cpu) || has(self.resources.limits.cpu)",
            message="`spec.serving.autoscaling`: `targetCPUPercent` is of `spec.serving.resources.requests.cpu`, which must be set",
            holds=lambda s: s.autoscaling is None or s.resources.requests.cpu is not None or s.resources.limits.cpu is not None,
        ),
    )

    @property
    def least(self) -> int:
        """The least number of pods of the stable revision."""
        if self.autoscaling is not None and self.autoscaling.minReplicas is not None:
            return self.autoscaling.minReplicas
        return self.replicas
