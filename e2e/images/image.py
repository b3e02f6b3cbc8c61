"""Our images, what goes into each, and where its archive is cached.

The key of an archive is made of everything that goes into it, so an unchanged
tree costs nothing. Must not know how an engine builds.
"""

from __future__ import annotations

import enum
import hashlib
from pathlib import Path
from typing import assert_never

from e2e.cluster.build import program
from e2e.cluster.paths import REPOSITORY, cache, forget_old_generations, locked
from e2e.cluster.progress import step
from e2e.images import engine
from e2e.images.packing import docker_archive

PRODUCT = ("Dockerfile", ".dockerignore", "requirements/runtime.txt", "requirements/build.txt", "pyproject.toml", "README.md", "LICENSE")
E2E_DOCKERFILE = "e2e/images/e2e.Dockerfile"
UNPRIVILEGED = "65532:65532"


class Image(enum.Enum):
    """The value is the name on the command line and in the cache."""

    BACKSTOP = "backstop"
    E2E = "e2e"
    PROMETHEUS = "prometheus"

    @property
    def reference(self) -> str:
        return {
            Image.BACKSTOP: "localhost/backstop:dev",
            Image.E2E: "localhost/backstop-e2e:dev",
            Image.PROMETHEUS: "localhost/prometheus:dev",
        }[self]


def archive_of(image: Image) -> Path:
    """The docker archive of `image`, built when the cache lacks this content; raises `ClusterProblem` when it cannot be."""
    archive = cache() / "images" / f"{image.value}-{_key(image)}.tar"
    with locked(cache() / "images" / f".{image.value}.lock"):
        if not archive.exists():
            scratch = archive.with_name(f".{archive.name}")
            scratch.unlink(missing_ok=True)
            _build(image, target=scratch)
            scratch.rename(archive)
            forget_old_generations(archive, pattern=f"{image.value}-*.tar")
    return archive


def _build(image: Image, *, target: Path) -> None:
    match image:
        case Image.BACKSTOP:
            engine.build({image.reference: REPOSITORY / "Dockerfile"}, target=target)
        case Image.E2E:
            chain = {Image.BACKSTOP.reference: REPOSITORY / "Dockerfile", image.reference: REPOSITORY / E2E_DOCKERFILE}
            engine.build(chain, target=target)
        case Image.PROMETHEUS:
            with step(f"packing {image.reference}", expected_s=1):
                files = {"prometheus": program("prometheus")}
                docker_archive(target, name=image.reference, files=files, entrypoint=["/prometheus"], user=UNPRIVILEGED)
        case unreachable:
            assert_never(unreachable)


def _key(image: Image) -> str:
    match image:
        case Image.BACKSTOP:
            return _digest(engine.base_key(), *(REPOSITORY / name for name in PRODUCT), *_sources("operator"))
        case Image.E2E:
            return _digest(_key(Image.BACKSTOP), REPOSITORY / E2E_DOCKERFILE, *_sources("e2e"))
        case Image.PROMETHEUS:
            return _digest(program("prometheus").parent.name, Path(__file__).with_name("packing.py"))
        case unreachable:
            assert_never(unreachable)


def _sources(folder: str) -> list[Path]:
    files = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(files)


def _digest(*parts: str | Path) -> str:
    digest = hashlib.sha256()
    for part in parts:
        name, content = (part, b"") if isinstance(part, str) else (str(part.relative_to(REPOSITORY)), part.read_bytes())
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
