"""A foreign service that exports a native histogram: the protobuf exposition, written by hand, as Python's client has none.

Message and field numbers are those of `io.prometheus.client`: a family of histograms, each with a schema, and buckets as spans of indices
with the differences of their counts.
"""

import math
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
HISTOGRAM = 4  # of MetricType
ZERO_THRESHOLD = 2.0**-128


@dataclass
class NativeService:
    """Observations by bucket, behind a real /metrics endpoint on a port of its own."""

    name: str
    schema: int
    buckets: Counter[int] = field(default_factory=Counter)
    sum: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = service.exposition()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class calls it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Of `/metrics`."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def observe(self, seconds: float, *, count: int = 1) -> None:
        """Bucket i holds what is over 2^((i−1)·2^−schema) and at most 2^(i·2^−schema)."""
        with self.lock:
            self.buckets[math.ceil(math.log2(seconds) * 2**self.schema)] += count
            self.sum += seconds * count

    def exposition(self) -> bytes:
        """One family of one histogram, with its length before it."""
        with self.lock:
            indices = sorted(self.buckets)
            counts = [self.buckets[index] for index in indices]
            histogram = _varint_field(1, sum(counts)) + _double_field(2, self.sum) + _varint_field(5, _zigzag(self.schema))
            histogram += _double_field(6, ZERO_THRESHOLD)
        before = None
        for index in indices:  # each bucket a span of its own
            offset = index if before is None else index - before - 1
            histogram += _bytes_field(12, _varint_field(1, _zigzag(offset)) + _varint_field(2, 1))
            before = index
        deltas = [count - earlier for count, earlier in zip(counts, [0, *counts], strict=False)]
        histogram += _bytes_field(13, b"".join(_varint(_zigzag(delta)) for delta in deltas))
        metric = _bytes_field(1, _bytes_field(1, b"method") + _bytes_field(2, b"answer")) + _bytes_field(7, histogram)
        family = _bytes_field(1, self.name.encode()) + _bytes_field(2, b"How long.") + _varint_field(3, HISTOGRAM) + _bytes_field(4, metric)
        return _varint(len(family)) + family


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _zigzag(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double_field(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
