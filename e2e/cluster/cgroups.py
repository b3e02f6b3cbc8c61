"""The control groups of one native cluster: a folder of its own in every hierarchy.

Touches no folder that it did not make. Version 1 is what was tried; version 2
follows the kernel's documentation and is untested.
"""

from __future__ import annotations

import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
V2_CONTROLLERS = "+cpu +cpuset +memory +pids +io"
REMOVAL_DEADLINE_S = 10.0

# All pods share this one group and compete with whatever else the machine does; starved pods look like a breach.
V1_SHARES = 100_000
V2_WEIGHT = 10_000


def unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def folder(name: str) -> str:
    return f"backstop-{name}"


def make(name: str) -> None:
    if unified():
        ours = ROOT / folder(name)
        ours.mkdir(exist_ok=True)
        for group in (ROOT, ours):
            (group / "cgroup.subtree_control").write_text(V2_CONTROLLERS)
        (ours / "cpu.weight").write_text(str(V2_WEIGHT))
        return
    for controller in V1_CONTROLLERS:
        (ROOT / controller / folder(name)).mkdir(exist_ok=True)
    for kind in ("cpus", "mems"):
        inherited = (ROOT / "cpuset" / f"cpuset.{kind}").read_text()
        (ROOT / "cpuset" / folder(name) / f"cpuset.{kind}").write_text(inherited)
    (ROOT / "cpu" / folder(name) / "cpu.shares").write_text(str(V1_SHARES))


def present(name: str) -> list[Path]:
    """The folders of cluster `name` that exist, in every hierarchy."""
    parents = [ROOT, *ROOT.iterdir()] if ROOT.is_dir() else []
    return sorted({(parent / folder(name)).resolve() for parent in parents if (parent / folder(name)).is_dir()})


def remove(name: str) -> None:
    """Removes the folders once their processes are gone; raises OSError when that takes longer than the deadline."""
    deadline = time.monotonic() + REMOVAL_DEADLINE_S
    for top in present(name):
        for group in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
            _remove_empty(group, deadline=deadline)


def _remove_empty(group: Path, *, deadline: float) -> None:
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)  # the kernel has no event for "a dying task has left its group" in version 1
        else:
            return
