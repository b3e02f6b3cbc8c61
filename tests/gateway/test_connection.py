"""The side of the callers, byte by byte: a connection without a network, fed in pieces, and what it writes."""

import asyncio
import itertools
import re
import socket
import tracemalloc
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.gateway import connection as server_side
from backstop.gateway.connection import Connection
from backstop.gateway.httpexchange import CallerGoneError, Exchange
from backstop.gateway.room import HeadRoom

HEADS = HeadRoom(64 << 20, connections=1, count_refused=lambda: None)
DATE = b"date: now\r\n"
POST = b"POST /v1/x?y=%%41 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
CHUNKED = b"POST /c%20d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
GET = b"GET /g HTTP/1.1\r\nHost: h\r\nX-Mixed: Case\r\n\r\n"


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.reads = True
        self.closed = self.ended = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Side:
    """A connection, and the requests that it has handed over."""

    def __init__(self, heads: HeadRoom = HEADS) -> None:
        self.wire = Wire()
        self.begun: list[Exchange] = []
        self.connection = Connection(begin=self.begun.append, date=lambda: DATE, lost=lambda _: None, resting=OrderedDict(), heads=heads)
        self.connection.connection_made(cast(Any, self.wire))

    def feed(self, raw: bytes, *cuts: int) -> None:
        """Feed `raw`, cut at these places."""
        edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
        for start, end in itertools.pairwise(edges):
            if start < end:
                self.connection.data_received(raw[start:end])

    def lose(self) -> None:
        """The other side is gone."""
        self.wire.closed = True
        self.connection.connection_lost(None)

    @property
    def statuses(self) -> list[bytes]:
        """Of the answers that were written, in order."""
        return re.findall(rb"HTTP/1\.1 (\d{3}) ", self.wire.written)


async def body_of(exchange: Exchange) -> bytes:
    """All of a request's body, which has come."""
    whole = b""
    async with asyncio.timeout(1):
        while piece := await exchange.read():
            whole += piece
    return whole


def done(exchange: Exchange, *, body: bytes = b"{}") -> None:
    """Answer it."""
    exchange.answer(200, headers=[(b"content-type", b"application/json")], body=body)


@given(st.lists(st.integers(min_value=0, max_value=400), max_size=12))
def test_requests_are_the_same_wherever_the_network_cuts_them(cuts: list[int]) -> None:
    async def run() -> None:
        side = Side()
        side.feed(POST % (4, b"body") + CHUNKED + GET, *cuts)
        seen: list[Any] = []
        while len(seen) < 3:
            exchange = side.begun[len(seen)]
            seen.append((exchange.method, exchange.path, await body_of(exchange), exchange.headers[1:]))
            done(exchange)
        assert seen == [
            ("POST", "/v1/x", b"body", [(b"content-length", b"4")]),
            ("POST", "/c d", b"abcde", [(b"transfer-encoding", b"chunked")]),
            ("GET", "/g", b"", [(b"x-mixed", b"Case")]),
        ]
        assert side.statuses == [b"200"] * 3
        assert not side.wire.closed
        side.lose()

    asyncio.run(run())


async def test_a_request_behind_another_waits_for_its_turn_and_reading_with_it() -> None:
    side = Side()
    side.feed(GET + GET + GET)
    assert (len(side.begun), side.wire.reads) == (1, False)
    done(side.begun[0])
    assert (len(side.begun), side.wire.reads) == (2, False)
    done(side.begun[1])
    assert (len(side.begun), side.wire.reads) == (3, True)


SMUGGLED = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    b"Content-Length: 3\r\nContent-Length: 3\r\n",
    b"Content-Length: 3\r\nContent-Length: 4\r\n",
    b"Content-Length: 3, 3\r\n",
    b"Content-Length: +3\r\n",
    b"Content-Length: 0x3\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999999\r\n",
    b"Content-Length : 3\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Transfer-Encoding: chunked, gzip\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"Header without a colon\r\n",
    b"A: b\nContent-Length: 3\r\n",
    b"A: b\x00c\r\n",
    b"A: b\rTransfer-Encoding: chunked\r\n",
]


