"""Loopback addresses that tests running side by side do not share."""

import errno
import functools
import socket
from typing import Final

# Nothing else listens here: whoever holds this port on 127.x.0.1 has the block 127.x.y.z.
_CLAIM_PORT: Final = 20009


def own_block() -> int:
    """A number from 10 to 250 that no other test process of this machine has: the second part of its 127.x.y.z addresses."""
    return _claimed()[0]


@functools.cache
def _claimed() -> tuple[int, socket.socket]:
    """The block, and the socket that holds it for as long as the process lives."""
    for block in range(10, 251):
        claim = socket.socket()
        try:
            claim.bind((f"127.{block}.0.1", _CLAIM_PORT))
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return block, claim
    raise AssertionError("every block of loopback addresses is taken by another test process")
