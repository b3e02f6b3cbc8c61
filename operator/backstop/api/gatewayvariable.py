"""What gateways tell of themselves, and to whom: the environment variables that OpenTelemetry defines, and no others.

Nothing that changes what runs in a pod: a variable such as `PYTHONPATH` would.
"""

from typing import Annotated, Final

from pydantic import Field

from .model import ApiModel, Rule
from .refs import SecretKeyRef

PREFIX: Final = "OTEL_"


class GatewayVariable(ApiModel):
    """One environment variable of the gateways."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable, one of OpenTelemetry's, such as `OTEL_EXPORTER_OTLP_ENDPOINT`."
    )
    value: str | None = Field(
        None, max_length=4096, description="Its value. `$(NODE_IP)`, `$(POD_NAME)` and `$(POD_NAMESPACE)` in it are replaced."
    )
    secretKeyRef: SecretKeyRef | None = Field(None, description="The key of a Secret that holds its value.")
    rules = (
        Rule(
            cel="has(self.value) != has(self.secretKeyRef)",
            message="`spec.serving.env`: each variable has exactly one of `value` and `secretKeyRef`",
            holds=lambda v: (v.value is None) != (v.secretKeyRef is None),
        ),
        Rule(
            cel=f"self.name.startsWith('{PREFIX}')",
            message=f"`spec.serving.env`: gateways take variables that start with `{PREFIX}`, and no others",
            holds=lambda v: v.name.startswith(PREFIX),
        ),
        Rule(
            cel="!has(self.value) || !self.name.endsWith('_HEADERS')",
            message="`spec.serving.env`: headers hold keys, so they come from a Secret; take `secretKeyRef`",
            holds=lambda v: v.value is None or not v.name.endswith("_HEADERS"),
        ),
    )
