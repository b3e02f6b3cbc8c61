"""The stage of one measurement: API server with the project's kinds and the shipped rights, Prometheus, gateways, kubelet, policies.

The API server writes each request of the operator into an audit log; that log is where requests are counted.
"""

import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from backstop.api.names import OPERATOR_MANAGER
from backstop.kube.resources import CHILDREN, PODS, POLICIES, PROMPT_VERSIONS, Body, Resource
from e2e.cluster.apiserver import ApiServer
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.ports import free_port
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step

from . import objects
from .api import Api, admin
from .etcd import put_all
from .gateways import Gateways, PolicyName
from .kubelet import Kubelet
from .objects import Model
from .processes import Operator, Prometheus, operator, prometheus

SHIPPED: Final = REPOSITORY / "manifests" / "base" / "backstop.yaml"
OPERATOR_USER: Final = "system:serviceaccount:backstop:backstop"
POLICIES_PER_NAMESPACE: Final = 50
ESTABLISHED_SECONDS: Final = 30.0
SETTLED_SECONDS: Final = 120.0
POLICIES_AT_ONCE: Final = 20
SETTLED_PER_SECOND: Final = 100
MODEL: Final = ("bench-model", "the-model")


@dataclass
class Stage:
    """What a measurement works with."""

    server: ApiServer
    api: Api
    prometheus: Prometheus
    gateways: Gateways
    kubelet: Kubelet
    folder: Path
    scrape_seconds: int
    replicas: int
    slos: int
    model: Model | None = None
    settled: set[PolicyName] = field(default_factory=set)

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[Operator]:
        """An operator with the shipped rights, while the context lasts."""
        kubeconfig = self.server.identity_kubeconfig(OPERATOR_USER)
        async with operator(
            kubeconfig, prometheus=self.prometheus.url, scrape_seconds=self.scrape_seconds, port=free_port(), folder=self.folder
        ) as running:
            yield running

    def requests(self, *, since: float) -> "Requests":
        """What the operator asked of the API server since then."""
        return Requests.read(self.folder / "audit.log", since=since)

    async def settle(self, names: list[PolicyName], *, answering: bool) -> None:
        """Policies in rest, with all their children. `answering`: their pods answer, each at an address of its own."""
        if self.model is None:
            self.model = await self._settled_model()
        model, missing = self.model, [of for of in names if of not in self.settled]
        self.kubelet.silent |= set() if answering else set(missing)
        for namespace in sorted({namespace for namespace, _ in missing} - {namespace for namespace, _ in self.settled}):
            await self.namespace(namespace)
        with step(f"{len(missing):,} policies with their children", expected_s=len(missing) / SETTLED_PER_SECOND):
            for at_once in batched(missing, POLICIES_AT_ONCE):
                copies = [(of, resource, body) for of in at_once for resource, body in model.copy(*of)]
                if answering:
                    for of, resource, body in copies:
                        if resource is PODS:
                            await self.kubelet.adopt(of, pod=body)
                await put_all(self.server.etcd, [(resource, body) for _, resource, body in copies])
        self.settled |= set(missing)

    async def _settled_model(self) -> Model:
        """One policy that the operator itself settles."""
        of = MODEL
        await self.namespace(of[0])
        await self.api.create(PROMPT_VERSIONS, objects.prompt_body(of[0], policy=of[1], number=1))
        await self.api.create(POLICIES, objects.policy_body(of[0], policy=of[1], replicas=self.replicas, slos=self.slos))
        async with self.operating():
            await self.kubelet.until("the model is settled", lambda: is_ready(self.kubelet.statuses.get(of)), within=SETTLED_SECONDS)
            await asyncio.sleep(3.0)  # what it still writes when it is ready is part of it
        others = [(resource, body) for resource in (*CHILDREN, PODS) for body in await self.api.list(resource, namespace=of[0])]
        policy, prompt = [(await self.api.list(resource, namespace=of[0]))[0] for resource in (POLICIES, PROMPT_VERSIONS)]
        return Model(of[0], policy, prompt, tuple(others))

    async def namespace(self, name: str) -> None:
        """A fresh namespace."""
        body: Body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.api.create(NAMESPACES, body)


NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace")


