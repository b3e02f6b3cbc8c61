"""One gateway, wired: a compiled revision with its chain, its view of traffic, its metrics and its two ports."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from prometheus_client import CollectorRegistry

from ..api.heartbeat import BEAT_SECONDS, Heartbeat
from ..api.metricnames import Overload
from ..api.names import traffic_object
from ..api.traffic import TrafficState
from .access import Access, CallerKeys
from .allowance import Allowance
from .answer import check_vectors
from .answercache import AnswerCache
from .app import GatewayApp
from .cachelevels import lower_levels, shared_counter
from .callerfiles import READ_SECONDS, follow_callers
from .chain import Chain
from .client import Client
from .counting import counting
from .desk import ticket_desk
from .dial import dial
from .feedbackdesk import FeedbackDesk
from .files import METRICS_CONNECTIONS
from .forbidden import is_forbidden
from .forward import Forwarder
from .lifecycle import Lifecycle
from .listen import HttpServer, serve_until_stopped
from .metrics import GatewayMetrics
from .ops import OpsApp
from .peers import Peers
from .quality.sampling import AnswerSampler
from .resolution import Resolution
from .revision import Revision
from .room import HeadRoom, Room
from .serve import LocalServer
from .targets import TargetGate
from .traceoptions import TraceSettings
from .tracing import Tracing
from .trafficwatch import REREAD_SECONDS, ApiServer, TrafficWatch
from .view import TrafficView

# Model servers commonly close idle connections after 5 s: ours are not used that long.
UPSTREAM_IDLE_SECONDS: Final = 4.0
FIRST_LOOK_SECONDS: Final = 2.0
# Before it would be killed, a process is over.
LEAVING_SECONDS: Final = 0.5
_LOG: Final = logging.getLogger("backstop.gateway")


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How one gateway runs. `address` gives `host:port` of a revision's pods; without `api_server` it serves as stable, for ever."""

    traffic_socket: socket.socket
    metrics_socket: socket.socket
    address: Callable[[str], str]
    api_server: ApiServer | None
    drain_seconds: float
    grace_seconds: float
    body_bytes: int  # of request bodies that may be held at once
    head_bytes: int  # of their heads, until they are whole
    connections: int  # of callers
    reread_seconds: float = REREAD_SECONDS
    caller_texts: Mapping[str, str] = field(default_factory=dict)  # by caller, its keys, one a line; of a revision that takes keys
    callers: Path | None = None  # the folder that they come from, which may change
    callers_seconds: float = READ_SECONDS
    cache_folder: Path | None = None  # of a revision whose cache has a cold level
    tickets_folder: Path | None = None  # of a revision with a tier of people
    traces: TraceSettings | None = None


async def run_gateway(
    revision: Revision,
    *,
    settings: Settings,
    stop: asyncio.Event,
    clock: Callable[[], float],
    now: Callable[[], float],
    split: Random,
    jitter: Random,
) -> None:
    """Serve `revision` until `stop` is set and the last request is over.

    `clock` is monotonic, `now` the wall clock, in seconds. `split` draws who gets a request, `jitter` spreads reads of the traffic object.
    """
    metrics = GatewayMetrics(revision, registry=CollectorRegistry())
    lifecycle, room, heartbeat = Lifecycle(), Room(settings.body_bytes), Heartbeat(clock=clock)
    heads = HeadRoom(
        settings.head_bytes,
        connections=settings.connections + METRICS_CONNECTIONS,
        count_refused=partial(metrics.count_refused, Overload.HEADS),
    )
    metrics.show_in_flight(lambda: lifecycle.in_flight)

    def on_change(state: TrafficState) -> None:
        metrics.entry.prepare(state)
        _LOG.info(
            "acting on traffic generation %d: stable %s, canary %s at %d permille",
            state.generation,
            state.stable,
            state.canary,
            state.permille,
        )

    view = TrafficView(on_change=on_change)
    to_redis = partial(dial, names=Resolution(), socket_factory=guarded_socket)
    lower = lower_levels(revision, folder=settings.cache_folder, dial=to_redis, metrics=metrics, clock=clock, now=now)
    tier = revision.cache
    cache = None if tier is None else AnswerCache(tier, revision=revision, metrics=metrics, clock=clock, now=now, lower=lower)
    access = _access(revision, settings=settings)
    peers = Peers(address=settings.address, budget=revision.budget, clock=clock)
    async with AsyncExitStack() as levels:
        tracing = None
        if settings.traces is not None:  # first, and so ended last
            tracing = await levels.enter_async_context(_collecting(revision, settings=settings, metrics=metrics, lifecycle=lifecycle))
        client = Client(idle_seconds=UPSTREAM_IDLE_SECONDS, socket_factory=guarded_socket)
        levels.callback(client.close)
        levels.callback(peers.close)
        for level in lower:
            await levels.enter_async_context(level.running())
        allowance = None if revision.allowance is None else Allowance(revision.allowance, now=now)
        if allowance is not None:
            metrics.show_allowance(allowance)
            await levels.enter_async_context(counting(allowance, counter=shared_counter(revision, dial=to_redis), jitter=jitter))
        gate = TargetGate(revision, metrics=metrics, clock=clock)
        desk = ticket_desk(revision, folder=settings.tickets_folder, client=client, metrics=metrics, now=now, jitter=jitter)
        if desk is not None:
            await levels.enter_async_context(desk.running())
        chain = Chain(
            revision.tiers,
            client=client,
            gate=gate,
            metrics=metrics,
            clock=clock,
            hold_back=revision.hold_back,
            allowance=allowance,
            desk=desk,
        )
        vectors = Chain(revision.embedding_tiers, client=client, gate=gate, metrics=metrics, clock=clock, check=check_vectors)
        sampler = None
        if revision.quality is not None:
            sampler = AnswerSampler(revision.quality, client=client, metrics=metrics, clock=clock, random=Random(split.random()))
            await levels.enter_async_context(sampler.running())
        feedback = None if revision.feedback is None else FeedbackDesk(revision.feedback, metrics=metrics, now=now)
        app = GatewayApp(
            revision,
            local=LocalServer(
                revision,
                chain=chain,
                vectors=vectors,
                metrics=metrics,
                clock=clock,
                now=now,
                cache=cache,
                quality=sampler,
                allowance=allowance,
            ),
            forwarder=Forwarder(revision, peers=peers, metrics=metrics),
            view=view,
            lifecycle=lifecycle,
            room=room,
            metrics=metrics,
            clock=clock,
            random=split,
            access=access,
            feedback=feedback,
            tracing=tracing,
        )
        ops = OpsApp(
            revision,
            view=view,
            lifecycle=lifecycle,
            room=room,
            heads=heads,
            gate=gate,
            metrics=metrics,
            heartbeat=heartbeat,
            cache=cache,
            quality=sampler,
            allowance=allowance,
        )
        beating = asyncio.create_task(_beat(heartbeat))
        watching = asyncio.create_task(_watch_traffic(revision, settings=settings, view=view, ops=ops, now=now, jitter=jitter))
        following = asyncio.create_task(_follow_callers(access, settings=settings, jitter=jitter))
        watching.add_done_callback(lambda task: _told_of_end(task, stop=stop))
        try:
            await serve_until_stopped(
                HttpServer(
                    app,
                    now=now,
                    lingers=True,
                    most=settings.connections,
                    heads=heads,
                    count_crowded=partial(metrics.count_refused, Overload.CONNECTIONS),
                ),
                traffic_socket=settings.traffic_socket,
                metrics=HttpServer(ops, now=now, lingers=False, most=METRICS_CONNECTIONS, heads=heads),
                metrics_socket=settings.metrics_socket,
                lifecycle=lifecycle,
                stop=stop,
                drain_seconds=settings.drain_seconds,
                grace_seconds=settings.grace_seconds,
            )
        finally:
            for task in (watching, beating, following):
                task.cancel()
            await asyncio.gather(watching, beating, following, return_exceptions=True)


