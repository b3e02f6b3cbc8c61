"""A small world around a real API server: what kubelet, gateways and Prometheus would do, for one namespace.

Pods are made for Deployments and given a loopback address each, at which a real HTTP server says which traffic generation the
"gateway" acts on. Counters grow by the share of traffic that the traffic object gives, and a real HTTP server answers Prometheus'
range queries with them. Long because kubelet, gateways and Prometheus share one clock and one traffic object here.
"""

import asyncio
import contextlib
import functools
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from backstop.api import metricnames
from backstop.api.names import API_VERSION, GROUP, LABEL_MANAGED_BY, LABEL_POLICY, LABEL_REVISION, METRICS_PORT, traffic_object
from backstop.api.traffic import TrafficState, parse
from backstop.kube.client import Client
from backstop.kube.errors import Conflict, NotFound, Rejected
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, EVENTS, PODS, POLICIES, PROMPT_VERSIONS, REPORTS, SERVICES, Body, Resource
from tests.loopback import own_block

from .until import until

W = TypeVar("W", bound="World")

MANAGER = "test"
TICK_SECONDS = 0.1
SCRAPE_SECONDS = 1.0
REQUESTS_PER_SCRAPE = 1000

_addresses = itertools.count(2)
_attempts = itertools.count(1)


def next_address() -> str:
    """A loopback address that no other gateway of this process has."""
    number = next(_addresses)
    return f"127.{own_block()}.{number // 250}.{number % 250 + 2}"


@dataclass
class Behaviour:
    """What the pods and the traffic of a revision are like. `bad`: share of its requests that are slow."""

    ready: bool = True
    waiting: str | None = None
    acts: bool = True
    bad: float = 0.0


@dataclass
class _Pod:
    name: str
    revision: str
    address: str
    runner: web.AppRunner
    ready: bool | None = None


