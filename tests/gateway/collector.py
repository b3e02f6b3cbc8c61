"""An OTLP/HTTP collector for tests: takes spans as real ones do, and keeps them, their bytes and the headers that they came with."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from .harness import eventually, listening


@dataclass
class Collected:
    """A span as the collector has it."""

    name: str
    kind: str  # SERVER or CLIENT
    trace: str
    id: str
    parent: str
    state: str
    attributes: dict[str, Any]
    failed: bool
    seconds: float
    resource: dict[str, Any]


class Collector:
    """Takes spans at `/v1/traces`. `status`: its answer; `hold`: it does not answer until this is set."""

    def __init__(self) -> None:
        self.address = ""
        self.status = 200
        self.hold: asyncio.Event | None = None
        self.asked = 0
        self.raw = b""
        self.headers: list[dict[str, str]] = []
        self.spans: list[Collected] = []

    async def until(self, enough: Callable[[list[Collected]], bool]) -> list[Collected]:
        """Wait until the spans are enough; in the order in which they began."""

        async def look() -> bool:
            return enough(self.spans)

        await eventually(look)
        return self.spans

    async def whole(self, *names: str) -> list[Collected]:
        """Wait for just these spans, whole traces of them; in this order."""

        async def look() -> list[str]:
            return sorted(span.name for span in self.spans)

        async def there() -> bool:
            return len(self.spans) >= len(names)

        await eventually(there)
        assert await look() == sorted(names)
        left = list(self.spans)
        return [left.pop(next(i for i, span in enumerate(left) if span.name == name)) for name in names]

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/traces", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if self.hold is not None:
            await self.hold.wait()
        if self.status != 200:
            return web.Response(status=self.status)
        assert request.content_type == "application/x-protobuf"
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            said = _attributes(resource.resource.attributes)
            self.spans += [_collected(span, resource=said) for scope in resource.scope_spans for span in scope.spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector, listening."""
    collector = Collector()
    async with listening(collector.application()) as collector.address:
        yield collector
        if collector.hold is not None:
            collector.hold.set()


def _collected(span: Span, *, resource: dict[str, Any]) -> Collected:
    assert (list(span.events), list(span.links)) == ([], [])
    return Collected(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        attributes=_attributes(span.attributes),
        failed=span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    found = {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}
    assert len(found) == len(pairs)
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))
