"""The side of models and peers, byte by byte: what is an answer, what is none, and which connections are used again."""

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.gateway import modelconnection
from backstop.gateway.answer import MalformedError
from backstop.gateway.modelconnection import Answer, BrokenError, GarbledError, ModelConnection
from backstop.gateway.upstream import Streaming

from .harness import eventually

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nabcde"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
FIRST = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 7\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nabcde"
MARK = "\ufeff".encode()
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


class Wire:
    """A transport that keeps what is written to it; `unsent` bytes of it are still on their way."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.reads = True
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Side:
    """A connection that has sent a request."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.free: list[ModelConnection] = []
        self.connection = ModelConnection(free=self.free.append)
        self.connection.connection_made(cast(Any, self.wire))
        self.answer = self.ask()

    def ask(self) -> Answer:
        """Another request."""
        return self.connection.ask(b"POST / HTTP/1.1\r\n\r\n", body=b"{}", silence=None)

    def feed(self, raw: bytes, cuts: Sequence[int] = ()) -> None:
        """Feed `raw`, cut at these places."""
        for start, end in pairwise([0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]):
            if start < end:
                self.connection.data_received(raw[start:end])

    def end(self) -> None:
        """The other side closes."""
        self.connection.eof_received()
        self.wire.closed = True
        self.connection.connection_lost(None)

    async def read(self) -> bytes:
        """The whole answer, which has come; then its connection is given back."""
        try:
            async with asyncio.timeout(1):
                await self.answer.head()
                whole = b""
                while piece := await self.answer.read():
                    whole += piece
                return whole
        finally:
            self.answer.release()


@pytest.mark.parametrize("first", [b"", FIRST])
@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, TO_THE_END])
@given(cuts=st.lists(st.integers(min_value=0, max_value=200), max_size=10))
def test_an_answer_is_the_same_wherever_the_network_cuts_it(first: bytes, raw: bytes, cuts: list[int]) -> None:
    async def run() -> None:
        side = Side()
        side.feed(first + raw, cuts)
        if raw is TO_THE_END:
            assert not side.answer.ended
            side.end()
        assert (await side.read(), side.answer.status) == (b"abcde", 200)
        assert side.answer.header("link") is None
        assert bool(side.free) is (raw is not TO_THE_END)

    asyncio.run(run())


@pytest.mark.parametrize("pieces", [[MARK + EVENT], [MARK, EVENT], [MARK[:1], MARK[1:] + EVENT], [MARK[:2], MARK[2:], EVENT], [EVENT]])
async def test_a_mark_before_a_stream_is_left_out_however_it_comes(pieces: list[bytes]) -> None:
    side = Side()
    side.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    streaming = Streaming(side.answer, include_usage=False)
    opening = asyncio.create_task(streaming.open())

    async def read() -> bool:
        return not side.answer.held

    for piece in pieces:
        side.feed(piece)
        await eventually(read)
    async with asyncio.timeout(1):
        await opening
    assert streaming.head == EVENT


async def test_what_begins_like_a_mark_and_ends_is_no_stream() -> None:
    for begun in (b"", MARK[:2], MARK, MARK + MARK + EVENT):
        side = Side()
        side.feed(b"HTTP/1.1 200 OK\r\n\r\n" + begun)
        side.end()
        with pytest.raises(MalformedError):
            await Streaming(side.answer, include_usage=False).open()


async def test_a_connection_is_used_again_after_an_answer_that_was_read_whole() -> None:
    side = Side()
    for _ in range(3):
        side.feed(CHUNKED)
        assert await side.read() == b"abcde"
        assert side.free.pop() is side.connection
        side.answer = side.ask()
    assert not side.wire.closed


@pytest.mark.parametrize(
    "raw",
    [
        LENGTH.replace(b"Content-Type", b"Connection: close\r\nContent-Type"),
        LENGTH.replace(b"1.1", b"1.0"),
        LENGTH + LENGTH,
        LENGTH + b"HTT",
        LENGTH + b"garbage",
    ],
)
@pytest.mark.parametrize("cuts", [(), (len(LENGTH),)])
async def test_a_connection_is_not_used_again_where_something_stands_behind_the_answer_or_nothing_may(
    raw: bytes, cuts: Sequence[int]
) -> None:
    side = Side()
    side.feed(raw, cuts)
    assert (await side.read(), side.answer.status) == (b"abcde", 200)
    assert (side.free, side.wire.closed) == ([], True)


