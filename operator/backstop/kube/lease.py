"""A Lease of the coordination API: reading it, taking it over exactly as it was seen, and following its changes. Judges nothing."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime

from .client import Client
from .errors import NotFound
from .resources import LEASES, Body


@dataclass(frozen=True)
class Lease:
    """`holder`: empty while nobody holds it. `seconds`: how long it lasts unrenewed. `version`: None while there is no such object."""

    holder: str
    seconds: int
    transitions: int
    version: str | None


class LeaseObject:
    """One Lease. All methods raise KubeError."""

    def __init__(self, client: Client, *, namespace: str, name: str, manager: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._manager = manager

    async def read(self) -> Lease:
        """As it is now."""
        try:
            return _lease(await self._client.get(LEASES, namespace=self._namespace, name=self._name))
        except NotFound:
            return Lease(holder="", seconds=0, transitions=0, version=None)

    async def write(self, over: Lease, *, holder: str, seconds: int, now: float) -> Lease:
        """Hold it, renew it, or with an empty `holder` let it go. Conflict if it is not as in `over` any more."""
        changed = holder != over.holder
        time = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec: Body = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "renewTime": time,
            "leaseTransitions": over.transitions + (1 if changed and holder else 0),
        }
        metadata: Body = {"name": self._name, "namespace": self._namespace}
        body: Body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
        if over.version is None:
            return _lease(await self._client.create(LEASES, body=body, manager=self._manager))
        metadata["resourceVersion"] = over.version
        return _lease(await self._client.replace(LEASES, body=body, manager=self._manager))

    async def follow(self, since: Lease) -> AsyncGenerator[Lease, None]:
        """Its changes from then on, as they come, until the API server ends the watch."""
        if since.version is None:
            return
        async for body in self._client.follow(LEASES, namespace=self._namespace, name=self._name, version=since.version):
            yield _lease(body)


def _lease(body: Body) -> Lease:
    spec = body.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        seconds=spec.get("leaseDurationSeconds") or 0,
        transitions=spec.get("leaseTransitions") or 0,
        version=body["metadata"]["resourceVersion"],
    )
