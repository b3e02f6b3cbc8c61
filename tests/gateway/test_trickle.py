"""Requests that a probe sends beside callers': real gateways, and the process that sends them."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from random import Random

import pytest
from aiohttp import web

from backstop.api.names import REQUEST_VARIABLE, SYNTHETIC_HEADER
from backstop.api.record import RevisionRecord
from backstop.gateway.trickle import ENDED, Trickle

from .harness import NOBODY, ROOT, Gateways, Model, TrafficApi, eventually, listening, state


async def test_a_probes_request_is_served_by_the_canary_and_judged_as_a_callers_is(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1))
    entry, _ = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    for _ in range(5):
        assert (await entry.chat(headers={SYNTHETIC_HEADER: canary.revision})).said("track") == "canary"
    assert await entry.total("backstop_served_total", revision=canary.revision, outcome="success") == 5
    assert await entry.total("backstop_sent_total", revision=canary.revision) == 5
    assert await entry.total("backstop_split_total", to="canary", reason="synthetic") == 5
    assert await entry.total("backstop_split_total", reason="share") == 0


@pytest.mark.parametrize(
    ("permille", "aborted", "named", "runs"),
    [(0, False, "canary", True), (500, True, "canary", True), (500, False, "another", True), (1000, False, "canary", False)],
    ids=["no share", "rolled back", "another canary", "no pod"],
)
async def test_a_probes_request_never_reaches_stable(
    gateways: Gateways,
    api: TrafficApi,
    stable: RevisionRecord,
    canary: RevisionRecord,
    model: Model,
    permille: int,
    aborted: bool,
    named: str,
    runs: bool,
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=permille, aborted=canary.revision if aborted else None))
    entry = await gateways.start(stable, api=api)
    if runs:
        await gateways.start(canary, api=api)
    else:
        gateways.peers[canary.revision] = NOBODY
    got = await entry.chat(headers={SYNTHETIC_HEADER: canary.revision if named == "canary" else "0000000000"})
    assert got.status == 421
    assert model.fake.total == 0
    assert await entry.total("backstop_served_total") == 0
    assert await entry.total("backstop_requests_total") == 0


async def test_a_trickle_supplies_the_canary_with_requests_until_its_share_is_gone(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=50))
    entry, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    trickle = Trickle(
        url=f"http://{entry.address}/v1/chat/completions",
        canary=canary.revision,
        body=b'{"model": "any", "messages": [{"role": "user", "content": "Hello"}]}',
        per_second=50,
        clock=time.monotonic,
        jitter=Random(1),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(trickle.run(stop))

    async def answered(status: str) -> bool:
        return trickle.answers[status] >= 5

    await eventually(lambda: answered("200"))
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=0))
    for gateway in (entry, behind):
        await gateway.acts_on(2)
    await eventually(lambda: answered("421"))
    stop.set()
    await running
    assert set(trickle.answers) == {"200", "421"}
    assert await entry.total("backstop_served_total", revision=canary.revision) == trickle.answers["200"]
    assert await entry.total("backstop_served_total", revision=stable.revision) == 0


@pytest.fixture
async def asked() -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that notes what it is asked; its address."""
    found: list[tuple[str, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        found.append((request.headers[SYNTHETIC_HEADER], await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with listening(app) as address:
        yield address, found


async def test_the_process_sends_the_body_it_is_given_until_it_is_ended_and_says_that_it_was(
    asked: tuple[str, list[tuple[str, bytes]]],
) -> None:
    address, found = asked
    options = ["--url", f"http://{address}/v1/chat/completions", "--canary", "c1", "--requests-per-second", "50"]
    environment = {"PYTHONPATH": str(ROOT / "operator"), "PATH": "/usr/bin:/bin", REQUEST_VARIABLE: '{"messages": []}'}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "backstop.gateway.trickle", *options, env=environment)

    async def some() -> bool:
        return len(found) >= 3

    await eventually(some, within=30)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == ENDED
    assert set(found) == {("c1", b'{"messages": []}')}
