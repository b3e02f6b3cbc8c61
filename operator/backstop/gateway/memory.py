"""How much memory the kernel lets this process use: the container's limit, from its cgroup; and what the C library gives back of it."""

import contextlib
import ctypes
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")  # of cgroup v2 and v1, as a container sees them
# Pieces from here on are the kernel's own, and go back to it as soon as nobody needs them: bodies, and what is made of them. Left to
# itself, the C library takes the first of them for a sign to keep such ones, and as much as two bodies of 20 MiB stays for good.
_GIVEN_BACK: Final = 1 << 20
_M_MMAP_THRESHOLD: Final = -3  # glibc's name for that
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


def give_back_long_pieces() -> None:
    """From now on; without a C library that knows how, nothing."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK)
