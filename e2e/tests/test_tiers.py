"""Tiers that need more than a model, on a whole cluster: a key, kept answers and tickets on claims that outlive the pods."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from backstop.kube.connection import Connection
from backstop.kube.resources import ENDPOINT_SLICES, PODS, PROMPT_VERSIONS, SERVICES, Resource
from e2e.callers import IMAGE, streaming
from e2e.tests.scenario import MANAGER, MODEL_URL, POLICY, Scenario, name_of, policy

pytestmark = pytest.mark.cluster

SECRETS = Resource("", "v1", "secrets", "Secret")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
NODES = Resource("", "v1", "nodes", "Node")
ON_NODE = "/var/tmp"  # of every node
FOLDER = "backstop-e2e"
SIGNING_SECRET = "a secret of the desk's own"
MODEL_KEY = "a key of the model"
# Each is asked once of either pod: a second time the answer would be from memory.
QUESTIONS = [f"When do you open on day {number}?" for number in range(30)]


@dataclass(frozen=True)
class Reply:
    """One answer of the policy's Service."""

    headers: Mapping[str, str]
    text: str

    def said(self, name: str) -> str:
        """The header `x-backstop-NAME`."""
        return self.headers[f"x-backstop-{name}"]


async def ask(session: aiohttp.ClientSession, *, namespace: str, question: str, state: str) -> Reply:
    """One chat request through the API server's proxy. `state`: what the prompt says of the model, which behaves so."""
    path = f"{SERVICES.path(namespace=namespace)}/{POLICY}:8080/proxy/v1/chat/completions"
    body = {"model": "any", "messages": [{"role": "user", "content": question}]}
    async with session.post(path, json=body, headers={"x-backstop-var-state": state}) as response:
        assert response.status == 200, await response.text()
        return Reply(response.headers, (await response.json())["choices"][0]["message"]["content"])


@asynccontextmanager
async def claims(scenario: Scenario, *names: str) -> AsyncIterator[None]:
    """Claims with a folder of the node behind each, while the context lasts."""
    client, namespace = scenario.client, scenario.namespace
    nodes, _ = await client.list(NODES, namespace=None)
    node = nodes[0]["metadata"]["name"]
    folders = " ".join(f"/node/{FOLDER}/{namespace}/{name}" for name in names)
    await _on_node(scenario, node=node, name="make-folders", shell=f"mkdir -p {folders}")
    volumes = [await client.apply(VOLUMES, body=_volume(namespace, name=name, node=node), manager=MANAGER) for name in names]
    for name in names:
        await client.apply(CLAIMS, body=_claim(namespace, name=name), manager=MANAGER)
    try:
        yield
    finally:
        for body in volumes:
            await client.delete(VOLUMES, namespace="", name=body["metadata"]["name"], uid=body["metadata"]["uid"])
        shell = f"cd /node/{FOLDER} && rm -rf {namespace} && cd .. && rmdir --ignore-fail-on-non-empty {FOLDER}"
        await _on_node(scenario, node=node, name="remove-folders", shell=shell)


def _volume(namespace: str, *, name: str, node: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": name},
            "local": {"path": f"{ON_NODE}/{FOLDER}/{namespace}/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _claim(namespace: str, *, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "volumeName": f"{namespace}-{name}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


async def _on_node(scenario: Scenario, *, node: str, name: str, shell: str) -> None:
    """Run this in a pod that sees the node's `/var/tmp` as `/node`."""
    container = {
        "name": "shell",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", shell],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "node", "mountPath": "/node"}],
    }
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": scenario.namespace},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "node", "hostPath": {"path": ON_NODE, "type": "Directory"}}],
        },
    }
    await scenario.client.create(PODS, body=body, manager=MANAGER)
    end = time.monotonic() + 60
    while (phase := (await scenario.client.get(PODS, namespace=scenario.namespace, name=name))["status"].get("phase")) != "Succeeded":
        assert phase != "Failed", shell
        assert time.monotonic() < end, f"pod {name}: {phase}"
        await asyncio.sleep(0.2)


