"""Where a policy's shares are written: one small protocol, and what chooses between those that keep it.

A router knows how its object is spelled, read and written over the version that was read. It knows neither what is decided nor
who is seen to act on it.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from ..api.fallbackpolicy import FallbackPolicySpec
from ..api.names import callers_service, traffic_object
from ..api.traffic import TrafficState
from ..kube.client import Client
from ..kube.resources import CONFIG_MAPS, SERVICES, Body, Resource
from ..rendering.owner import Owner
from ..rendering.route import routed_service
from ..rendering.shared import traffic
from ..rollout.observed import Known, Unknown
from .replicas import observe_service, set_selector, strays_from
from .shares import observe_shares, set_shares

Shares = Known[TrafficState | None] | Unknown


class Router(Protocol):
    """One kind of route."""

    resource: Resource

    def name(self, policy: str) -> str:
        """Name of the object that a policy's shares are written into."""

    def observe(self, content: Mapping[str, Any], *, annotations: Mapping[str, str]) -> Shares:
        """What the object says: its `content` as the store keeps it, and its annotations."""

    def strays(self, content: Mapping[str, Any], *, policy: str, state: TrafficState | None) -> bool:
        """Whether the object does something else than its own `state` says, or may: None where that cannot be read."""

    def render(self, owner: Owner, *, state: TrafficState) -> Body:
        """The object that says `state`."""

    async def write(self, client: Client, *, body: Body, over: str | None, content: Mapping[str, Any], falling: bool, orphan: bool) -> Body:
        """Write what was rendered over the version `over`, with this `content`; None: it must not exist yet. Conflict if that is not so.

        `falling`: it takes traffic away, and carries no more than that needs. `orphan`: it has lost its owner.
        """


class GatewayRouter:
    """Gateways split requests by the policy's traffic object."""

    resource = CONFIG_MAPS

    def name(self, policy: str) -> str:
        """As the protocol says."""
        return traffic_object(policy)

    def observe(self, content: Mapping[str, Any], *, annotations: Mapping[str, str]) -> Shares:
        """As the protocol says."""
        return observe_shares(content)

    def strays(self, content: Mapping[str, Any], *, policy: str, state: TrafficState | None) -> bool:
        """Never: what it says is what it does, and gateways go on with what they read last."""
        return False

    def render(self, owner: Owner, *, state: TrafficState) -> Body:
        """As the protocol says."""
        return traffic(owner, state=state)

    async def write(self, client: Client, *, body: Body, over: str | None, content: Mapping[str, Any], falling: bool, orphan: bool) -> Body:
        """As the protocol says."""
        return await set_shares(client, body=body, over=over)


class ReplicaRouter:
    """Kubernetes shares connections out over the ready pods that the Service `p` selects."""

    resource = SERVICES

    def name(self, policy: str) -> str:
        """As the protocol says."""
        return callers_service(policy)

    def observe(self, content: Mapping[str, Any], *, annotations: Mapping[str, str]) -> Shares:
        """As the protocol says."""
        return observe_service(annotations)

    def strays(self, content: Mapping[str, Any], *, policy: str, state: TrafficState | None) -> bool:
        """As the protocol says."""
        return strays_from(content, policy=policy, state=state)

    def render(self, owner: Owner, *, state: TrafficState) -> Body:
        """As the protocol says."""
        return routed_service(owner, state=state)

    async def write(self, client: Client, *, body: Body, over: str | None, content: Mapping[str, Any], falling: bool, orphan: bool) -> Body:
        """As the protocol says."""
        return await set_selector(client, body=body, over=over, content=content, falling=falling, orphan=orphan)


GATEWAYS: Final[Router] = GatewayRouter()
REPLICAS: Final[Router] = ReplicaRouter()


def router_of(spec: FallbackPolicySpec) -> Router:
    """The router of a policy."""
    return GATEWAYS if spec.serving.workload is None else REPLICAS
