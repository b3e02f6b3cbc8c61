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


def raise_limit() -> int:
    """Take as many file descriptors as the system lets this process have; how many those are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems have a lower bound of their own, and then what there is counts
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit


def for_callers(limit: int, *, by_memory: int) -> int:
    """How many connections callers may have, with as many to models beside them, in a process that may have `limit` file descriptors, and
    has memory for so many.
    """
    return min((limit - _BESIDES) // 2, max(LEAST, by_memory))
