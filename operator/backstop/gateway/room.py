"""Room for requests: how many bytes of their bodies and heads one gateway holds at once. PURE: knows sizes, and nothing of what they say.

A request may be large, and there may be many: what ends a pod is their sum.
"""

from collections.abc import Callable
from typing import Final

# A body that waits for a model is held about four times: as it came, cut, put together for the model, and on its way out.
# With an eighth of the memory for bodies, half of it stays for the process itself, its answers and the next body.
_SHARE: Final = 8
# Without a limit a gateway behaves as with this much memory.
_UNLIMITED: Final = 1 << 30
_LEAST: Final = 1 << 20
# A sixteenth is for heads: most come in one piece, and are held by nobody before their request is.
_HEAD_SHARE: Final = 16


class NoRoomError(Exception):
    """What is held leaves no room for this now."""


class Room:
    """The bytes of request bodies, or of heads, that may be held at once, over all requests: `limit` of them, `held` now."""

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


class HeadRoom(Room):
    """Room for the heads of requests that are not whole yet: `limit` bytes. Half of it is everybody's; of the other half each of so many
    `connections` has the same, so that long heads never shut out short ones. `count_refused` is told of each that did not fit.
    """

    def __init__(self, limit: int, *, connections: int, count_refused: Callable[[], None]) -> None:
        super().__init__(limit // 2)
        self._own = limit // 2 // connections
        self._count_refused = count_refused

    def change(self, held: int, *, size: int) -> int:
        """Of a head that has `size` bytes now, and of which `held` are held: how many are held from now on. Raises NoRoomError."""
        more = max(0, size - self._own) - held
        if more > 0:
            try:
                self.take(more)
            except NoRoomError:
                self._count_refused()
                raise
        else:
            self.give_back(-more)
        return held + more


def body_bytes(memory_limit: int | None) -> int:
    """How many bytes of bodies to hold in a process that may use `memory_limit` bytes; None: as many as it likes."""
    return max(_LEAST, (_UNLIMITED if memory_limit is None else memory_limit) // _SHARE)


def head_bytes(memory_limit: int | None) -> int:
    """The same for heads."""
    return (_UNLIMITED if memory_limit is None else memory_limit) // _HEAD_SHARE
