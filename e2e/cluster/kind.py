"""The kind provider, where a Docker engine answers. UNTESTED: no Docker engine was there to try it.

Its node image is the one that the installed kind pins by digest.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from e2e.cluster.cluster import Cluster
from e2e.cluster.paths import cache
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step


class KindCluster(Cluster):
    def __init__(self, name: str) -> None:
        self.name = name
        self._kind_name = f"backstop-{name}"

    @property
    def kubeconfig(self) -> Path:
        return cache() / "clusters" / f"{self.name}.kind-kubeconfig"

    def enter_argv(self, argv: list[str], *, net_only: bool = False) -> list[str]:
        if net_only:
            raise ClusterProblem("A kind cluster's network cannot be entered from this machine: run the program in a pod, or use `native`.")
        return ["docker", "exec", "-i", f"{self._kind_name}-control-plane", *argv]

    def load_image(self, archive: Path) -> None:
        _kind("load", "image-archive", str(archive), "--name", self._kind_name)

    def kubectl_argv(self) -> list[str]:
        on_path = shutil.which("kubectl")
        return [on_path] if on_path else super().kubectl_argv()

    def down(self) -> None:
        _kind("delete", "cluster", "--name", self._kind_name, "--kubeconfig", str(self.kubeconfig))
        self.kubeconfig.unlink(missing_ok=True)


def find(name: str) -> KindCluster | None:
    cluster = KindCluster(name)
    return cluster if cluster.kubeconfig.exists() else None


def up(name: str) -> KindCluster:
    cluster = KindCluster(name)
    cluster.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    with step(f"starting kind cluster {name}", expected_s=60):
        _kind("create", "cluster", "--name", f"backstop-{name}", "--kubeconfig", str(cluster.kubeconfig), "--wait", "120s")
    return cluster


def _kind(*arguments: str) -> None:
    kind = shutil.which("kind")
    if kind is None:
        raise ClusterProblem("`kind` is missing: install it (https://kind.sigs.k8s.io), or choose `--provider native` as root on Linux.")
    done = subprocess.run([kind, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterProblem(f"`kind {' '.join(arguments[:2])}` failed: {done.stderr.strip()[-2000:]}")
