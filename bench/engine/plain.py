"""A plain client: lists what the operator watches, in pages, with kubernetes.aio, and keeps the names. Prints what that took."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from backstop.controller.sources import OURS, WATCHED
from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS

from .processes import usage


async def _list(kubeconfig: Path) -> dict[str, float]:
    connection = await connect(kubeconfig)
    client = Client(connection.api_client(), timeout=60.0)
    kept = []
    began = time.time()
    try:
        for resource in WATCHED:
            items, _ = await client.list(resource, namespace=None, labels=None if resource in (POLICIES, PROMPT_VERSIONS) else OURS)
            kept += [(item["metadata"].get("namespace"), item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in items]
    finally:
        await client.close()
    used = usage(os.getpid())
    return {"objects": len(kept), "seconds": time.time() - began, "cpu": used.cpu, "resident": used.resident}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_list(Path(sys.argv[1])))))
