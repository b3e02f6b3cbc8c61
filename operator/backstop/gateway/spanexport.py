"""Sending spans to a collector, beside requests: the SDK's batches, its OTLP exporter, and what became of each span.

Nobody waits for a collector. Spans wait in a queue with a bound, and what finds no room is dropped, and counted; at the end of the gateway
what waits has what is left of the grace period. Imports `opentelemetry`, and is imported where traces are collected only.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import Tracer
from requests.adapters import HTTPAdapter

from ..api.metricnames import SpanResult
from .traceoptions import SERVICE, TraceSettings
from .trust import trust_of

# A collector that does not answer holds up the end of a gateway no longer than this.
FLUSH_SECONDS: Final = 5.0
_MOST_READ: Final = 64 << 10  # bytes of what a collector answers
_LOG: Final = logging.getLogger("backstop.gateway")
_PARENTBASED: Final = "parentbased_"
Count = Callable[[SpanResult, int], None]


class SpanExport:
    """Where spans go. `count` is told what became of so many of them, in any thread."""

    def __init__(self, settings: TraceSettings, *, count: Count) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # said once here, where the library does for each batch, or request
        session = _Session(trust=None if settings.authorities is None else trust_of(settings.authorities))
        exporter = _Exporter(_otlp(settings, session=session), session=session, collector=settings.collector, count=count)
        self._collector = settings.collector
        self._queue = _Queue(exporter, settings=settings, count=count)
        self._provider = TracerProvider(
            sampler=_sampler(settings),
            resource=Resource(_resource(settings)),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attributes=128, max_events=0, max_links=0),
        )
        self._provider.add_span_processor(self._queue)

    def tracer(self) -> Tracer:
        """What makes spans."""
        return self._provider.get_tracer(SERVICE, _version())

    async def close(self, *, within: float) -> None:
        """Send what waits, for so many seconds at most."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        Thread(target=_shut_down, args=(self._provider, loop, over), name="spans-end", daemon=True).start()
        done, _ = await asyncio.wait({over}, timeout=within)
        if not done and (left := self._queue.give_up()):
            _LOG.warning("%d spans were not sent to `%s` before the end of this gateway", left, self._collector)


