"""The side of the callers: one connection, its requests in order, and the bounds in size and time on what a caller sends and takes.

Parsing is httptools'. Knows HTTP/1.1 and nothing of what is asked or answered. A request is handed over with its head, as an `Exchange`.
"""

import asyncio
import urllib.parse
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, cast

import httptools

from .errors import JSON_TYPE, OVERLOAD, REASON_HEADER, envelope
from .httpexchange import CLOSE, VERSION, Exchange
from .quiet import OtherSide
from .room import HeadRoom, NoRoomError
from .wire import END_OF_HEAD, lines, status_line

MAX_HEADER_BYTES: Final = 64 << 10
# What a header takes here besides its own bytes: many short ones would be twenty times as much as came.
HEADER_COST: Final = 128
# Requests that came behind another one, before it is answered: each takes twenty times what came, and clients send them one by one. Their
# heads together are as long as one may be.
MAX_WAITING: Final = 128
# Of a body that nobody reads yet: beyond it, the caller waits.
UNREAD_BODY_BYTES: Final = 256 << 10
# Longer than clients and proxies keep an idle connection: the side that sends requests is the one to close it.
KEEP_ALIVE_SECONDS: Final = 75
# A request's head is complete within this time of its first byte.
HEAD_SECONDS: Final = 10.0
# A caller that sends its body slower than this is let go.
BODY_SECONDS: Final = 60.0
# And so is one of whose body nothing comes for this long.
SILENT_BODY_SECONDS: Final = 5.0
# A caller that takes nothing of its answer for this long is cut off: what waits for it holds memory, and a model's connection.
UNREAD_SECONDS: Final = 30.0
# After a refusal, what still comes is let through this long: a connection that is closed over it would take the refusal with it.
REFUSED_SECONDS: Final = 1.0


class _UnfitError(ValueError):
    """A request whose head cannot be taken; the text says why, and what to do."""

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_request_error"
    code: str | None = None
    said: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, message: str, *, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


class _CrowdedError(_UnfitError):
    """It could be, if there were not so many others."""

    kind = "server_error"
    code = "overload"
    said = ((b"retry-after", b"1"), (REASON_HEADER.encode(), OVERLOAD.encode()))


class _Awaited(Enum):
    """What the caller's next byte belongs to."""

    REQUEST = auto()  # nothing of the next one has come
    HEAD = auto()
    BODY = auto()
    NOTHING = auto()  # whatever comes is let through