async def test_an_answer_before_the_request_has_left_is_taken_and_its_connection_is_not_used_again() -> None:
    side = Side()
    side.wire.unsent = 7
    side.feed(LENGTH)
    assert await side.read() == b"abcde"
    assert (side.free, side.wire.closed) == ([], True)


async def test_an_answer_that_is_not_wanted_to_its_end_closes_its_connection() -> None:
    side = Side()
    side.feed(LENGTH[:-1])
    await side.answer.head()
    side.answer.release()
    assert (side.free, side.wire.closed) == ([], True)


async def test_what_comes_on_an_idle_connection_is_for_nobody() -> None:
    side = Side()
    side.feed(LENGTH)
    await side.read()
    side.feed(LENGTH)
    assert (side.connection.is_usable, side.wire.closed) == (False, True)


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED])
async def test_a_connection_that_ends_early_leaves_no_whole_answer(raw: bytes) -> None:
    for cut in range(len(raw)):
        side = Side()
        side.feed(raw[:cut])
        side.end()
        with pytest.raises(BrokenError):
            await side.read()
        assert side.free == []


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (modelconnection.MAX_HEADER_BYTES // 25 + 1),
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * (modelconnection.MAX_HEADER_BYTES + 1),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (modelconnection.MAX_HEADER_BYTES // 6 + 1),
    ],
)
async def test_what_is_no_answer_ends_the_connection(raw: bytes) -> None:
    side = Side()
    side.feed(raw)
    with pytest.raises(GarbledError):
        await side.read()
    assert side.wire.closed


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_ends_with_its_head(status: int) -> None:
    side = Side()
    side.feed(b"HTTP/1.1 %d None\r\nContent-Length: 5\r\n\r\n" % status)
    assert (await side.read(), side.answer.status, len(side.free)) == (b"", status, 1)


async def test_the_first_header_of_a_name_counts_whatever_it_holds() -> None:
    side = Side()
    side.feed(b"HTTP/1.1 200 OK\r\nA: \xff\x01\r\na: second\r\nContent-Length: 0\r\n\r\n")
    await side.answer.head()
    assert (side.answer.header("a") or "").encode(errors="surrogateescape") == b"\xff\x01"


async def test_an_answer_that_nobody_reads_stays_with_who_sends_it() -> None:
    side = Side()
    side.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * (modelconnection.UNREAD_BYTES + 1))
    assert not side.wire.reads
    await side.answer.head()
    assert len(await side.answer.read()) == modelconnection.UNREAD_BYTES + 1
    assert side.wire.reads


def _compressed(body: bytes, *, encoding: bytes = b"gzip") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (encoding, len(body), body)


@pytest.mark.parametrize(("body", "encoding"), [(gzip.compress(b"abcde", mtime=0), b"gzip"), (zlib.compress(b"abcde"), b"deflate")])
async def test_a_body_that_is_compressed_though_nobody_asked_for_it_is_read(body: bytes, encoding: bytes) -> None:
    side = Side()
    side.feed(_compressed(body, encoding=encoding), range(300))
    assert await side.read() == b"abcde"


@pytest.mark.parametrize("what", ["no gzip", "cut", "bomb"])
async def test_a_compressed_body_that_is_broken_cut_or_a_bomb_is_no_answer(what: str) -> None:
    body = b"abcde" if what == "no gzip" else gzip.compress(b"abcde" if what == "cut" else bytes(64 << 20), mtime=0)
    side = Side()
    side.feed(_compressed(body[:-1] if what == "cut" else body))
    with pytest.raises(GarbledError):
        await side.read()


async def test_a_silence_that_is_too_long_ends_the_wait() -> None:
    side = Side()
    side.answer = side.connection.ask(b"POST / HTTP/1.1\r\n\r\n", body=b"{}", silence=0.01)
    side.feed(LENGTH[:-1])
    with pytest.raises(TimeoutError):
        await side.read()
    assert side.wire.closed
