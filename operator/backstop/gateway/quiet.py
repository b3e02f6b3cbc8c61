"""Whether the other side of a connection has said something that the event loop has not read yet. Asks the kernel, and nobody else."""

import asyncio
import select


def is_quiet(transport: asyncio.Transport) -> bool:
    """Whether it has said nothing, and is still there; its end is something, too, on every system.

    So is a TLS session's ticket that comes late: rare, and nobody can tell it from an end before it is read.
    """
    if transport.is_closing():
        return False
    unread = select.poll()  # and not `select.select`, which knows no file descriptor above 1023
    unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not unread.poll(0)
