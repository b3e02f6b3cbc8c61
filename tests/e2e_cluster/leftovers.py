"""Looks for what a cluster or an API server may have left on the machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import cgroups
from e2e.cluster.paths import REPOSITORY, cluster_state

DEADLINE_S = 20.0


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end of the block, if it is not gone by then."""
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes to hold within the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def mentioning(text: str) -> list[str]:
    """The command lines of processes, other than this one, that mention `text`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in command and int(process.name) != os.getpid():
            found.append(command)
    return found


def in_namespace(namespace: str) -> list[str]:
    """The processes whose process namespace is `namespace`, as `process_namespace` gives it."""
    return [str(process) for process in Path("/proc").glob("[0-9]*") if process_namespace(process) == namespace]


def process_namespace(process: Path) -> str | None:
    try:
        return str((process / "ns/pid").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or a process that even root may not look into
        return None


def of_cluster(name: str, *, namespace: str) -> dict[str, list[str]]:
    """What is left of a native cluster by kind; empty when nothing is."""
    state = str(cluster_state(name))
    left = {
        "processes": [*mentioning(state), *in_namespace(namespace)],
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if state in line],
        "cgroups": [str(group) for group in cgroups.present(name)],
        "files": [state] if Path(state).exists() else [],
    }
    return {kind: found for kind, found in left.items() if found}
