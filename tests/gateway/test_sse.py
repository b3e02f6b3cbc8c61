"""Server-sent events: the same events, wherever the network cuts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.gateway import sse
from backstop.gateway.sse import EventSplitter, EventTooLongError

STREAMS = [
    (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    (b": comment\n\ndata:a\ndata: b\n\n", [None, b"a\nb"]),
    (b"event: x\ndata: \xf0\x9f\x8e\x89\nid: 1\n\ndata\n\n", ["\N{PARTY POPPER}".encode(), b""]),
    (b'data: {"a": "x\\n\\ny"}\n\ndata: [DONE]\n\n', [b'{"a": "x\\n\\ny"}', b"[DONE]"]),
]


def _all(stream: bytes, *, cuts: list[int]) -> tuple[list[bytes | None], bytes]:
    splitter = EventSplitter()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    events = [event for a, b in pairwise(edges) for event in splitter.feed(stream[a:b])]
    data = [event.data for event in events if event.raw.strip()]
    return data, b"".join(event.raw for event in events) + splitter.rest


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
def test_w21_every_single_byte_may_come_alone(stream: bytes, expected: list[bytes | None]) -> None:
    data, raw = _all(stream, cuts=list(range(len(stream))))
    assert (data, raw) == (expected, stream)


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 200), max_size=8))
def test_w21_events_and_bytes_are_the_same_for_every_cut(case: tuple[bytes, list[bytes | None]], cuts: list[int]) -> None:
    stream, expected = case
    assert _all(stream, cuts=cuts) == (expected, stream)


def test_what_is_incomplete_is_kept_back() -> None:
    splitter = EventSplitter()
    assert [event.data for event in splitter.feed(b"data: a\n\ndata: b")] == [b"a"]
    assert splitter.rest == b"data: b"


def test_an_endless_event_is_refused() -> None:
    splitter = EventSplitter()
    with pytest.raises(EventTooLongError):
        splitter.feed(b"data: " + b"x" * sse.MAX_EVENT_BYTES)
