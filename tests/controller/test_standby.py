"""A standby in front of an API server that misbehaves: a server of our own, on a real socket."""

import asyncio
import contextlib
import time
from pathlib import Path

from aiohttp import web

from backstop.controller.leadership import RETRY_SECONDS, Leadership
from backstop.kube.lease import LeaseObject
from tests.kube.test_failures import client_of

LOOKED_AT_SECONDS = 2.5
MOST_LOOKS = 1 + int(LOOKED_AT_SECONDS / RETRY_SECONDS)


async def test_a_standby_whose_watch_ends_as_soon_as_it_begins_asks_no_more_than_once_a_second(tmp_path: Path) -> None:
    reads, watches = 0, 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal reads, watches
        if "watch" in request.query:
            watches += 1
            return web.Response()
        reads += 1
        spec = {"holderIdentity": "another", "leaseDurationSeconds": 300}
        return web.json_response({"metadata": {"name": "backstop", "resourceVersion": "7"}, "spec": spec})

    async with client_of(tmp_path, handle) as client:
        lease = LeaseObject(client, namespace="backstop", name="backstop", manager="test")
        standby = Leadership(lease, identity="me", seconds=300, clock=time.time, monotonic=time.monotonic, jitter=lambda: 0.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOKED_AT_SECONDS):
                await standby.gain()
        assert not standby.leads()
    assert 1 <= watches <= MOST_LOOKS
    assert 1 <= reads <= MOST_LOOKS
