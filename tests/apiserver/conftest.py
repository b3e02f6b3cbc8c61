from pathlib import Path
from uuid import uuid4

import pytest

from e2e.cluster.api import ApiClient
from e2e.cluster.apiserver import ApiServer


@pytest.fixture(scope="session")
def kubeconfig(api_server: ApiServer) -> Path:
    return api_server.kubeconfig


@pytest.fixture
def namespace(kubeconfig: Path) -> str:
    """A new namespace. It goes with the API server: nothing here could empty it."""
    name = f"t-{uuid4().hex[:8]}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    ApiClient(kubeconfig).apply(f"/api/v1/namespaces/{name}", manifest=manifest)
    return name
