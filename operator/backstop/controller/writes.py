"""Writes to the cluster, each taken over into the store at once, so that the next look sees it. Knows no order of writes."""

import contextlib
from collections.abc import Callable, Mapping

from ..api.names import OPERATOR_MANAGER
from ..kube.client import Client
from ..kube.errors import NotFound
from ..kube.events import event
from ..kube.resources import EVENTS, PODS, Body, Resource
from ..traffic.router import Router
from .keys import Key
from .mergepatch import merge_patch
from .seen import Child, Declared, Seen, child, declared, seen
from .store import Store


class Writes:
    """The operator's hand: one API server, one store. `instance` names this process in events. `wake`: for whom it concerns when somebody
    else's change is found before a watch tells of it, for then the watch's is no news any more.
    """

    def __init__(self, client: Client, *, store: Store, instance: str, wake: Callable[[Key], None]) -> None:
        self._client = client
        self._store = store
        self._instance = instance
        self._wake = wake

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Body | None:
        """The object as it is now, taken over into the store if it is one of ours; None if there is none."""
        try:
            return await self._client.get(resource, namespace=namespace, name=name)
        except NotFound:
            return None

    async def pods_by(self, *, namespace: str, labels: str) -> list[Body]:
        """Pods by labels, as they are now; the store keeps those of gateways only."""
        found, _ = await self._client.list(PODS, namespace=namespace, labels=labels)
        return found

    async def log(self, *, namespace: str, pod: str, container: str, lines: int, most_bytes: int) -> bytes:
        """The end of a container's log."""
        return await self._client.log(namespace=namespace, pod=pod, container=container, lines=lines, most_bytes=most_bytes)

    async def refresh(self, resource: Resource, *, namespace: str, name: str, by: Key) -> None:
        """Look at the object again: somebody else has changed it. `by`: who looks, and needs not be woken."""
        before = self._store.known(resource, namespace=namespace, name=name)
        body = await self.get(resource, namespace=namespace, name=name)
        if body is not None:
            concerned = self._store.put(seen(body, resource=resource), read=True)
        else:
            # What was known before is gone. A watch may have told meanwhile of one that was made since.
            concerned = self._store.remove(before) if before is not None else frozenset()
        for key in concerned - {by}:
            self._wake(key)

    def take(self, body: Body, *, resource: Resource) -> Seen:
        """Take over what the API server said."""
        news = seen(body, resource=resource)
        self._store.put(news)
        return news

    async def create(self, resource: Resource, *, body: Body) -> Body:
        """A new object. Conflict if it exists."""
        created = await self._client.create(resource, body=body, manager=OPERATOR_MANAGER)
        self._store.put(child(created, resource=resource))
        return created

    async def apply(self, resource: Resource, *, body: Body) -> Body:
        """Server-side apply."""
        applied = await self._client.apply(resource, body=body, manager=OPERATOR_MANAGER)
        self._store.put(child(applied, resource=resource))
        return applied

    async def scale(self, of: Seen, *, replicas: int) -> Seen:
        """The number of replicas alone. It is merged and not applied: an autoscaler takes the field over by writing it."""
        patch = {"metadata": {"uid": of.uid}, "spec": {"replicas": replicas}}
        body = await self._client.patch(of.resource, namespace=of.namespace, name=of.name, patch=patch, manager=OPERATOR_MANAGER)
        return self.take(body, resource=of.resource)

    async def delete(self, gone: Seen) -> None:
        """Delete exactly this object; it is fine if it is gone."""
        with contextlib.suppress(NotFound):
            await self._client.delete(gone.resource, namespace=gone.namespace, name=gone.name, uid=gone.uid)
        self._store.remove(gone)

    async def route(self, router: Router, *, body: Body, over: Child | None, falling: bool) -> None:
        """The object of the router, over the one that was read. Conflict if it is another by now."""
        version, content = (over.version, over.content) if over is not None else (None, {})
        orphan = over is not None and over.owner is None
        written = await router.write(self._client, body=body, over=version, content=content, falling=falling, orphan=orphan)
        self._store.put(child(written, resource=router.resource))

    async def status(self, of: Declared, *, status: Body) -> bool:
        """The status, over the version that was read. Conflict if it is another by now. Returns whether there was anything to write."""
        patch = merge_patch(of.status, after=status)
        if not patch:
            return False
        written = await self._client.patch_status(
            of.resource, namespace=of.namespace, name=of.name, patch=patch, resource_version=of.version, manager=OPERATOR_MANAGER
        )
        self._store.put(declared(written, resource=of.resource))
        return True

    async def finalizers(self, of: Declared, *, finalizers: tuple[str, ...]) -> None:
        """The finalizers, over the version that was read. Conflict if it is another by now."""
        await self.metadata(of, patch={"finalizers": list(finalizers)})

    async def metadata(self, of: Seen, *, patch: Body) -> None:
        """Merge patch of the metadata, over the version that was read. Conflict if it is another by now."""
        written = await self._client.patch_metadata(
            of.resource, namespace=of.namespace, name=of.name, patch=patch, resource_version=of.version, manager=OPERATOR_MANAGER
        )
        self._store.put(seen(written, resource=of.resource))

    async def event(
        self,
        about: Declared,
        *,
        reason: str,
        message: str,
        event_type: str,
        now: float,
        ending: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Tell it on the object; `ending` is what is said after the message, in any case."""
        body = event(
            about.resource,
            namespace=about.namespace,
            name=about.name,
            uid=about.uid,
            reason=reason,
            message=message,
            event_type=event_type,
            component=OPERATOR_MANAGER,
            instance=self._instance,
            now=now,
            ending=ending,
            annotations=annotations,
        )
        await self._client.create(EVENTS, body=body, manager=OPERATOR_MANAGER)
