"""A workload of the author's own in place of the gateways: what runs, and what cannot be asked of it. Shapes and rules only.

Without gateways callers' connections are shared out by Kubernetes, over the ready pods of two revisions: weights are what numbers of
pods make them, nobody reads a request, and nothing of a chain or a prompt is rendered.
"""

from typing import Annotated, Any, Final

from pydantic import Field
from pydantic.config import JsonDict

from .model import SPACE, ApiModel, Rule
from .refs import SecretKeyRef

LIST_MAP_BY_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
RESERVED_PREFIX: Final = "BACKSTOP_"
# The canary has at most as many pods as stable, which keeps all of its own: so half of the connections.
MOST_SHARED_PERCENT: Final = 50

Word = Annotated[str, Field(max_length=16_384)]


class WorkloadVariable(ApiModel):
    """One environment variable of the container."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable. Names that start with `BACKSTOP_` are the operator's: it sets `BACKSTOP_POLICY` and "
        "`BACKSTOP_REVISION`."
    )
    value: str | None = Field(None, max_length=4096, description="Its value.")
    secretKeyRef: SecretKeyRef | None = Field(None, description="The key of a Secret that holds its value.")
    rules = (
        Rule(
            cel="has(self.value) != has(self.secretKeyRef)",
            message="`spec.serving.workload.env`: each variable has exactly one of `value` and `secretKeyRef`",
            holds=lambda v: (v.value is None) != (v.secretKeyRef is None),
        ),
        Rule(
            cel=f"!self.name.startsWith('{RESERVED_PREFIX}')",
            message=f"`spec.serving.workload.env`: variables that start with `{RESERVED_PREFIX}` are set by the operator; take another",
            holds=lambda v: not v.name.startswith(RESERVED_PREFIX),
        ),
    )


class Workload(ApiModel):
    """One container that serves callers itself, at one port."""

    image: str = Field(
        min_length=1, max_length=512, description="Image of the container. It has to run as a user other than root, and says so by number."
    )
    port: int = Field(ge=1, le=65_535, description="The port at which it serves. Callers reach it at port 8080 of the policy's Service.")
    command: list[Word] = Field(default_factory=list, max_length=64, description="The command. Unset: the image's own.")
    args: list[Word] = Field(default_factory=list, max_length=64, description="Arguments of the command.")
    env: list[WorkloadVariable] = Field(
        default_factory=list, max_length=64, description="Environment variables.", json_schema_extra=LIST_MAP_BY_NAME
    )
    readinessPath: str | None = Field(
        None,
        max_length=1024,
        pattern=rf"^/[^{SPACE}]*$",
        description="Path at `port` that answers with a status from 200 to 399 while the container can serve. Unset: it can while it "
        "accepts connections.",
    )
    metricsPort: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port of its metrics, at `/metrics`: its pods are annotated to be scraped there. Unset: they are not.",
    )
    stopSeconds: int = Field(
        30,
        ge=1,
        le=3600,
        description="How long it may take to end what it has begun, from when it is told to stop. New callers come no more.",
    )


def _own(spec: Any) -> bool:
    return spec.serving.workload is not None


_OWN: Final = "has(self.serving.workload)"

# Rules over the whole spec of a policy.
WORKLOAD_RULES = (
    Rule(
        cel=f"{_OWN} != has(self.promptVersion)",
        message="`spec.promptVersion`: required, but not with `spec.serving.workload`, which brings its own prompts",
        holds=lambda s: _own(s) != (s.promptVersion is not None),
    ),
    Rule(
        cel=f"{_OWN} != has(self.latencyBudgetMilliseconds)",
        message="`spec.latencyBudgetMilliseconds`: required, but not with `spec.serving.workload`, in front of which no gateway keeps it",
        holds=lambda s: _own(s) != (s.latencyBudgetMilliseconds is not None),
    ),
    Rule(
        cel=f"{_OWN} != has(self.chain)",
        message="`spec.chain`: required, but not with `spec.serving.workload`, which answers by itself",
        holds=lambda s: _own(s) != bool(s.chain),
    ),
    Rule(
        cel=f"!{_OWN} || !has(self.serving.image)",
        message="`spec.serving.image`: the gateways' image, of which there are none with `spec.serving.workload`; set its `image`",
        holds=lambda s: not _own(s) or s.serving.image is None,
    ),
    Rule(
        cel=f"!{_OWN} || !has(self.serving.env)",
        message="`spec.serving.env`: the gateways' variables, of which there are none with `spec.serving.workload`; set its `env`",
        holds=lambda s: not _own(s) or not s.serving.env,
    ),
    Rule(
        cel=f"!{_OWN} || !has(self.serving.traces)",
        message="`spec.serving.traces`: of gateways, of which there are none with `spec.serving.workload`; take it out",
        holds=lambda s: not _own(s) or s.serving.traces is None,
    ),
    Rule(
        cel=f"!{_OWN} || !has(self.slos) || self.slos.all(s, has(s.promQL))",
        message="`spec.slos`: with `spec.serving.workload` no gateway counts anything; take `promQL`, with counters of your own, instead "
        "of `indicator`",
        holds=lambda s: not _own(s) or all(slo.promQL is not None for slo in s.slos),
    ),
    Rule(
        cel=f"!{_OWN} || self.canary.steps.all(s, s.weight <= {MOST_SHARED_PERCENT} || s.weight == 100)",
        message=f"`spec.canary.steps`: with `spec.serving.workload` a weight is at most {MOST_SHARED_PERCENT}, or 100: the share is made "
        "of pods, of which the canary never has more than stable",
        holds=lambda s: not _own(s) or all(step.weight <= MOST_SHARED_PERCENT or step.weight == 100 for step in s.canary.steps),
    ),
    Rule(
        cel=f"!{_OWN} || !has(self.canary.probes) || self.canary.probes.all(p, p.when == 'BeforeTraffic')",
        message="`spec.canary.probes`: with `spec.serving.workload` no gateway leads requests to the canary alone; take `BeforeTraffic`",
        holds=lambda s: not _own(s) or all(probe.job is not None for probe in s.canary.probes),
    ),
    Rule(
        cel=f"!{_OWN} || !(has(self.canary.traffic.stickyHeader) || has(self.canary.traffic.pinHeader))",
        message="`spec.canary.traffic`: with `spec.serving.workload` nobody reads headers; take out `stickyHeader` and `pinHeader`",
        holds=lambda s: not _own(s) or (s.canary.traffic.stickyHeader is None and s.canary.traffic.pinHeader is None),
    ),
    Rule(
        cel=f"!{_OWN} || !has(self.access)",
        message="`spec.access`: with `spec.serving.workload` no gateway reads keys or headers; take it out",
        holds=lambda s: not _own(s) or s.access is None,
    ),
    Rule(
        cel=f"!{_OWN} || !(has(self.quality) || has(self.feedback))",
        message="`spec.quality` and `spec.feedback`: with `spec.serving.workload` no gateway sees an answer; take them out",
        holds=lambda s: not _own(s) or (s.quality is None and s.feedback is None),
    ),
    Rule(
        cel="has(self.serving.workload) == has(oldSelf.serving.workload)",
        message="`spec.serving.workload`: gateways cannot become a workload of your own, or the other way round; create another policy",
        holds=lambda _: True,  # one spec has no former one
    ),
)
