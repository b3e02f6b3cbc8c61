"""Asking models and peers: connections that are kept for a while, and made where there is none. An adapter over asyncio.

Knows addresses and which of them may not be called; nothing of what is asked. No cookies, no proxies, no redirects. A request is sent once:
whether to ask again is for those who know what it costs.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import quote, urlsplit

from .dial import SocketFactory, dial
from .files import OUT_OF_FILES
from .modelconnection import Answer, BrokenError, GarbledError, ModelConnection
from .resolution import Resolution
from .trust import trust_of
from .wire import END_OF_HEAD, lines

__all__ = [
    "Answer",
    "BrokenError",
    "Client",
    "ConnectTimeoutError",
    "GarbledError",
    "OutOfFilesError",
    "Place",
    "UnreachableError",
    "UntrustedError",
]

# What may stand in a request line as it is: all that a URL may hold, and what is quoted already.
_UNQUOTED: Final = "/?:@!$&'()*+,;=%~[]"
_PORTS: Final = {"http": 80, "https": 443}
# By OpenSSL's number: what would name a host in OpenSSL's own words.
_WHY_UNTRUSTED: Final = {62: "it is made out to another host", 64: "it is made out to another address"}


class UnreachableError(ConnectionError):
    """There was no connection to be had; nothing has been sent."""


class OutOfFilesError(UnreachableError):
    """This process may open no more files, and a connection is one: not the other side's doing. Nothing has been sent."""


class UntrustedError(UnreachableError):
    """The server is not who it should be, by its certificate; nothing has been sent. The text says why, without a name."""


class ConnectTimeoutError(TimeoutError):
    """There was no connection in time; nothing has been sent."""


@dataclass(frozen=True)
class Place:
    """What is asked: `host` and `port` of a server, the `target` of the request line, and whether TLS is spoken.

    `authorities`: PEM of those that alone may vouch for it; None: those that the client trusts.
    """

    host: str
    port: int
    target: str
    tls: bool = False
    authorities: str | None = None

    @staticmethod
    def of(url: str, *, authorities: str | None = None) -> "Place":
        """The place of an `http` or `https` URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"`{url}` is no URL of a server")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        port, quoted = parts.port or _PORTS[parts.scheme], quote(target, safe=_UNQUOTED)
        return Place(parts.hostname, port, quoted, tls=parts.scheme == "https", authorities=authorities)

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"

    @property
    def server(self) -> "_Server":
        """Whose connections it can use: those to the same port of the same host, by the same authorities."""
        return self.host, self.port, self.tls, self.authorities

    def head(self, headers: Mapping[str, str], *, method: str = "POST") -> bytes:
        """The start of a request's head, whose length is not said yet. Raises ValueError for what would be another header."""
        pairs = [("Host", self.authority), *headers.items()]
        said = lines((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in pairs)
        return b"%b %b HTTP/1.1\r\n%b" % (method.encode(), self.target.encode("ascii"), said)


_Server = tuple[str, int, bool, str | None]


class Client:
    """Connections to any number of places. `idle_seconds`: how long one that is not used is kept.

    `socket_factory` makes the socket for a resolved address, and raises OSError for one that may not be called. `trust`: whose certificates
    are believed; unset: what the system believes.
    """

    def __init__(self, *, idle_seconds: float, socket_factory: SocketFactory | None = None, trust: ssl.SSLContext | None = None) -> None:
        self.loop = asyncio.get_running_loop()  # kept: to ask for it asks the system for the process's number
        self._idle_seconds = idle_seconds
        self._socket_factory = socket_factory
        self._idle: dict[_Server, list[ModelConnection]] = {}
        self._resolution = Resolution()
        self._trusts: dict[str | None, ssl.SSLContext] = {} if trust is None else {None: trust}  # by authorities, made when first needed
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def post(
        self,
        place: Place,
        *,
        head: bytes,
        body: bytes,
        connect: float | None,
        silence: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a request, whose head `place.head` has begun, and wait for the head of its answer, which the caller releases.

        `connect`: seconds for a connection that has to be made; `silence`: how long the other side may say nothing. Raises
        UnreachableError, ConnectTimeoutError; once `on_sent` was called BrokenError, GarbledError, TimeoutError.
        """
        connection = self._pick(place) or await self._connect(place, within=connect)
        answer = connection.ask(b"%bContent-Length: %d\r\n%b" % (head, len(body), END_OF_HEAD), body=body, silence=silence)
        if on_sent is not None:
            on_sent()
        try:
            await answer.head()
        except BaseException:
            connection.close()
            raise
        return answer

    async def get(self, place: Place, *, headers: Mapping[str, str], connect: float | None) -> Answer:
        """The same for a request without a body."""
        return await self.post(place, head=place.head(headers, method="GET"), body=b"", connect=connect)

    def prepare(self, place: Place) -> None:
        """Read whose certificates are believed there. Where no file descriptor is left to read them with, nobody's would be, for good."""
        if place.tls:
            self._trust(place.authorities)

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()

    def _pick(self, place: Place) -> ModelConnection | None:
        """The connection that was used last, so that those nobody needs grow old."""
        kept = self._idle.get(place.server)
        oldest = self.loop.time() - self._idle_seconds
        while kept:
            connection = kept.pop()
            if connection.is_usable and connection.idle_since >= oldest and connection.other_side.is_quiet:
                return connection
            connection.close()
        return None

    async def _connect(self, place: Place, *, within: float | None) -> ModelConnection:
        """A new connection. What others wait for, addresses of the same name, is not broken off with one that waits no longer."""
        try:
            async with asyncio.timeout(within):
                return await self._dial(place)
        except TimeoutError:
            raise ConnectTimeoutError("no connection in time") from None
        except ssl.SSLCertVerificationError as error:
            raise UntrustedError(_WHY_UNTRUSTED.get(error.verify_code, error.verify_message)) from None
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                raise OutOfFilesError("no file descriptor is left for a connection") from None
            raise UnreachableError(f"no connection: {type(error).__name__}") from None

    async def _dial(self, place: Place) -> ModelConnection:
        sock = await dial(place.host, port=place.port, names=self._resolution, socket_factory=self._socket_factory)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await self.loop.create_connection(
                partial(ModelConnection, free=partial(self._keep, place.server)),
                sock=sock,
                ssl=self._trust(place.authorities) if place.tls else None,
                server_hostname=place.host if place.tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    def _trust(self, authorities: str | None) -> ssl.SSLContext:
        trust = self._trusts.get(authorities)
        if trust is None:
            trust = self._trusts[authorities] = trust_of(authorities)
        return trust

    def _keep(self, server: _Server, connection: ModelConnection) -> None:
        if self._closed:
            connection.close()
            return
        connection.idle_since = self.loop.time()
        self._idle.setdefault(server, []).append(connection)
        if self._sweep is None:
            self._sweep = self.loop.call_later(self._idle_seconds, self._close_old)

    def _close_old(self) -> None:
        """Close what has not been used for long; look again while there is anything."""
        oldest = self.loop.time() - self._idle_seconds
        for key, kept in tuple(self._idle.items()):
            for connection in kept:
                if connection.idle_since < oldest:
                    connection.close()
            self._idle[key] = [c for c in kept if c.is_usable]
            if not self._idle[key]:
                del self._idle[key]
        self._sweep = self.loop.call_later(self._idle_seconds / 2, self._close_old) if self._idle else None
