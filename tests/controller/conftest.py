import logging
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from backstop.kube.client import Client

from .world import World, small_world


@pytest.fixture
async def world(client: Client) -> AsyncIterator[World]:
    async with small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world:
        yield world


@pytest.fixture(autouse=True)
def quiet_kopf() -> None:
    # In tests, too, it is not the one that minds signals.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
