"""Callers inside the cluster: `e2e.load` as a pod, its lines read as they come. The same with every kind of cluster."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import PODS
from e2e.load import Answer

IMAGE = "localhost/backstop-e2e:dev"
MANAGER = "e2e"
START_SECONDS = 60.0
END_SECONDS = 30.0


@dataclass
class Callers:
    """What the callers have seen so far, in the order in which they had their answers."""

    answers: list[Answer] = field(default_factory=list)

    def since(self, moment: float) -> list[Answer]:
        """Answers to requests that began after this moment (seconds since the epoch)."""
        return [answer for answer in self.answers if answer.began >= moment]

    async def until(self, count: int, *, within: float) -> None:
        """Until so many requests have been answered."""
        end = time.monotonic() + within
        while len(self.answers) < count:
            if time.monotonic() > end:
                raise AssertionError(f"{len(self.answers)} of {count} requests were answered within {within:.0f} s")
            await asyncio.sleep(0.1)


@asynccontextmanager
async def calling(
    connection: Connection, client: Client, *, namespace: str, arguments: list[str], name: str = "callers"
) -> AsyncIterator[Callers]:
    """Run `python -m e2e.load ARGUMENTS` in the namespace while the context lasts; after it, every answer has been read."""
    pod = await client.create(PODS, body=_pod(namespace, name=name, arguments=arguments), manager=MANAGER)
    callers = Callers()
    await _started(client, namespace=namespace, name=name)
    reading = asyncio.create_task(_read(connection, path=PODS.path(namespace=namespace, name=name), callers=callers))
    try:
        yield callers
    finally:
        try:
            await client.delete(PODS, namespace=namespace, name=name, uid=pod["metadata"]["uid"])
            await asyncio.wait_for(reading, timeout=END_SECONDS)
        except NotFound:
            reading.cancel()


def _pod(namespace: str, *, name: str, arguments: list[str]) -> dict[str, Any]:
    container = {
        "name": "callers",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "e2e.load", *arguments],
        "resources": {"requests": {"cpu": "50m"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False},
    }


async def _started(client: Client, *, namespace: str, name: str) -> None:
    end = time.monotonic() + START_SECONDS
    while (phase := (await client.get(PODS, namespace=namespace, name=name))["status"].get("phase")) not in ("Running", "Succeeded"):
        if phase == "Failed" or time.monotonic() > end:
            raise AssertionError(f"pod {namespace}/{name} did not start: {phase}")
        await asyncio.sleep(0.1)


async def _read(connection: Connection, *, path: str, callers: Callers) -> None:
    """Follow the pod's log to its end."""
    async with streaming(connection) as session, session.get(f"{path}/log", params={"follow": "true"}) as log:
        log.raise_for_status()
        async for line in log.content:
            callers.answers.append(Answer(**json.loads(line)))


@asynccontextmanager
async def streaming(connection: Connection) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the API server, for what is no JSON object or takes long."""
    credentials = await connection.credentials()
    tls = ssl.create_default_context(cafile=credentials.ca_file)
    if credentials.certificate_file:
        tls.load_cert_chain(credentials.certificate_file, credentials.key_file)
    headers = {"Authorization": credentials.authorization} if credentials.authorization else {}
    async with aiohttp.ClientSession(
        credentials.server,
        connector=aiohttp.TCPConnector(ssl=tls),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        headers=headers,
    ) as session:
        yield session
