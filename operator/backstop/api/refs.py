"""References to other objects of a policy's namespace. Secrets are only ever referenced."""

from typing import Annotated

from pydantic import Field

from .model import ApiModel

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]


class SecretKeyRef(ApiModel):
    """One key of a Secret in the policy's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(description="Key inside the Secret.")
