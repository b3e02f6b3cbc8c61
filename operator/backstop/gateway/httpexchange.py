"""One request on a caller's connection: its body is read from it, its answer written to it. A caller that leaves cancels who answers it.

Knows HTTP/1.1 and nothing of what is asked or answered; when its turn comes, and what comes after it, is the connection's.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from .wire import CONTINUE, END_OF_HEAD, LAST_CHUNK, chunk, lines, status_line

VERSION: Final = "1.1"  # others are answered, and closed
CLOSE: Final = (b"connection", b"close")
# A piece of a body that is shorter is put together with the next one: each by itself takes twenty times its bytes, if it has two.
SHORT_PIECE: Final = 1 << 10


class CallerGoneError(Exception):
    """The caller closed the connection before its request was complete."""


class Line(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    date: Callable[[], bytes]
    is_full: bool

    async def room(self) -> None:
        """Wait until the caller takes what it is sent, or has left."""

    def regulate(self) -> None:
        """Read on, unless there is enough that nobody has read yet."""

    def ends_with(self, exchange: "Exchange") -> bool:
        """Whether the connection ends with the answer to this request."""

    def was_answered(self, exchange: "Exchange") -> None:
        """The answer has left."""


class Exchange:
    """One request, and the writing of its answer. `headers`: names in lower case, in order; `path`: decoded, without the query.

    What is written to a caller that has left goes nowhere. To one that does not read (`is_full`) it waits in memory: await `room` first.
    """

    __slots__ = (
        "_cancels",
        "_chunked",
        "_connection",
        "_is_told",
        "_pieces",
        "_reader",
        "arrived",
        "begun",
        "finished",
        "gone",
        "headers",
        "held",
        "keeps",
        "method",
        "path",
        "task",
        "version",
    )

    def __init__(self, connection: Line, *, method: str, path: str, headers: list[tuple[bytes, bytes]], version: str, keeps: bool) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.version = version
        self.keeps = keeps  # whether the connection goes on after the answer
        self.arrived = False  # the whole body
        self.begun = self.finished = False  # the answer
        self.gone = False  # the caller, before the end of its answer
        self.held = 0  # bytes of the body that nobody has read yet
        self._connection = connection
        self._chunked = False
        self._is_told = False  # to send the body, where it waits for that
        self._pieces: list[bytes] = []
        self._reader: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None  # who answers it
        self._cancels = False

    async def read(self) -> bytes:
        """What has come of the body since the last time; empty at its end. Raises CallerGoneError."""
        while not self._pieces:
            if self.arrived:
                return b""
            if self.gone:
                raise CallerGoneError
            if self._expects_word():
                self._connection.transport.write(CONTINUE)
            self._is_told = True
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        pieces, self._pieces, self.held = self._pieces, [], 0
        self._connection.regulate()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def cancel_when_gone(self) -> None:
        """Cancel who answers it when the caller leaves before the end of its answer; `gone` tells so."""
        self._cancels = True
        if self.gone and self.task is not None:
            self.task.cancel()

    def leave_alone(self) -> None:
        """Cancel nobody any more."""
        self._cancels = False

    @property
    def is_full(self) -> bool:
        """Whether the caller does not take what it is sent."""
        return self._connection.is_full

    async def room(self) -> None:
        """Wait until it does, or has left."""
        await self._connection.room()

    def answer(self, status: int, *, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """The whole answer."""
        head = self._head(status, headers=[*headers, (b"content-length", b"%d" % len(body))])
        self._write(head if self.method == "HEAD" else head + body)
        self._finish()

    def begin(self, status: int, *, headers: list[tuple[bytes, bytes]], piece: bytes) -> None:
        """The start of an answer whose length nobody knows."""
        self._chunked = self.version == VERSION
        self.keeps = self.keeps and self._chunked
        head = self._head(status, headers=[*headers, (b"transfer-encoding", b"chunked")] if self._chunked else headers)
        self._write(head + self._framed(piece))

    def more(self, piece: bytes) -> None:
        """More of it."""
        self._write(self._framed(piece))

    def end(self, piece: bytes = b"") -> None:
        """The last of it."""
        self._write(self._framed(piece) + (LAST_CHUNK if self._chunked and self.method != "HEAD" else b""))
        self._finish()

    def break_off(self) -> None:
        """End the connection: an answer that has begun is seen not to be whole."""
        self._connection.transport.close()

    # What the connection tells it:

    def came(self, piece: bytes) -> None:
        """More of the body has come."""
        if not self.finished:
            if self._pieces and len(self._pieces[-1]) < SHORT_PIECE:
                self._pieces[-1] += piece
            else:
                self._pieces.append(piece)
            self.held += len(piece)
            self._wake()

    def is_whole(self) -> None:
        """The body is complete."""
        self.arrived = True
        self._wake()

    def caller_left(self) -> None:
        """Nothing more comes, and nobody takes the answer."""
        if self.finished:
            return
        self.gone = True
        self._wake()
        if self._cancels and self.task is not None:
            self.task.cancel()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _head(self, status: int, *, headers: list[tuple[bytes, bytes]]) -> bytes:
        closes = CLOSE in headers
        if closes or (not self.arrived and self._expects_word()):  # who waits for a word may send its body, or the next request
            self.keeps = False
        if not closes and self._connection.ends_with(self):
            headers.append(CLOSE)
        return status_line(status) + self._connection.date() + lines(headers) + END_OF_HEAD

    def _expects_word(self) -> bool:
        """Whether the caller waits for a word before it sends the body. HTTP/1.0 knows none, and would take it for the answer."""
        if self._is_told or self.version != VERSION:
            return False
        return any(name == b"expect" and value.strip().lower() == b"100-continue" for name, value in self.headers)

    def _framed(self, piece: bytes) -> bytes:
        if self.method == "HEAD":
            return b""
        return chunk(piece) if self._chunked else piece

    def _write(self, raw: bytes) -> None:
        self.begun = True
        if raw and not self.gone:
            self._connection.transport.write(raw)

    def _finish(self) -> None:
        self.finished = True
        self._pieces, self.held = [], 0
        self._connection.was_answered(self)
