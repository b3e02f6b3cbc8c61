"""uvicorn under two ASGI callables: sockets, header bounds, and the order in which a gateway drains and ends."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .lifecycle import Lifecycle
from .revision import ConfigurationError

MAX_HEADER_BYTES: Final = 64 << 10
# Longer than clients and proxies keep an idle connection: the side that sends requests is the one to close it.
KEEP_ALIVE_SECONDS: Final = 75
# Before the grace period ends, what still streams is ended by us, with an error its caller can read.
ENDING_SECONDS: Final = 5.0


# At the end an idle connection is kept open this long: a request may be on its way.
LINGER_SECONDS: Final = 0.5
# A caller that takes nothing of its answer for this long is cut off: what waits for it holds memory, and a model's connection.
UNREAD_SECONDS: Final = 30.0


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a bound on what it keeps of a request's head, and an end that resets no request on its way."""

    _unread: asyncio.TimerHandle | None = None

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
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A new request."""
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
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(LINGER_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
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
