"""Policies in rest, with everything that the operator would have written for them: so that ten thousand are there in minutes.

One policy is settled by the operator itself; the others get its status, with their own names, and children from the operator's own
rendering. That they are as the operator would have them is seen in the run: its start over them must cost no write.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.names import API_VERSION
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.record import prompt_digest, revision_hash
from backstop.api.traffic import TrafficState
from backstop.controller.children import stamped
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Body
from backstop.rendering.owner import Owner
from backstop.rendering.revision import deployment, record_object, revision_service, template_of
from backstop.rendering.services import caller_services
from backstop.rendering.shared import account, traffic

from .gateways import LIMIT_MILLISECONDS

IMAGE: Final = "localhost/backstop:bench"
PROMPT_CHARACTERS: Final = 1000


def prompt_body(namespace: str, *, policy: str, number: int) -> Body:
    """A PromptVersion with a text of ordinary length."""
    text = f"You answer questions of customers; version {number}. " + "Be brief and kind. " * PROMPT_CHARACTERS
    return {
        "apiVersion": API_VERSION,
        "kind": PROMPT_VERSIONS.kind,
        "metadata": {"name": f"{policy}-v{number}", "namespace": namespace},
        "spec": {"prompt": policy, "version": f"{number}.0.0", "messages": [{"role": "system", "content": text[:PROMPT_CHARACTERS]}]},
    }


def policy_body(namespace: str, *, policy: str, replicas: int) -> Body:
    """A policy whose canary, once it has one, is judged for longer than any run."""
    spec = {
        "promptVersion": f"{policy}-v1",
        "latencyBudgetMilliseconds": 400,
        "chain": [
            {"name": "primary", "model": {"baseURL": "http://model.test/v1", "name": "m"}},
            {"name": "static", "static": {"default": "Sorry."}},
        ],
        "slos": [
            {"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": LIMIT_MILLISECONDS, "minRequests": 20},
            {"name": "errors", "indicator": "ErrorRate", "maxPercent": "1", "minRequests": 20},
        ],
        "canary": {
            "steps": [{"weight": 20, "holdSeconds": 36000}, {"weight": 100, "holdSeconds": 60}],
            "analysis": {"warmUpSeconds": 0},
        },
        "rollback": {"guardSeconds": 0},  # what is settled is in rest
        "serving": {"replicas": replicas},
    }
    return {"apiVersion": API_VERSION, "kind": POLICIES.kind, "metadata": {"name": policy, "namespace": namespace}, "spec": spec}


@dataclass(frozen=True)
class Model:
    """What the operator made of one policy: the statuses that the others get."""

    policy: str
    revision: str
    digest: str
    policy_status: Body
    prompt_status: Body

    def policy_status_of(self, name: str, *, revision: str, digest: str) -> Body:
        """The status of another policy in the same state."""
        return self._renamed(self.policy_status, name=name, revision=revision, digest=digest)

    def prompt_status_of(self, name: str, *, revision: str, digest: str) -> Body:
        """The status of its PromptVersion."""
        return self._renamed(self.prompt_status, name=name, revision=revision, digest=digest)

    def _renamed(self, status: Body, *, name: str, revision: str, digest: str) -> Body:
        text = json.dumps(status).replace(self.policy, name).replace(self.revision, revision).replace(self.digest, digest)
        renamed: Body = json.loads(text)
        return renamed


def revision_of(policy: Body, *, prompt: Body) -> tuple[str, str]:
    """The revision's name and its prompt's digest."""
    prompt_spec = PromptVersionSpec.model_validate(prompt["spec"])
    return revision_hash(FallbackPolicySpec.model_validate(policy["spec"]), prompt=prompt_spec), prompt_digest(prompt_spec)


def children_of(policy: Body, *, prompt: Body) -> Iterator[Body]:
    """All that a settled policy has beside its pods. `policy`: as the API server gave it."""
    metadata = policy["metadata"]
    owner = Owner(metadata["namespace"], metadata["name"], metadata["uid"])
    spec = FallbackPolicySpec.model_validate(policy["spec"])
    prompt_spec = PromptVersionSpec.model_validate(prompt["spec"])
    revision = revision_hash(spec, prompt=prompt_spec)
    record = record_object(owner, policy=spec, prompt=prompt_spec, image=IMAGE, pull_secrets=())
    yield record
    yield traffic(owner, state=TrafficState(generation=1, stable=revision, canary=None, permille=0, aborted=None))
    for body in (
        *account(owner),
        deployment(owner, revision=revision, template=template_of(record), replicas=spec.serving.replicas),
        revision_service(owner, revision=revision),
        *caller_services(owner, serving=revision, canary=None),
    ):
        yield stamped(body)


def pod_body(deployment_body: Body, *, number: int) -> Body:
    """A pod of a Deployment, as small as the API server takes it."""
    metadata = deployment_body["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-{number}",
            "namespace": metadata["namespace"],
            "labels": deployment_body["spec"]["template"]["metadata"]["labels"],
        },
        "spec": {"containers": [{"name": "gateway", "image": IMAGE}], "automountServiceAccountToken": False},
    }


def ready_status(address: str) -> Body:
    """The status of a pod that is ready."""
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": "gateway", "image": IMAGE, "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
        ],
    }
