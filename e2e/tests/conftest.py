"""A cluster with everything on it for the whole run, and a fresh namespace for each test.

With `BACKSTOP_E2E_CLUSTER=NAME` the tests use a cluster that is up already, such as the one of `make demo KEEP=1`.
"""

import os
import re
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import NotFound
from backstop.kube.resources import POLICIES
from e2e.cluster import Cluster, find, start
from e2e.platform import install
from e2e.tests.diary import diary
from e2e.tests.scenario import MANAGER, NAMESPACES, POLICY, Scenario

CLUSTER = "backstop-e2e"
PRESENT = "BACKSTOP_E2E_CLUSTER"
SCRAPE_SECONDS = 5


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster; taken down at the end, also when this process is killed, unless it was there before."""
    present = os.environ.get(PRESENT)
    if present:
        running = find(present)
        assert running is not None, f"no cluster `{present}` is up"
        yield running
        return
    with start(CLUSTER) as running:
        install(running, scrape_seconds=SCRAPE_SECONDS)
        yield running


@pytest.fixture
async def connection(cluster: Cluster) -> Connection:
    """The cluster's API server, with all rights."""
    return await connect(cluster.kubeconfig)


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[Client]:
    """A client of the cluster's API server, with all rights."""
    client = Client(connection.api_client(), timeout=10.0)
    yield client
    await client.close()


@pytest.fixture
async def scenario(cluster: Cluster, client: Client, connection: Connection, request: pytest.FixtureRequest) -> AsyncIterator[Scenario]:
    """A namespace of the test's own; gone afterwards."""
    title = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{title[:40].strip('-')}-{zlib.crc32(title.encode()):08x}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await client.apply(NAMESPACES, body=body, manager=MANAGER)
    async with diary(cluster, connection=connection, namespace=name):
        yield Scenario(client, connection=connection, namespace=name)
    # The policy first: the operator lets go of it, and does not mend what the namespace's end takes away.
    for resource, where, named in ((POLICIES, name, POLICY), (NAMESPACES, "", name)):
        try:
            uid = (await client.get(resource, namespace=where, name=named))["metadata"]["uid"]
            await client.delete(resource, namespace=where, name=named, uid=uid)
        except NotFound:
            continue
