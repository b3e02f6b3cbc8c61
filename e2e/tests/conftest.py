"""The cluster that `python -m e2e.suite` made, and a fresh namespace for each test."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.errors import NotFound
from e2e.tests.scenario import MANAGER, NAMESPACES, Scenario

KUBECONFIG = "BACKSTOP_E2E_KUBECONFIG"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of the cluster's API server, with all rights."""
    if KUBECONFIG not in os.environ:
        pytest.fail("no cluster: run these tests with `python -m e2e.suite`")
    connection = await connect(Path(os.environ[KUBECONFIG]))
    client = Client(connection.api_client(), timeout=10.0)
    yield client
    await client.close()


@pytest.fixture
async def scenario(client: Client, request: pytest.FixtureRequest) -> AsyncIterator[Scenario]:
    """A namespace of the test's own; gone afterwards."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:50].strip("-")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    namespace = await client.apply(NAMESPACES, body=body, manager=MANAGER)
    yield Scenario(client, namespace=name)
    try:
        await client.delete(NAMESPACES, namespace="", name=name, uid=namespace["metadata"]["uid"])
    except NotFound:
        return
