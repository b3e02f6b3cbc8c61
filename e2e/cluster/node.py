"""The first process of a native node: prepares the namespaces, starts the components, reaps.

Runs as process 1 inside `unshare`; when it ends, the kernel ends every pod.
Knows what a node needs from the kernel; the components' flags are given.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from e2e.cluster.api import ApiClient
from e2e.cluster.components import NODE, NODE_IP, SERVICES, NodeFiles

READY_DEADLINE_S = 60.0
POLL_S = 0.05
INOTIFY_INSTANCES = 8192

# kubelet sets these for the whole machine and refuses to run if it cannot; it is shown files that hold its values already.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)


def filesystem(folder: Path) -> str:
    command = ["stat", "--file-system", "--format=%T", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def prepare_mounts(files: NodeFiles) -> None:
    """Gives the node its own /run, logs and state, so that nothing of it stays on the machine and two nodes do not meet."""
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run")
    for made in ("/run/containerd", "/run/netns", "/run/lock"):
        Path(made).mkdir()
    for source, target in (("kubelet", "/var/lib/kubelet"), ("cni", "/var/lib/cni"), ("log", "/var/log")):
        (files.data / source).mkdir()
        Path(target).mkdir(exist_ok=True)
        run("mount", "--bind", files.data / source, target)
    run("mount", "--make-rshared", "/var/lib/kubelet")
    (files.data / "containerd").mkdir()
    if filesystem(files.data) == "overlayfs":  # as in a container; the kernel does not stack the layers of pods on it
        run("mount", "-t", "tmpfs", "containerd", files.data / "containerd")
    for name, value in KUBELET_SYSCTLS.items():
        shown = files.data / name.replace("/", ".")
        shown.write_text(value + "\n")
        run("mount", "--bind", shown, f"/proc/sys/{name}")
    if Path("/etc/resolv.conf").exists():  # a link into the /run that was just hidden has no target
        run("mount", "--bind", files.config / "resolv.conf", "/etc/resolv.conf")


def prepare_network() -> None:
    """A bridge carries the node's address, as the API server refuses loopback; there is no route out."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "nodebr", "type", "bridge")
    run("ip", "address", "add", f"{NODE_IP}/24", "dev", "nodebr")
    run("ip", "link", "set", "nodebr", "up")
    run("ip", "route", "add", SERVICES, "dev", "nodebr", "src", NODE_IP)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    instances = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(instances.read_text()) < INOTIFY_INSTANCES:  # one per container and then some; the default of 128 is soon gone
        instances.write_text(str(INOTIFY_INSTANCES))


def forward(listener: socket.socket, *, port: int) -> int:
    """Serves the machine's loopback `listener` inside the node, so that one kubeconfig holds on both sides; returns the child's pid."""
    command = [sys.executable, "-m", "e2e.cluster.forward", str(listener.fileno()), str(port)]
    return subprocess.Popen(command, pass_fds=(listener.fileno(),), stdin=subprocess.DEVNULL).pid


def start(name: str, *, arguments: list[str], programs: dict[str, str], files: NodeFiles) -> int:
    if name == "containerd":
        command = [shutil.which("containerd") or "containerd"]
    elif name in programs:
        command = [programs[name]]
    else:
        command = [programs["kube"], name]
    with (files.logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen([*command, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=files.data).pid


def until(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + READY_DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} was not ready after {READY_DEADLINE_S:.0f} s")
        time.sleep(POLL_S)


def containerd_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex("/run/containerd/containerd.sock") == 0


def reaped() -> Iterator[int]:
    while True:
        yield os.wait()[0]


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    files = NodeFiles(Path(plan["state"]), plan["name"])
    socket.sethostname(NODE)
    prepare_mounts(files)
    prepare_network()
    arguments: dict[str, list[str]] = plan["components"]
    running: dict[int, str] = {forward(socket.socket(fileno=plan["listener"]), port=plan["port"]): "forward"}

    def begin(*names: str) -> None:
        for name in names:
            running[start(name, arguments=arguments[name], programs=plan["programs"], files=files)] = name

    begin("etcd", "kube-apiserver", "containerd")
    until(ApiClient(files.kubeconfig).ready, what="kube-apiserver")
    until(containerd_answers, what="containerd")
    begin("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns")
    for pid in reaped():  # pods' shims are orphans and come here too
        if pid in running:
            sys.exit(f"{running[pid]} ended; its last words are in {files.logs / running[pid]}.log")


if __name__ == "__main__":
    main()
