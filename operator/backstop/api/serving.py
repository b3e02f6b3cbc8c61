"""How a policy's gateways run: replicas, resources, image."""

from typing import Annotated

from pydantic import Field

from .model import ApiModel

Quantity = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class ResourceAmounts(ApiModel):
    """Amounts of the two resources a gateway uses."""

    cpu: Quantity | None = Field(None, description="Processor time, such as `250m`.")
    memory: Quantity | None = Field(None, description="Memory, such as `128Mi`.")


class Resources(ApiModel):
    """Requests and limits of a gateway container."""

    requests: ResourceAmounts = Field(default=ResourceAmounts(cpu="100m", memory="96Mi"), description="What the scheduler reserves.")
    limits: ResourceAmounts = Field(default=ResourceAmounts(memory="256Mi"), description="What a pod may use at most.")


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
