"""Policies in rest, with everything that the operator would have written for them: so that ten thousand are there in minutes.

The operator itself settles one; the others are copies of it and of all that it made, with their own names, owners and stamps. That
they are as the operator would have made them is seen in the run: its start over them must cost no write.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.names import API_VERSION
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.record import prompt_digest, revision_hash
from backstop.controller.children import APPLIED, stamp_of
from backstop.kube.resources import PODS, POLICIES, PROMPT_VERSIONS, SERVICES, Body, Resource
from backstop.rendering.owner import Owner
from backstop.rendering.revision import deployment, record_object, revision_service, template_of
from backstop.rendering.scaling import disruption_budget
from backstop.rendering.services import caller_services
from backstop.rendering.shared import account

from .slos import PRIMARY, fields_of

IMAGE: Final = "localhost/backstop:bench"
PROMPT_CHARACTERS: Final = 1000
# Gateways are asked only while a weight waits to be seen.
NOBODYS_ADDRESS: Final = "192.0.2.2"


def prompt_body(namespace: str, *, policy: str, number: int) -> Body:
    """A PromptVersion with a text of ordinary length."""
    text = f"You answer questions of customers; version {number}. " + "Be brief and kind. " * PROMPT_CHARACTERS
    return {
        "apiVersion": API_VERSION,
        "kind": PROMPT_VERSIONS.kind,
        "metadata": {"name": f"{policy}-v{number}", "namespace": namespace},
        "spec": {"prompt": policy, "version": f"{number}.0.0", "messages": [{"role": "system", "content": text[:PROMPT_CHARACTERS]}]},
    }


def policy_body(namespace: str, *, policy: str, replicas: int, slos: int) -> Body:
    """A policy whose canary, once it has one, is judged by the first so many of SLOS for longer than any run."""
    spec = {
        "promptVersion": f"{policy}-v1",
        "latencyBudgetMilliseconds": 400,
        "chain": [
            PRIMARY,
            {"name": "static", "static": {"default": "Sorry."}},
        ],
        **fields_of(slos),
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
    """A policy that the operator has settled, with all that belongs to it, as the API server has it."""

    namespace: str
    policy: Body
    prompt: Body
    others: tuple[tuple[Resource, Body], ...]

    def copy(self, namespace: str, name: str) -> Iterator[tuple[Resource, Body]]:
        """The same under another name, ready to be stored. Nothing answers at its pods' addresses."""
        prompt = self._body(prompt_body(namespace, policy=name, number=1), over=self.prompt, uid=str(uuid4()))
        spec = self.policy["spec"]
        body = policy_body(namespace, policy=name, replicas=spec["serving"]["replicas"], slos=len(spec["slos"]))
        policy = self._body(body, over=self.policy, uid=str(uuid4()))
        mine, model = revision_of(policy, prompt=prompt), revision_of(self.policy, prompt=self.prompt)
        changes = [
            *zip(model, mine, strict=True),
            (self.policy["metadata"]["uid"], policy["metadata"]["uid"]),
            (self.policy["metadata"]["name"], name),
            (self.namespace, namespace),
        ]
        stamps = dict(_stamps(policy, prompt=prompt))
        policy["status"] = _renamed(self.policy["status"], changes=changes)
        prompt["status"] = _renamed(self.prompt["status"], changes=changes)
        yield PROMPT_VERSIONS, prompt
        for resource, other in self.others:
            copied = _renamed(other, changes=[(other["metadata"]["uid"], str(uuid4())), *changes])
            if (stamp := stamps.get((copied["kind"], copied["metadata"]["name"]))) is not None:
                copied["metadata"]["annotations"][APPLIED] = stamp
            if resource is SERVICES:  # else forty thousand would share four addresses
                copied["spec"] |= {"clusterIP": "None", "clusterIPs": ["None"]}
            if resource is PODS:
                copied["status"] |= {"podIP": NOBODYS_ADDRESS, "podIPs": [{"ip": NOBODYS_ADDRESS}]}
            yield resource, copied
        yield POLICIES, policy

    def _body(self, body: Body, *, over: Body, uid: str) -> Body:
        given = {key: value for key, value in over["metadata"].items() if key not in ("name", "namespace", "uid", "managedFields")}
        return body | {"metadata": given | body["metadata"] | {"uid": uid}}


def _renamed(body: Body, *, changes: list[tuple[str, str]]) -> Body:
    text = json.dumps(body)
    for old, new in changes:
        text = text.replace(old, new)
    renamed: Body = json.loads(text)
    return renamed


def revision_of(policy: Body, *, prompt: Body) -> tuple[str, str]:
    """The revision's name and its prompt's digest."""
    prompt_spec = PromptVersionSpec.model_validate(prompt["spec"])
    return revision_hash(FallbackPolicySpec.model_validate(policy["spec"]), prompt=prompt_spec), prompt_digest(prompt_spec)


def _stamps(policy: Body, *, prompt: Body) -> Iterator[tuple[tuple[str, str], str]]:
    """The stamps of a settled policy's children, by kind and name: they are hashes, and cannot be renamed."""
    metadata = policy["metadata"]
    owner = Owner(metadata["namespace"], metadata["name"], metadata["uid"])
    spec = FallbackPolicySpec.model_validate(policy["spec"])
    prompt_spec = PromptVersionSpec.model_validate(prompt["spec"])
    revision = revision_hash(spec, prompt=prompt_spec)
    record = record_object(owner, policy=spec, prompt=prompt_spec, image=IMAGE, pull_secrets=())
    for body in (
        *account(owner),
        deployment(owner, revision=revision, template=template_of(record)),
        revision_service(owner, revision=revision),
        disruption_budget(owner, revision=revision),
        *caller_services(owner, serving=revision, canary=None),
    ):
        yield (body["kind"], body["metadata"]["name"]), stamp_of(body)


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
