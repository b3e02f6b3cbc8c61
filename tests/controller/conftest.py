import logging
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from e2e.cluster.apiserver import ApiServer

from .world import World, small_world


@pytest.fixture
async def connection(api_server: ApiServer) -> Connection:
    return await connect(api_server.kubeconfig)


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[Client]:
    client = Client(connection.api_client(), timeout=10.0)
    yield client
    await client.close()


@pytest.fixture
async def world(client: Client) -> AsyncIterator[World]:
    async with small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world:
        yield world


@pytest.fixture(autouse=True)
def quiet_kopf() -> None:
    # In tests, too, it is not the one that minds signals.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
