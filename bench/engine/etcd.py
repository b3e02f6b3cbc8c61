"""Objects put into etcd as the API server keeps them: ten thousand policies have 130,000 objects, and each would cost a request.

Speaks etcd's JSON gateway. Only copies of objects that an API server has stored itself go this way.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import aiohttp

from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, SERVICES, Body, Resource

from .api import RefusedError

PUTS_AT_ONCE: Final = 100  # etcd takes 128 in one transaction
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


async def put_all(url: str, objects: Iterable[tuple[Resource, Body]]) -> None:
    """Put all of them, in their order."""
    async with aiohttp.ClientSession(url, timeout=_TIMEOUT) as session:
        for batch in _batches(objects):
            puts = [{"requestPut": {"key": _text(_key(resource, body)), "value": _text(_stored(body))}} for resource, body in batch]
            async with session.post("/v3/kv/txn", json={"success": puts}) as answer:
                if answer.status != 200:
                    raise RefusedError(f"etcd answers {answer.status}: {(await answer.text())[:300]}")


def _batches(objects: Iterable[tuple[Resource, Body]]) -> Iterator[list[tuple[Resource, Body]]]:
    pending = iter(objects)
    while batch := list(islice(pending, PUTS_AT_ONCE)):
        yield batch


def _key(resource: Resource, body: Body) -> str:
    folder = resource.plural
    if resource in (POLICIES, PROMPT_VERSIONS):
        folder = f"{resource.group}/{resource.plural}"
    elif resource is SERVICES:
        folder = "services/specs"
    return f"/registry/{folder}/{body['metadata']['namespace']}/{body['metadata']['name']}"


def _stored(body: Body) -> str:
    metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
    return json.dumps(body | {"metadata": metadata})


def _text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
