"""Room for requests: how many bytes of their bodies and heads one gateway holds at once. PURE: knows sizes, and nothing of what they say.

A request may be large, and there may be many: what ends a pod is their sum.
"""

from collections.abc import Callable


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
