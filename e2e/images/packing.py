"""Docker archives of one layer, for static programs that need nothing else in their image.

Pure packing: the same files give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def docker_archive(target: Path, *, name: str, files: dict[str, Path], entrypoint: list[str], user: str) -> None:
    """Writes the image `name` (fully qualified, with its tag) to `target`.

    `files` maps a path inside the image, without the leading slash, to the file whose content it gets; all are executable.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, source in sorted(files.items()):
            _add(tar, path=path, content=source.read_bytes(), mode=0o755)
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
        "history": [{"created_by": "backstop e2e"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        _add(tar, path="config.json", content=json.dumps(config).encode(), mode=0o644)
        _add(tar, path="layer.tar", content=layer.getvalue(), mode=0o644)
        _add(tar, path="manifest.json", content=json.dumps(manifest).encode(), mode=0o644)


def _add(tar: tarfile.TarFile, *, path: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))
