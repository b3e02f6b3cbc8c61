"""A service that is no gateway: it answers by itself, closes every connection, and counts what it calls late.

`python -m e2e.ownservice --port 8000 --metrics-port 9100 --late-percent 0`. No caller sees whether an answer was late: only its counters,
`answers_total` and `answers_late_total`, tell a good version from a bad one.
"""

import argparse
import asyncio
import os
import signal
from random import Random

from aiohttp import web


class OwnService:
    """State of one server. `late_percent`: how many of its answers it counts as late."""

    def __init__(self, *, late_percent: float, revision: str, random: Random) -> None:
        self._late_percent = late_percent
        self._revision = revision
        self._random = random
        self._answers = 0
        self._late = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Any chat request."""
        await request.read()
        self._answers += 1
        self._late += self._random.random() * 100 < self._late_percent
        response = web.json_response({"choices": []}, headers={"x-backstop-revision": self._revision})
        response.force_close()  # the next request is a connection of its own, and may reach another pod
        return response

    async def metrics(self, _: web.Request) -> web.Response:
        """The two counters, as Prometheus reads them."""
        counters = (("answers_total", self._answers), ("answers_late_total", self._late))
        return web.Response(text="".join(f"# TYPE {name} counter\n{name} {value}\n" for name, value in counters))


async def _health(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _serve(options: argparse.Namespace) -> None:
    service = OwnService(late_percent=options.late_percent, revision=os.environ.get("BACKSTOP_REVISION", ""), random=Random())
    callers, metrics = web.Application(), web.Application()
    callers.router.add_post("/v1/chat/completions", service.answer)
    callers.router.add_get("/healthz", _health)
    metrics.router.add_get("/metrics", service.metrics)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runners = [web.AppRunner(app, access_log=None) for app in (callers, metrics)]
    for runner, port in zip(runners, (options.port, options.metrics_port), strict=True):
        await runner.setup()
        await web.TCPSite(runner, None, port).start()
    await stop.wait()
    for runner in runners:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m e2e.ownservice", description="A service that is no gateway.")
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--metrics-port", type=int, default=9100, help="default %(default)s")
    parser.add_argument("--late-percent", type=float, default=0, help="of its answers that it counts as late (default %(default)s)")
    asyncio.run(_serve(parser.parse_args()))
