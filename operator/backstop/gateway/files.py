"""File descriptors: how many this process may have, and how many connections callers may have with them."""

import contextlib
import errno
import resource
from typing import Final

# How the system says that a process, or the machine, has as many files open as it may.
OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)
# Connections of callers that are told to come back, while they are; and of those who ask the metrics port, the kubelet among them.
TURNED_AWAY: Final = 64
METRICS_CONNECTIONS: Final = 128
# What is open besides connections to models: those, listening sockets, a cache's file and Redis, the traffic watch, looking names up.
_BESIDES: Final = TURNED_AWAY + METRICS_CONNECTIONS + 64
# Nobody is served with fewer.
LEAST: Final = 512
_UNLIMITED: Final = 1 << 20
_UNLIMITED_MEMORY: Final = 1 << 30  # as for request bodies
# An eighth of the memory is for connections: an idle one takes half of this here, and the kernel takes as much again.
_SHARE: Final = 8
_CONNECTION_BYTES: Final = 8 << 10


def raise_limit() -> int:
    """Take as many file descriptors as the system lets this process have; how many those are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems have a lower bound of their own, and then what there is counts
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit


def for_callers(limit: int, *, memory: int | None) -> int:
    """How many connections callers may have, with as many to models beside them, in a process that may have `limit` file descriptors and
    `memory` bytes; None: as many as it likes.
    """
    by_memory = (_UNLIMITED_MEMORY if memory is None else memory) // _SHARE // _CONNECTION_BYTES
    return min((limit - _BESIDES) // 2, max(LEAST, by_memory))
