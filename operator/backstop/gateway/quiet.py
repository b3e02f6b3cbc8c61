"""Whether the other side of a connection has said something that the event loop has not read yet. Asks the kernel, and nobody else."""

import asyncio
import select


class OtherSide:
    """Of one connection, for as long as that lasts."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unread = select.poll()  # and not `select.select`, which knows no file descriptor above 1023
        self._unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    @property
    def is_quiet(self) -> bool:
        """Whether it has said nothing, and is still there; its end is something, too, on every system.

        So is a TLS session's ticket that comes late: rare, and nobody can tell it from an end before it is read.
        """
        return not self._transport.is_closing() and not self._unread.poll(0)
