"""The addresses of names, each looked up by a thread of its own: a name whose DNS server hangs holds up nobody but those who ask for it.

An adapter over the system's resolver, which knows no deadline and cannot be broken off. Knows nothing of what is asked there.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

__all__ = ["Addresses", "Resolution"]

# Names are looked up again after this.
_FRESH_SECONDS: Final = 10.0
# Addresses are given for this long after they were found, while no newer ones are to be had: Kubernetes gives a lost node up, and the DNS
# server on it, after five minutes, and another one has to start. Longer, and an address may be somebody else's.
_LAST_SECONDS: Final = 600.0
# Who has older addresses waits this long for newer ones, from when those were asked for: a DNS server that is well has answered by then.
_PATIENCE_SECONDS: Final = 0.1
_KEPT_NAMES: Final = 256
# A DNS server has said that there is no such name, or no address of it.
_NO_NAME: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

Addresses = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]
_Name = tuple[str, int]
_Said = Addresses | OSError


class Resolution:
    """Addresses by host and port. One thread at most for each name, and so no more than there are targets.

    `ask` is the system's `getaddrinfo`; it runs in threads.
    """

    def __init__(self, *, ask: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._loop = asyncio.get_running_loop()
        self._ask = ask
        self._found: dict[_Name, tuple[float, Addresses]] = {}  # and when
        self._asked: dict[_Name, tuple[float, asyncio.Future[_Said]]] = {}  # since when

    async def look_up(self, host: str, *, port: int) -> Addresses:
        """The addresses of `host`, for connections to `port`. Raises OSError. Who waits no longer breaks nothing off for others."""
        name = host, port
        at, found = self._found.get(name, (0.0, ()))
        age = self._loop.time() - at
        if found and age < _FRESH_SECONDS:
            return found
        with contextlib.suppress(socket.gaierror):  # it is an address: nobody is asked
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        since, asked = self._asked.get(name) or self._begin(name)
        if not found or age >= _LAST_SECONDS:
            return _addresses(await asyncio.shield(asked))
        await asyncio.wait({asked}, timeout=max(0.0, since + _PATIENCE_SECONDS - self._loop.time()))
        if asked.done() and (not isinstance(asked.result(), OSError) or name not in self._found):
            return _addresses(asked.result())
        return found

    def _begin(self, name: _Name) -> tuple[float, asyncio.Future[_Said]]:
        asked: asyncio.Future[_Said] = self._loop.create_future()
        try:  # it cannot be broken off, so the process does not wait for it when it ends
            threading.Thread(target=self._run, args=(name,), name="resolution", daemon=True).start()
        except RuntimeError:
            raise OSError("the system gives no thread to look a name up") from None
        self._asked[name] = begun = self._loop.time(), asked
        return begun

    def _run(self, name: _Name) -> None:
        """In a thread."""
        said: _Said
        try:
            said = self._ask(*name, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except OSError as error:
            said = error.with_traceback(None)
        except UnicodeError:  # a name that cannot be one
            said = socket.gaierror(socket.EAI_NONAME, "no name")
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(partial(self._heard, name, said))

    def _heard(self, name: _Name, said: _Said) -> None:
        _, asked = self._asked.pop(name)
        asked.set_result(said)
        if isinstance(said, OSError):
            if said.errno in _NO_NAME:
                self._found.pop(name, None)
            return
        self._found.pop(name, None)
        if len(self._found) >= _KEPT_NAMES:
            self._found.pop(next(iter(self._found)))
        self._found[name] = self._loop.time(), said


def _addresses(said: _Said) -> Addresses:
    if isinstance(said, OSError):
        raise type(said)(*said.args)  # another one for each who waits: the one that is kept would keep all frames that it has passed
    return said
