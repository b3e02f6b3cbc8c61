"""HTTP/1.1 as bytes: heads of answers and requests, and what of them nobody may choose. PURE."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

Headers = Iterable[tuple[bytes, bytes]]

_STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_PHRASELESS: Final = b"HTTP/1.1 %d \r\n"
END_OF_HEAD: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return _STATUS_LINES.get(status) or _PHRASELESS % status


def lines(headers: Headers) -> bytes:
    """Headers as lines. Raises ValueError where one holds what would end it, and begin another."""
    pairs = [b"%b: %b\r\n" % header for header in headers]
    text = b"".join(pairs)
    if not (text.count(b"\n") == text.count(b"\r") == len(pairs)) or b"\0" in text:
        raise ValueError("a header holds a line end")
    return text


def chunk(piece: bytes) -> bytes:
    """One chunk of a body without a length; an empty piece is none, for it would be the last."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
