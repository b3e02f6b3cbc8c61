"""The side of models and peers: one connection, one answer at a time. Parsing is httptools'.

Knows HTTP/1.1 and nothing of what is asked or answered. A connection is used again only after an answer whose end it has seen, with
nothing left to send and nothing behind it.
"""

import asyncio
import zlib
from collections.abc import Callable
from functools import cached_property, partial
from typing import Final, cast

import httptools

from .quiet import OtherSide

# Of an answer that nobody reads: beyond it, the other side waits.
UNREAD_BYTES: Final = 256 << 10
# Of all that comes before a body, or between two pieces of it.
MAX_HEADER_BYTES: Final = 64 << 10
# What one compressed piece may stand for.
_INFLATED_BYTES: Final = 16 << 20
# Shorter bodies leave with their head in one call of the system, which costs more than the copy.
_JOINED_BYTES: Final = 64 << 10
_COMPRESSED: Final = (b"gzip", b"x-gzip", b"deflate")
_WINDOW: Final = 32 + zlib.MAX_WBITS  # either of the two, by its head


class BrokenError(ConnectionError):
    """The connection ended before the answer did."""


class GarbledError(ValueError):
    """What came is not HTTP/1.1."""


class Answer:
    """What is answered to one request. Its owner releases it: a connection whose answer has been read whole is used again."""

    __slots__ = ("_connection", "_failure", "_inflate", "_pieces", "_reader", "_silence", "ended", "headers", "held", "status")

    def __init__(self, connection: "ModelConnection", *, silence: float | None) -> None:
        self.status = 0  # until the head has come
        self.headers: list[tuple[str, str]] = []  # names in lower case, in order
        self.ended = False  # all of it has come
        self.held = 0  # bytes that nobody has read yet
        self._connection = connection
        self._silence = silence
        self._pieces: list[bytes] = []
        # Makes another one each time: an exception that is kept keeps all frames that it has passed.
        self._failure: Callable[[], BrokenError | GarbledError] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._inflate: zlib._Decompress | None = None

    @property
    def at_end(self) -> bool:
        """Whether all of it has been read."""
        return self.ended and not self._pieces

    def header(self, name: str) -> str | None:
        """The first header of this name, in lower case."""
        return next((value for found, value in self.headers if found == name), None)

    async def head(self) -> None:
        """Wait for status and headers. Raises BrokenError, GarbledError."""
        while not self.status:
            if self._failure is not None:
                raise self._failure()
            await self._wait()

    async def read(self) -> bytes:
        """What has come of the body since the last time; empty at its end. Raises BrokenError, GarbledError, TimeoutError (silence)."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure()
            if self.ended:
                return b""
            await self._wait()
        pieces, self._pieces, self.held = self._pieces, [], 0
        self._connection.regulate(self)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> None:
        """Nobody reads it any more."""
        self._connection.release(self)

    # What the connection tells it:

    def begins(self, status: int, *, headers: list[tuple[str, str]]) -> None:
        """The head has come. Raises GarbledError."""
        self.headers = headers
        self.status = status
        encoding = (self.header("content-encoding") or "").strip().lower().encode()
        if encoding in _COMPRESSED:  # though it was asked not to
            self._inflate = zlib.decompressobj(_WINDOW)
        self._wake()

    def came(self, piece: bytes) -> None:
        """More of the body has come. Raises GarbledError."""
        if self._inflate is not None:
            piece = _inflated(piece, by=self._inflate)
        if piece:
            self._pieces.append(piece)
            self.held += len(piece)
            self._wake()

    def ends(self) -> None:
        """All of it has come. Raises GarbledError."""
        if self._inflate is not None and not self._inflate.eof:
            raise GarbledError("the compressed body is not whole")
        self.ended = True
        self._wake()

    def fails(self, failure: BrokenError | GarbledError) -> None:
        """No more of it comes."""
        if not self.ended:
            self._failure = partial(type(failure), *failure.args)
            self._wake()

    async def _wait(self) -> None:
        self._reader = self._connection.loop.create_future()
        try:
            if self._silence is None:
                await self._reader
            else:
                async with asyncio.timeout(self._silence):
                    await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _why(error: httptools.HttpParserError) -> GarbledError:
    """What is wrong with an answer, as a callback has said it; kept by none who is in its traceback."""
    cause = error.__context__
    return cause if isinstance(cause, GarbledError) else GarbledError("the answer is not HTTP/1.1 as it should be")


def _inflated(piece: bytes, *, by: "zlib._Decompress") -> bytes:
    try:
        text = by.decompress(piece, _INFLATED_BYTES)
    except zlib.error:
        raise GarbledError("the body is not compressed as its head says") from None
    if by.unconsumed_tail:
        raise GarbledError("the body is compressed too much")
    return text


class ModelConnection(asyncio.Protocol):
    """A connection to a model or a peer. `free` is told when it may be used again."""

    transport: asyncio.Transport

    def __init__(self, *, free: Callable[["ModelConnection"], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._free = free
        self.is_usable = True  # for another request
        self.idle_since = 0.0
        self._answer: Answer | None = None
        self._headers: list[tuple[str, str]] = []
        self._has_end = False  # the head says where the body ends
        self._in_body = False
        self._unframed = 0
        self._reading = True

    @cached_property
    def other_side(self) -> OtherSide:
        """Of the connection."""
        return OtherSide(self.transport)

    # What asyncio tells:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does
        self._parser = httptools.HttpResponseParser(self)  # not before: of a handshake that fails nobody hears that it is over
        # Values with signs that no header may hold: they are looked at where they would go on. Line ends stay what they are.
        self._parser.set_dangerous_leniencies(lenient_headers=True)

    def data_received(self, data: bytes) -> None:
        """Bytes of the other side."""
        answer = self._answer
        if answer is None or answer.ended:  # of nobody
            self.close()
            return
        self._unframed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(GarbledError("the other side changes the protocol"))
        except httptools.HttpParserError as error:
            self._fail(_why(error))
        else:
            if self._unframed > MAX_HEADER_BYTES and not answer.ended:
                self._fail(GarbledError("the answer's head is too long"))
            self.regulate(answer)

    def eof_received(self) -> None:
        """The other side has said all: the end of a body that names no other."""
        if self._in_body and not self._has_end and self._answer is not None:
            self.is_usable = False
            try:
                self._answer.ends()
            except GarbledError as error:
                self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, and forgets who knows it: in a circle, all of them would stay until garbage is searched for."""
        self.is_usable = False
        if self._answer is not None:
            self._answer.fails(BrokenError("the connection broke"))
        self._answer = None
        del self._parser

    # What the parser tells:

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._answer is None or self._answer.ended:
            self.is_usable = False  # one that nobody has asked for
        self._headers, self._has_end, self._in_body = [], False, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; behind the body, one that nobody asked for."""
        if self._in_body:
            return
        lower = name.decode("latin-1").lower()
        self._headers.append((lower, value.decode("utf-8", "surrogateescape")))
        if lower == "content-length" or (lower == "transfer-encoding" and value.lower().rstrip().endswith(b"chunked")):
            self._has_end = True

    def on_headers_complete(self) -> None:
        """The head is complete."""
        status = self._parser.get_status_code()
        if status >= 200 and self._answer is not None and not self._answer.status:
            self._in_body = True
            self._answer.begins(status, headers=self._headers)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unframed = 0
        if self._in_body and self._answer is not None and not self._answer.ended:
            self._answer.came(body)

    def on_message_complete(self) -> None:
        """An answer is complete; one that only says that another follows is none."""
        if not self._in_body or self._answer is None or self._answer.ended:
            return
        self._in_body = False
        self.is_usable = self.is_usable and self._parser.should_keep_alive()
        self._answer.ends()

    # What its users say:

    def ask(self, head: bytes, *, body: bytes, silence: float | None) -> Answer:
        """Send a request. `silence`: how long the other side may say nothing, in seconds."""
        self._unframed = 0
        self._answer = answer = Answer(self, silence=silence)
        if len(body) <= _JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return answer

    def release(self, answer: Answer) -> None:
        """The answer has been read, or is not wanted."""
        if answer is not self._answer:
            return
        self._answer = None
        if self.is_usable and answer.at_end and self.transport.get_write_buffer_size() == 0:
            self._free(self)
        else:
            self.close()

    def regulate(self, answer: Answer) -> None:
        """Read on, unless there is enough that nobody has read yet."""
        wanted = answer.held <= UNREAD_BYTES
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def close(self) -> None:
        """Close at once: what is still to be sent is for nobody."""
        self.is_usable = False
        self.transport.abort()

    def _fail(self, failure: GarbledError) -> None:
        if self._answer is not None:
            self._answer.fails(failure)
        self.close()