@asynccontextmanager
async def _collecting(revision: Revision, *, settings: Settings, metrics: GatewayMetrics, lifecycle: Lifecycle) -> AsyncIterator[Tracing]:
    """Collect traces, until the end of the block; then send what waits, in what is left of the grace period."""
    # Not imported by others: the SDK and its exporter take a quarter as much memory as all the rest.
    from .spanexport import FLUSH_SECONDS, SpanExport
    from .spans import Spans

    assert settings.traces is not None
    export = SpanExport(settings.traces, count=metrics.show_spans())
    _LOG.info("traces are sent to `%s`", settings.traces.collector)
    try:
        yield Spans(revision, tracer=export.tracer(), address=settings.address)
    finally:
        now = asyncio.get_running_loop().time()
        left = FLUSH_SECONDS if lifecycle.killed_at is None else lifecycle.killed_at - LEAVING_SECONDS - now
        await export.close(within=min(FLUSH_SECONDS, max(0.0, left)))


def _access(revision: Revision, *, settings: Settings) -> Access | None:
    """Who may call; None: everybody, and all share what is kept. Raises KeysError."""
    if not revision.takes_keys and revision.tenant_header is None:
        return None
    return Access(keys=CallerKeys(settings.caller_texts) if revision.takes_keys else None, tenant_header=revision.tenant_header)


async def _follow_callers(access: Access | None, *, settings: Settings, jitter: Random) -> None:
    if access is not None and access.keys is not None and settings.callers is not None:
        texts = dict(settings.caller_texts)
        await follow_callers(settings.callers, access=access, texts=texts, jitter=jitter, interval=settings.callers_seconds)


async def _beat(heartbeat: Heartbeat) -> None:
    while True:
        heartbeat.beat()
        await asyncio.sleep(BEAT_SECONDS)


def _told_of_end(watching: asyncio.Task[None], *, stop: asyncio.Event) -> None:
    """A watch that dies would leave a gateway deaf for ever: say so, and drain, for the kubelet to start another."""
    if not watching.cancelled() and (error := watching.exception()) is not None:
        _log.error("the traffic watch died: %r; this gateway drains and ends", error)
        stop.set()


async def _watch_traffic(
    revision: Revision, *, settings: Settings, view: TrafficView, ops: OpsApp, now: Callable[[], float], jitter: Random
) -> None:
    if settings.api_server is None:
        ops.ready = True
        return
    watch = TrafficWatch(
        settings.api_server,
        namespace=revision.namespace,
        name=traffic_object(revision.policy),
        view=view,
        now=now,
        random=jitter,
        interval=settings.reread_seconds,
    )
    await watch.first_look(within=FIRST_LOOK_SECONDS)
    ops.ready = True
    await watch.run()


def guarded_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for one resolved address, as it is asked for. Raises OSError for link-local and metadata addresses."""
    family, kind, protocol, _, peer = address
    if is_forbidden(str(ipaddress.ip_address(str(peer[0]).partition("%")[0]))):
        raise PermissionError("link-local and metadata addresses are not called")
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made
