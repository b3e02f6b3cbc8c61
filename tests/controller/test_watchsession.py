"""A watch begins with a list of nothing: it says where it begins, and tells of what comes from then on."""

import asyncio

import pytest

from backstop.controller.seen import Seen
from backstop.controller.sources import WATCHED, Watches
from backstop.controller.watchsession import Where
from backstop.kube.connection import Connection

from .until import until
from .world import World

pytestmark = pytest.mark.apiserver


async def test_a_watch_says_where_it_begins_and_tells_of_nothing_that_was_there_before(connection: Connection, world: World) -> None:
    begun: list[Where] = []
    told: list[str] = []

    def hear(news: Seen, gone: bool) -> None:
        told.append(news.name)

    await world.prompt("before")
    watches = Watches(connection, namespaces=[world.namespace], on_news=hear, on_begin=begun.append)
    watches.start()
    try:

        async def all_begun() -> bool:
            return len(begun) == len(WATCHED)

        async def told_of_it() -> bool:
            return "after" in told

        await until("every watch has begun", all_begun)
        assert set(begun) == {(resource, world.namespace) for resource in WATCHED}
        await world.prompt("after")
        await until("the watch tells of what comes", told_of_it)
        assert "before" not in told
    finally:
        async with asyncio.timeout(10):
            await watches.stop(within=5)
