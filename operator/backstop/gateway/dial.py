"""A socket to a host, at whichever of its addresses answers first. An adapter over the happy-eyeballs library.

Knows neither TLS nor what is said on it.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import aiohappyeyeballs

from .resolution import Resolution

# A second address of a name is tried after this.
_NEXT_ADDRESS_SECONDS: Final = 0.25

SocketFactory = Callable[[tuple[Any, ...]], socket.socket]


class Dial(Protocol):
    """`dial`, by names and for addresses that the wiring knows."""

    def __call__(self, host: str, *, port: int) -> Awaitable[socket.socket]:
        """A connected socket. Raises OSError."""


async def dial(host: str, *, port: int, names: Resolution, socket_factory: SocketFactory | None) -> socket.socket:
    """A connected socket. `socket_factory` makes it for a resolved address, and raises OSError for one that may not be called.

    Raises OSError.
    """
    return await aiohappyeyeballs.start_connection(
        await names.look_up(host, port=port),
        happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
        interleave=1,
        loop=asyncio.get_running_loop(),
        socket_factory=socket_factory,
    )
