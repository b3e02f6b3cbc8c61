"""Where the clusters keep what they build and what they run from.

Knows the folder layout under the cache; must not know what the files hold.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT_GENERATIONS = 3


def cache() -> Path:
    """`$XDG_CACHE_HOME/backstop`, or the same under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backstop"


def cluster_state(name: str) -> Path:
    return cache() / "clusters" / name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, waiting for whoever has it; the kernel drops it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def forget_old_generations(newest: Path, *, pattern: str) -> None:
    """Bounds a family of cache entries: keeps the `KEPT_GENERATIONS` last used beside `newest` that match `pattern`."""
    entries = sorted(newest.parent.glob(pattern), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in [entry for entry in entries if entry != newest][KEPT_GENERATIONS - 1 :]:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
