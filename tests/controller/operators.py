"""Operators for tests: the real wiring, on a client that can be made to die after so many writes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp

from backstop.analysis.prometheus import PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.tick import Here
from backstop.controller.config import OperatorConfig
from backstop.controller.leadership import Leadership
from backstop.controller.run import REQUEST_SECONDS, Operator
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.telemetry.metrics import Metrics

from .until import alongside, until
from .world import SCRAPE_SECONDS, World


class Mortal:
    """An API client whose process dies in its `lifetime`-th write: the write takes effect, its answer is never seen, nor anything after."""

    def __init__(self, connection: Connection, *, lifetime: int | None) -> None:
        self._api = connection.api_client()
        self.lifetime = lifetime
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.listed = 0
        self._interference: tuple[str, Callable[[], Awaitable[object]]] | None = None
        self._held: tuple[str, asyncio.Event, asyncio.Event] | None = None
        self.died = asyncio.Event()
        self.gave_up = asyncio.Event()  # waiting for a read that was held back

    async def param_serialize(self, *arguments: Any, **named: Any) -> Any:
        """As the real one."""
        return await self._api.param_serialize(*arguments, **named)

    async def call_api(self, method: str, url: str, *rest: Any, **named: Any) -> Any:
        """As the real one, while it lives."""
        if self.died.is_set():
            raise aiohttp.ClientConnectionError("dead")
        if method == "GET":
            self.reads.append(url.split("/", 3)[3].split("?")[0])
            if "/serviceaccounts?" in url:  # which sweeps alone list
                self.listed += 1
            if self._held is not None and url.partition("?")[0].endswith(self._held[0]):
                (_, release, begun), self._held = self._held, None
                response = await self._api.call_api(method, url, *rest, **named)
                begun.set()
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    self.gave_up.set()
                    raise
                return response
            return await self._api.call_api(method, url, *rest, **named)
        if self._interference is not None and self._interference[0] in f"{method} {url}":
            interfere, self._interference = self._interference[1], None
            await interfere()
        self.writes.append(f"{method} {url.split('/', 3)[3].split('?')[0]}")
        if len(self.writes) == self.lifetime:
            # From now on, whatever else is under way.
            self.died.set()
            response = await self._api.call_api(method, url, *rest, **named)
            await response.read()
            raise aiohttp.ClientConnectionError("died")
        return await self._api.call_api(method, url, *rest, **named)

    def interfere(self, with_write: str, how: Callable[[], Awaitable[object]]) -> None:
        """Do this right before the next write whose method and URL hold this text."""
        self._interference = with_write, how

    def hold_read(self, of: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Keep back the answer to the next read of what ends so, until the first event is set; the second one is when it is there."""
        release, begun = asyncio.Event(), asyncio.Event()
        self._held = of, release, begun
        return release, begun

    async def lists(self, times: int) -> None:
        """Wait until the operator has listed everything so many times more: that many sweeps have gone by."""
        enough = self.listed + times

        async def listed() -> bool:
            return self.listed >= enough

        await until(f"{times} sweeps", listed)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()


@contextlib.asynccontextmanager
async def running(
    connection: Connection,
    world: World,
    *,
    lifetime: int | None = None,
    sweep_seconds: float = 300.0,
    everywhere: bool = False,
    telemetry_port: int = 0,
    pull_secrets: tuple[str, ...] = (),
    image: str = "localhost/backstop:test",
    sources: tuple[str, ...] = ("default",),
    leadership: Leadership | None = None,
) -> AsyncIterator[Mortal]:
    """An operator for the world's namespace, or for all, while the context lasts."""
    mortal = Mortal(connection, lifetime=lifetime)
    asked = {name: PrometheusSource(MetricsSourceConfig(name, world.metrics_url, SCRAPE_SECONDS)) for name in sources}
    metrics = Metrics()
    operator = Operator(
        OperatorConfig(
            gatewayImage=image,
            gatewayImagePullSecrets=list(pull_secrets),
            namespaces=[] if everywhere else [world.namespace],
            telemetryPort=telemetry_port,
        ),
        connection=connection,
        client=Client(mortal, timeout=REQUEST_SECONDS, on_write=metrics.count_write),
        evaluators={name: Here(source, clock=time.time) for name, source in asked.items()},
        metrics=metrics,
        instance="test",
        leadership=leadership,
        sweep_seconds=sweep_seconds,
    )
    try:
        async with alongside(operator.run()):
            yield mortal
    finally:
        for source in asked.values():
            source.close()
        await mortal.close()