@dataclass
class World:
    """One namespace with one policy. `behaviour` is by PromptVersion name of the revision's record."""

    client: Client
    namespace: str
    policy: str = "support"
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    pods: dict[str, _Pod] = field(default_factory=dict)
    traffic: TrafficState | None = None
    history: list[tuple[float, TrafficState]] = field(default_factory=list)
    metrics_up: bool = True
    metrics_answer: asyncio.Event = field(default_factory=asyncio.Event)  # while it is not set, what is asked waits
    prompts: dict[str, str] = field(default_factory=dict)  # revision → PromptVersion
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, dict[str, float]]]] = field(default_factory=dict)
    metrics_url: str = ""
    queries: int = 0
    asked: int = 0  # how often gateways were, for the generation that they act on
    sidecars: list[Body] = field(default_factory=list)  # that somebody's webhook puts into every pod

    def of(self, revision: str) -> Behaviour:
        """The behaviour of a revision."""
        return self.behaviour.get(self.prompts.get(revision, ""), Behaviour())

    async def prompt(self, name: str, *, text: str | None = None, version: str | None = None) -> Body:
        """Create a PromptVersion; without `version`, of a version that no other has."""
        version = version or f"1.0.0-{name}"
        spec = {"prompt": self.policy, "version": version, "messages": [{"role": "system", "content": text or f"You are {name}."}]}
        body = {"apiVersion": API_VERSION, "kind": "PromptVersion", "metadata": self._metadata(name), "spec": spec}
        return await self.client.create(PROMPT_VERSIONS, body=body, manager=MANAGER)

    async def apply(self, prompt: str, *, name: str | None = None, **spec: Any) -> Body:
        """Apply the policy with this PromptVersion."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "FallbackPolicy",
            "metadata": self._metadata(name or self.policy),
            "spec": policy_spec(prompt) | spec,
        }
        return await self.client.apply(POLICIES, body=body, manager=MANAGER)

    async def ask(self, **tokens: str) -> Body:
        """Annotate the policy, as a person does."""
        annotations = {f"{GROUP}/{name.replace('_', '-')}": value for name, value in tokens.items()}
        metadata = self._metadata(self.policy) | {"annotations": annotations}
        body = {"apiVersion": API_VERSION, "kind": "FallbackPolicy", "metadata": metadata}
        return await self.client.apply(POLICIES, body=body, manager="person")

    async def status(self, name: str | None = None) -> dict[str, Any]:
        """The policy's status now."""
        body = await self.client.get(POLICIES, namespace=self.namespace, name=name or self.policy)
        status: dict[str, Any] = body.get("status", {})
        return status

    async def until_status(self, what: str, holds: Callable[[Mapping[str, Any]], Any], *, within: float = 30.0) -> dict[str, Any]:
        """Wait until the policy's status is so."""

        async def look() -> dict[str, Any] | None:
            status = await self.status()
            return status if holds(status) else None

        try:
            return await until(what, look, within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {json.dumps(await self.status(), indent=1)}; traffic: {self.traffic}") from None

    async def canary_is(self, prompt: str) -> dict[str, Any]:
        """Wait until this PromptVersion is the canary."""
        return await self.until_status(f"{prompt} is the canary", lambda s: s.get("canary", {}).get("promptVersion") == prompt)

    async def names(self, resource: Resource) -> set[str]:
        """Names of what there is in the namespace."""
        found, _ = await self.client.list(resource, namespace=self.namespace)
        return {item["metadata"]["name"] for item in found}

    async def reports(self) -> list[Body]:
        """The policy's RolloutReports, oldest first."""
        found, _ = await self.client.list(REPORTS, namespace=self.namespace, labels=f"{LABEL_POLICY}={self.policy}")
        return sorted(found, key=lambda report: str(report["spec"]["endedAt"]))

    async def told(self, *, of: Resource = POLICIES) -> list[Body]:
        """The events that were told of objects of this kind, oldest first."""
        found, _ = await self.client.list(EVENTS, namespace=self.namespace)
        return sorted((event for event in found if event["regarding"]["kind"] == of.kind), key=lambda event: str(event["eventTime"]))

    async def events(self) -> set[str]:
        """Reasons of the events that were told in the namespace."""
        found, _ = await self.client.list(EVENTS, namespace=self.namespace)
        return {item["reason"] for item in found}

    async def quiet(self) -> None:
        """Wait until the policy, its prompts and its children have not changed for two seconds."""
        seen: list[tuple[float, tuple[str, ...]]] = []

        async def settled() -> bool:
            versions = []
            for resource in (POLICIES, PROMPT_VERSIONS, DEPLOYMENTS, CONFIG_MAPS, SERVICES, PODS):
                items, _ = await self.client.list(resource, namespace=self.namespace)
                versions += [item["metadata"]["resourceVersion"] for item in items]
            now = time.monotonic()
            if not seen or seen[-1][1] != tuple(versions):
                seen.append((now, tuple(versions)))
            return now - seen[-1][0] > 2.0

        await until("nothing changes any more", settled)

    async def deployment(self, name: str) -> Body:
        """A Deployment as it is now."""
        return await self.client.get(DEPLOYMENTS, namespace=self.namespace, name=name)

    async def delete_deployment(self, name: str) -> None:
        """Somebody deletes a Deployment."""
        body = await self.deployment(name)
        await self.client.delete(DEPLOYMENTS, namespace=self.namespace, name=name, uid=body["metadata"]["uid"])

    async def edit_deployment(self, name: str, *, image: str, replicas: int) -> None:
        """What somebody does with `kubectl edit`."""
        body = await self.deployment(name)
        body["spec"]["replicas"] = replicas
        body["spec"]["template"]["spec"]["containers"][0]["image"] = image
        await self.client.replace(DEPLOYMENTS, body=body, manager=MANAGER)

    async def touch_status(self) -> str:
        """Somebody else writes into the policy's status; returns the version of it."""
        return await self._touched(POLICIES, name=self.policy)

    async def touch_route(self) -> str:
        """Somebody else writes the traffic object; returns the version of it."""
        return await self._touched(CONFIG_MAPS, name=traffic_object(self.policy))

    async def _touched(self, resource: Resource, *, name: str) -> str:
        while True:
            body = await self.client.get(resource, namespace=self.namespace, name=name)
            body["metadata"].setdefault("annotations", {})["touched"] = str(time.monotonic())
            with contextlib.suppress(Conflict):
                written = await self.client.replace(resource, body=body, manager=MANAGER)
                return str(written["metadata"]["resourceVersion"])

    async def until_prompt_status(self, name: str, what: str, holds: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        """Wait until the PromptVersion's status is so."""

        async def look() -> dict[str, Any] | None:
            body = await self.client.get(PROMPT_VERSIONS, namespace=self.namespace, name=name)
            status: dict[str, Any] = body.get("status", {})
            return status if holds(status) else None

        return await until(what, look)

    async def stable_on(self, prompt: str, *, within: float = 30.0) -> dict[str, Any]:
        """Wait until this PromptVersion is stable and Ready says so."""
        return await self.until_status(
            f"{prompt} is stable",
            lambda s: s.get("stable", {}).get("promptVersion") == prompt and condition(s, "Ready")["status"] == "True",
            within=within,
        )

    async def route(self) -> TrafficState:
        """The traffic object now; waits until there is one."""

        async def look() -> TrafficState | None:
            with contextlib.suppress(NotFound):
                body = await self.client.get(CONFIG_MAPS, namespace=self.namespace, name=traffic_object(self.policy))
                return parse(body["data"])
            return None

        return await until("the traffic object exists", look)

    async def shares(self) -> list[int]:
        """The canary's shares in thousandths, in the order in which gateways saw them, without repetitions, up to now."""
        route = await self.route()

        async def seen() -> bool:
            return self.traffic is not None and self.traffic.generation >= route.generation

        await until("gateways have seen the traffic object", seen)
        return [permille for permille, _ in itertools.groupby(state.permille for _, state in self.history)]

    def _metadata(self, name: str) -> Body:
        return {"name": name, "namespace": self.namespace}

    # Kubelet and gateways

    async def live(self) -> None:
        """Play kubelet, gateways and scrapes until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._kubelet())
                tasks.create_task(self._scrapes())
        finally:
            for pod in self.pods.values():
                await pod.runner.cleanup()

    async def _kubelet(self) -> None:
        while True:
            await self._read_traffic()
            deployments, _ = await self.client.list(DEPLOYMENTS, namespace=self.namespace)
            wanted: dict[str, Body] = {}
            for deployment in deployments:
                template = deployment["spec"]["template"]
                for number in range(deployment["spec"]["replicas"]):
                    wanted[f"{deployment['metadata']['name']}-{number}"] = template
            for name in [name for name in self.pods if name not in wanted]:
                await self._end(name)
            for name, template in wanted.items():
                await self._keep(name, template=template)
            await asyncio.sleep(TICK_SECONDS)

    async def _read_traffic(self) -> None:
        try:
            body = await self.client.get(CONFIG_MAPS, namespace=self.namespace, name=traffic_object(self.policy))
            state = parse(body["data"])
        except (NotFound, ValueError):
            return
        if state != self.traffic:
            self.traffic = state
            self.history.append((time.time(), state))

    async def _keep(self, name: str, *, template: Body) -> None:
        if name not in self.pods:
            await self._begin(name, template=template)
        if name not in self.pods:
            return  # refused
        pod = self.pods[name]
        behaviour = self.of(pod.revision)
        if pod.ready is not behaviour.ready:
            pod.ready = behaviour.ready
            waiting = {"waiting": {"reason": behaviour.waiting, "message": "as scripted"}} if behaviour.waiting else {"running": {}}
            status = {
                "phase": "Running" if behaviour.ready else "Pending",
                "podIP": pod.address,
                "podIPs": [{"ip": pod.address}],
                "conditions": [{"type": "Ready", "status": "True" if behaviour.ready else "False"}],
                "containerStatuses": [
                    {
                        "name": "gateway",
                        "image": "gateway:test",
                        "imageID": "",
                        "ready": behaviour.ready,
                        "restartCount": 0,
                        "state": waiting,
                    }
                ],
            }
            await self._write_pod_status(name, status)

    async def _write_pod_status(self, name: str, status: Body) -> None:
        with contextlib.suppress(NotFound, Conflict):
            body = await self.client.get(PODS, namespace=self.namespace, name=name)
            await self.client.patch_status(
                PODS,
                namespace=self.namespace,
                name=name,
                patch=status,
                resource_version=body["metadata"]["resourceVersion"],
                manager=MANAGER,
            )

    async def _begin(self, name: str, *, template: Body) -> None:
        labels = template["metadata"]["labels"]
        revision = labels[LABEL_REVISION]
        record = await self.client.get(CONFIG_MAPS, namespace=self.namespace, name=f"{labels[LABEL_POLICY]}-{revision}")
        self.prompts[revision] = json.loads(record["data"]["revision.json"])["promptVersion"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": self._metadata(name) | {"labels": labels},
            "spec": {
                "containers": [{"name": "gateway", "image": "gateway:test", "securityContext": _security(template)}, *self.sidecars],
                "securityContext": template["spec"].get("securityContext", {}),
                "automountServiceAccountToken": False,
            },
        }
        try:
            await self.client.create(PODS, body=body, manager=MANAGER)
        except Conflict:
            pass
        except Rejected as refused:
            # Each attempt of the controller manager is for a pod of another name.
            said = str(refused).partition(": ")[2].replace(name, f"{name}-{next(_attempts)}")
            await self._failed_replica(name.rpartition("-")[0], message=said)
            return
        app = web.Application()
        app.router.add_get("/-/status", functools.partial(self._gateway_status, revision))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        address = next_address()
        await web.TCPSite(runner, address, METRICS_PORT).start()
        self.pods[name] = _Pod(name, revision, address, runner)

    async def _failed_replica(self, deployment: str, *, message: str) -> None:
        """What the controller manager says of a Deployment whose pods are refused."""
        failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        with contextlib.suppress(NotFound, Conflict):
            body = await self.deployment(deployment)
            await self.client.patch_status(
                DEPLOYMENTS,
                namespace=self.namespace,
                name=deployment,
                patch={"conditions": [failed]},
                resource_version=body["metadata"]["resourceVersion"],
                manager=MANAGER,
            )

    async def _gateway_status(self, revision: str, _: web.Request) -> web.Response:
        self.asked += 1
        known = self.traffic.generation if self.traffic is not None and self.of(revision).acts else None
        return web.json_response({"revision": revision, "generation": known})

    async def _end(self, name: str) -> None:
        pod = self.pods.pop(name)
        await pod.runner.cleanup()
        with contextlib.suppress(NotFound):
            body = await self.client.get(PODS, namespace=self.namespace, name=name)
            path = PODS.path(namespace=self.namespace, name=name)
            await self.client._request("DELETE", path, body={"gracePeriodSeconds": 0, "preconditions": {"uid": body["metadata"]["uid"]}})

    # Traffic and Prometheus

    async def _scrapes(self) -> None:
        while True:
            if self.traffic is not None:
                shares = {self.traffic.stable: 1000 - self.traffic.permille}
                if self.traffic.canary is not None:
                    shares[self.traffic.canary] = self.traffic.permille
                for revision, permille in shares.items():
                    total = REQUESTS_PER_SCRAPE * permille / 1000
                    counted = self.counters.setdefault(revision, {"total": 0.0, "bad": 0.0})
                    counted["total"] += total
                    counted["bad"] += round(total * self.of(revision).bad)
            now = time.time()
            for revision, counted in self.counters.items():
                kept = self.samples.setdefault(revision, [])
                kept.append((now, dict(counted)))
                del kept[:-300]
            await asyncio.sleep(SCRAPE_SECONDS)

    async def answer_query(self, request: web.Request) -> web.Response:
        """Prometheus' `/api/v1/query` for a range selector."""
        self.queries += 1
        await self.metrics_answer.wait()
        if not self.metrics_up:
            return web.json_response({"status": "error", "errorType": "internal", "error": "as scripted"}, status=503)
        query = request.query["query"] if "query" in request.query else (await request.post())["query"]
        window = float(str(query).rsplit("[", 1)[1].rstrip("s]"))
        since = time.time() - window
        result = []
        for revision, samples in self.samples.items():
            points = [(at, counted) for at, counted in samples if at >= since]
            if points:
                result += _series(self, revision, points)
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})