@dataclass(frozen=True)
class Requests:
    """The operator's requests by verb, and over which time they were counted."""

    verbs: Counter[str]
    seconds: float

    @classmethod
    def read(cls, log: Path, *, since: float) -> "Requests":
        """From an audit log. A watch counts when it begins."""
        verbs: Counter[str] = Counter()
        for event in _events(log):
            if parsed(event["requestReceivedTimestamp"]) >= since:
                lease = " of the Lease" if event.get("objectRef", {}).get("resource") == "leases" else ""
                verbs[event["verb"] + lease] += 1
        return cls(verbs, time.time() - since)

    @property
    def writes(self) -> int:
        """All but reads, without those of the Lease."""
        return sum(n for verb, n in self.verbs.items() if verb not in ("get", "list", "watch") and not verb.endswith("Lease"))

    @property
    def per_minute(self) -> float:
        """All of them."""
        return sum(self.verbs.values()) * 60 / self.seconds

    def told(self) -> str:
        """By verb, per minute."""
        return ", ".join(f"{n * 60 / self.seconds:.1f} {verb}" for verb, n in sorted(self.verbs.items())) or "none"


def parsed(stamp: str) -> float:
    """Seconds since the epoch of an audit time."""
    return datetime.fromisoformat(stamp).timestamp()


def _events(log: Path) -> Iterator[dict[str, Any]]:
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if event["stage"] == ("ResponseStarted" if event["verb"] == "watch" else "ResponseComplete"):
                yield event


def batched(names: list[PolicyName], size: int) -> Iterator[list[PolicyName]]:
    """In pieces of this size."""
    return (names[start : start + size] for start in range(0, len(names), size))


def is_ready(status: Body | None) -> bool:
    """Whether a policy's status says so."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in (status or {}).get("conditions", ()))


def names(prefix: str, count: int) -> list[PolicyName]:
    """So many policies, fifty to a namespace."""
    return [(f"{prefix}-{number // POLICIES_PER_NAMESPACE}", f"p-{number % POLICIES_PER_NAMESPACE}") for number in range(count)]


def resource_of(body: Body) -> Resource:
    """The resource of any object that is set up here."""
    group, _, version = body["apiVersion"].rpartition("/")
    plural = body["kind"].lower() + ("es" if body["kind"].endswith("s") else "s")
    return Resource(group, version, plural, body["kind"])


def load() -> str:
    """The machine's load average over a minute."""
    return f"{os.getloadavg()[0]:.1f}"


@asynccontextmanager
async def stage(*, scrape_seconds: int, replicas: int, slos: int) -> AsyncIterator[Stage]:
    """Everything, up; and ended with the context."""
    with tempfile.TemporaryDirectory(prefix="backstop-bench-") as path:
        folder = Path(path)
        audit = folder / "audit.yaml"
        audited = {"level": "Metadata", "users": [OPERATOR_USER], "omitStages": ["RequestReceived"]}
        audit.write_text(yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [audited, {"level": "None"}]}))
        more = [f"--audit-policy-file={audit}", f"--audit-log-path={folder / 'audit.log'}", "--audit-log-mode=batch"]
        with ApiServer(more=[*more, "--audit-log-batch-max-wait=1s"]) as server:
            async with admin(server) as api, prometheus(port=free_port(), folder=folder, scrape_seconds=scrape_seconds) as metrics:
                await _install(api)
                gateways = Gateways(slos=slos)
                kubelet = Kubelet(api, gateways)
                playing = asyncio.create_task(kubelet.run())
                body = asyncio.current_task()
                assert body is not None
                playing.add_done_callback(lambda done: body.cancel() if not done.cancelled() else None)
                try:
                    yield Stage(server, api, metrics, gateways, kubelet, folder, scrape_seconds, replicas, slos)
                finally:
                    if playing.done():
                        await playing
                    playing.cancel()
                    gateways.close()


async def _install(api: Api) -> None:
    """What the chart installs beside the operator's own pod."""
    documents = [d for d in yaml.safe_load_all(SHIPPED.read_text(encoding="utf-8")) if d]
    kinds = ("CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_MANAGER.split("-")[0]}})
    for document in documents:
        if document["kind"] in kinds:
            await api.create(resource_of(document), document)
    definitions = resource_of({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"})
    deadline = time.monotonic() + ESTABLISHED_SECONDS
    for resource in (POLICIES, PROMPT_VERSIONS):
        while True:
            body = await api.get(definitions, namespace="", name=f"{resource.plural}.{resource.group}")
            if any(c["type"] == "Established" and c["status"] == "True" for c in body.get("status", {}).get("conditions") or ()):
                break
            if time.monotonic() > deadline:
                raise ClusterProblem(f"the kind {resource.kind} was not served within {ESTABLISHED_SECONDS:g} s")
            await asyncio.sleep(0.1)
