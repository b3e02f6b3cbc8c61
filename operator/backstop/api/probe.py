"""Probes of a canary: what is run against it before callers reach it, and what is sent to it beside them. Shapes and rules only."""

import hashlib
import json
from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic.config import JsonDict

from .model import ApiModel, Rule
from .promptversion import Name
from .refs import SecretKeyRef
from .serving import ResourceAmounts, requests_fit

LIST_MAP_BY_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
RESERVED_PREFIX = "BACKSTOP_"


class ProbeWhen(StrEnum):
    """When a probe runs."""

    BEFORE_TRAFFIC = "BeforeTraffic"
    DURING_TRAFFIC = "DuringTraffic"


class ProbeVariable(ApiModel):
    """One environment variable of a probe."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable. Names that start with `BACKSTOP_` are the operator's."
    )
    value: str | None = Field(None, max_length=4096, description="Its value.")
    secretKeyRef: SecretKeyRef | None = Field(None, description="The key of a Secret that holds its value.")
    rules = (
        Rule(
            cel="has(self.value) != has(self.secretKeyRef)",
            message="`spec.canary.probes`: each variable of `env` has exactly one of `value` and `secretKeyRef`",
            holds=lambda v: (v.value is None) != (v.secretKeyRef is None),
        ),
        Rule(
            cel=f"!self.name.startsWith('{RESERVED_PREFIX}')",
            message=f"`spec.canary.probes`: variables that start with `{RESERVED_PREFIX}` are set by the operator; take another name",
            holds=lambda v: not v.name.startswith(RESERVED_PREFIX),
        ),
    )


class ProbeResources(ApiModel):
    """Requests and limits of a probe's container."""

    requests: ResourceAmounts = Field(default=ResourceAmounts(cpu="100m", memory="96Mi"), description="What the scheduler reserves.")
    limits: ResourceAmounts = Field(default=ResourceAmounts(cpu="1", memory="256Mi"), description="What the probe may use at most.")
    rules = (requests_fit("cpu", of="spec.canary.probes"), requests_fit("memory", of="spec.canary.probes"))


class ProbeJob(ApiModel):
    """What a probe runs: one container, once. Exit code 0 is a pass."""

    image: str = Field(min_length=1, max_length=512, description="Image of the container. It runs as user 65532, with `/tmp` to write to.")
    command: list[Annotated[str, Field(max_length=16_384)]] = Field(
        default_factory=list, max_length=64, description="The command. Unset: the image's own."
    )
    args: list[Annotated[str, Field(max_length=16_384)]] = Field(
        default_factory=list, max_length=64, description="Arguments of the command."
    )
    env: list[ProbeVariable] = Field(
        default_factory=list,
        max_length=64,
        description="Variables, beside those that say how the canary is reached (docs/concepts/rollout.md).",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    resources: ProbeResources = Field(default=ProbeResources(), description="Requests and limits of the container.")
    timeoutSeconds: int = Field(
        300, ge=1, le=86_400, description="How long it may take, the pull of its image included; then it has failed."
    )


def _no_number(name: str) -> None:
    """`NaN` and its like, which Python reads and JSON does not have."""
    raise ValueError(name)


class Probe(ApiModel):
    """One probe of the canary."""

    name: Name = Field(description="Name of the probe, said in conditions and events.")
    when: ProbeWhen = Field(
        ProbeWhen.BEFORE_TRAFFIC,
        description="`BeforeTraffic`: once the canary's pods are ready, `job` has to pass before the first weight. "
        "`DuringTraffic`: while it has weight, `requestsPerSecond` are sent to it, and judged as callers' are.",
    )
    job: ProbeJob | None = Field(None, description="What `BeforeTraffic` runs.")
    requestsPerSecond: int | None = Field(None, ge=1, le=50, description="How many requests `DuringTraffic` sends in a second.")
    request: str | None = Field(
        None,
        min_length=2,
        max_length=16_384,
        description="Body of such a request, a JSON object as a string. Unset: one short message of a user.",
    )

    apiKeyRef: SecretKeyRef | None = Field(
        None, description="For `DuringTraffic`: the caller's key that its requests carry, where `spec.access` asks for one."
    )

    @property
    def mark(self) -> str:
        """Its name, and what it does: another one when it is edited."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return f"{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def can_be_sent(self) -> bool:
        """Whether its `request` is a chat. No rule of the API server can tell, so the model takes any text: a spec can always be read."""
        if self.request is None:
            return True
        try:
            body = json.loads(self.request, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return False
        messages = body.get("messages") if isinstance(body, dict) else None
        return isinstance(messages, list) and all(isinstance(message, dict) for message in messages)

    rules = (
        Rule(
            cel="self.when == 'BeforeTraffic' ? has(self.job) && !has(self.requestsPerSecond) && !has(self.request) && !has(self.apiKeyRef)"
            " : has(self.requestsPerSecond) && !has(self.job)",
            message="`spec.canary.probes`: `BeforeTraffic` takes `job` alone; `DuringTraffic` takes `requestsPerSecond`, `request` and "
            "`apiKeyRef`",
            holds=lambda p: (
                p.job is not None and p.requestsPerSecond is None and p.request is None and p.apiKeyRef is None
                if p.when is ProbeWhen.BEFORE_TRAFFIC
                else p.requestsPerSecond is not None and p.job is None
            ),
        ),
    )
