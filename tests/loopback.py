"""Loopback addresses that tests running side by side do not share."""

import os


def own_block() -> int:
    """A number from 10 to 250 that no other test process of this run has: the second part of its 127.x.y.z addresses."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 10 + int(worker) % 240
