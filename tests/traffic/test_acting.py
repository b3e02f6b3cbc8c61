"""Asking gateways which traffic generation they act on: real sockets, every way not to answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from backstop.api.names import METRICS_PORT
from backstop.rollout.observed import Known, Unknown
from backstop.traffic.acting import Acting, Gateway, acting_generations
from tests.loopback import own_block

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def gateways(*handlers: Handler) -> AsyncIterator[list[Gateway]]:
    """A gateway per handler, each at a loopback address of its own."""
    found, runners = [], []
    for number, handler in enumerate(handlers):
        app = web.Application()
        app.router.add_get("/-/status", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        address = f"127.{own_block()}.255.{number + 1}"
        await web.TCPSite(runner, address, METRICS_PORT).start()
        found.append(Gateway(f"pod-{number}", address))
    try:
        yield found
    finally:
        for runner in runners:
            await runner.cleanup()


def acts_on(generation: object) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"generation": generation})

    return answer


async def failing(_: web.Request) -> web.Response:
    return web.json_response({"generation": 9}, status=500)


async def garbage(_: web.Request) -> web.Response:
    return web.Response(text="<html>", content_type="application/json")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b'{"generation": 9, "padding": "' + b"x" * 65536)
    return response


async def silent(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def ask(*handlers: Handler) -> Acting:
    async with gateways(*handlers) as found, aiohttp.ClientSession() as session, asyncio.timeout(10):
        return await acting_generations(session, gateways=found)


async def test_the_slowest_gateway_counts_and_the_one_that_is_furthest_is_known() -> None:
    assert await ask(acts_on(6), acts_on(5), acts_on(7)) == Acting(Known(5), 7)


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (failing, "gateway pod pod-1 answers 500"),
        (garbage, "gateway pod pod-1 cannot be asked"),
        (endless, "gateway pod pod-1 gives too long an answer to /-/status"),
        (silent, "gateway pod pod-1 does not answer within 1 s"),
        (acts_on(None), "gateway pod pod-1 has not read the traffic object yet"),
        (acts_on("7"), "gateway pod pod-1 has not read the traffic object yet"),
    ],
    ids=["error", "garbage", "endless", "silence", "unread", "text"],
)
async def test_one_gateway_that_does_not_say_makes_the_answer_unknown(handler: Handler, why: str) -> None:
    answer = await ask(acts_on(7), handler)
    assert isinstance(answer.lowest, Unknown)
    assert answer.lowest.why.startswith(why)
    assert answer.highest == 7


async def test_nobody_listening_is_unknown_and_so_is_no_gateway_at_all() -> None:
    async with aiohttp.ClientSession() as session:
        nobody, _ = await acting_generations(session, gateways=[Gateway("gone", "127.77.1.1")])
        assert isinstance(nobody, Unknown)
        assert nobody.why.startswith("gateway pod gone cannot be asked")
        assert await acting_generations(session, gateways=[]) == Acting(Unknown("no gateway pod is ready"), None)
