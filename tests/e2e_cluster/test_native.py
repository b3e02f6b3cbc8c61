"""The native cluster itself: it runs pods and Services, two do not meet, and nothing is left of one however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, native
from e2e.cluster.build import program
from e2e.cluster.paths import REPOSITORY, cluster_state
from e2e.cluster.prerequisites import is_root_on_linux
from e2e.cluster.problems import ClusterProblem
from e2e.images.packing import docker_archive
from tests.e2e_cluster.leftovers import DEADLINE_S, eventually, of_cluster, started

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(not is_root_on_linux(), reason="the native provider needs root on Linux")]

SERVER_IMAGE = "localhost/server:1"
START = (
    "import sys, signal; from e2e.cluster import native; native.up(sys.argv[1], detached=False); print('up', flush=True); signal.pause()"
)


def server_manifest() -> dict[str, Any]:
    """A Deployment of three etcd servers, which do not know each other, and a Service to them."""
    labels = {"app": "server"}
    container = {
        "name": "server",
        "image": SERVER_IMAGE,
        "command": [
            "/etcd",
            "--listen-client-urls=http://0.0.0.0:2379",
            "--advertise-client-urls=http://0.0.0.0:2379",
            "--data-dir=/tmp/d",
        ],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 2379}, "periodSeconds": 1},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 65532},
        "volumeMounts": [{"name": "data", "mountPath": "/tmp"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}], "terminationGracePeriodSeconds": 1}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": "default"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 2379}]},
    }
    return {"apiVersion": "v1", "kind": "List", "items": [deployment, service]}


@pytest.fixture
def namespace_of() -> Iterator[Callable[[str], str]]:
    """Names the process namespace of a cluster. It is held open until the test ends: else the kernel would give its name to the next
    one, as to a pod's that another cluster has just begun.
    """
    with ExitStack() as held:

        def named(name: str) -> str:
            pid = int((cluster_state(name) / "node.pid").read_text())
            namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY)
            held.callback(os.close, namespace)
            return str(Path(f"/proc/self/fd/{namespace}").readlink())

        yield named


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with native.up(f"test-first-{os.getpid()}", detached=False) as running:
        yield running


def test_pods_get_ready_and_their_service_answers_under_its_address_and_its_name(cluster: Cluster, tmp_path: Path) -> None:
    archive = tmp_path / "server.tar"
    docker_archive(archive, name=SERVER_IMAGE, files={"etcd": program("etcd")}, entrypoint=["/etcd"], user="65532:65532")
    cluster.load_image(archive)
    cluster.kubectl("apply", "-f", "-", input=json.dumps(server_manifest()))
    cluster.kubectl("wait", "--for=condition=Available", "deployment/server", "--timeout=60s")
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"

    def healthy(host: str, *, net_only: bool) -> bool:
        answer = cluster.run([sys.executable, "-c", fetch, f"http://{host}/health"], net_only=net_only, check=False)
        return answer.returncode == 0 and json.loads(answer.stdout)["health"] == "true"

    # kube-proxy learns of ready pods at the same time as the Deployment does, not before.
    assert eventually(lambda: healthy(cluster.service_ip("default", "server"), net_only=True))
    assert eventually(lambda: healthy("server.default.svc.cluster.local", net_only=False))


def test_one_kubeconfig_holds_on_the_machine_and_inside_the_node(cluster: Cluster) -> None:
    query = [*cluster.kubectl_argv(), "get", "nodes", "-o", "name"]
    outside = subprocess.run(query, env=cluster.environment(), capture_output=True, text=True, check=True)
    assert outside.stdout == cluster.run(query).stdout == cluster.run(query, net_only=True).stdout == "node/node\n"


def test_two_clusters_run_side_by_side_and_down_leaves_nothing_of_one(cluster: Cluster, namespace_of: Callable[[str], str]) -> None:
    with native.up("test-second", detached=False) as second:
        namespace = namespace_of("test-second")
        second.kubectl("create", "namespace", "only-in-second")
        assert "only-in-second" in second.kubectl("get", "namespaces").stdout
        assert "only-in-second" not in cluster.kubectl("get", "namespaces").stdout
    assert of_cluster("test-second", namespace=namespace) == {}
    assert cluster.api.ready()


def test_a_second_start_under_the_same_name_is_refused_in_one_sentence(cluster: Cluster) -> None:
    with pytest.raises(ClusterProblem, match=rf"^Cluster `{cluster.name}` is up already: .* or choose another `--name`\.$"):
        native.up(cluster.name, detached=False)
    assert cluster.api.ready()


def test_nothing_is_left_of_a_cluster_whose_caller_was_killed(namespace_of: Callable[[str], str]) -> None:
    with started([sys.executable, "-c", START, "test-killed"]) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "up\n"
        namespace = namespace_of("test-killed")
        assert "processes" in of_cluster("test-killed", namespace=namespace)
        caller.kill()
    assert eventually(lambda: not of_cluster("test-killed", namespace=namespace)), of_cluster("test-killed", namespace=namespace)


def test_nothing_is_left_of_a_start_that_was_interrupted(namespace_of: Callable[[str], str]) -> None:
    started = cluster_state("test-stopped") / "node.pid"
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "e2e.cluster", "up", "--provider", "native", "--name", "test-stopped"],
            cwd=REPOSITORY,
            # A shell without job control lets its background jobs, and so perhaps these tests, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as up:
            assert eventually(lambda: started.exists() and started.read_text() != "")
            namespace = namespace_of("test-stopped")
            up.send_signal(signal.SIGINT)
            up.wait(timeout=DEADLINE_S)
        assert up.returncode == 130
        assert of_cluster("test-stopped", namespace=namespace) == {}
    finally:
        native.take_down("test-stopped")


def test_a_node_dies_with_its_keeper_and_down_takes_the_rest_away(namespace_of: Callable[[str], str]) -> None:
    cluster = native.up("test-orphan", detached=True)
    namespace = namespace_of("test-orphan")
    assert isinstance(cluster, native.NativeCluster)
    keeper = int(cluster.files.keeper_pid.read_text())
    subprocess.run(["kill", "-KILL", str(keeper)], check=True)
    assert eventually(lambda: "processes" not in of_cluster("test-orphan", namespace=namespace))
    native.take_down("test-orphan")
    assert of_cluster("test-orphan", namespace=namespace) == {}
