"""The ports: sockets, the connections that come in, and the order in which a gateway drains and ends."""

import asyncio
import logging
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Final

from .complaint import Complaint
from .connection import Connection
from .errors import JSON_TYPE, OVERLOAD, REASON_HEADER, envelope
from .files import TURNED_AWAY
from .httpexchange import CLOSE, Exchange
from .lifecycle import Lifecycle
from .revision import ConfigurationError
from .room import HeadRoom

BACKLOG: Final = 2048
# Before the grace period ends, what still streams is ended by us, with an error its caller can read.
ENDING_SECONDS: Final = 5.0
# What is left of a caller then has this long to take it.
LAST_SECONDS: Final = 2.0
# At the end an idle connection is kept open this long: a request may be on its way.
LINGER_SECONDS: Final = 0.5
# Who comes when there are as many connections as there may be takes the place of one that has been idle for so long: longer than gateways
# use one to another gateway again (4 s), and OpenAI's Python client one to us (5 s), so that none of theirs is closed under a request.
SPARED_SECONDS: Final = 6.0
# Who is told to come back has this long to ask: the answer to what was not asked yet would be lost with the connection.
TURNED_AWAY_SECONDS: Final = 1.0
App = Callable[[Exchange], Awaitable[None]]
_OWN_FAULT: Final = envelope("the gateway has failed; its log says why", kind="server_error")
_CROWDED: Final = envelope("too many connections are open; retry", kind="server_error", code="overload")
_COME_BACK: Final = ((b"content-type", JSON_TYPE.encode()), (b"retry-after", b"1"), (REASON_HEADER.encode(), OVERLOAD.encode()), CLOSE)
_LOG: Final = logging.getLogger("backstop.gateway")


