"""The API server without a cluster: who may do what, and that nothing is left of it."""

from __future__ import annotations

import sys
import urllib.error
from pathlib import Path

import pytest

from e2e.cluster.api import ApiClient
from e2e.cluster.apiserver import ApiServer
from tests.e2e_cluster.leftovers import eventually, mentioning, started

pytestmark = pytest.mark.apiserver

START = """
import signal
from e2e.cluster.apiserver import ApiServer
with ApiServer() as server:
    print(server.kubeconfig.parent, flush=True)
    signal.pause()
"""


def test_the_admin_may_do_all_and_a_user_without_a_role_nothing() -> None:
    with ApiServer() as server:
        assert ApiClient(server.kubeconfig).get("/api/v1/namespaces")["kind"] == "NamespaceList"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ApiClient(server.identity_kubeconfig("nobody")).get("/api/v1/namespaces")
        folder = server.kubeconfig.parent
    assert not folder.exists()
    assert mentioning(str(folder)) == []


def test_nothing_is_left_of_an_api_server_whose_caller_was_killed() -> None:
    with started([sys.executable, "-c", START]) as caller:
        assert caller.stdout is not None
        folder = Path(caller.stdout.readline().strip())
        assert mentioning(f"--data-dir={folder}")
        caller.kill()
    assert eventually(lambda: not mentioning(str(folder)) and not folder.exists())
