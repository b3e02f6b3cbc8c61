"""Fixtures of the gateway tests; what they run is in `harness`."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import aiohttp
import pytest

from backstop.api.record import RevisionRecord
from e2e.fakemodel.app import FakeModel

from .harness import ExactTarget, Gateways, Model, TrafficApi, listening, make_record, model_tier


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A caller, with as many connections as it needs."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    """The fake model."""
    fake = FakeModel(random=Random(1))
    async with listening(fake.application()) as address:
        yield Model(fake, address)


@pytest.fixture
async def other_model() -> AsyncIterator[Model]:
    """A second one."""
    fake = FakeModel(random=Random(2))
    async with listening(fake.application()) as address:
        yield Model(fake, address)


@pytest.fixture
async def target() -> AsyncIterator[ExactTarget]:
    """A target that says what it is told to say."""
    target = ExactTarget()
    async with listening(target.application()) as address:
        target.url = address
        yield target


@pytest.fixture
async def other_target() -> AsyncIterator[ExactTarget]:
    """A second one."""
    target = ExactTarget()
    async with listening(target.application()) as address:
        target.url = address
        yield target


@pytest.fixture
async def api() -> AsyncIterator[TrafficApi]:
    """The API server, as far as the traffic watch asks it."""
    api = TrafficApi()
    async with listening(api.application()) as address:
        api.url = f"http://{address}"
        yield api


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A pod's account folder."""
    (tmp_path / "token").write_text("first-token\n")
    return tmp_path


@pytest.fixture
async def gateways(http: aiohttp.ClientSession, account: Path) -> AsyncIterator[Gateways]:
    """Starts gateways; stops them at the end."""
    gateways = Gateways(http, account=account)
    yield gateways
    await gateways.close()


@pytest.fixture
def stable(model: Model) -> RevisionRecord:
    """The stable revision's record."""
    return make_record([model_tier(model.url)])


@pytest.fixture
def canary(model: Model) -> RevisionRecord:
    """The canary's record: another prompt."""
    return make_record([model_tier(model.url)], prompt="You are the canary prompt.")
