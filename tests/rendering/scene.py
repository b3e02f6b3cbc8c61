"""One policy and one prompt, and every object that is rendered of them."""

from pathlib import Path
from typing import Any, Final

import yaml

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.probe import Probe
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.serving import Serving
from backstop.api.traffic import Abort, TrafficState
from backstop.rendering.owner import Owner
from backstop.rendering.probe import probe_object
from backstop.rendering.revision import deployment, record_object, revision_service, template_of
from backstop.rendering.route import routed_service
from backstop.rendering.scaling import autoscaler, disruption_budget
from backstop.rendering.services import caller_services
from backstop.rendering.shared import account, traffic

OWNER: Final = Owner("shop", "support", "11111111-2222-3333-4444-555555555555")
IMAGE: Final = "registry.example/backstop:1.0.0"

PROMPT: Final = PromptVersionSpec.model_validate(
    {
        "prompt": "support-answer",
        "version": "1.4.0",
        "messages": [{"role": "system", "content": "Du hilfst Kunden von {{shop}}. 🙂"}],
        "variables": [{"name": "shop"}],
    }
)
POLICY: Final = FallbackPolicySpec.model_validate(
    {
        "promptVersion": "support-answer-1-4-0",
        "latencyBudgetMilliseconds": 400,
        "chain": [
            {
                "name": "primary",
                "model": {"baseURL": "https://llm.example/v1", "name": "gpt-x", "apiKeyRef": {"name": "llm-keys", "key": "primary"}},
                "timeouts": {"firstTokenMilliseconds": 250, "totalSeconds": 60},
            },
            {
                "name": "small",
                "model": {"baseURL": "http://small:8000/v1", "name": "safe-7b"},
                "timeouts": {"firstTokenMilliseconds": 150, "totalSeconds": 30},
            },
            {"name": "static", "static": {"default": "Try again later."}},
        ],
        "slos": [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150, "forSeconds": 30}],
    }
)


TRICKLE: Final = Probe.model_validate({"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 2})
PROBE: Final = Probe.model_validate(
    {
        "name": "golden",
        "job": {
            "image": "registry.example/prober:7",
            "command": ["python", "-m", "prober"],
            "args": ["--least", "90"],
            "env": [{"name": "SET", "value": "support"}, {"name": "TOKEN", "secretKeyRef": {"name": "prober", "key": "token"}}],
            "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
            "timeoutSeconds": 120,
        },
    }
)
SCALED: Final = Serving.model_validate({"autoscaling": {"minReplicas": 3, "maxReplicas": 10}})


# As the manifests' table has it, where a real API server takes it.
_WHOLE: Final = Path(__file__).parents[1] / "crds" / "valid" / "policy-pod-template.yaml"
POD_TEMPLATE: Final[dict[str, Any]] = yaml.safe_load(_WHOLE.read_text(encoding="utf-8"))["spec"]["serving"]["podTemplate"]
TOLD: Final = POLICY.model_copy(update={"serving": Serving.model_validate({"podTemplate": POD_TEMPLATE})})


_CACHE: Final = {
    "hot": {},
    "warm": {"redis": {"addressRef": {"name": "answers", "key": "url"}}},
    "cold": {"volume": {"claimName": "answers"}},
}
# With everything that its gateways mount, or are given of a Secret.
KEPT: Final = FallbackPolicySpec.model_validate(
    POLICY.model_dump(exclude_unset=True)
    | {
        "latencyBudgetMilliseconds": 1000,
        "chain": [POLICY.chain[0].model_dump(exclude_unset=True), {"name": "kept", "cache": _CACHE}],
        "access": {"callerKeysRef": {"name": "callers"}, "tenantHeader": "X-Tenant"},
    }
)


_OWN: Final = Path(__file__).parents[1] / "crds" / "valid" / "policy-workload.yaml"
OWN: Final = FallbackPolicySpec.model_validate(yaml.safe_load(_OWN.read_text(encoding="utf-8"))["spec"])


def record(
    policy: FallbackPolicySpec = POLICY,
    *,
    prompt: PromptVersionSpec | None = PROMPT,
    image: str = IMAGE,
    pull_secrets: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    return record_object(OWNER, policy=policy, prompt=prompt, image=image, pull_secrets=pull_secrets, **more)


def revision_of(body: dict[str, Any]) -> str:
    return str(body["metadata"]["labels"]["backstop.dev/revision"])


def everything() -> dict[str, dict[str, Any]]:
    """Every object of the policy while this revision is the canary of another, by the name of its golden file."""
    stored, told, own, kept = record(), record(TOLD), record(OWN, prompt=None), record(KEPT)
    revision = revision_of(stored)
    state = TrafficState(
        generation=3,
        stable="0a1b2c3d4e",
        canary=revision,
        permille=50,
        aborted=Abort("9876543210", reason="LatencyBreach", time="2026-01-31T09:30:00.123Z"),
    )
    service_account, role, binding = account(OWNER)
    serving, stable, canary = caller_services(OWNER, serving="0a1b2c3d4e", canary=revision)
    return {
        "record": stored,
        "deployment": deployment(OWNER, revision=revision, template=template_of(stored)),
        "deployment-with-pod-template": deployment(OWNER, revision=revision_of(told), template=template_of(told)),
        "deployment-with-mounts": deployment(OWNER, revision=revision_of(kept), template=template_of(kept)),
        "workload-record": own,
        "workload-deployment": deployment(OWNER, revision=revision_of(own), template=template_of(own)),
        "workload-autoscaler": autoscaler(OWNER, serving=OWN.serving, revision=revision_of(own), may_shrink=True),
        "workload-probe": probe_object(
            OWNER,
            revision=revision_of(own),
            prompt_version="support@sha256:0f0e0d0c0b0a",
            rollout="2026-01-31T09:30:00.123Z",
            probe=OWN.canary.probes[0],
            image=IMAGE,
            pull_secrets=["registry"],
            own=True,
        ),
        "workload-service": routed_service(OWNER, state=state),
        "autoscaler": autoscaler(OWNER, serving=SCALED, revision=revision, may_shrink=False),
        "disruption-budget": disruption_budget(OWNER, revision=revision),
        "probe": probe_object(
            OWNER,
            revision=revision,
            prompt_version=str(POLICY.promptVersion),
            rollout="2026-01-31T09:30:00.123Z",
            probe=PROBE,
            image=IMAGE,
            pull_secrets=["registry"],
        ),
        "trickle": probe_object(
            OWNER,
            revision=revision,
            prompt_version=str(POLICY.promptVersion),
            rollout="2026-01-31T09:30:00.123Z",
            probe=TRICKLE,
            image=IMAGE,
            pull_secrets=["registry"],
        ),
        "revision-service": revision_service(OWNER, revision=revision),
        "service": serving,
        "stable-service": stable,
        "canary-service": canary,
        "service-account": service_account,
        "role": role,
        "role-binding": binding,
        "traffic": traffic(OWNER, state=state),
    }
