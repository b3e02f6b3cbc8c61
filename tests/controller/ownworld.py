"""The small world of a policy with a workload of its author's own: the Service is the route, and endpoints are who is reached.

Plays what Kubernetes does with a Service beside kubelet: the endpoints of the ready pods that it selects. Prometheus has two counters of
the author's own, by pod.
"""

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from backstop.api.names import API_VERSION, LABEL_REVISION
from backstop.api.traffic import TrafficState, parse
from backstop.kube.errors import Conflict, NotFound
from backstop.kube.resources import ENDPOINT_SLICES, PODS, POLICIES, SERVICES, Body

from .until import until
from .world import MANAGER, World

IMAGES = "registry.example/shop/"


@dataclass
class OwnWorld(World):
    """`behaviour` is by image, such as `w:2`. `reached`: revisions with a ready endpoint, as they followed on each other."""

    reached: list[frozenset[str]] = field(default_factory=list)
    endpoints_stand_still: bool = False

    async def run_image(self, image: str, **spec: Any) -> Body:
        """Apply the policy with this image."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "FallbackPolicy",
            "metadata": {"name": self.policy, "namespace": self.namespace},
            "spec": own_spec(image) | spec,
        }
        return await self.client.apply(POLICIES, body=body, manager=MANAGER)

    async def service(self) -> Body:
        """The Service that callers use; waits until there is one: status names the first revision before."""
        return await until("the Service exists", self._present_service)

    async def _present_service(self) -> Body | None:
        with contextlib.suppress(NotFound):
            return await self.client.get(SERVICES, namespace=self.namespace, name=self.policy)
        return None

    async def route(self) -> TrafficState:
        """What the Service says; waits until there is one."""
        return said(await self.service())

    async def edit_service(self, **spec: Any) -> str:
        """Somebody edits these fields of the Service's spec; returns the version of it."""
        while True:
            body = await self.service()
            body["spec"] |= spec
            with contextlib.suppress(Conflict):
                return str((await self.client.replace(SERVICES, body=body, manager=MANAGER))["metadata"]["resourceVersion"])

    async def touch_route(self) -> str:
        """Somebody else writes the Service; returns the version of it."""
        return await self._touched(SERVICES, name=self.policy)

    async def _read_traffic(self) -> None:
        service = await self._present_service()
        if service is None:
            return
        with contextlib.suppress(ValueError):
            state = said(service)
            if state != self.traffic:
                self.traffic = state
                self.history.append((time.time(), state))
        if not self.endpoints_stand_still:
            await self._follow(service)

    async def _follow(self, service: Body) -> None:
        """Write the endpoints of the Service: the ready pods that it selects."""
        labels = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
        pods, _ = await self.client.list(PODS, namespace=self.namespace, labels=labels)
        endpoints = [
            {
                "addresses": [f"192.0.2.{number + 1}"],  # of the loop, where these pods are, none is allowed here
                "conditions": {"ready": _is_ready(pod), "serving": _is_ready(pod), "terminating": False},
                "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": self.namespace, "uid": pod["metadata"]["uid"]},
            }
            for number, pod in enumerate(pods)
            if pod.get("status", {}).get("podIP")
        ]
        body = {
            "apiVersion": ENDPOINT_SLICES.api_version,
            "kind": ENDPOINT_SLICES.kind,
            "metadata": {
                "name": f"{self.policy}-0",
                "namespace": self.namespace,
                "labels": {"kubernetes.io/service-name": self.policy},
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        }
        await self.client.apply(ENDPOINT_SLICES, body=body, manager=MANAGER)
        reached = frozenset(str(pod["metadata"]["labels"][LABEL_REVISION]) for pod in pods if _is_ready(pod))
        if not self.reached or self.reached[-1] != reached:
            self.reached.append(reached)

    async def answer_query(self, request: web.Request) -> web.Response:
        """Prometheus' `/api/v1/query` for the range of one of two counters."""
        self.queries += 1
        query = str(request.query["query"] if "query" in request.query else (await request.post())["query"])
        metric, key = ("late_total", "bad") if query.startswith("late_total") else ("all_total", "total")
        since = time.time() - float(query.rsplit("[", 1)[1].rstrip("s]"))
        result = []
        for revision, samples in self.samples.items():
            points = [[at, str(counted[key])] for at, counted in samples if at >= since]
            labels = {
                "__name__": metric,
                "namespace": self.namespace,
                "pod": f"{self.policy}-{revision}-0",
                "instance": f"{revision}:9100",
                "job": "own",
            }
            if points:
                result.append({"metric": labels, "values": points})
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})


def said(service: Body) -> TrafficState:
    """What the Service says of the traffic."""
    annotations = service["metadata"].get("annotations") or {}
    return parse({key.removeprefix("backstop.dev/"): value for key, value in annotations.items()})


def _is_ready(pod: Body) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())
    return ready and bool(pod["status"].get("podIP")) and "deletionTimestamp" not in pod["metadata"]


def own_spec(image: str) -> Body:
    """A policy with two quick steps and one objective of its own."""
    return {
        "slos": [{"name": "late", "promQL": {"bad": "late_total", "total": "all_total"}, "maxPercent": "5", "minRequests": 20}],
        "canary": {
            "steps": [{"weight": 50, "holdSeconds": 1}, {"weight": 100, "holdSeconds": 1}],
            "analysis": {"warmUpSeconds": 0},
            "progressDeadlineSeconds": 60,
        },
        "rollback": {"keepPreviousSeconds": 15, "guardSeconds": 0},
        "serving": {"replicas": 2, "workload": {"image": f"{IMAGES}{image}", "port": 8000}},
    }
