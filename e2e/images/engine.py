"""Builds a Dockerfile into an archive: with Docker where it answers (untested), else with buildah on a Debian base.

buildah keeps its layers in a store of its own under the cache, away from the
user's. It needs root, as it runs without user namespaces.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from e2e.cluster.paths import REPOSITORY, cache, locked
from e2e.cluster.prerequisites import IMAGE_PROGRAMS, docker_answers, is_root_on_linux, require
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step

KEPT_IMAGES = 200
SUITE = "bookworm"
# `essential` has no apt; documentation and translations are two thirds of what else nobody reads in a container.
BASE_OPTIONS = (
    "--variant=essential",
    "--include=python3,python3-venv,ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
# What lets pip reach its index from inside a build step; mounted, not copied.
PIP_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


@functools.cache
def _with_docker() -> bool:
    return docker_answers()


def base_key() -> str:
    """Changes when images have to be rebuilt on another base."""
    if _with_docker():
        return "docker"
    return hashlib.sha256("\0".join((SUITE, *BASE_OPTIONS)).encode()).hexdigest()[:12]


def build(dockerfiles: dict[str, Path], *, target: Path) -> None:
    """Builds a chain of images, tag to Dockerfile, each on the one before it, and writes the last to the docker archive `target`.

    The context is the repository. The chain is always walked from its start: an unchanged image costs a second, and a tag
    left by another checkout is never taken for ours.
    """
    if _with_docker():
        _build_with_docker(dockerfiles, target=target)
        return
    if not is_root_on_linux():
        raise ClusterProblem("Images need a Docker engine (`docker version` must work), or root on Linux to build them with buildah.")
    require(IMAGE_PROGRAMS)
    with locked(cache() / "images" / ".buildah.lock"):
        tag = _debian_base()
        mounts = [f"--volume={file}:{file}:ro" for file in PIP_FILES if Path(file).exists()]
        for built, dockerfile in dockerfiles.items():
            options = ["--isolation=chroot", "--layers", "--pull-never", f"--build-arg=BASE={tag}", *mounts]
            with step(f"building image {built}", expected_s=45):
                _buildah("build", *options, f"--tag={built}", f"--file={dockerfile}", str(REPOSITORY))
            tag = built
        with step(f"writing image {tag}", expected_s=2):
            _bound_store()
            _buildah("push", "--disable-compression", tag, f"docker-archive:{target}:{tag}")


def _build_with_docker(dockerfiles: dict[str, Path], *, target: Path) -> None:
    base: list[str] = []
    for tag, dockerfile in dockerfiles.items():
        with step(f"building image {tag}", expected_s=60):
            _run(["docker", "build", *base, f"--tag={tag}", f"--file={dockerfile}", str(REPOSITORY)])
        base = [f"--build-arg=BASE={tag}"]
    _run(["docker", "save", f"--output={target}", tag])


def _debian_base() -> str:
    """The tag of a minimal Debian with Python, made once."""
    tag = f"localhost/python:{base_key()}"
    if _succeeds("inspect", "--type=image", tag):
        return tag
    folder = cache() / "images" / ".base"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with step(f"making the base image (Debian {SUITE} with Python)", expected_s=45):
        _run(["mmdebstrap", "--quiet", *BASE_OPTIONS, SUITE, str(folder / "root.tar")])
        (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        _buildah("build", "--isolation=chroot", "--layers", f"--tag={tag}", str(folder))
    shutil.rmtree(folder)
    return tag


def _store() -> list[str]:
    store = cache() / "buildah"
    store.mkdir(parents=True, exist_ok=True)
    return ["buildah", f"--root={store / 'root'}", f"--runroot={store / 'run'}", "--storage-driver=overlay"]


def _bound_store() -> None:
    """Drops intermediate layers, the build cache among them, once there are many: each change of the code adds a few small ones.

    Under the lock every working container in this store is what a killed build left, and would keep its image from being dropped.
    """
    listed = subprocess.run([*_store(), "images", "--all", "--quiet"], capture_output=True, text=True, check=True)
    if len(listed.stdout.split()) > KEPT_IMAGES:
        _run([*_store(), "rm", "--all"])
        _run([*_store(), "rmi", "--prune"])


def _policy() -> Path:
    policy = cache() / "buildah" / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    return policy


def _succeeds(*arguments: str) -> bool:
    return subprocess.run([*_store(), *arguments], capture_output=True, check=False).returncode == 0


def _buildah(command: str, *arguments: str) -> None:
    _run([*_store(), command, f"--signature-policy={_policy()}", *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env=os.environ | {"TMPDIR": "/var/tmp"}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        name = " ".join([command[0], *(part for part in command[1:] if not part.startswith("-"))][:2])
        raise ClusterProblem(f"`{name}` failed; it says:\n{(done.stdout + done.stderr).strip()[-4000:]}")
