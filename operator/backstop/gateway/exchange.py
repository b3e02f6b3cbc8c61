"""One request with its caller: what the headers ask, the body within its bound, and the answer as it leaves."""

import asyncio
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from ..api.names import PIN_HEADER, SYNTHETIC_HEADER
from ..api.traffic import NO_STEERING, Steering
from .connection import BODY_SECONDS, SILENT_BODY_SECONDS
from .errors import JSON_TYPE, CallerError, caller_error_body, envelope, error_event, named
from .httpexchange import Exchange
from .locales import LONGEST_HEADER
from .room import Room
from .tracing import Trace, Untraced

HOP_HEADER: Final = "x-backstop-hop"
REQUEST_ID_HEADER: Final = "x-backstop-request-id"
VARIABLE_PREFIX: Final = "x-backstop-var-"
_TRACE_HEADERS: Final = ("traceparent", "tracestate")
DEADLINE_HEADER: Final = "x-backstop-deadline-ms"
LANGUAGE_HEADER: Final = "accept-language"
CACHE_CONTROL_HEADER: Final = "cache-control"
AUTHORIZATION_HEADER: Final = "authorization"
TYPE_HEADER: Final = "content-type"
ENCODING_HEADER: Final = "content-encoding"
# Of a body that says nothing of what it is, too.
_JSON_TYPES: Final = ("", JSON_TYPE, "application/octet-stream")
_LONGEST_CREDENTIAL: Final = 4096
_LONGEST_TENANT: Final = 256
_OWN: Final = b"x-backstop-"
# Beside ours and those that callers are told apart by. Most headers of a request are others, and cost no more than a look.
_READ: Final = frozenset(
    name.encode()
    for name in (
        "content-length",
        *_TRACE_HEADERS,
        LANGUAGE_HEADER,
        CACHE_CONTROL_HEADER,
        AUTHORIZATION_HEADER,
        TYPE_HEADER,
        ENCODING_HEADER,
    )
)
_LONGEST_TRACE: Final = 512  # what the specification asks to be passed on at least
_LONGEST_READ: Final = 1024  # of a header that rules read
# What no header may hold.
_UNCARRIED: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LANGUAGES: Final = re.compile(rb"[A-Za-z0-9*,;=. -]+")
_DIRECTIVES: Final = re.compile(rb"[\x20-\x7e\t]*")
_MILLISECONDS: Final = re.compile(r"0*[1-9][0-9]{0,8}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

MAX_BODY_BYTES: Final = 20 << 20


def _random_identities() -> Iterator[str]:
    """Request ids of 64 random bits. The system is asked for many at once: asking for each takes longer than reading a head."""
    while True:
        digits = secrets.token_hex(8 * 512)
        yield from (digits[at : at + 16] for at in range(0, len(digits), 16))


_IDENTITIES: Final = _random_identities()


class RequestHeaders(NamedTuple):  # with so many fields, a frozen dataclass takes five times as long to make
    """What the gateway reads of a request's headers; nothing else of them goes anywhere."""

    hop: str | None  # the revision an entry hop forwarded to
    pin: str | None  # the revision that alone may serve it, whatever its share
    synthetic: str | None  # the canary that a probe's request is for
    sticky: str | None  # what keeps its caller on one track
    track: str | None  # the track that its caller names
    identity: str
    content_length: int | None
    variables: Mapping[str, str]
    trace: Trace
    languages: str = ""  # that the caller wants to be answered in, as its `Accept-Language` says
    cache_control: str = ""
    authorization: str = ""  # for gateways alone, never for a model
    tenant_header: str | None = None
    tenant: str | None = None  # None: it was not said, or not in one way
    partition: bytes | None = b""  # with whom it shares kept answers; None: with nobody
    deadline: str | None = None  # as it was said
    read: Mapping[str, str] = MappingProxyType({})  # that rules may read
    content_type: str = JSON_TYPE
    content_encoding: str = ""

    @property
    def patience(self) -> float | None:
        """How long the caller waits for the first of an answer, in seconds; None: as long as the policy lets it. Raises CallerError."""
        if self.deadline is None:
            return None
        if not _MILLISECONDS.fullmatch(self.deadline):
            raise CallerError(f"`{DEADLINE_HEADER}` must be whole milliseconds above 0; correct it", param=DEADLINE_HEADER)
        return int(self.deadline) / 1000

    def check_form(self) -> None:
        """Raise CallerError (415) where the body is said to be something else than JSON, or to be compressed."""
        if self.content_type == JSON_TYPE and not self.content_encoding:  # as nearly all are
            return
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind not in _JSON_TYPES and not kind.endswith("+json"):
            raise CallerError(f"`{TYPE_HEADER}: {named(kind)}` is not offered; send `{JSON_TYPE}`", param=TYPE_HEADER, status=415)
        coding = self.content_encoding.strip().lower()
        if coding not in ("", "identity"):
            raise CallerError(
                f"`{ENCODING_HEADER}: {named(coding)}` is not offered; send the body as it is", param=ENCODING_HEADER, status=415
            )

    def to_forward(self, revision: str, *, trace: Mapping[str, str], pinned: bool = False) -> dict[str, str]:
        """Headers of the same request, forwarded to `revision`; `pinned`: because its caller named the track."""
        return {
            **self.read,
            **({PIN_HEADER: revision} if pinned else {}),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            HOP_HEADER: revision,
            **({SYNTHETIC_HEADER: self.synthetic} if self.synthetic is not None else {}),
            REQUEST_ID_HEADER: self.identity,
            **trace,
            **({LANGUAGE_HEADER: self.languages} if self.languages else {}),
            **({CACHE_CONTROL_HEADER: self.cache_control} if self.cache_control else {}),
            **({AUTHORIZATION_HEADER: self.authorization} if self.authorization else {}),
            **({self.tenant_header: self.tenant} if self.tenant_header and self.tenant else {}),
            **({DEADLINE_HEADER: self.deadline} if self.deadline is not None else {}),
            **{VARIABLE_PREFIX + name: value for name, value in self.variables.items()},
        }


def read_headers(
    pairs: Collection[tuple[bytes, bytes]],
    *,
    steering: Steering = NO_STEERING,
    tenant_header: str | None = None,
    readable: Collection[str] = (),
) -> RequestHeaders:
    """Pick the headers that matter. A dash in a variable's header stands for an underscore: proxies drop those.

    Of a header that is there several times, the first one steers: what proxies add comes behind it. `readable`: names of others that
    rules may read, in small letters; so is the first one of each of them.
    """
    own: dict[str, str] = {}
    steered: dict[str, str] = {}
    steering_names = (steering.sticky, steering.pin)
    looks_at_all = any(steering_names) or bool(readable)
    length: int | None = None
    variables: dict[str, str] = {}
    trace: dict[str, str] = {}
    wishes: dict[str, list[bytes]] = {}
    read: dict[str, str] = {}
    content_type = content_encoding = ""
    for raw_name, raw_value in pairs:
        if raw_name not in _READ and raw_name[: len(_OWN)] != _OWN and not looks_at_all:
            continue
        name = raw_name.decode("latin-1")
        if name in steering_names:
            steered.setdefault(name, _text(raw_value).strip())
        if name in readable and len(raw_value) <= _LONGEST_READ and not _UNCARRIED.search(raw_value):
            read.setdefault(name, _text(raw_value).strip())
        if name == "content-length":
            length = int(raw_value)  # the HTTP parser has let digits through only
        elif name in _TRACE_HEADERS and len(raw_value) <= _LONGEST_TRACE:
            trace[name] = raw_value.decode("latin-1")
        elif name == TYPE_HEADER:
            content_type = raw_value.decode("latin-1")
        elif name == ENCODING_HEADER:
            content_encoding = raw_value.decode("latin-1")
        elif name in (LANGUAGE_HEADER, CACHE_CONTROL_HEADER, AUTHORIZATION_HEADER):
            wishes.setdefault(name, []).append(raw_value)
        elif name.startswith("x-backstop-"):
            own[name] = _text(raw_value)
            if name.startswith(VARIABLE_PREFIX):
                variables[name[len(VARIABLE_PREFIX) :].replace("-", "_")] = own[name]
    identity = own.get(REQUEST_ID_HEADER, "")
    languages, cache_control, authorization = _wished(wishes) if wishes else ("", "", "")
    return RequestHeaders(
        hop=own.get(HOP_HEADER),
        pin=own.get(PIN_HEADER),
        synthetic=own.get(SYNTHETIC_HEADER),
        sticky=steered.get(steering.sticky or "") or None,
        track=steered.get(steering.pin or "") or None,
        identity=identity if _REQUEST_ID.fullmatch(identity) else next(_IDENTITIES),
        content_length=length,
        variables=variables,
        trace=Untraced(trace),
        languages=languages,
        cache_control=cache_control,
        authorization=authorization,
        tenant_header=tenant_header,
        tenant=_tenant(pairs, header=tenant_header) if tenant_header else None,
        deadline=own.get(DEADLINE_HEADER),
        read=read,
        content_type=content_type,
        content_encoding=content_encoding,
    )


def _wished(wishes: Mapping[str, Sequence[bytes]]) -> tuple[str, str, str]:
    """What is said of languages, of kept answers, and of who asks."""
    return (
        next(filter(None, map(_languages, wishes.get(LANGUAGE_HEADER, ()))), ""),
        ",".join(map(_directives, wishes.get(CACHE_CONTROL_HEADER, ()))),
        _only(wishes.get(AUTHORIZATION_HEADER, ()), longest=_LONGEST_CREDENTIAL),
    )


def _languages(raw: bytes) -> str:
    """An `Accept-Language` header that can be one; else nothing."""
    return raw.decode("ascii") if len(raw) <= LONGEST_HEADER and _LANGUAGES.fullmatch(raw) else ""


def _directives(raw: bytes) -> str:
    """A `Cache-Control` header; one that can be none asks for the least: an answer of its own, which nobody keeps."""
    return raw.decode("ascii") if len(raw) <= LONGEST_HEADER and _DIRECTIVES.fullmatch(raw) else "no-store"


def _tenant(pairs: Collection[tuple[bytes, bytes]], *, header: str) -> str | None:
    return _only([value for name, value in pairs if name.decode("latin-1") == header], longest=_LONGEST_TENANT) or None


def _only(values: Sequence[bytes], *, longest: int) -> str:
    """The text of a header that says who is who: where it is there several times, nobody knows which of them is true."""
    (value,) = values if len(values) == 1 else (b"",)
    return value.decode("ascii").strip() if len(value) <= longest and _DIRECTIVES.fullmatch(value) else ""


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def carried(name: str, *, value: str) -> list[tuple[bytes, bytes]]:
    """A header as it was read, or as the configuration has it, byte for byte; nothing when no answer can carry it."""
    raw = value.encode(errors="surrogateescape")
    return [] if _UNCARRIED.search(raw) else [(name.encode(), raw)]


_JSON: Final = (b"content-type", JSON_TYPE.encode())
_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Spelling(Protocol):
    """How answers are spelled that are not as their caller has asked for them. `failed`: a stream, which has ended so for its caller."""

    failed: bool

    def whole(self, body: bytes) -> bytes:
        """A whole answer, good ones only."""

    def events(self, raw: bytes) -> bytes:
        """Complete events of a stream."""


class Body:
    """A request's body. What it takes of `room` is given back when it is let go: with the first of an answer, nobody needs it again."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0
        self.content = b""

    async def read(self, exchange: Exchange, *, length: int | None, most: int = MAX_BODY_BYTES) -> None:
        """Read it into `content`, `most` bytes of it. Raises CallerError (413, 408), CallerGoneError and NoRoomError."""
        longest = min(most, self._room.limit)
        if length is not None:
            if length > longest:
                raise _too_long(longest)
            self._room.check(length)  # held is what has come: nobody takes room with a promise
        if exchange.arrived:
            self.content = await self._piece(exchange, longest=longest)
            return
        chunks: list[bytes] = []
        now = asyncio.get_running_loop().time
        end = now() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(min(end, now() + SILENT_BODY_SECONDS)) as silence:
                while piece := await self._piece(exchange, longest=longest):
                    chunks.append(piece)
                    silence.reschedule(min(end, now() + SILENT_BODY_SECONDS))
        except TimeoutError:
            if now() < end:
                raise CallerError(f"nothing of the body came for {SILENT_BODY_SECONDS:.0f} s; send it at once", status=408) from None
            raise CallerError(f"the body did not arrive within {BODY_SECONDS:.0f} s", status=408) from None
        self.content = chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _piece(self, exchange: Exchange, *, longest: int) -> bytes:
        piece = await exchange.read()
        if self._held + len(piece) > longest:
            raise _too_long(longest)
        self._room.take(len(piece))
        self._held += len(piece)
        return piece

    def hand_over(self) -> bytes:
        """The content, to one who makes something else of it; its room stays taken."""
        content, self.content = self.content, b""
        return content

    def let_go(self) -> None:
        """Nobody needs the body, nor what was made of it."""
        self.content = b""
        self._room.give_back(self._held)
        self._held = 0


def _too_long(longest: int) -> CallerError:
    bound = f"{longest >> 20} MiB" if longest >= 1 << 20 else f"{longest >> 10} KiB"
    return CallerError(f"the body is longer than {bound}; send less", status=413)


class Reply:
    """The answer to one request. Remembers what it said, when its first byte left, and how long its caller was waited for, in seconds.

    `closing` says whether the connection ends with it.
    """

    def __init__(self, exchange: Exchange, *, clock: Callable[[], float], closing: Callable[[], bool]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._closing = closing
        self.first_byte_at: float | None = None
        self.status = 0
        self.said: list[tuple[bytes, bytes]] = []
        self.waited = self.longest_wait = 0.0
        self.finished = False
        self.spelling: Spelling | None = None  # set before there is an answer; None: as it comes

    @property
    def begun(self) -> bool:
        """Whether anything has left."""
        return self.first_byte_at is not None

    @property
    def must_wait(self) -> bool:
        """Whether its caller does not take what it was sent before."""
        return self._exchange.is_full

    async def whole(self, status: int, *, headers: list[tuple[bytes, bytes]], body: bytes, content_type: str = JSON_TYPE) -> None:
        """A complete answer. A content type that no header can carry is JSON, as everything the gateway speaks is."""
        if self.spelling is not None and status == HTTPStatus.OK:
            body = self.spelling.whole(body)
        said = [_JSON] if content_type == JSON_TYPE else carried("content-type", value=content_type) or [_JSON]
        await self._room()
        self._exchange.answer(status, headers=self._started(status, headers=[*said, *headers]), body=body)
        self.finished = True

    async def begin_stream(self, *, headers: list[tuple[bytes, bytes]], head: bytes) -> None:
        """The start of a stream, with its first events."""
        await self._room()
        self._exchange.begin(200, headers=self._started(200, headers=[*_STREAM_HEADERS, *headers]), piece=self._spelled(head))

    async def pass_on(self, events: bytes) -> None:
        """More of a stream, at once."""
        await self._room()
        self._exchange.more(self._spelled(events))

    async def end_stream(self, last: bytes = b"") -> None:
        """The end of a stream."""
        await self._room()
        self._exchange.end(self._spelled(last) if last else last)
        self.finished = True

    async def caller_error(self, error: CallerError, *, headers: list[tuple[bytes, bytes]]) -> None:
        """The caller's mistake, in the OpenAI envelope."""
        await self.whole(error.status, headers=headers, body=caller_error_body(error))

    async def interrupt(self, message: str, *, code: str, headers: list[tuple[bytes, bytes]]) -> None:
        """End what cannot be completed: an error event in a stream that has begun, else an error answer."""
        if self.finished:
            return
        if self.begun:
            await self.end_stream(error_event(message, code=code))
        else:
            await self.whole(503, headers=headers, body=envelope(message, kind="server_error", code=code))

    @property
    def failed(self) -> bool:
        """Whether a stream could not be spelled as its caller has asked for it, and has ended as one that failed."""
        return self.spelling is not None and self.spelling.failed

    def _started(self, status: int, *, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if self._closing():
            headers.append((b"connection", b"close"))
        self.first_byte_at = self._clock()
        self.status, self.said = status, headers
        return headers

    def _spelled(self, events: bytes) -> bytes:
        return events if self.spelling is None else self.spelling.events(events)

    async def _room(self) -> None:
        """Wait for a caller that does not take what it was sent."""
        if not self.must_wait:
            return
        began = self._clock()
        try:
            await self._exchange.room()
        finally:
            waited = self._clock() - began
            self.waited += waited
            self.longest_wait = max(self.longest_wait, waited)