class HttpServer:
    """A port and its connections, `most` of them: who comes then takes the place of one that has long been idle. Where none has, it is told
    to come back (503), and `count_crowded` is called; without that, it is answered one request, if it asks at once.

    `heads` is the room for those of requests that are not whole, on whatever port.
    `now` is the wall clock, in seconds; `lingers`: idle connections stay open for a moment at the end.
    """

    def __init__(
        self,
        app: App,
        *,
        now: Callable[[], float],
        lingers: bool,
        most: int,
        heads: HeadRoom,
        count_crowded: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        self._now = now
        self._lingers = lingers
        self._most = most
        self._heads = heads
        self._count_crowded = count_crowded
        self._second, self._date = -1, b""
        self._connections: set[Connection] = set()
        self._resting: OrderedDict[Connection, None] = OrderedDict()  # and no dict, whose first is found behind all that were before it
        self._running: dict[Exchange, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._paused: socket.socket | None = None  # the port, while nobody is taken from its queue
        self._resuming: asyncio.Task[None] | None = None
        self._closed = False
        self._over: asyncio.Future[None] | None = None

    async def listen(self, sock: socket.socket) -> None:
        """Take connections from now on."""
        said = (
            "is answered once: find out who keeps them open"
            if self._count_crowded is None
            else "is told to come back: let more gateways serve, or raise this one's limits of open files and of memory"
        )
        self._complaint = Complaint(
            f"port {sock.getsockname()[1]} has {self._most} connections, which is as many as it may have, and none of them has long been"
            f" idle; who comes now {said}",
            clock=self._loop.time,
        )
        await self._listen_on(sock)

    def close(self) -> None:
        """Take no connection any more, and end those that there are: each after what is on its way."""
        assert self._server is not None
        self._closed = True
        self._server.close()
        if self._paused is not None:
            self._paused.close()
        for connection in tuple(self._connections):
            connection.close_soon(linger=LINGER_SECONDS if self._lingers else 0.0)

    async def ended(self, *, within: float) -> bool:
        """Whether, once closed, it is over within so many seconds: no connection, and no request that is still being answered."""
        self._over = self._loop.create_future()
        self._tell_end()
        done, _ = await asyncio.wait({self._over}, timeout=within)
        return bool(done)

    async def abort(self) -> None:
        """End what is left, whatever it is."""
        for connection in tuple(self._connections):
            connection.abort()
        left = tuple(self._running.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _connect(self) -> asyncio.Protocol:
        beyond = len(self._connections) - self._most
        if beyond >= 0 and self._make_room():
            beyond = -1
        if beyond >= 0:
            if self._count_crowded is not None:
                self._count_crowded()
            self._complaint.say()
            if beyond + 1 >= TURNED_AWAY:
                self._loop.call_soon(self._pause)  # and not now, for this connection is still the server's
        begin = self._begin if beyond < 0 or self._count_crowded is None else _turn_away
        connection = Connection(begin=begin, date=self._date_line, lost=self._lost, resting=self._resting, heads=self._heads)
        self._connections.add(connection)
        if beyond >= 0:
            connection.close_soon(linger=TURNED_AWAY_SECONDS)
        return connection

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; whether there was one. Who cannot be closed does not rest any more, so that
        what is passed over is passed over once.
        """
        spared = self._loop.time() - SPARED_SECONDS
        while self._resting:
            longest = next(iter(self._resting))
            if longest.idle_since > spared:
                return False
            if longest.make_way():
                self._connections.discard(longest)
                return True
        return False

    async def _listen_on(self, sock: socket.socket) -> None:
        self._listening = sock
        self._server = await self._loop.create_server(self._connect, sock=sock, backlog=BACKLOG)
        if self._closed:
            self._server.close()

    def _pause(self) -> None:
        """Take no connection until others have gone. Who comes waits in the kernel's queue: if it were cut off, an entry hop would have to
        take it for a failure of the revision. Where the queue is full there is no connection, and who wants one knows so.
        """
        if self._paused is not None or self._closed or len(self._connections) - self._most < TURNED_AWAY:
            return
        assert self._server is not None
        try:
            self._paused = self._listening.dup()
        except OSError:  # no file descriptor is left, nor is one for another caller
            return
        self._server.close()

    def _resume(self) -> None:
        if self._paused is not None and not self._closed and len(self._connections) - self._most <= TURNED_AWAY // 2:
            sock, self._paused = self._paused, None
            self._resuming = self._loop.create_task(self._listen_on(sock))

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._resume()
        self._tell_end()

    def _tell_end(self) -> None:
        if self._over is not None and not self._over.done() and not self._connections and not self._running:
            self._over.set_result(None)

    def _begin(self, exchange: Exchange) -> None:
        exchange.task = self._running[exchange] = self._loop.create_task(self._answer(exchange))

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._app(exchange)
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer, and the log the reason
            _LOG.exception("a request could not be answered")
            if not exchange.begun:
                exchange.answer(500, headers=[(b"content-type", JSON_TYPE.encode())], body=_OWN_FAULT)
        finally:
            if not exchange.finished:
                exchange.break_off()
            del self._running[exchange]
            self._tell_end()

    def _date_line(self) -> bytes:
        """The `Date` header, made once a second."""
        now = int(self._now())
        if now != self._second:
            self._second, self._date = now, b"date: %b\r\n" % formatdate(now, usegmt=True).encode()
        return self._date


def _turn_away(exchange: Exchange) -> None:
    exchange.answer(503, headers=list(_COME_BACK), body=_CROWDED)


def bind(host: str | None, *, port: int, option: str) -> socket.socket:
    """A listening socket; without a `host`, on every address. Raises ConfigurationError that names `option`."""
    try:
        if host is None and socket.has_dualstack_ipv6():
            listening = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        else:
            family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
            listening = socket.create_server((host or "", port), family=family, backlog=BACKLOG)
        # Inherited by every connection, whatever the event loop: a piece of a stream must not wait for the one before it to be seen.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"`{option} {port}` cannot be listened on ({reason}); choose another port") from None


async def serve_until_stopped(
    traffic: HttpServer,
    *,
    traffic_socket: socket.socket,
    metrics: HttpServer,
    metrics_socket: socket.socket,
    lifecycle: Lifecycle,
    stop: asyncio.Event,
    drain_seconds: float,
    grace_seconds: float,
) -> None:
    """Serve both ports until `stop` is set; then drain, close the traffic port, end what still runs in time, close the metrics port."""
    loop = asyncio.get_running_loop()
    await metrics.listen(metrics_socket)
    await traffic.listen(traffic_socket)
    await stop.wait()
    killed_at = loop.time() + grace_seconds
    lifecycle.drain(killed_at=killed_at)
    last = max(loop.time(), killed_at - ENDING_SECONDS)
    await asyncio.sleep(min(drain_seconds, max(0.0, last - loop.time())))
    traffic.close()
    if not await traffic.ended(within=max(0.0, last - loop.time())):
        lifecycle.end()
        if not await traffic.ended(within=LAST_SECONDS):
            await traffic.abort()
    metrics.close()
    if not await metrics.ended(within=LAST_SECONDS):
        await metrics.abort()


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
