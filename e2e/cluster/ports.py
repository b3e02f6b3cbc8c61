"""Ports for servers that are started in a moment."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below those that systems give to outgoing connections: one of these may be taken again before the server binds to it.
LOWEST, HIGHEST = 10_000, 29_999


def free_ports(count: int) -> list[int]:
    """Ports of the loopback, all different, that nothing listened on a moment ago."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().randint(LOWEST, HIGHEST)
            listener = held.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
