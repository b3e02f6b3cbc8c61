"""The native provider: a node in Linux namespaces, from our own builds. Needs root.

Starts and finds nodes from outside; what happens inside is `node`'s, what is
left when it ends is `keeper`'s.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e.cluster import cgroups, keeper
from e2e.cluster.api import ApiClient
from e2e.cluster.build import program
from e2e.cluster.cluster import Cluster
from e2e.cluster.components import DNS_IP, NODE, NODE_IP, PAUSE_IMAGE, NodeFiles, write_configuration
from e2e.cluster.lifetime import Owner
from e2e.cluster.paths import REPOSITORY, cluster_state, locked
from e2e.cluster.prerequisites import NODE_PROGRAMS, require
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step
from e2e.images.packing import docker_archive

READY_DEADLINE_S = 90.0
DOWN_DEADLINE_S = 180.0
POLL_S = 0.05
LOG_TAIL_LINES = 8


class NativeCluster(Cluster):
    """A node found by the files that it was started with; `owner` is there in the process that started it."""

    def __init__(self, files: NodeFiles, *, owner: Owner | None = None) -> None:
        self.name = files.name
        self.files = files
        self._owner = owner

    @property
    def kubeconfig(self) -> Path:
        return self.files.kubeconfig

    def enter_argv(self, argv: list[str], *, net_only: bool = False) -> list[str]:
        namespaces = ["-n"] if net_only else ["-m", "-n", "-p", "-u"]
        directory = [] if net_only else [f"--wdns={Path.cwd()}"]
        return ["nsenter", "-t", str(self.node_pid()), *namespaces, *directory, "--", *argv]

    def node_pid(self) -> int:
        try:
            return int(self.files.node_pid.read_text())
        except FileNotFoundError:
            raise ClusterProblem(f"Cluster `{self.name}` is not up: start it with `python -m e2e.cluster up --name {self.name}`.") from None

    def load_image(self, archive: Path) -> None:
        command = self.enter_argv(["ctr", "--namespace", "k8s.io", "images", "import", str(archive.resolve())])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterProblem(f"containerd did not take {archive}: {done.stderr.strip() or done.stdout.strip()}")

    def down(self) -> None:
        if self._owner is not None:
            self._owner.end()
        _end(self.files)

    def alive(self) -> bool:
        return _keeper_pid(self.files) is not None and self.files.node_pid.exists()


def find(name: str) -> NativeCluster | None:
    """The running cluster `name`."""
    cluster = NativeCluster(NodeFiles(cluster_state(name), name))
    return cluster if cluster.alive() else None


def take_down(name: str) -> bool:
    """Ends cluster `name` and removes what a killed one left; False when there was nothing."""
    files = NodeFiles(cluster_state(name), name)
    there = files.state.exists() or bool(cgroups.present(name))
    if there:
        with locked(files.state.parent / f".{name}.lock"):
            _end(files)
    return there


def up(name: str, *, for_pid: int | None = None, detached: bool) -> NativeCluster:
    """Starts a cluster and waits until pods can be made.

    It ends with this process, unless `detached`; detached it ends with the process `for_pid`, or with `down`.
    """
    require(NODE_PROGRAMS)
    programs = {binary: str(program(binary)) for binary in ("kube", "etcd", "coredns", "pause")}
    files = NodeFiles(cluster_state(name), name)
    with locked(files.state.parent / f".{name}.lock"):
        if find(name) is not None:
            raise ClusterProblem(
                f"Cluster `{name}` is up already: take it down with `python -m e2e.cluster down --name {name}`, or choose another `--name`."
            )
        _end(files)
        with step(f"starting cluster {name}", expected_s=6):
            try:
                return _start(files, programs=programs, for_pid=for_pid, detached=detached)
            except BaseException:
                _end(files)
                raise


def _start(files: NodeFiles, *, programs: dict[str, str], for_pid: int | None, detached: bool) -> NativeCluster:
    for folder in (files.state, files.logs, files.data):
        folder.mkdir(parents=True, mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        plan = {
            "state": str(files.state),
            "name": files.name,
            "programs": programs,
            "components": write_configuration(files, port=port),
            "listener": listener.fileno(),
            "port": port,
        }
        (files.state / "node.json").write_text(json.dumps(plan))
        owner = _keep(files, listener=listener, for_pid=for_pid)
    cluster = NativeCluster(files, owner=owner)
    try:
        _make_ready(cluster, owner=owner, pause=Path(programs["pause"]))
        if detached:
            owner.detach()
    except BaseException:
        owner.end()
        raise
    return cluster


def _keep(files: NodeFiles, *, listener: socket.socket, for_pid: int | None) -> Owner:
    arguments = [str(files.state / "node.json"), "--listener-fd", str(listener.fileno())]
    inherited = [listener.fileno()]
    if for_pid is not None:
        try:
            inherited.append(os.pidfd_open(for_pid))
        except ProcessLookupError:
            raise ClusterProblem(f"There is no process {for_pid} for the cluster to end with.") from None
        arguments += ["--pid-fd", str(inherited[-1])]
    try:
        return Owner("e2e.cluster.keeper", *arguments, log=files.logs / "node.log", pass_fds=inherited, repository=REPOSITORY)
    finally:
        for pid_fd in inherited[1:]:
            os.close(pid_fd)


def _make_ready(cluster: NativeCluster, *, owner: Owner, pause: Path) -> None:
    deadline = time.monotonic() + READY_DEADLINE_S

    def until(condition: Callable[[], bool], *, what: str) -> None:
        while not condition():
            if not owner.alive() or time.monotonic() > deadline:
                raise ClusterProblem(
                    f"{what} did not get ready in cluster `{cluster.name}`; the last words of its logs:\n{_tails(cluster.files)}"
                )
            time.sleep(POLL_S)

    api = ApiClient(cluster.kubeconfig)
    until(api.ready, what="The API server")
    for path, manifest in _cluster_dns().items():
        api.apply(path, manifest=manifest)
    until(lambda: _node_ready(api), what="The node")
    image = cluster.files.data / "pause.tar"
    docker_archive(image, name=PAUSE_IMAGE, files={"pause": pause}, entrypoint=["/pause"], user="65535:65535")
    cluster.load_image(image)
    image.unlink()
    until(lambda: _exists(api, "/api/v1/namespaces/default/serviceaccounts/default"), what="The controller manager")


def _node_ready(api: ApiClient) -> bool:
    nodes = api.get("/api/v1/nodes")["items"]
    return any(c["type"] == "Ready" and c["status"] == "True" for node in nodes for c in node.get("status", {}).get("conditions", ()))


def _exists(api: ApiClient, path: str) -> bool:
    try:
        api.get(path)
    except OSError:
        return False
    return True


def _cluster_dns() -> dict[str, dict[str, Any]]:
    """A Service without selector and the addresses behind it: CoreDNS is a process of the node, not a pod."""
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_IP, "ports": [{"name": name, "protocol": protocol, "port": 53} for name, protocol in ports]},
    }
    endpoints: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}, "nodeName": NODE}],
        "ports": [{"name": name, "protocol": protocol, "port": 53} for name, protocol in ports],
    }
    return {
        "/api/v1/namespaces/kube-system/services/kube-dns": service,
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns": endpoints,
    }


def _tails(files: NodeFiles) -> str:
    folder = files.logs if files.logs.is_dir() else files.state.parent / f"{files.name}.logs"
    tails = []
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        tails.append("\n".join([f"== {log.name}", *lines]))
    return "\n".join(tails)


def _keeper_pid(files: NodeFiles) -> int | None:
    """The live keeper of this cluster; a number that some other program has by now is not one."""
    try:
        pid = int(files.keeper_pid.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if str(files.state / "node.json").encode() in command else None


def _end(files: NodeFiles) -> None:
    """Ends a node that runs and removes what a killed one left."""
    pid = _keeper_pid(files)
    if pid is not None:
        pid_fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pid_fd, signal.SIGTERM)
            _wait_gone(pid, pid_fd=pid_fd)
        finally:
            os.close(pid_fd)
    if files.state.exists() or cgroups.present(files.name):
        keeper.clear(files)
    shutil.rmtree(files.state.parent / f"{files.name}.logs", ignore_errors=True)


def _wait_gone(pid: int, *, pid_fd: int) -> None:
    if not select.select([pid_fd], [], [], DOWN_DEADLINE_S)[0]:
        raise ClusterProblem(f"The keeper of the cluster (process {pid}) did not end within {DOWN_DEADLINE_S:.0f} s.")
