"""One policy in a namespace of its own, under load, and the questions that the tests ask of it.

Talks to the API server as any user would. Every wait has a deadline and says what it waited for.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from backstop.api.traffic import TrafficState, parse
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, EVENTS, PODS, POLICIES, PROMPT_VERSIONS, Resource
from e2e.callers import Callers, calling, streaming
from e2e.load import Answer

MANAGER = "e2e"
POLICY = "support"
MODEL_URL = "http://fakemodel.models.svc:8000/v1"
MODEL_SCRIPT = "/api/v1/namespaces/models/services/fakemodel:8000/proxy/-/script"
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")

# What a prompt says decides how the fake model behaves: see `e2e/manifests/fakemodel.yaml`.
GOOD = "Answer in one sentence."
ALSO_GOOD = "Answer in one friendly sentence."
SLOW = "Think step by step."
INVENTS = "Give exact figures."
HASTY = "Answer in haste."
ALSO_HASTY = "Answer in haste, please."

Status = Mapping[str, Any]


def prompt(version: str, *, text: str) -> dict[str, Any]:
    """A PromptVersion named after its version."""
    spec = {"prompt": "support", "version": version, "messages": [{"role": "system", "content": text}]}
    return {
        "apiVersion": PROMPT_VERSIONS.api_version,
        "kind": PROMPT_VERSIONS.kind,
        "metadata": {"name": name_of(version)},
        "spec": spec,
    }


def name_of(version: str) -> str:
    """Name of the PromptVersion of this version."""
    return "support-" + version.replace(".", "-")


def policy(version: str, *, steps: list[tuple[int, int]], replicas: int = 2, deadline: int = 120, **spec: Any) -> dict[str, Any]:
    """The policy, wanting this version. `steps`: (weight, hold seconds); `spec`: what else to set."""
    return {
        "apiVersion": POLICIES.api_version,
        "kind": POLICIES.kind,
        "metadata": {"name": POLICY},
        "spec": {
            "promptVersion": name_of(version),
            "latencyBudgetMilliseconds": 400,
            "chain": [
                {
                    "name": "primary",
                    "model": {"baseURL": MODEL_URL, "name": "large"},
                    "timeouts": {"firstTokenMilliseconds": 380},
                },
                {"name": "static", "static": {"default": "We cannot answer right now."}},
            ],
            "slos": [
                {"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150, "forSeconds": 30},
                {"name": "errors", "indicator": "ErrorRate", "maxPercent": "5", "forSeconds": 10},
            ],
            "canary": {
                "steps": [{"weight": weight, "holdSeconds": hold} for weight, hold in steps],
                "analysis": {"warmUpSeconds": 0},
                "progressDeadlineSeconds": deadline,
            },
            "rollback": {"keepPreviousSeconds": 30},
            "serving": {"replicas": replicas, "resources": {"requests": {"cpu": "25m", "memory": "64Mi"}}},
            **spec,
        },
    }


class Scenario:
    """A namespace with one policy."""

    def __init__(self, client: Client, *, connection: Connection, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self._connection = connection

    async def apply(self, *bodies: Mapping[str, Any], manager: str = MANAGER) -> None:
        """Server-side apply into the namespace."""
        kinds = {resource.kind: resource for resource in (POLICIES, PROMPT_VERSIONS, CONFIG_MAPS)}
        for body in bodies:
            whole = {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}
            await self.client.apply(kinds[body["kind"]], body=whole, manager=manager)

    async def want(self, version: str) -> None:
        """Name another version, as a user does."""
        body = {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind, "metadata": {"name": POLICY}}
        await self.apply({**body, "spec": {"promptVersion": name_of(version)}}, manager="somebody-else")

    async def status(self) -> Status:
        """The policy's status."""
        status: Status = (await self.client.get(POLICIES, namespace=self.namespace, name=POLICY)).get("status", {})
        return status

    async def until(self, seen: Callable[[Status], Any], *, within: float, what: str) -> Any:
        """Poll status until `seen` gives something true, and return that."""
        end = time.monotonic() + within
        while True:
            status = await self.status()
            if found := seen(status):
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {within:.0f} s; status: {status}")
            await asyncio.sleep(0.2)

    async def until_stable(self, version: str, *, within: float = 60) -> Status:
        """Until this version is stable and the policy is Ready."""

        def seen(status: Status) -> Status | None:
            named = status.get("stable", {}).get("promptVersion") == name_of(version)
            return status if named and condition(status, "Ready") == "True" else None

        stable: Status = await self.until(seen, within=within, what=f"{version} stable and Ready")
        return stable

    async def until_weight(self, weight: int, *, within: float = 60) -> Mapping[str, Any]:
        """Until the canary has this weight, verified."""

        def seen(status: Status) -> Mapping[str, Any] | None:
            canary: Mapping[str, Any] = status.get("canary") or {}
            return canary if canary.get("weight") == weight and canary.get("weightVerifiedAt") else None

        canary: Mapping[str, Any] = await self.until(seen, within=within, what=f"a canary at {weight} %")
        return canary

    async def until_ended(self, revision: str, *, within: float) -> Mapping[str, Any]:
        """Until the rollout of this revision has ended and every gateway was seen to act on it."""

        def seen(status: Status) -> Mapping[str, Any] | None:
            last: Mapping[str, Any] = status.get("lastRollout") or {}
            return last if last.get("revision") == revision and last.get("shiftedAt") else None

        last: Mapping[str, Any] = await self.until(seen, within=within, what=f"the end of {revision}")
        return last

    @asynccontextmanager
    async def slow_model(self, *, for_prompts_with: str) -> AsyncIterator[float]:
        """While the context lasts the model answers late where the prompt has these words. Gives the time from when on."""
        async with streaming(self._connection) as session:
            async with session.get(MODEL_SCRIPT) as response:
                rules = await response.json()
            slow = {"match": for_prompts_with, "latencyMilliseconds": 300, "text": "After long thought: at ten."}
            began = time.time()
            async with session.post(MODEL_SCRIPT, json=[slow, *rules]) as response:
                assert response.status == 200, await response.text()
            try:
                yield began
            finally:
                async with session.post(MODEL_SCRIPT, json=rules) as response:
                    assert response.status == 200, await response.text()

    async def traffic(self) -> TrafficState:
        """The traffic object."""
        return parse((await self.client.get(CONFIG_MAPS, namespace=self.namespace, name=f"{POLICY}-traffic"))["data"])

    async def pods(self, revision: str | None = None) -> list[dict[str, Any]]:
        """The gateway pods, of one revision or all."""
        labels = f"backstop.dev/policy={POLICY}" + (f",backstop.dev/revision={revision}" if revision else "")
        pods, _ = await self.client.list(PODS, namespace=self.namespace, labels=labels)
        return pods

    async def until_nothing(self, resource: Resource, *, labels: str | None = None, within: float = 30) -> None:
        """Until there is none of these in the namespace."""
        end = time.monotonic() + within
        while (found := await self.client.list(resource, namespace=self.namespace, labels=labels))[0]:
            assert time.monotonic() < end, f"still there: {[body['metadata']['name'] for body in found[0]]}"
            await asyncio.sleep(0.2)

    async def until_no_deployment(self, revision: str, *, within: float = 20) -> None:
        """Until the revision has no Deployment: it goes after status says that nothing of it is left to do."""
        end = time.monotonic() + within
        while True:
            try:
                await self.client.get(DEPLOYMENTS, namespace=self.namespace, name=f"{POLICY}-{revision}")
            except NotFound:
                return
            assert time.monotonic() < end, f"the Deployment of {revision} is still there"
            await asyncio.sleep(0.2)

    async def reasons(self) -> list[str]:
        """Reasons of the policy's events, in order."""
        events, _ = await self.client.list(EVENTS, namespace=self.namespace)
        mine = [event for event in events if event.get("regarding", {}).get("kind") == POLICIES.kind]
        return [event["reason"] for event in sorted(mine, key=lambda event: str(event["eventTime"]))]

    @asynccontextmanager
    async def calling(self, *arguments: str) -> AsyncIterator[Callers]:
        """Load on the Service while the context lasts (by default 40 requests a second)."""
        url = f"http://{POLICY}.{self.namespace}.svc:8080"
        what = ["--url", url, *(arguments or ("--rate", "40"))]
        async with calling(self._connection, self.client, namespace=self.namespace, arguments=what) as callers:
            await callers.until(1, within=30)
            yield callers

    @asynccontextmanager
    async def load(self, *arguments: str) -> AsyncIterator[Callers]:
        """The same; a request that fails inside it fails the test."""
        async with self.calling(*arguments) as callers:
            yield callers
        assert_nobody_noticed(callers.answers)


def assert_nobody_noticed(answers: list[Answer]) -> None:
    """No caller saw anything but an answer."""
    failed = [answer for answer in answers if answer.failed]
    assert answers
    assert not failed, f"{len(failed)} of {len(answers)} requests failed: {failed[:20]}"


def condition(status: Status, kind: str) -> str | None:
    """Status of a condition; None where it is not there."""
    return next((c["status"] for c in status.get("conditions", []) if c["type"] == kind), None)
