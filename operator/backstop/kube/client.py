"""A raw-dict client of the Kubernetes API: the verbs the operator needs, each with a deadline, a content type and a field manager.

Typed models would drop fields they do not know and cost double; here an object is what the API server said.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from ..crdgen.served import Served
from .errors import Conflict, Expired, KubeError, NotFound, NotLeading, Rejected, Unavailable
from .heads import LISTED_AS, WATCHED_AS, Head, Lines, read_event
from .openapi import openapi_path, read_kinds
from .pages import Page, read_page
from .resources import PODS, Body, Resource

APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
MERGE: Final = "application/merge-patch+json"
JSON: Final = "application/json"

PAGE: Final = 500
LONGEST_MESSAGE: Final = 512
WATCH_SECONDS: Final = 300
# An API server sends a bookmark about once a minute: a watch that is silent for longer has been forgotten.
SILENT_SECONDS: Final = 150

# (verb, kind) of a write that the API server answered.
OnWrite = Callable[[str, str], None]


class Client:
    """One API server. `timeout` in seconds bounds every request, connection and body included.

    `may_write` is asked before every write, which is refused with NotLeading where it says no.
    """

    def __init__(
        self, api: ApiClient, *, timeout: float, on_write: OnWrite | None = None, may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self._api = api
        self._timeout = timeout
        self._on_write = on_write
        self._may_write = may_write

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Body:
        """One object. Raises NotFound, Rejected, Unavailable."""
        return await self._request("GET", resource.path(namespace=namespace, name=name))

    async def list(self, resource: Resource, *, namespace: str | None, labels: str | None = None) -> tuple[list[Body], str]:
        """All objects, and the resourceVersion they were read at. An item carries no `kind`, as the API gives it."""
        found: list[Body] = []
        version = ""
        async for page in self.pages(resource, namespace=namespace, labels=labels):
            found += [item.body() for item in page.items]
            version = page.version
        return found, version

    async def pages(self, resource: Resource, *, namespace: str | None, labels: str | None = None) -> AsyncIterator[Page]:
        """As `list`, a page at a time: for what need be neither in memory all at once nor read whole."""
        query: dict[str, str] = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        path = resource.path(namespace=namespace)
        while True:
            status, text = await self._answer("GET", path, query=query)
            if status != 200:
                raise _failure(status, text=text, what=f"GET {path}")
            page = read_page(text, what=f"GET {path}")
            yield page
            if not page.following:
                return
            query["continue"] = page.following

    async def log(self, *, namespace: str, pod: str, container: str, lines: int, most_bytes: int) -> bytes:
        """The last lines of a container's log, cut off after so many bytes. Raises NotFound, Rejected, Unavailable."""
        path = PODS.path(namespace=namespace, name=pod, subresource="log")
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(most_bytes)}
        status, text = await self._answer("GET", path, query=query, accept="text/plain, */*")
        if status != 200:
            raise _error(status, verb="GET", message=f"GET {path}: answer {status}")
        return text[:most_bytes]

    async def served(self, group: str, version: str) -> Mapping[str, Served]:
        """Which fields there are of each kind of a group and version. Raises NotFound where that is not told, Rejected, Unavailable."""
        path = openapi_path(group, version)
        status, text = await self._answer("GET", path)
        if status != 200:
            raise _error(status, verb="GET", message=f"GET {path}: answer {status}")
        return read_kinds(text, group=group, version=version, what=f"GET {path}")

    async def create(self, resource: Resource, *, body: Body, manager: str) -> Body:
        """A new object; Conflict if it exists, Rejected also for a field that the API server does not know."""
        return await self._write(
            "POST",
            resource,
            path=resource.path(namespace=body["metadata"].get("namespace")),
            query={"fieldManager": manager, "fieldValidation": "Strict"},
            body=body,
        )

    async def apply(self, resource: Resource, *, body: Body, manager: str) -> Body:
        """Server-side apply, by force. With a `uid` in the metadata: Rejected if the object is another one by now."""
        path = resource.path(namespace=body["metadata"].get("namespace"), name=body["metadata"]["name"])
        return await self._write("PATCH", resource, path=path, query={"fieldManager": manager, "force": "true"}, body=body, content=APPLY)

    async def replace(self, resource: Resource, *, body: Body, manager: str) -> Body:
        """The whole object, on condition of the `resourceVersion` in its metadata, which must be set; else Conflict."""
        metadata = body["metadata"]
        if not metadata.get("resourceVersion"):
            raise ValueError("a replace without `resourceVersion` would overwrite what nobody has read")
        path = resource.path(namespace=metadata.get("namespace"), name=metadata["name"])
        return await self._write("PUT", resource, path=path, query={"fieldManager": manager}, body=body)

    async def patch(self, resource: Resource, *, namespace: str, name: str, patch: Mapping[str, Any], manager: str) -> Body:
        """JSON merge patch. With a `uid` in the metadata: Rejected or Conflict if the object is another one by now."""
        path = resource.path(namespace=namespace, name=name)
        return await self._write("PATCH", resource, path=path, query={"fieldManager": manager}, body=patch, content=MERGE)

    async def patch_metadata(
        self, resource: Resource, *, namespace: str, name: str, patch: Mapping[str, Any], resource_version: str, manager: str
    ) -> Body:
        """JSON merge patch of the metadata, on condition of the resourceVersion that was read; else Conflict."""
        body = {"metadata": {**patch, "resourceVersion": resource_version}}
        path = resource.path(namespace=namespace, name=name)
        return await self._write("PATCH", resource, path=path, query={"fieldManager": manager}, body=body, content=MERGE)

    async def patch_status(
        self, resource: Resource, *, namespace: str, name: str, patch: Mapping[str, Any], resource_version: str, manager: str
    ) -> Body:
        """JSON merge patch of the status subresource, on condition of the resourceVersion that was read; else Conflict."""
        body = {"metadata": {"resourceVersion": resource_version}, "status": dict(patch)}
        path = resource.path(namespace=namespace, name=name, subresource="status")
        return await self._write("PATCH", resource, path=path, query={"fieldManager": manager}, body=body, content=MERGE)

    async def delete(self, resource: Resource, *, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this uid, its dependants in the background. Conflict if it is another one by now."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._write("DELETE", resource, path=resource.path(namespace=namespace, name=name), query={}, body=body)

    async def follow(self, resource: Resource, *, namespace: str, name: str, version: str) -> AsyncIterator[Body]:
        """One object's changes since `version`, as they come, until the API server ends the watch. Raises Rejected, Unavailable."""
        path = resource.path(namespace=namespace)
        what = f"watch of {path}/{name}"
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        endless = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=WATCH_SECONDS + self._timeout)
        try:
            response = await self._call("GET", path, query=query, body=None, content=JSON, timeout=endless)
            async with response.response as answer:  # closed with whoever stops to listen
                if answer.status != 200:
                    raise _error(answer.status, verb="GET", message=f"{what}: answer {answer.status}")
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return  # what it was to go on from is too long ago
                    yield event["object"]
        except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}") from None

    async def newest(self, resource: Resource, *, namespace: str | None) -> str:
        """The version to watch from, to see all changes after this call. Reads one object's metadata, however many there are."""
        path = resource.path(namespace=namespace)
        status, text = await self._answer("GET", path, query={"limit": "1"}, accept=LISTED_AS)
        if status != 200:
            raise _failure(status, text=text, what=f"GET {path}")
        return read_page(text, what=f"GET {path}").version

    async def heads(self, resource: Resource, *, namespace: str | None, version: str) -> AsyncGenerator[Head]:
        """What changes after `version`, without its contents, until the API server ends the watch.

        Raises Expired where `version` is too long ago, Rejected, Unavailable. To be closed by whoever stops to listen.
        """
        path = resource.path(namespace=namespace)
        what = f"watch of {path}"
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        silent = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=SILENT_SECONDS)
        lines = Lines()
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._call("GET", path, query=query, body=None, content=JSON, timeout=silent, accept=WATCHED_AS)
            async with response.response as answer:
                if answer.status != 200:
                    raise _error(answer.status, verb="GET", message=f"{what}: answer {answer.status}")
                async for chunk in answer.content.iter_any():
                    for line in lines.feed(chunk):
                        yield read_event(line, what=what)
        except TimeoutError:
            raise Unavailable(f"{what}: nothing was heard for too long") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}") from None

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content: str,
        timeout: aiohttp.ClientTimeout,
        accept: str = JSON,
    ) -> Any:
        arguments = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept, "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(*arguments, _request_timeout=timeout)

    async def _write(
        self, method: str, resource: Resource, *, path: str, query: dict[str, str], body: Mapping[str, Any], content: str = JSON
    ) -> Body:
        if not self._may_write():
            raise NotLeading(f"{method} {path}: not sent, because this operator leads no longer")
        try:
            return await self._request(method, path, query=query, body=body, content=content)
        finally:
            if self._on_write is not None:
                self._on_write(method, resource.kind)

    async def _request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None, content: str = JSON
    ) -> Body:
        status, text = await self._answer(method, path, query=query, body=body, content=content)
        return _outcome(status, text=text, what=f"{method} {path}")

    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> tuple[int, bytes]:
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(self._timeout):
                timeout = aiohttp.ClientTimeout(total=self._timeout)
                response = await self._call(method, path, query=query, body=body, content=content, timeout=timeout, accept=accept)
                return response.status, await response.read()
        except TimeoutError:
            raise Unavailable(f"{what}: no answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}") from None


def _outcome(status: int, *, text: bytes, what: str) -> Body:
    answer = _document(text, status=status, what=what)
    if 200 <= status < 300:
        return answer
    raise _failure(status, text=text, what=what)


def _failure(status: int, *, text: bytes, what: str) -> KubeError:
    answer = _document(text, status=status, what=what)
    verb = what.partition(" ")[0]
    return _error(status, verb=verb, message=f"{what}: {str(answer.get('message') or status)[:LONGEST_MESSAGE]}")


def _document(text: bytes, *, status: int, what: str) -> Body:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"{what}: answer {status} is not a JSON object")
    return answer


def _error(status: int, *, verb: str, message: str) -> KubeError:
    match status:
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 401 | 408 | 429:
            return Unavailable(message)
        case _ if 400 <= status < 500:
            return Rejected(message, answer=f"{status} to {verb}")
        case _:
            return Unavailable(message)