def secret(name: str, **data: str) -> dict[str, Any]:
    """A Secret with this text."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def desk() -> list[dict[str, Any]]:
    """Where tickets are taken: a Service, and its pod."""
    labels = {"app.kubernetes.io/name": "desk"}
    container = {
        "name": "desk",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "e2e.fakemodel", "--port", "8000"],
        "readinessProbe": {"httpGet": {"path": "/-/stats", "port": 8000}, "periodSeconds": 1},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "desk", "labels": labels},
        "spec": {"automountServiceAccountToken": False, "containers": [container]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "desk"},
        "spec": {"selector": labels, "ports": [{"port": 8000, "targetPort": 8000}]},
    }
    return [service, pod]


def chain() -> list[dict[str, Any]]:
    """A model with a key, kept answers on a claim, people with another, and words."""
    model = {"baseURL": MODEL_URL, "name": "large", "apiKeyRef": {"name": "keys", "key": "model"}}
    webhook = {"url": "http://desk:8000/-/tickets", "secretRef": {"name": "keys", "key": "desk"}}
    people = {"webhook": webhook, "acknowledgement": "Your ticket is {{ticket}}.", "volume": {"claimName": "tickets"}}
    # Nothing listens there: a Redis that is not there costs a caller nothing.
    warm = {"redis": {"addressRef": {"name": "keys", "key": "redis"}}}
    return [
        {"name": "primary", "model": model},
        {"name": "kept", "cache": {"hot": {}, "warm": warm, "cold": {"volume": {"claimName": "answers"}}}},
        {"name": "people", "human": people},
        {"name": "static", "static": {"default": "We cannot answer right now."}},
    ]


def prompt_with_state() -> dict[str, Any]:
    """A prompt whose caller says how the fake model behaves."""
    spec = {
        "prompt": "support",
        "version": "1.0.0",
        "messages": [{"role": "system", "content": "The model is {{state}}."}],
        "variables": [{"name": "state"}],
    }
    kind = {"apiVersion": PROMPT_VERSIONS.api_version, "kind": PROMPT_VERSIONS.kind}
    return {**kind, "metadata": {"name": name_of("1.0.0")}, "spec": spec}


async def replace_pods(scenario: Scenario) -> None:
    """Delete every gateway, and wait until the Service leads to others in their places."""
    before = {pod["metadata"]["uid"] for pod in await scenario.pods()}
    for pod in await scenario.pods():
        await scenario.client.delete(PODS, namespace=scenario.namespace, name=pod["metadata"]["name"], uid=pod["metadata"]["uid"])
    end = time.monotonic() + 90
    while True:
        serving = await _serving(scenario)
        if len(serving) == len(before) and not serving & before:
            return
        assert time.monotonic() < end, f"{len(serving - before)} of {len(before)} pods serve"
        await asyncio.sleep(0.2)


async def _serving(scenario: Scenario) -> set[str]:
    """UIDs of the pods that the Service leads to."""
    slices, _ = await scenario.client.list(ENDPOINT_SLICES, namespace=scenario.namespace)
    endpoints = [e for s in slices if s["metadata"]["labels"]["kubernetes.io/service-name"] == POLICY for e in s.get("endpoints") or ()]
    return {endpoint["targetRef"]["uid"] for endpoint in endpoints if endpoint["conditions"].get("ready")}


async def tickets(session: aiohttp.ClientSession, *, namespace: str) -> list[dict[str, Any]]:
    """What the desk has got: bodies and headers."""
    async with session.get(f"{PODS.path(namespace=namespace, name='desk')}:8000/proxy/-/requests") as response:
        return list(await response.json()) if response.status == 200 else []


async def test_w62_kept_answers_and_tickets_outlive_the_pods_and_go_to_their_places(scenario: Scenario, connection: Connection) -> None:
    namespace = scenario.namespace
    keys = secret("keys", model=MODEL_KEY, desk=SIGNING_SECRET, redis="redis://127.0.0.1:9/0")
    async with claims(scenario, "answers", "tickets"), streaming(connection) as session:
        await scenario.client.apply(SECRETS, body=in_namespace(keys, namespace=namespace), manager=MANAGER)
        await scenario.apply(prompt_with_state(), policy("1.0.0", steps=[(100, 10)], replicas=1, chain=chain()))
        await scenario.until_stable("1.0.0")

        for question in QUESTIONS:
            answered = await ask(session, namespace=namespace, question=question, state="well")
            assert (answered.said("tier"), answered.said("cache")) == ("primary", "miss")
        handed_on = await ask(session, namespace=namespace, question="Where is my parcel?", state="out of order")
        assert (handed_on.said("tier"), handed_on.said("reason")) == ("people", "DependencyFailure")

        await replace_pods(scenario)
        # The old pod still held its file when the new one began, which looks at least every half minute for what is left.
        for question in QUESTIONS:
            kept = await ask(session, namespace=namespace, question=question, state="well")
            if kept.said("cache") == "hit":
                break
            await asyncio.sleep(2)
        assert (kept.said("tier"), kept.said("cache")) == ("kept", "hit")

        for body in desk():
            await scenario.client.create(
                {"Service": SERVICES, "Pod": PODS}[body["kind"]], body=in_namespace(body, namespace=namespace), manager=MANAGER
            )
        end = time.monotonic() + 90
        while not (found := await tickets(session, namespace=namespace)):
            assert time.monotonic() < end, "no ticket came to the desk"
            await asyncio.sleep(0.5)
    assert [handed_on.text] == [f"Your ticket is {json.loads(ticket['body'])['data']['ticket']}." for ticket in found]
    assert signed(found[0])


def in_namespace(body: Mapping[str, Any], *, namespace: str) -> dict[str, Any]:
    """The same object, there."""
    return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


def signed(ticket: Mapping[str, Any]) -> bool:
    """Whether the signature is as Standard Webhooks says, with the Secret's text."""
    headers = {name.lower(): value for name, value in ticket["headers"].items()}
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{ticket['body']}"
    digest = hmac.new(SIGNING_SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return bool(headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}")
