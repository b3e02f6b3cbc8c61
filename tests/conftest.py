"""What tests of several rooms share: one API server with the project's CRDs, started when the first test asks for it."""

import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from e2e.cluster.apiserver import ApiServer
from e2e.cluster.build import program

from .garbage import set_aside

CRDS = Path(__file__).parents[1] / "crds"
ANALYSIS_FIXTURES = Path(__file__).parent / "analysis" / "fixtures" / "analysis.json"

# Where it matters that something fails, and not what the shortest way to it is; the same ways each time. A state machine tries more of
# them here than in the quick loop, after which `make test` has thousands of its steps.
settings.register_profile("found", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate), deadline=None)
# What the quick loop tries is the same each time too: what is new is for `make nightly`, which has the time for it. How long an example
# takes is no matter of a test, least of all beside others.
settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
settings.load_profile("quick")


@pytest.hookimpl(trylast=True)  # of what is left to run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the tests that wait, for sockets and for time, among those that calculate: every worker has some of both until the end."""
    waiting = [item for item in items if "/tests/gateway/" in str(item.path)]
    others = [item for item in items if "/tests/gateway/" not in str(item.path)]
    random.Random(len(waiting)).shuffle(waiting)  # those of one file wait about as long: not all for one worker
    if waiting and others:
        place = {item: number / len(waiting) for number, item in enumerate(waiting)}
        place |= {item: number / len(others) for number, item in enumerate(others)}
        items.sort(key=place.__getitem__)


def pytest_collection_finish() -> None:
    set_aside()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--analysis-fixtures",
        type=Path,
        default=ANALYSIS_FIXTURES,
        metavar="FILE",
        help="inputs and expected values of the statistics, JSON",
    )
    parser.addoption("--every-write", action="store_true", help="operators die in each write of their stories, not in some")


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """A real API server with the CRDs established. Tests use namespaces of their own."""
    with ApiServer() as server:
        establish_crds(server)
        yield server


def establish_crds(server: ApiServer) -> None:
    """The project's CRDs, on an API server that has just begun."""
    kubectl = [str(program("kube")), "kubectl", "--kubeconfig", str(server.kubeconfig)]
    subprocess.run([*kubectl, "apply", "-f", str(CRDS)], check=True, capture_output=True, timeout=60)
    subprocess.run([*kubectl, "wait", "--for=condition=Established", "crd", "--all"], check=True, capture_output=True, timeout=60)


@pytest.fixture
async def connection(api_server: ApiServer) -> Connection:
    """That API server, with all rights."""
    return await connect(api_server.kubeconfig)


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[Client]:
    """A client of it."""
    client = Client(connection.api_client(), timeout=10.0)
    yield client
    await client.close()