def _security(template: Body) -> Body:
    (container,) = template["spec"]["containers"]
    said: Body = container.get("securityContext", {})
    return said


def _series(world: World, revision: str, points: list[tuple[float, dict[str, float]]]) -> list[Body]:
    base = {"namespace": world.namespace, "policy": world.policy, "revision": revision, "instance": "entry:9090", "job": "gateways"}

    def series(metric: str, value: Callable[[dict[str, float]], float], **labels: str) -> Body:
        return {"metric": base | {"__name__": metric} | labels, "values": [[at, str(value(counted))] for at, counted in points]}

    answered = {"cache": "miss", "first_tier": "answered"}
    found = [
        series(metricnames.SERVED_TOTAL, lambda c: c["total"], outcome="success", **answered),
        series(metricnames.SENT_TOTAL, lambda c: c["total"]),
        series(metricnames.SERVED_SECONDS + "_count", lambda c: c["total"], **answered),
    ]
    for bound in metricnames.latency_bounds([0.15]):
        within = functools.partial(_within, bound)
        found.append(series(metricnames.SERVED_SECONDS + "_bucket", within, le=metricnames.bound_label(bound), **answered))
    found.append(series(metricnames.SERVED_SECONDS + "_bucket", lambda c: c["total"], le="+Inf", **answered))
    return found


