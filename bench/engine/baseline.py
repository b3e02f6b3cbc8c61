"""What the machine and the API server take for the same things without an operator, so that figures can be read on another machine."""

import asyncio
import json
import sys
import time
from typing import Final

from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.resources import CONFIG_MAPS, Body
from e2e.cluster.paths import REPOSITORY

from .stage import Stage, load
from .table import Row, spread

PATCHES: Final = 200
LONGEST_LIST: Final = 600.0


async def measure_baseline(stage: Stage, *, count: int) -> list[Row]:
    """A PATCH, a PATCH as a watcher sees it, and a plain client that lists and keeps the names of what the operator watches."""
    connection = await connect(stage.server.kubeconfig)
    client = Client(connection.api_client(), timeout=10.0)
    try:
        patched = await _patches(client, namespace="bench-model")
    finally:
        await client.close()
    listed = await _plain(stage)
    told = f"{count:,} idle, baseline: "
    return [
        Row(told + "one PATCH with kubernetes.aio", spread([1000 * seconds for seconds in patched], unit="ms"), load=load()),
        Row(
            told + "one list of the same objects, names kept",
            f"{listed['objects']:,} objects, {listed['seconds']:.1f} s, {listed['cpu']:.1f} CPU-s, {listed['resident']:.0f} MiB",
        ),
    ]


async def _patches(client: Client, *, namespace: str) -> list[float]:
    took = []
    for number in range(PATCHES):
        metadata = {"name": "baseline", "namespace": namespace}
        body: Body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"number": f"{time.time()} {number}"}}
        began = time.perf_counter()
        await client.apply(CONFIG_MAPS, body=body, manager="bench")
        took.append(time.perf_counter() - began)
    return took


async def _plain(stage: Stage) -> dict[str, float]:
    """In a process of its own, so that its time and memory are its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.engine.plain", str(stage.server.kubeconfig)),
        env={"PYTHONPATH": f"{REPOSITORY}/operator:{REPOSITORY}"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LONGEST_LIST):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found: dict[str, float] = json.loads(said)
    return found
