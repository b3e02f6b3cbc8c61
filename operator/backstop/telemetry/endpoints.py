"""`/healthz`, `/readyz` and `/metrics` of the operator. Knows two questions to ask, not what is behind them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ..api.problems import InputError


@asynccontextmanager
async def serve_endpoints(
    registry: CollectorRegistry, *, port: int, alive: Callable[[], str | None], ready: Callable[[], str | None]
) -> AsyncIterator[int]:
    """Serve on all addresses while the context lasts; yields the port. `alive` and `ready` say what is wrong, or None.

    Raises InputError where the port cannot be had.
    """

    async def answer(question: Callable[[], str | None]) -> web.Response:
        problem = question()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def healthz(_: web.Request) -> web.Response:
        return await answer(alive)

    async def readyz(_: web.Request) -> web.Response:
        return await answer(ready)

    async def metrics(_: web.Request) -> web.Response:
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port)
        try:
            await site.start()
        except OSError as error:
            raise InputError(f"`telemetryPort` {port} cannot be listened on ({os.strerror(error.errno or 0)}); choose another") from None
        # Port 0 is another one per address family: that of IPv4 is told, where there is one.
        yield min(runner.addresses, key=len)[1]
    finally:
        await runner.cleanup()
