"""Loopback addresses and ports that tests running side by side do not share."""

import os
import socket


def own_block() -> int:
    """A number from 10 to 250 that no other test process of this run has: the second part of its 127.x.y.z addresses."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 10 + int(worker) % 240


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
