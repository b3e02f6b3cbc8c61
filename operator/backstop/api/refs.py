"""References to other objects of a policy's namespace. Secrets are only ever referenced."""

from typing import Annotated

from pydantic import Field

from .model import ApiModel

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]


Key = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class SecretKeyRef(ApiModel):
    """One key of a Secret in the policy's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Key = Field(description="Key inside the Secret.")


class ConfigMapKeyRef(ApiModel):
    """One key of a ConfigMap in the policy's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: Key = Field(description="Key inside its `data`.")
