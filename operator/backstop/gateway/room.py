"""Room for request bodies: how many bytes of them one gateway holds at once. PURE: knows sizes, and nothing of what is in a body.

A request may be large, and there may be many: what ends a pod is their sum.
"""

from typing import Final

# A body that waits for a model is held about four times: as it came, cut, put together for the model, and on its way out.
# With an eighth of the memory for bodies, half of it stays for the process itself, its answers and the next body.
_SHARE: Final = 8
# Without a limit a gateway behaves as with this much memory.
_UNLIMITED: Final = 1 << 30
_LEAST: Final = 1 << 20


class NoRoomError(Exception):
    """The bodies that are held leave no room for this one now."""


class BodyRoom:
    """The bytes of request bodies that may be held at once, over all requests: `limit` of them, `held` now."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def check(self, size: int) -> None:
        """Raise NoRoomError when `size` more bytes do not fit."""
        if self.held + size > self.limit:
            raise NoRoomError

    def take(self, size: int) -> None:
        """Hold `size` more bytes. Raises NoRoomError."""
        self.check(size)
        self.held += size

    def give_back(self, size: int) -> None:
        """`size` bytes are not held any more."""
        self.held -= size


def body_bytes(memory_limit: int | None) -> int:
    """How many bytes of bodies to hold in a process that may use `memory_limit` bytes; None: as many as it likes."""
    return max(_LEAST, (_UNLIMITED if memory_limit is None else memory_limit) // _SHARE)
