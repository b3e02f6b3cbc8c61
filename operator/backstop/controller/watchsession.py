"""The HTTP session that kopf watches by, in which a watch begins with a list of nothing.

Before each watch kopf reads all objects of a kind, whole, and makes a task of each: with 10,000 policies that is most of what a start
costs, and what it brings is what the operator has listed itself. So its list is asked for with labels that no object has: the API server
answers with the version of the moment alone, and the watch begins there. Whoever made the session is told, and lists what was before.
Knows requests, nothing of what is in them.
"""

from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
import kopf

from ..api.authorities import taken_as_declared
from ..api.names import LABEL_POLICY
from ..kube.resources import Resource

NOTHING: Final = f"{LABEL_POLICY},!{LABEL_POLICY}"

# A resource, and the namespace; None for all.
Where = tuple[Resource, str | None]


def watch_session(info: kopf.ConnectionInfo, *, watched: Mapping[str, Where], on_begin: Callable[[Where], object]) -> aiohttp.ClientSession:
    """A session to be closed by kopf. `watched`: what is watched, by the path of its collection.

    `on_begin` is called when a watch is about to tell of everything after this moment, and of nothing before.
    """

    async def begin(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        where = watched.get(request.url.path)
        if where is None or "watch" in request.url.query:
            return await handler(request)
        request.url = request.url.update_query(labelSelector=NOTHING)
        response = await handler(request)
        if response.ok:
            on_begin(where)
        return response

    connector = aiohttp.TCPConnector(limit=0, ssl=taken_as_declared(info.as_ssl_context()))
    return aiohttp.ClientSession(connector=connector, headers=info.as_http_headers(), middlewares=[begin])
