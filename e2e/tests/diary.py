"""What became of a namespace's pods, of where its Services lead and of connections that nobody took: for a test that fails."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from backstop.kube.connection import Connection
from e2e.callers import streaming
from e2e.cluster import Cluster


@asynccontextmanager
async def diary(cluster: Cluster, *, connection: Connection, namespace: str) -> AsyncIterator[None]:
    """Print pods and endpoints while the context lasts, as the API server tells of them, and then connections that nobody took.

    pytest shows what a test that failed has printed.
    """
    paths = (f"/api/v1/namespaces/{namespace}/pods", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
    tasks = [asyncio.create_task(_follow(connection, path=path)) for path in paths]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(end, Exception):
                print(f"the diary broke off: {end!r}")
        _print_unanswered(cluster)


async def _follow(connection: Connection, *, path: str) -> None:
    async with streaming(connection) as session, session.get(path, params={"watch": "true"}) as changes:
        changes.raise_for_status()
        async for line in changes.content:
            change = json.loads(line)
            said = _said(change["object"]) if change["type"] != "ERROR" else change["object"]
            print(f"{time.time():.3f} {change['type']:8} {said}")


def _print_unanswered(cluster: Cluster) -> None:
    """TCP connections of the last two minutes without an answer, as the node tracks them.

    The second `src` is where one was led: to a pod that had gone, or, where no rule of kube-proxy met it, to the Service's own address.
    """
    done = cluster.run(["cat", "/proc/net/nf_conntrack"], check=False)
    if done.returncode != 0:
        print(f"what the node tracks cannot be read: {done.stderr.strip()}")
    for line in done.stdout.splitlines():
        if "tcp" in line.split() and "[UNREPLIED]" in line:
            print(line)


def _said(body: Mapping[str, Any]) -> str:
    metadata = body["metadata"]
    if "endpoints" in body:
        reached = [f"{found.get('targetRef', {}).get('name')} {_holding(found['conditions'])}" for found in body["endpoints"] or ()]
        return f"endpoints {metadata['name']}: {', '.join(reached) or 'none'}"
    status = body.get("status", {})
    ready = next((found["status"] for found in status.get("conditions", ()) if found["type"] == "Ready"), "unknown")
    leaves = f", leaves by {metadata['deletionTimestamp']}" if "deletionTimestamp" in metadata else ""
    return f"pod {metadata['name']} {status.get('podIP', 'without an address')}: {status.get('phase')}, ready {ready}{leaves}"


def _holding(conditions: Mapping[str, bool]) -> str:
    return " ".join(name for name, holds in conditions.items() if holds) or "not ready"