def _within(bound: float, counted: dict[str, float]) -> float:
    """Good requests take 0.1 s, bad ones 0.4 s."""
    if bound < 0.1:
        return 0.0
    return counted["total"] if bound >= 0.4 else counted["total"] - counted["bad"]


def policy_spec(prompt: str) -> Body:
    """A policy with two quick steps and one latency objective."""
    return {
        "promptVersion": prompt,
        "latencyBudgetMilliseconds": 400,
        "chain": [
            {"name": "primary", "model": {"baseURL": "http://model.test/v1", "name": "m"}},
            {"name": "static", "static": {"default": "Sorry."}},
        ],
        "slos": [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150, "minRequests": 20}],
        "canary": {
            "steps": [{"weight": 20, "holdSeconds": 1}, {"weight": 100, "holdSeconds": 1}],
            "analysis": {"warmUpSeconds": 0},
            "progressDeadlineSeconds": 10,
        },
        "rollback": {"keepPreviousSeconds": 15, "guardSeconds": 0},
        "serving": {"replicas": 1},
    }


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of this type; one that is not there has the status `Absent`."""
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {"status": "Absent", "reason": "", "message": ""})


@contextlib.asynccontextmanager
async def small_world(client: Client, *, namespace: str) -> AsyncIterator[World]:
    """A fresh namespace, alive while the context lasts."""
    async with living(World(client, namespace)) as world:
        yield world


@contextlib.asynccontextmanager
async def living(world: W) -> AsyncIterator[W]:
    """The world's namespace, fresh, and the world alive while the context lasts."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world.namespace, "labels": {LABEL_MANAGED_BY: MANAGER}}}
    await world.client._request("POST", "/api/v1/namespaces", query={"fieldManager": MANAGER}, body=body)
    app = web.Application()
    world.metrics_answer.set()
    app.router.add_route("*", "/api/v1/query", world.answer_query)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    world.metrics_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    life = asyncio.create_task(world.live())
    try:
        yield world
        if life.done():
            await life
    finally:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life
        world.metrics_answer.set()
        await runner.cleanup()
