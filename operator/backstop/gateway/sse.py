"""Server-sent events as bytes: cuts a stream at event boundaries, wherever the network cut it. PURE.

Events keep their spelling, so that what is passed on is what came. LF, CRLF and CR all end lines.
"""

import re
from typing import Final, NamedTuple

_BOUNDARY: Final = re.compile(rb"\r\n(?:\r\n?|\n)|\n(?:\r\n?|\n)|\r\r\n?")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
DONE: Final = b"[DONE]"
DONE_EVENT: Final = b"data: [DONE]\n\n"
MAX_EVENT_BYTES: Final = 4 << 20


class EventTooLongError(ValueError):
    """One event is longer than MAX_EVENT_BYTES."""


class Event(NamedTuple):  # made for every token: a frozen dataclass takes three times as long
    """One event: `raw` as it came, boundary included; `data`, or None for comments and empty events."""

    raw: bytes
    data: bytes | None


class EventSplitter:
    """Feed it chunks; it gives the events that are complete and keeps the rest."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not complete yet."""
        return self._rest

    def feed(self, chunk: bytes) -> list[Event]:
        """Events completed by `chunk`, in order. Raises EventTooLongError."""
        buffered, search_from = (self._rest + chunk, max(0, len(self._rest) - 3)) if self._rest else (chunk, 0)
        events: list[Event] = []
        start = 0
        if b"\r" not in buffered:  # nearly always: then there is one way to spell a boundary
            while (end := buffered.find(b"\n\n", max(search_from, start))) >= 0:
                raw = buffered[start : end + 2]
                one_line = raw.startswith(b"data: ") and buffered.find(b"\n", start) == end  # as nearly all are
                events.append(Event(raw, raw[6:-2] if one_line else data_of(raw)))
                start = end + 2
            return self._kept(buffered, start=start, events=events)
        while boundary := _BOUNDARY.search(buffered, search_from):
            raw = buffered[start : boundary.end()]
            events.append(Event(raw=raw, data=data_of(raw)))
            start = search_from = boundary.end()
        return self._kept(buffered, start=start, events=events)

    def _kept(self, buffered: bytes, *, start: int, events: list[Event]) -> list[Event]:
        self._rest = buffered[start:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLongError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events


def data_of(raw: bytes) -> bytes | None:
    """The data of one event: its `data` lines joined, or None when it has none."""
    lines = []
    for line in _LINE_END.split(raw):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
