"""Plays what a cluster does beside the API server: makes pods of Deployments, gives gateways news of their traffic object, notes statuses.

Every object is watched once. For each policy it is noted when its route took the traffic from a canary, as a watcher sees it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from backstop.api.names import LABEL_MANAGED_BY, LABEL_POLICY, LABEL_REVISION, MANAGED_BY, revision_object, traffic_object
from backstop.api.traffic import parse
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, POLICIES, Body

from .api import Api
from .gateways import Gateways, PolicyName
from .objects import pod_body, ready_status

OURS: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_POLICY}"
T = TypeVar("T")


@dataclass
class Kubelet:
    """One cluster's worth.

    `silent`: policies whose pods are made elsewhere, and do not answer. `statuses`: of every policy, as last seen; `shifted`: when its
    route was last seen to fall to 0.
    """

    api: Api
    gateways: Gateways
    silent: set[PolicyName] = field(default_factory=set)
    statuses: dict[PolicyName, Body] = field(default_factory=dict)
    shifted: dict[PolicyName, float] = field(default_factory=dict)
    _pods: dict[PolicyName, list[tuple[str, str]]] = field(default_factory=dict)  # Deployment → (pod, address)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._routes())
            tasks.create_task(self._policies())
            tasks.create_task(self._deployments())

    async def until(self, what: str, holds: Callable[[], T | None], *, within: float) -> T:
        """Wait for something in what is noted."""
        try:
            async with asyncio.timeout(within):
                while not (found := holds()):
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await self._changed.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"not within {within:g} s: {what}") from None

    async def adopt(self, of: PolicyName, *, pod: Body) -> None:
        """Let a pod that is about to be stored answer; its address goes into its status."""
        revision = pod["metadata"]["labels"][LABEL_REVISION]
        address = await self.gateways.begin(of, revision=revision)
        pod["status"] |= ready_status(address)
        self._pods.setdefault((of[0], revision_object(of[1], revision=revision)), []).append((pod["metadata"]["name"], address))

    async def _keep(self, deployment: Body, *, replicas: int) -> None:
        """So many ready pods of a Deployment."""
        metadata = deployment["metadata"]
        of = metadata["namespace"], metadata["labels"][LABEL_POLICY]
        pods = self._pods.setdefault((metadata["namespace"], metadata["name"]), [])
        while len(pods) < replicas:
            address = await self.gateways.begin(of, revision=metadata["labels"][LABEL_REVISION])
            body = pod_body(deployment, number=len(pods))
            pods.append((body["metadata"]["name"], address))
            await self.api.create(PODS, body)
            await self.api.status(PODS, namespace=of[0], name=pods[-1][0], status=ready_status(address))
        while len(pods) > replicas:
            name, address = pods.pop()
            self.gateways.end(address)
            await self.api.delete(PODS, namespace=of[0], name=name)

    async def _deployments(self) -> None:
        # One after the other, for two events of a Deployment must not meet.
        async for event, body in self.api.follow(DEPLOYMENTS, labels=OURS):
            if (body["metadata"]["namespace"], body["metadata"]["labels"][LABEL_POLICY]) not in self.silent:
                await self._keep(body, replicas=0 if event == "DELETED" else body["spec"]["replicas"])

    async def _routes(self) -> None:
        async for event, body in self.api.follow(CONFIG_MAPS, labels=OURS):
            metadata = body["metadata"]
            of = metadata["namespace"], metadata["labels"][LABEL_POLICY]
            if metadata["name"] != traffic_object(of[1]) or event == "DELETED":
                continue
            policy = self.gateways.policy(of)
            before, policy.traffic = policy.traffic, parse(body["data"])
            if before is not None and before.permille > 0 and policy.traffic.permille == 0:
                self.shifted[of] = time.time()
            self._changed.set()

    async def _policies(self) -> None:
        async for _, body in self.api.follow(POLICIES):
            self.statuses[body["metadata"]["namespace"], body["metadata"]["name"]] = body.get("status", {})
            self._changed.set()
