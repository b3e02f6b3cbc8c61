"""What a provider needs from the machine, and one sentence for each thing that is missing.

Installs Debian packages where that is possible: as root, with apt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.cluster.components import CNI_PROGRAMS
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step

NODE_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    str(CNI_PROGRAMS / "bridge"): "containernetworking-plugins",
}
IMAGE_PROGRAMS = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
EXPECTED_S = 40.0


def is_root_on_linux() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


def docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return subprocess.run([docker, "version"], capture_output=True, check=False, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def require(programs: dict[str, str]) -> None:
    """Makes sure that each program is there; `programs` maps a command name or an absolute path to its Debian package."""
    missing = _missing(programs)
    if not missing:
        return
    packages = sorted(set(missing.values()))
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise ClusterProblem("\n".join(f"`{name}` is missing: install it (Debian package {package})." for name, package in missing.items()))
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, "install", "-y", "-qq", "--no-install-recommends", *packages]
    with step(f"installing {' '.join(packages)} with apt", expected_s=EXPECTED_S):
        done = subprocess.run(install, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode != 0:  # package lists that are old or were never fetched
            subprocess.run([apt, "update", "-qq"], env=quiet, capture_output=True, check=False)
            done = subprocess.run(install, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterProblem(f"`apt-get install {' '.join(packages)}` failed; apt says:\n{done.stderr.strip()[-2000:]}")
    if still := _missing(programs):
        raise ClusterProblem("\n".join(f"`{name}` is missing although {package} is installed." for name, package in still.items()))


def _missing(programs: dict[str, str]) -> dict[str, str]:
    return {
        name: package for name, package in programs.items() if not (Path(name).exists() if name.startswith("/") else shutil.which(name))
    }
