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
    """Room for the heads of requests that are not whole yet: `limit` bytes. A head is long where so many `connections` could not all have
    one like it; long heads may take half of the room, so that they never shut out short ones. `count_refused` is told of each that does
    not fit.
    """

    def __init__(self, limit: int, *, connections: int, count_refused: Callable[[], None]) -> None:
        super().__init__(limit)
        self._short = limit // connections
        self._long = Room(limit // 2)
        self._count_refused = count_refused

    def change(self, held: int, *, size: int) -> int:
        """Of a head that has `size` bytes now, and of which `held` are held: how many are held from now on. Raises NoRoomError."""
        more, long = size - held, self._of_long(size) - self._of_long(held)
        if more > 0:
            try:
                self._long.check(long)
                self.check(more)
            except NoRoomError:
                self._count_refused()
                raise
        self._long.give_back(-long)
        self.give_back(-more)
        return size

    def _of_long(self, size: int) -> int:
        return size if size > self._short else 0