class Connection(asyncio.Protocol):
    """A caller's connection. Requests that come behind another one wait for their turn, and reading with them.

    A head that comes in one piece, as nearly all do, costs no timer. `begin` is given each request whose turn it is; `date` gives the
    line of the head that says when it is; `lost` is told the end. `resting` are the connections on which nothing is under way, in the
    order in which that began: this one keeps its place there. `heads` is where room is taken for a head whose request is not whole.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        *,
        begin: Callable[[Exchange], None],
        date: Callable[[], bytes],
        lost: Callable[["Connection"], None],
        resting: OrderedDict["Connection", None],
        heads: HeadRoom,
    ) -> None:
        self.date = date
        self.is_full = False  # the caller does not take what it is sent
        self._begin = begin
        self._lost = lost
        self._resting = resting
        self._room_for_heads, self._held = heads, 0
        self._loop = asyncio.get_running_loop()
        self._parser = self._new_parser()
        self._offers = False  # the request offers another protocol
        self._repeats = False  # the parser is told again how a request ends whose head it has told
        self._awaited = _Awaited.REQUEST
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = self._hosts = 0
        self._behind = 0  # bytes of heads whose requests came behind another one
        self._unframed = 0  # bytes since the last that were anybody's: of a head, or of what stands between pieces of a body
        self._piece = 0  # bytes of the piece that is read which are of no body
        self._begun_in = 0  # those of the piece in which the request, or what is behind its body, has begun: the parser does not say where
        self._arriving: Exchange | None = None
        self._current: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._is_last = False  # no request follows those that have come
        self._reading = True
        self._rooms: list[asyncio.Future[None]] = []
        self.idle_since = self._loop.time()
        self._idle = self._loop.call_later(KEEP_ALIVE_SECONDS, self._look_whether_idle)
        self._due: asyncio.TimerHandle | None = None  # when a head, or the rest of an answered request's body, has to be complete
        self._cut_off: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self._current is None and not self._waiting

    # What asyncio tells:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does
        self._rest()

    def data_received(self, data: bytes) -> None:
        """Bytes of the caller."""
        self._resting.pop(self, None)
        awaited, was_idle = self._awaited, self.is_idle
        if awaited is _Awaited.NOTHING:
            return
        self._unframed += len(data)
        self._piece = len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(_why(error))
            return
        if self._awaited is _Awaited.HEAD or self._awaited is _Awaited.BODY:
            if (unfit := self._bound_unfinished()) is not None:
                self._refuse(unfit)
                return
        elif self._held:
            self._hold(0)
        self._next()
        # Nothing was awaited, and nothing has begun: the empty lines that may stand before a request.
        if self._awaited is _Awaited.HEAD or (awaited is self._awaited is _Awaited.REQUEST and was_idle and self.is_idle):
            self._expect(HEAD_SECONDS)
        elif self._current is None:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, and so is every wait for it. It forgets who knows it: in a circle all of them would stay until garbage is
        searched for.
        """
        self._awaited = _Awaited.NOTHING
        self._resting.pop(self, None)
        self._idle.cancel()
        self._hold(0)
        self._expected()
        left = [self._current, *self._waiting]
        self._waiting.clear()
        for exchange in left:
            if exchange is not None:
                exchange.caller_left()
        self._current = self._arriving = None
        self.resume_writing()
        self._lost(self)
        del self._parser

    def pause_writing(self) -> None:
        """The caller does not read: its buffers are full."""
        self.is_full = True
        self._cut_off = self._loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self.is_full = False
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            if not room.done():
                room.set_result(None)
        self._next()

    # What the parser tells:

    def on_message_begin(self) -> None:
        """A new request."""
        if self._repeats:
            return
        self._awaited = _Awaited.HEAD
        self._begun_in = self._piece
        self._head_bytes = self._unframed = self._hosts = 0

    def on_url(self, url: bytes) -> None:
        """More of the request line."""
        if self._awaited is _Awaited.HEAD:
            self._url += url
            self._bound(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; behind the body, one that nobody asked for."""
        self._bound(len(name) + len(value) + HEADER_COST)
        if self._awaited is _Awaited.HEAD:
            lower = name.lower()
            self._hosts += lower == b"host"
            self._headers.append((lower, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._repeats:
            return
        self._expected()
        self._awaited = _Awaited.BODY
        self._offers = self._parser.should_upgrade()
        self._behind = self._behind + self._head_bytes if self._waiting else 0
        if len(self._waiting) >= MAX_WAITING or self._behind > MAX_HEADER_BYTES:
            raise _UnfitError("too many requests have come before the first is answered; wait for answers")
        version = self._parser.get_http_version()
        if self._hosts != 1 and version == VERSION:  # who is in front of us may have read another one than who is behind
            raise _UnfitError("the request has no header `Host`, or more than one; send one")
        self._arriving = Exchange(
            self,
            method=self._parser.get_method().decode("latin-1"),
            path=_path(self._url),
            headers=self._headers,
            version=version,
            keeps=version == VERSION and self._parser.should_keep_alive(),
        )
        self._url, self._headers = b"", []  # the request's alone: it goes with it
        self._waiting.append(self._arriving)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._piece -= len(body)
        self._unframed, self._begun_in = 0, self._piece
        if self._arriving is not None:
            self._arriving.came(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._offers:
            return  # says the parser, which takes its body for the other protocol
        self._expected()
        self._awaited = _Awaited.REQUEST
        exchange, self._arriving = self._arriving, None
        if exchange is None:
            return
        exchange.is_whole()
        if not exchange.keeps:
            self._awaited, self._is_last = _Awaited.NOTHING, True
        if exchange.finished and self.ends_with(exchange):
            self.transport.close()

    # What requests tell:

    def ends_with(self, exchange: Exchange) -> bool:
        """Whether the connection ends with the answer to this request."""
        return not exchange.keeps or (self._is_last and not self._waiting)

    def was_answered(self, exchange: Exchange) -> None:
        """The answer has left, perhaps before the body has come: closed at once, the connection might take the answer with it."""
        if exchange is not self._current or self.transport.is_closing():
            return
        self._current = None
        if self._arriving is exchange:
            self._expect(BODY_SECONDS)
        elif self.ends_with(exchange):
            self._waiting.clear()
            self.transport.close()
            return
        elif self._awaited is _Awaited.HEAD and not self._waiting:  # of a request behind the answered one, which may have taken long
            self._expected()
            self._expect(HEAD_SECONDS)
        self._next()
        self._rest()

    async def room(self) -> None:
        """Wait until the caller takes what it is sent, or has left."""
        while self.is_full:
            room = self._loop.create_future()
            self._rooms.append(room)
            await room

    def regulate(self) -> None:
        """Read on, unless there is enough that nobody has read yet."""
        wanted = not self._waiting and (self._arriving is None or self._arriving.held <= UNREAD_BODY_BYTES)
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def close_soon(self, *, linger: float) -> None:
        """The server ends: close after the answers on their way, or the one to the request that comes within `linger` seconds."""
        self._is_last = True
        self._resting.pop(self, None)
        if self.is_idle:
            self._loop.call_later(linger, self._close_if_idle)

    def make_way(self) -> bool:
        """Close a connection that rests; whether it does. Its caller may be sending the next request in this moment: who keeps a connection
        has to reckon with that, and asks again on another one (RFC 9112, 9.3.1).
        """
        del self._resting[self]
        if self.transport.get_write_buffer_size() or not OtherSide(self.transport).is_quiet:
            return False
        self.transport.close()
        return True

    def abort(self) -> None:
        """Close at once, whatever is on its way."""
        self.transport.abort()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # A request may say that it is the last, and be followed by bytes: they are for nobody.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._decline_offer()
            else:
                return

    def _decline_offer(self) -> None:
        """Go on with HTTP/1.1 behind the head of a request that offers another protocol: its body comes as its head says."""
        assert self._arriving is not None
        framing = [header for header in self._arriving.headers if header[0] in (b"content-length", b"transfer-encoding")]
        self._offers, self._repeats = False, True
        self._parser = self._new_parser()
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % lines(framing))
        self._repeats = False

    def _next(self) -> None:
        """Begin with the next request, where its turn has come."""
        if self._current is None and self._waiting and not self.is_full:
            self._current = self._waiting.popleft()
            self._begin(self._current)
        self.regulate()

    def _rest(self) -> None:
        """Be one of those that rest, where nothing is under way."""
        if self._awaited is _Awaited.REQUEST and self.is_idle and self._due is None and not self._is_last:
            self.idle_since = self._loop.time()
            self._resting[self] = None

    def _refuse(self, error: _UnfitError) -> None:
        """Answer what cannot be read, after the answers before it; then close."""
        self._awaited, self._is_last = _Awaited.NOTHING, True
        self._url, self._headers, self._parser = b"", [], self._new_parser()  # what they hold may be long
        self._hold(0)
        self._expected()
        broken, self._arriving = self._arriving, None
        if broken is not None and broken in self._waiting:
            self._waiting.remove(broken)
        if broken is not None and broken is self._current:
            self._current = None
            broken.caller_left()
        if not self.is_idle:
            self._next()
            return
        if broken is None or not broken.begun:
            body = envelope(str(error), kind=error.kind, code=error.code)
            said = [(b"content-type", JSON_TYPE.encode()), (b"content-length", b"%d" % len(body)), *error.said, CLOSE]
            self.transport.write(status_line(error.status) + self.date() + lines(said) + END_OF_HEAD + body)
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._due = self._loop.call_later(REFUSED_SECONDS, self.transport.close)
        self.regulate()

    def _bound(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES:
            raise _too_long()  # the parser says so to who feeds it

    def _bound_unfinished(self) -> _UnfitError | None:
        """Why what has come of a request that is not whole is too much: of it alone, or with that of others."""
        if self._unframed > MAX_HEADER_BYTES:
            return _too_long()
        try:
            self._hold(self._head_bytes + self._begun_in + self._unframed)
        except NoRoomError:
            return _CrowdedError(
                "the requests that are arriving have too long heads together; retry", status=HTTPStatus.SERVICE_UNAVAILABLE
            )
        return None

    def _hold(self, size: int) -> None:
        self._held = self._room_for_heads.change(self._held, size=size)

    def _expect(self, seconds: float) -> None:
        if self._due is None:
            self._due = self._loop.call_later(seconds, self._overdue)

    def _expected(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _overdue(self) -> None:
        self._due = None
        if not self.is_idle or self.transport.is_closing():
            return  # a request is being answered, and its end sees to what is behind it
        if self._awaited is _Awaited.HEAD:
            self._refuse(
                _UnfitError(
                    f"the request's head did not arrive within {HEAD_SECONDS:.0f} s; send it at once", status=HTTPStatus.REQUEST_TIMEOUT
                )
            )
        else:  # nobody asks anything: only empty lines have come, or the rest of a body whose request has its answer
            self.transport.close()

    def _look_whether_idle(self) -> None:
        if self.transport.is_closing():  # and still here: what is left waits for a caller that does not take it
            self._idle = self._loop.call_later(UNREAD_SECONDS, self.transport.abort)
            return
        left: float = KEEP_ALIVE_SECONDS
        if self.is_idle and self._awaited is _Awaited.REQUEST:
            left = self.idle_since + KEEP_ALIVE_SECONDS - self._loop.time()
        if left <= 0:
            self.transport.close()
        self._idle = self._loop.call_later(max(0.0, left), self._look_whether_idle)

    def _close_if_idle(self) -> None:
        if self.is_idle:
            self.transport.close()


def _why(error: httptools.HttpParserError) -> _UnfitError:
    """What is wrong with a request, as a callback has said it; kept by none who is in its traceback."""
    cause = error.__context__
    return cause if isinstance(cause, _UnfitError) else _UnfitError("the request is not HTTP/1.1 as it should be; correct it")


def _too_long() -> _UnfitError:
    return _UnfitError("the request's head is too long; send less", status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def _path(url: bytes) -> str:
    """The decoded path of what was asked for. Raises HttpParserError for what has none."""
    path: bytes = httptools.parse_url(url).path or b"/"
    return urllib.parse.unquote(path.decode("ascii")) if b"%" in path else path.decode("ascii")
