"""Keeps one native cluster: makes its control groups, starts the node, waits, clears everything away.

Started by `native`; ends with its owner (see `lifetime`). If it is killed
itself the node dies with it, and the next `up` or `down` calls `clear`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from e2e.cluster import cgroups
from e2e.cluster.components import NodeFiles
from e2e.cluster.lifetime import Keeper, bound_to_parent

NAMESPACES = ["--mount", "--net", "--pid", "--uts", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"]
START_DEADLINE_S = 10.0


def first_process(unshare: subprocess.Popen[bytes]) -> int:
    """The machine's number of the node's process 1."""
    deadline = time.monotonic() + START_DEADLINE_S
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    while not (found := children.read_text().split()):
        if unshare.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("unshare did not start the node")
        time.sleep(0.01)
    return int(found[0])


def clear(files: NodeFiles) -> None:
    """Removes what a node leaves once its processes are gone; what is not there is no error."""
    cgroups.remove(files.name)
    if files.state.exists():
        shutil.rmtree(files.state)


def keep_logs(files: NodeFiles) -> Path:
    """Saves the logs of a node that ended by itself, in place of those of its last such end."""
    kept = files.state.parent / f"{files.name}.logs"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(files.logs, kept)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("plan", type=Path)
    parser.add_argument("--listener-fd", type=int, required=True)
    parser.add_argument("--lifetime-fd", type=int, required=True)
    parser.add_argument("--pid-fd", type=int)
    arguments = parser.parse_args()
    files = NodeFiles(arguments.plan.parent, arguments.plan.parent.name)
    keeper = Keeper(arguments.lifetime_fd, pid_fd=arguments.pid_fd)
    node = None
    reason = ""
    try:
        files.keeper_pid.write_text(str(os.getpid()))
        cgroups.make(files.name)
        command = ["unshare", *NAMESPACES, sys.executable, "-m", "e2e.cluster.node", str(arguments.plan)]
        node = subprocess.Popen(bound_to_parent(command), pass_fds=(arguments.listener_fd,), stdin=subprocess.DEVNULL)
        socket.socket(fileno=arguments.listener_fd).close()
        first = first_process(node)
        files.node_pid.write_text(str(first))
        reason = keeper.wait([node])
        if reason:
            print(reason, flush=True)
            keep_logs(files)
        elif node.poll() is None:
            os.kill(first, signal.SIGKILL)  # unshare ends when the kernel has ended the whole namespace
    finally:
        if node is not None:
            node.wait()
        clear(files)
    raise SystemExit(1 if reason else 0)


if __name__ == "__main__":
    main()