@pytest.mark.parametrize("headers", SMUGGLED)
@pytest.mark.parametrize("cut", [10_000, 30])
async def test_a_request_whose_end_two_readers_could_see_at_two_places_is_refused(headers: bytes, cut: int) -> None:
    side = Side()
    side.feed(b"POST /v1/x HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\nabc" + GET, cut)
    assert side.begun == []
    assert side.statuses == [b"400"]
    assert b"connection: close\r\n" in side.wire.written
    assert side.wire.ended, "its caller gets to see the refusal: nothing is closed over what it still sends"
    before = side.wire.written
    side.feed(GET)
    assert (side.begun, side.wire.written) == ([], before), "nothing more is read of it"


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"3 \r\nabc\r\n", b"3\nabc\r\n", b"ffffffffffffffffff\r\n"])
async def test_a_body_that_breaks_its_framing_ends_the_request_and_the_connection(chunks: bytes) -> None:
    side = Side()
    side.feed(b"POST /v1/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert await side.begun[0].read() == b"abc"
    side.feed(chunks)
    with pytest.raises(CallerGoneError):
        await body_of(side.begun[0])
    assert side.statuses == [b"400"]
    assert side.wire.ended


async def test_what_cannot_be_read_behind_a_good_request_does_not_take_its_answer() -> None:
    side = Side()
    side.feed(GET + b"nonsense\r\n\r\n")
    done(side.begun[0])
    assert side.statuses == [b"200"]
    assert b"connection: close\r\n" in side.wire.written
    assert side.wire.closed


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /g HTTP/1.1\r\nHost: h\r\nA: ", b"x" * 4096),
        (b"GET /", b"x" * 4096),
        (b"GET /g HTTP/1.1\r\nHost: h\r\n", b"A: b\r\n" * 700),
        (b"POST /g HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"A: b\r\n" * 700),
        (b"POST /g HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: ", b"x" * 4096),
        (b"POST /g HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096),
    ],
)
async def test_an_endless_head_trailer_or_extension_is_refused(begin: bytes, more: bytes) -> None:
    side = Side()
    side.feed(begin)
    for _ in range(1 + 2 * server_side.MAX_HEADER_BYTES // len(more)):
        side.feed(more)
    assert side.statuses == [b"431"]


async def test_short_headers_count_for_what_they_take() -> None:
    side = Side()
    side.feed(b"GET /g HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 300 + b"\r\n")
    done(side.begun[0])
    side.feed(b"GET /g HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 600 + b"\r\n")
    assert side.statuses == [b"200", b"431"]


@pytest.mark.parametrize(
    "before",
    [b"", b"\r\n", GET, POST % (2, b"{}"), b"POST /t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: "],
    ids=["nothing", "an empty line", "a request", "a request with a body", "a body whose trailer it is"],
)
async def test_what_is_not_whole_takes_room_wherever_in_a_piece_it_begins(before: bytes) -> None:
    heads = HeadRoom(1 << 20, connections=1 << 10, count_refused=lambda: None)
    side = Side(heads)
    side.feed(before + (b"" if before.endswith(b"T: ") else b"GET /g HTTP/1.1\r\nA: ") + b"x" * 30_000)
    assert 29_000 < heads.held < 31_000
    side.lose()
    assert heads.held == 0


async def test_a_refused_head_is_held_no_more() -> None:
    heads = HeadRoom(1 << 20, connections=1 << 10, count_refused=lambda: None)
    side = Side(heads)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        side.feed(b"GET /g HTTP/1.1\r\nA: " + b"x" * 30_000, 100)
        assert heads.held > 29_000
        side.feed(b"\r\n\0: \r\n")
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert side.statuses == [b"400"]
    assert heads.held == 0
    assert kept < 10_000
    side.lose()


async def test_a_body_in_pieces_takes_no_room_of_heads() -> None:
    heads = HeadRoom(1 << 20, connections=1 << 10, count_refused=lambda: None)
    side = Side(heads)
    side.feed(POST % (90_000, b"x" * 89_999), 60_000, 61_000)
    assert heads.held < 512, "it is of the head"
    side.feed(b"x")
    assert side.begun[0].arrived


async def test_a_body_in_tiny_pieces_is_held_as_what_it_is() -> None:
    side = Side()
    side.feed(b"POST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        side.feed(b"2\r\nab\r\n" * 30_000)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    side.feed(b"0\r\n\r\n")
    assert await side.begun[0].read() == b"ab" * 30_000
    side.lose()


async def test_an_idle_connection_keeps_nothing_of_the_last_head() -> None:
    side = Side()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        side.feed(b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 60_000 + b"\r\n\r\n")
        done(side.begun.pop())
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert side.statuses == [b"200"]
    assert kept < 10_000
    side.lose()


@pytest.mark.parametrize(
    ("unread", "unsent", "closes"),
    [(b"", 0, True), (GET, 0, False), (b"", 1, False)],
    ids=["quiet", "asks just now", "has to take an answer"],
)
async def test_a_connection_on_which_something_is_under_way_unseen_does_not_make_way(unread: bytes, unsent: int, closes: bool) -> None:
    side = Side()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(unread)
        wire: Any = side.wire
        wire.get_extra_info, wire.get_write_buffer_size = {"socket": ours}.get, lambda: unsent
        assert side.connection.make_way() is closes
        assert side.wire.closed is closes
    side.lose()


async def test_requests_behind_one_another_have_an_end() -> None:
    side = Side()
    side.feed(GET * 1000)
    for exchange in side.begun:
        done(exchange)
    assert side.statuses == [b"200"] * server_side.MAX_WAITING
    assert side.wire.closed


async def test_the_heads_of_requests_behind_one_another_are_as_long_together_as_one_may_be() -> None:
    head = b"GET /g HTTP/1.1\r\nHost: h\r\n" + b"A:\r\n" * 110 + b"\r\n"  # 14,325 bytes, as they count
    side = Side()
    for _ in range(3):
        side.feed(GET + head * 4)
        while side.begun:
            done(side.begun.pop())
    assert side.statuses == [b"200"] * 15
    side.feed(GET + head * 10)
    while side.begun:
        done(side.begun.pop())
    assert side.statuses == [b"200"] * 20
    assert side.wire.closed


@pytest.mark.parametrize("cuts", [(), range(200)])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /g HTTP/1.1\r\nA: b\r\n", b"400"),
        (b"GET /g HTTP/1.1\r\nHost: h\r\nHost: h\r\n", b"400"),
        (b"GET /g HTTP/1.1\r\nHOST: h\r\nA: b\r\nhost: i\r\n", b"400"),
        (b"GET /g HTTP/1.1\r\nHost:\r\n", b"200"),
        (b"GET /g HTTP/1.0\r\n", b"200"),
    ],
)
async def test_a_request_says_once_for_which_host_it_is(head: bytes, status: bytes, cuts: Sequence[int]) -> None:
    side = Side()
    side.feed(head + b"\r\n", *cuts)
    for exchange in side.begun:
        done(exchange)
    assert side.statuses == [status]
    assert (b"no header `Host`" in side.wire.written) is (status == b"400")


async def test_a_last_request_is_answered_and_what_follows_it_is_nobodys() -> None:
    for last in (GET.replace(b"Host", b"Connection: close\r\nHost"), GET.replace(b"1.1", b"1.0")):
        side = Side()
        side.feed(last + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
        done(side.begun[0])
        assert ([e.path for e in side.begun], side.statuses, side.wire.closed) == (["/g"], [b"200"], True)
        assert b"connection: close\r\n" in side.wire.written


@pytest.mark.parametrize(("request_", "body"), [(POST % (3, b"abc"), b"abc"), (CHUNKED, b"abcde"), (GET, b"")])
@pytest.mark.parametrize("cuts", [(), range(400)])
async def test_a_protocol_that_is_offered_in_exchange_is_passed_over(request_: bytes, body: bytes, cuts: Sequence[int]) -> None:
    side = Side()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
    side.feed(request_.replace(b"Host: h\r\n", b"Host: h\r\n" + upgrade) + GET, *cuts)
    assert await body_of(side.begun[0]) == body
    done(side.begun[0])
    done(side.begun[1])
    assert (side.statuses, [e.method for e in side.begun][1:]) == ([b"200", b"200"], ["GET"])


async def test_a_body_behind_such_an_offer_is_never_read_as_a_request() -> None:
    side = Side()
    head = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(GET)
    side.feed(head + GET)
    assert await body_of(side.begun[0]) == GET
    done(side.begun[0])
    assert len(side.begun) == 1


@pytest.mark.parametrize(
    "raw", [b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x00"]
)
async def test_what_is_no_request_of_this_server_is_refused(raw: bytes) -> None:
    side = Side()
    side.feed(raw)
    assert (side.begun, side.statuses) == ([], [b"400"])


@pytest.mark.parametrize("word", [b"Expect: 100-continue", b"expect:100-Continue "])
async def test_a_caller_that_waits_for_a_word_gets_it_when_its_body_is_wanted(word: bytes) -> None:
    side = Side()
    side.feed((POST % (4, b"")).replace(b"Host: h\r\n", b"Host: h\r\n" + word + b"\r\n"))
    reading = asyncio.ensure_future(body_of(side.begun[0]))
    await asyncio.sleep(0)
    assert side.wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    side.feed(b"body")
    assert await reading == b"body"
    done(side.begun[0])
    assert b"connection: close" not in side.wire.written


@pytest.mark.parametrize(("expectation", "version"), [(b"100-continue", b"1.0"), (b"something", b"1.1")])
async def test_no_word_is_said_to_who_does_not_wait_for_it(expectation: bytes, version: bytes) -> None:
    side = Side()
    asked = (POST % (4, b"")).replace(b"Host: h\r\n", b"Host: h\r\nExpect: " + expectation + b"\r\n")
    side.feed(asked.replace(b"HTTP/1.1", b"HTTP/" + version))
    reading = asyncio.ensure_future(body_of(side.begun[0]))
    await asyncio.sleep(0)
    assert side.wire.written == b""
    side.feed(b"body")
    assert await reading == b"body"
    done(side.begun[0])
    assert side.statuses == [b"200"]


async def test_a_caller_that_is_refused_before_it_sends_its_body_may_send_it_or_not() -> None:
    side = Side()
    side.feed((POST % (4, b"")).replace(b"Host: h\r\n", b"Host: h\r\nExpect: 100-continue\r\n"))
    side.begun[0].answer(401, headers=[], body=b"{}")
    assert side.statuses == [b"401"]
    assert b"connection: close\r\n" in side.wire.written, "whatever comes next, a body or a request: it cannot be told"
    assert not side.wire.closed, "the answer is not lost with the connection"
    side.feed(b"body")
    assert side.wire.closed


async def test_the_body_of_an_answered_request_is_let_through_to_the_next_one() -> None:
    side = Side()
    side.feed(POST % (400_000, b""))
    side.begun[0].answer(413, headers=[], body=b"{}")
    for _ in range(4):
        side.feed(b"x" * 100_000)
        assert side.wire.reads
    side.feed(GET)
    done(side.begun[1])
    assert side.statuses == [b"413", b"200"]


async def test_a_body_that_nobody_reads_stays_with_its_caller() -> None:
    side = Side()
    side.feed(POST % (1_000_000, b"x" * (server_side.UNREAD_BODY_BYTES + 1)))
    assert not side.wire.reads
    assert len(await side.begun[0].read()) == server_side.UNREAD_BODY_BYTES + 1
    assert side.wire.reads


async def test_an_answer_without_a_length_is_chunked_or_ends_with_the_connection() -> None:
    for version, framed, closed in ((b"1.1", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", False), (b"1.0", b"abc", True)):
        side = Side()
        side.feed(GET.replace(b"1.1", version))
        side.begun[0].begin(200, headers=[], piece=b"a")
        side.begun[0].more(b"")
        side.begun[0].more(b"bc")
        side.begun[0].end()
        head, _, body = side.wire.written.partition(b"\r\n\r\n")
        assert (body, side.wire.closed) == (framed, closed)
        assert (b"transfer-encoding: chunked" in head, b"connection: close" in head) == (not closed, closed)


async def test_a_head_is_answered_with_a_head() -> None:
    side = Side()
    side.feed(GET.replace(b"GET", b"HEAD") + GET)
    done(side.begun[0], body=b"long")
    done(side.begun[1], body=b"b")
    first, _, rest = side.wire.written.partition(b"\r\n\r\n")
    assert b"content-length: 4" in first
    assert rest.startswith(b"HTTP/1.1 200")
    assert rest.endswith(b"\r\n\r\nb")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a\nb", b"a\rb", b"a\0b"])
async def test_no_header_begins_another_one(value: bytes) -> None:
    side = Side()
    side.feed(GET)
    with pytest.raises(ValueError, match="line end"):
        side.begun[0].answer(200, headers=[(b"x", value)], body=b"")
    assert side.wire.written == b""


async def test_a_caller_that_leaves_cancels_who_answers_it_and_its_other_requests_never_begin() -> None:
    side = Side()
    side.feed(GET + GET)
    answering = asyncio.ensure_future(asyncio.Event().wait())
    side.begun[0].task = cast(Any, answering)
    side.begun[0].cancel_when_gone()
    side.lose()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert (side.begun[0].gone, len(side.begun)) == (True, 1)
    done(side.begun[0])
    assert side.wire.written == b""


async def test_a_caller_that_leaves_after_its_answer_cancels_nobody() -> None:
    side = Side()
    side.feed(GET)
    answering = asyncio.ensure_future(asyncio.sleep(0))
    side.begun[0].task = cast(Any, answering)
    side.begun[0].cancel_when_gone()
    done(side.begun[0])
    side.lose()
    await answering
    assert not side.begun[0].gone


async def test_the_next_request_waits_until_the_answer_before_it_was_taken() -> None:
    side = Side()
    side.feed(GET + GET)
    side.connection.pause_writing()
    done(side.begun[0])
    assert len(side.begun) == 1
    side.connection.resume_writing()
    assert len(side.begun) == 2


async def test_a_server_that_ends_answers_what_has_come_and_closes_with_the_last() -> None:
    side = Side()
    side.feed(GET + GET)
    side.connection.close_soon(linger=60)
    done(side.begun[0])
    assert b"connection: close" not in side.wire.written
    done(side.begun[1])
    assert b"connection: close" in side.wire.written
    assert side.wire.closed