class _Queue(SpanProcessor):
    """The SDK's queue and its thread, with a count of what it has no room for, which it keeps to itself."""

    def __init__(self, exporter: "_Exporter", *, settings: TraceSettings, count: Count) -> None:
        self._most = settings.queue
        self._count = count
        self._exporter = exporter
        self._put = 0  # written by the event loop's thread alone, as `taken` is by the exporter's
        self._is_full = False
        self._batches = BatchSpanProcessor(
            exporter,
            max_queue_size=settings.queue,
            schedule_delay_millis=settings.delay * 1000,
            max_export_batch_size=settings.batch,
            export_timeout_millis=settings.timeout * 1000,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._put - self._exporter.taken >= self._most:
            self._count(SpanResult.DROPPED, 1)
            if not self._is_full:
                _LOG.warning("spans are dropped: %d wait for the collector, and there is no room for more", self._most)
            self._is_full = True
            return
        self._is_full = self._is_full and self._put > self._exporter.taken  # so that it is not said for each batch
        self._put += 1
        self._batches.on_end(span)

    def give_up(self) -> int:
        """Nobody sends what waits; how many spans it is."""
        self._exporter.give_up()
        left = self._put - self._exporter.settled
        self._count(SpanResult.DROPPED, left)
        return left

    def shutdown(self) -> None:
        """Send what waits."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # the library has no types here

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As of the SDK."""
        return self._batches.force_flush(timeout_millis)


class _Exporter(SpanExporter):
    """The SDK's exporter, and what becomes of each span. Runs in the queue's thread."""

    def __init__(self, otlp: SpanExporter, *, session: "_Session", collector: str, count: Count) -> None:
        self._otlp = otlp
        self._session = session
        self._collector = collector
        self._count = count
        self._fails = False
        self.taken = self.settled = 0
        self._given_up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send some."""
        self.taken += len(spans)
        result = self._otlp.export(spans)
        if self._given_up:
            return result
        self.settled += len(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            _LOG.warning("spans do not reach `%s`: %s; requests are answered without them", self._collector, self._session.said)
        elif self._fails and not fails:
            _LOG.info("spans reach `%s` again", self._collector)
        self._fails = fails
        self._count(SpanResult.FAILED if fails else SpanResult.SENT, len(spans))  # last: who sees it counted finds it said
        return result

    def give_up(self) -> None:
        """Try no more, and count no more: what is left is counted already."""
        self._given_up = True
        self._otlp.shutdown()

    def shutdown(self) -> None:
        """Send no more."""
        if not self._given_up:
            self._otlp.shutdown()


class _Trusting(HTTPAdapter):
    """Speaks TLS by `trust`. The library would believe the authorities that it brings along, too."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """As of `HTTPAdapter`."""
        super().init_poolmanager(*arguments, **options, ssl_context=self._trust)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """As of `HTTPAdapter`."""
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]  # the library has no types here
        conn.ca_certs = conn.ca_cert_dir = None


class _Session(requests.Session):
    """Asks the collector, by no proxy; reads no more of an answer than a line or two, and remembers in our words what it was."""

    def __init__(self, *, trust: ssl.SSLContext | None) -> None:
        super().__init__()
        self.trust_env = False
        if trust is not None:
            self.mount("https://", _Trusting(trust))
        self.said = "they could not be written"

    def request(self, method: str | bytes, url: str | bytes, **options: Any) -> requests.Response:  # type: ignore[override]  # passed on as they are
        """As of `Session`."""
        try:
            response = super().request(method, url, **{**options, "stream": True})
        except requests.exceptions.SSLError:
            self.said = "its certificate is not trusted, or ours is not taken"
            raise
        except requests.exceptions.Timeout:
            self.said = "it does not answer in time"
            raise
        except requests.exceptions.RequestException:
            self.said = "it cannot be reached, or breaks off"
            raise
        self.said = f"it answers {response.status_code}"
        with suppress(requests.exceptions.RequestException):  # only the status matters; when the rest was read, the connection is kept
            next(response.iter_content(_MOST_READ), b"")
        response.close()
        return response


def _otlp(settings: TraceSettings, *, session: requests.Session) -> SpanExporter:
    return OTLPSpanExporter(
        settings.endpoint,
        certificate_file=settings.authority,
        client_key_file=settings.key,
        client_certificate_file=settings.certificate,
        headers=settings.headers,
        timeout=settings.timeout,
        compression={"none": Compression.NoCompression, "gzip": Compression.Gzip, "deflate": Compression.Deflate}[settings.compression],
        session=session,
    )


def _sampler(settings: TraceSettings) -> sampling.Sampler:
    roots: dict[str, sampling.Sampler] = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(settings.ratio),
    }
    root = roots[settings.sampler.removeprefix(_PARENTBASED)]
    return sampling.ParentBased(root) if settings.sampler.startswith(_PARENTBASED) else root


def _resource(settings: TraceSettings) -> dict[str, str]:
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
        "service.name": SERVICE,
        **({} if (own := _version()) is None else {"service.version": own}),
        **settings.resource,
        **({"service.name": settings.service} if settings.service is not None else {}),
    }


def _version() -> str | None:
    try:
        return version("backstop")
    except PackageNotFoundError:  # run from its source
        return None


def _shut_down(provider: TracerProvider, loop: asyncio.AbstractEventLoop, over: "asyncio.Future[None]") -> None:
    provider.shutdown()
    with suppress(RuntimeError):  # the loop is closed: nobody has waited so long
        loop.call_soon_threadsafe(_tell, over)


def _tell(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)
