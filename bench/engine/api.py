"""The bench's own way to the API server: many small writes at once, and watches. An admin, so that no limit but the server's counts."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from backstop.kube.resources import Body, Resource
from e2e.cluster.apiserver import ApiServer

AT_ONCE: Final = 24
AGAIN_SECONDS: Final = 0.5
_LONGEST_LINE: Final = 2**24
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)
_WATCH: Final = aiohttp.ClientTimeout(total=None)


class RefusedError(Exception):
    """The API server would not do what the bench needs."""


class Api:
    """One admin's session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def create(self, resource: Resource, body: Body) -> Body:
        """A new object, as if the operator had made it."""
        return await self._send("POST", resource.path(namespace=body["metadata"].get("namespace")), body=body)

    async def status(self, resource: Resource, *, namespace: str, name: str, status: Body) -> Body:
        """Set the status."""
        return await self._patch(resource.path(namespace=namespace, name=name, subresource="status"), body={"status": status})

    async def merge(self, resource: Resource, *, namespace: str, name: str, body: Body) -> Body:
        """Change some fields."""
        return await self._patch(resource.path(namespace=namespace, name=name), body=body)

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Body:
        """One object."""
        return await self._send("GET", resource.path(namespace=namespace, name=name))

    async def list(self, resource: Resource, *, namespace: str) -> list[Body]:
        """All objects of a namespace, each as it would be got by its name."""
        found = await self._send("GET", resource.path(namespace=namespace))
        return [{"apiVersion": resource.api_version, "kind": resource.kind} | item for item in found["items"]]

    async def delete(self, resource: Resource, *, namespace: str, name: str) -> None:
        """Delete it at once; it is fine if it is gone."""
        path = resource.path(namespace=namespace, name=name)
        async with self._session.delete(path, json={"gracePeriodSeconds": 0}, timeout=_TIMEOUT) as answer:
            await answer.read()

    async def follow(self, resource: Resource, *, labels: str = "") -> AsyncIterator[tuple[str, Body]]:
        """All objects of a kind and then what becomes of them, as (`ADDED`, `MODIFIED` or `DELETED`, object), until cancelled."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        version = ""
        while True:
            if version:
                query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
            query |= {"labelSelector": labels} if labels else {}
            async with self._session.get(resource.path(namespace=None), params=query, timeout=_WATCH) as answer:
                if answer.status == 429:  # a kind that is new is not served from the first moment on
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                if answer.status != 200:
                    raise RefusedError(f"the watch of {resource.plural}: {answer.status}")
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RefusedError(f"the watch of {resource.plural} broke: {event['object'].get('message')}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]

    async def _patch(self, path: str, *, body: Body) -> Body:
        return await self._send("PATCH", path, body=body, content="application/merge-patch+json")

    async def _send(self, method: str, path: str, *, body: Body | None = None, content: str = "application/json") -> Body:
        data = None if body is None else json.dumps(body)
        query = {} if method == "GET" else {"fieldManager": "backstop-operator"}
        async with self._session.request(
            method, path, params=query, data=data, headers={"Content-Type": content}, timeout=_TIMEOUT
        ) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise RefusedError(f"{method} {path}: {answer.status} {text[:500].decode(errors='replace')}")
            found: dict[str, Any] = json.loads(text)
            return found


@asynccontextmanager
async def admin(server: ApiServer) -> AsyncIterator[Api]:
    """A session that is closed after use."""
    tls = ssl.create_default_context(cafile=str(server.certificate_authority))
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/json"}
    async with aiohttp.ClientSession(server.url, connector=connector, headers=headers, read_bufsize=_LONGEST_LINE) as session:
        yield Api(session)


async def all_of(work: Iterable[Awaitable[object]]) -> None:
    """Do all of it, so many at once."""
    pending = iter(work)

    async def worker() -> None:
        for one in pending:
            await one

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(worker())
