"""How a policy's gateways run: replicas, resources, image."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from .model import ApiModel, Rule

_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_FACTOR: Final = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip

Quantity = Annotated[str, Field(max_length=32, pattern=_PATTERN)]


def amount(quantity: str) -> Decimal | None:
    """A quantity as a number: `1500m` → 1.5. None where it is none."""
    found = re.fullmatch(_PATTERN, quantity)
    if found is None:
        return None
    unit = found[2] or ""
    return Decimal(quantity.removesuffix(unit)) * _FACTOR[unit]


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
