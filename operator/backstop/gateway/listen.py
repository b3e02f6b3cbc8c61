"""uvicorn under two ASGI callables: sockets, bounds on what callers send, and the order in which a gateway drains and ends."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Generator
from enum import Enum, auto
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .exchange import BODY_SECONDS, UNREAD_SECONDS
from .lifecycle import Lifecycle
from .revision import ConfigurationError

MAX_HEADER_BYTES: Final = 64 << 10
# Longer than clients and proxies keep an idle connection: the side that sends requests is the one to close it.
KEEP_ALIVE_SECONDS: Final = 75
# A request's head is complete within this time of its first byte.
HEAD_SECONDS: Final = 10.0
# Before the grace period ends, what still streams is ended by us, with an error its caller can read.
ENDING_SECONDS: Final = 5.0
# At the end an idle connection is kept open this long: a request may be on its way.
LINGER_SECONDS: Final = 0.5


class _Awaited(Enum):
    """What the caller's next byte belongs to."""

    REQUEST = auto()  # nothing of the next one has come
    HEAD = auto()
    BODY = auto()


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with bounds in size and time on what a caller sends, and an end that resets no request on its way.

    A head that comes in one piece, as nearly all do, costs no timer. The time for a body is its reader's; what is left of a body
    when its answer has left is awaited here.
    """

    _awaited = _Awaited.REQUEST
    _due: asyncio.TimerHandle | None = None  # when a head, or the rest of an answered request's body, has to be complete
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection: idle until its first byte."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Bytes of the caller."""
        idle = self.timeout_keep_alive_task is not None
        super().data_received(data)
        # Idle no more, and nothing begun: the empty lines that may stand before a request.
        if self._awaited is _Awaited.HEAD or (idle and self._awaited is _Awaited.REQUEST and self._is_idle()):
            self._expect(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._awaited = _Awaited.BODY
        self._expected()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._awaited = _Awaited.REQUEST
        self._expected()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer has left, perhaps before the body has come: closed at once, the connection might take the answer with it."""
        super().on_response_complete()
        match self._awaited:
            case _Awaited.BODY:
                self._expect(BODY_SECONDS)
            case _Awaited.HEAD:  # of a request behind the answered one, which may have taken long
                self._expected()
                self._expect(HEAD_SECONDS)
            case _Awaited.REQUEST:
                return

    def _expect(self, seconds: float) -> None:
        if self._due is None:
            self._due = self.loop.call_later(seconds, self._overdue)

    def _expected(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _overdue(self) -> None:
        self._due = None
        if self._is_idle():  # else a request is being answered, and its end sees to what is behind it
            self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def pause_writing(self) -> None:
        """The caller does not read: its buffers are full."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, and so is every wait for it."""
        if self._unread is not None:
            self._unread.cancel()
        self._expected()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn forgets it where the connection broke

    def on_message_begin(self) -> None:
        """A new request."""
        self._awaited = _Awaited.HEAD
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """More of the request line."""
        self._bound(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._bound(len(name) + len(value))
        super().on_header(name, value)

    def shutdown(self) -> None:
        """The server ends: close after the answer on its way, or the one to the request that comes within a moment."""
        if self._is_idle():
            self.loop.call_later(LINGER_SECONDS, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _bound(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES:
            raise ValueError("the request's head is too long")  # uvicorn answers 400 and closes


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the one who runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


def bind(host: str | None, *, port: int, option: str) -> socket.socket:
    """A listening socket; without a `host`, on every address. Raises ConfigurationError that names `option`."""
    try:
        if host is None and socket.has_dualstack_ipv6():
            listening = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2048)
        else:
            family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
            listening = socket.create_server((host or "", port), family=family, backlog=2048)
        # Inherited by every connection, whatever the event loop: an answer leaves in two writes, and must not wait between them.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"`{option} {port}` cannot be listened on ({reason}); choose another port") from None


def make_server(app: Callable[..., Any], *, ending: float) -> uvicorn.Server:
    """A uvicorn server; once told to exit, it waits `ending` seconds for answers on their way."""
    config = uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(ending)),
    )
    return _Server(config)


async def serve_until_stopped(
    traffic: uvicorn.Server,
    *,
    traffic_socket: socket.socket,
    metrics: uvicorn.Server,
    metrics_socket: socket.socket,
    lifecycle: Lifecycle,
    stop: asyncio.Event,
    drain_seconds: float,
    grace_seconds: float,
) -> None:
    """Serve both ports until `stop` is set; then drain, close the traffic port, end what still runs in time, close the metrics port."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(traffic.serve(sockets=[traffic_socket]))
    watching = asyncio.create_task(metrics.serve(sockets=[metrics_socket]))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, running, watching}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    lifecycle.drain()
    last = loop.time() + max(0.0, grace_seconds - ENDING_SECONDS)
    await asyncio.sleep(min(drain_seconds, max(0.0, last - loop.time())))
    traffic.should_exit = True
    _, still = await asyncio.wait({running}, timeout=max(0.0, last - loop.time()))
    if still:
        lifecycle.end()
        await running
    metrics.should_exit = True
    await watching


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
