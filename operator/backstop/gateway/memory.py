"""How much memory the kernel lets this process use: the container's limit, from its cgroup. Reads files, and nothing else."""

from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")  # of cgroup v2 and v1, as a container sees them
# Version 1 spells "no limit" as the largest number of pages.
_NO_LIMIT: Final = 1 << 60


def memory_limit(root: Path = CGROUPS) -> int | None:
    """The limit in bytes; None without one, and where there are no cgroups."""
    for name in _FILES:
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None
    return None
