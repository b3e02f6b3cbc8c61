"""Definitions that are older than the operator: nothing is written and nobody is kept from leading, until they are brought up to date."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web

from backstop.api.names import GROUP, VERSION
from backstop.controller.definitions import UNDESCRIBED_SECONDS, Definitions
from backstop.crdgen.filled import Filled
from backstop.crdgen.served import lacks
from backstop.kube.client import MERGE, Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import NotFound
from backstop.kube.openapi import openapi_path
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Body
from e2e.cluster.apiserver import ApiServer
from e2e.cluster.ports import free_port
from tests.conftest import establish_crds
from tests.kube.test_failures import client_of

from .operators import Mortal, running
from .test_leadership import NEVER, candidate, holder
from .test_refusals import DEFINITION
from .until import until
from .world import MANAGER, World, condition, small_world

FIELD = "podsForWeight"
OLDER = (
    f"the CustomResourceDefinitions in the cluster are older than this operator: FallbackPolicy lacks `status.canary.{FIELD}`;"
    " apply those of its version, and it goes on by itself"
)


@pytest.fixture(scope="module")
def own_server() -> Iterator[ApiServer]:
    """What its definitions drop is nobody else's."""
    with ApiServer() as server:
        establish_crds(server)
        yield server


@pytest.fixture
async def own_connection(own_server: ApiServer) -> Connection:
    return await connect(own_server.kubeconfig)


@pytest.fixture
async def own_client(own_connection: Connection) -> AsyncIterator[Client]:
    client = Client(own_connection.api_client(), timeout=10.0)
    yield client
    await client.close()


@pytest.fixture
async def own_world(own_client: Client) -> AsyncIterator[World]:
    async with small_world(own_client, namespace=f"t-{uuid4().hex[:8]}") as world:
        await world.prompt("v1")
        await world.apply("v1")
        yield world


@contextlib.asynccontextmanager
async def newer_definitions(client: Client) -> AsyncIterator[None]:
    """While the context lasts, the API server fills fields into every policy and prompt version that the operator does not know."""
    changed = []
    for definition in (DEFINITION, DEFINITION.replace("fallbackpolicies", "promptversions")):
        versions = (await client._request("GET", definition))["spec"]["versions"]
        newer = deepcopy(versions)
        spec = newer[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        spec["novelty"] = {
            "type": "object",
            "default": {},
            "properties": {"percent": {"type": "integer", "default": 5}, "names": {"type": "array", "items": {"type": "string"}}},
        }
        for tier in (spec["chain"]["items"]["properties"],) if "chain" in spec else ():
            tier["novelty"] = {"type": "string", "default": "none"}
        changed.append((definition, versions))
        await _write_versions(client, definition, newer)
    try:
        yield
    finally:
        for definition, versions in changed:
            await _write_versions(client, definition, versions)


async def _write_versions(client: Client, definition: str, versions: list[Body]) -> None:
    await client._request("PATCH", definition, query={"fieldManager": MANAGER}, body={"spec": {"versions": versions}}, content=MERGE)


@contextlib.asynccontextmanager
async def older_definition(client: Client) -> AsyncIterator[None]:
    """While the context lasts, the API server does not know a field of the operator's status."""
    versions = (await client._request("GET", DEFINITION))["spec"]["versions"]
    canary: Body = versions[0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["canary"]
    properties = canary["properties"]

    async def write(fields: Body) -> None:
        canary["properties"] = fields
        await _write_versions(client, DEFINITION, versions)

    await write({name: schema for name, schema in properties.items() if name != FIELD})
    try:

        async def served() -> bool:
            return bool(lacks(await client.served(GROUP, VERSION)))

        await until("the older definition is served", served)
        yield
    finally:
        await write(properties)


async def filled_into(world: World, prompt: str) -> bool:
    """Whether the API server gives the fields with the policy and with this prompt version."""
    read = ((POLICIES, world.policy), (PROMPT_VERSIONS, prompt))
    found = [await world.client.get(resource, namespace=world.namespace, name=name) for resource, name in read]
    return all("novelty" in body["spec"] for body in found)


async def looks(operator: Mortal, times: int) -> None:
    """Wait until the operator has looked at the definitions so many times more."""
    path = openapi_path(GROUP, VERSION)[1:]
    enough = operator.reads.count(path) + times

    async def looked() -> bool:
        return operator.reads.count(path) >= enough

    await until(f"it has looked {times} times more", looked)


async def readiness(port: int) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
        return response.status, await response.text()


@pytest.mark.apiserver
async def test_an_operator_that_is_newer_than_a_definition_writes_nothing_and_acts_once_it_is_applied(
    own_connection: Connection, own_client: Client, own_world: World
) -> None:
    newer, port = candidate(own_client, own_world, name="newer", seconds=15), free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with older_definition(own_client):
            operator = await stack.enter_async_context(running(own_connection, own_world, leadership=newer, telemetry_port=port))
            await looks(operator, 3)
            assert await readiness(port) == (503, OLDER)
            assert operator.writes == []
            with pytest.raises(NotFound):
                await holder(own_client, own_world)
        await own_world.stable_on("v1")
        assert await readiness(port) == (200, "ok")
        assert await holder(own_client, own_world) == "newer"


@pytest.mark.apiserver
async def test_an_operator_that_is_newer_than_a_definition_leaves_the_lease_to_others(
    own_connection: Connection, own_client: Client, own_world: World
) -> None:
    older, newer = (candidate(own_client, own_world, name=name, seconds=NEVER) for name in ("older", "newer"))
    await older.gain()
    async with contextlib.AsyncExitStack() as stack:
        async with older_definition(own_client):
            operator = await stack.enter_async_context(running(own_connection, own_world, leadership=newer))
            await looks(operator, 1)
            await older.let_go()
            await looks(operator, 2)
            assert await holder(own_client, own_world) == ""
            await older.gain()
        await looks(operator, 1)
        assert operator.writes == []
        await older.let_go()
        await own_world.stable_on("v1")
        assert await holder(own_client, own_world) == "newer"


@pytest.mark.apiserver
async def test_without_others_too_an_operator_waits_for_its_definitions(
    own_connection: Connection, own_client: Client, own_world: World
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with older_definition(own_client):
            operator = await stack.enter_async_context(running(own_connection, own_world))
            await looks(operator, 2)
            assert operator.writes == []
        await own_world.stable_on("v1")


@pytest.mark.apiserver
async def test_c07_an_operator_that_starts_under_newer_definitions_takes_what_they_fill_in_for_nobodys_wish(
    own_connection: Connection, own_client: Client, own_world: World
) -> None:
    async with running(own_connection, own_world):
        stable = (await own_world.stable_on("v1"))["stable"]["revision"]
        await own_world.quiet()
    async with newer_definitions(own_client):
        await until("fields are filled in", lambda: filled_into(own_world, "v1"))
        async with running(own_connection, own_world, sweep_seconds=0.5) as operator:
            await operator.lists(2)
            assert operator.writes == [], "an operator that is not of their version has nothing to say to them"
            await own_world.prompt("v2")
            await own_world.apply("v2")
            assert (await own_world.stable_on("v2", within=60))["stable"]["revision"] != stable
    assert {"Invalid", "PromptVersionInvalid"} & await own_world.events() == set()


@pytest.mark.apiserver
async def test_c07_an_operator_that_meets_newer_definitions_goes_on_by_itself_and_holds_what_asks_for_what_it_does_not_know(
    own_connection: Connection, own_client: Client, own_world: World
) -> None:
    async with running(own_connection, own_world):
        await own_world.stable_on("v1")
        async with newer_definitions(own_client):
            await until("fields are filled in", lambda: filled_into(own_world, "v1"))
            await own_world.prompt("v2")
            await own_world.apply("v2")
            await own_world.stable_on("v2", within=60)
            await own_world.apply("v2", novelty={"percent": 7})
            status = await own_world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "Invalid")
            assert condition(status, "Accepted")["message"].startswith("`spec.novelty` is not known to this operator")
            await own_world.apply("v2", novelty={"percent": 5})
            await own_world.until_status("what is its default is no wish", lambda s: condition(s, "Accepted")["status"] == "True")


@pytest.mark.apiserver
async def test_an_operator_that_begins_together_with_its_definitions_needs_no_restart() -> None:
    with ApiServer() as bare:
        connection = await connect(bare.kubeconfig)
        client = Client(connection.api_client(), timeout=10.0)
        port = free_port()
        try:
            async with (
                small_world(client, namespace=f"t-{uuid4().hex[:8]}") as world,
                running(connection, world, telemetry_port=port) as operator,
            ):
                await until("it has asked for policies", functools.partial(asked_for, operator, POLICIES.plural))
                assert await readiness(port) == (503, "the cluster has not been listed yet")
                await asyncio.to_thread(establish_crds, bare)
                await world.prompt("v1")
                await world.apply("v1")
                await world.stable_on("v1", within=60)
                assert await readiness(port) == (200, "ok")
        finally:
            await client.close()


async def asked_for(operator: Mortal, plural: str) -> bool:
    return any(read.endswith(f"/{plural}") for read in operator.reads)


def looking(client: Client, *, clock: Callable[[], float] = lambda: 0.0, found: list[object] | None = None) -> Definitions:
    """Without a pause between two looks."""
    return Definitions(client, on_filled=(found if found is not None else []).append, clock=clock, jitter=lambda: -1.0)


async def test_definitions_that_may_not_be_read_keep_nobody_from_acting_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=403)

    async with client_of(tmp_path, handle) as client:
        definitions = looking(client)
        assert definitions.problem is not None
        await definitions.complete()
        assert definitions.problem is None
    assert [record.getMessage() for record in caplog.records if record.name.startswith("backstop")] == [
        "whether the definitions in the cluster are those of this operator is not known"
    ]


async def test_definitions_that_are_not_described_are_waited_for_for_a_while(tmp_path: Path) -> None:
    now, asked = [0.0], asyncio.Event()

    async def handle(_: web.Request) -> web.Response:
        asked.set()
        return web.Response(status=404)

    async with client_of(tmp_path, handle) as client:
        definitions = looking(client, clock=lambda: now[0])
        completing = asyncio.create_task(definitions.complete())
        await asked.wait()
        asked.clear()
        await asked.wait()
        assert definitions.problem == f"the API server does not describe {GROUP}/{VERSION} yet; trying again"
        now[0] = UNDESCRIBED_SECONDS
        await completing
        assert definitions.problem is None


async def test_an_api_server_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    answers = iter((503, 503, 403))

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=next(answers))

    async with client_of(tmp_path, handle) as client:
        await looking(client).complete()
    assert next(answers, None) is None


def description(default: int) -> Body:
    """Of policies, as the API server gives it, with one field that the operator does not know."""
    spec = {"type": "object", "properties": {"novelty": {"type": "integer", "default": default}}}
    of = [{"group": GROUP, "version": VERSION, "kind": "FallbackPolicy"}]
    schema = {"type": "object", "properties": {"spec": spec}, "x-kubernetes-group-version-kind": of}
    return {"components": {"schemas": {"policy": schema}}}


async def test_definitions_are_looked_at_again_whenever_they_are_doubted_also_after_no_answer(tmp_path: Path) -> None:
    asked, found = 0, list[object]()

    async def handle(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503) if asked == 2 else web.json_response(description(default=asked))

    async def told(times: int) -> bool:
        return len(found) == times

    async with client_of(tmp_path, handle) as client:
        definitions = looking(client, found=found)
        keeping = asyncio.create_task(definitions.keep())
        definitions.doubt()
        await until("it has looked", functools.partial(told, 1))
        definitions.doubt()
        await until("it has looked, and again when there was no answer", functools.partial(told, 2))
        assert asked == 3
        definitions.doubt()
        await until("it has looked once more", functools.partial(told, 3))
        assert found == [{"FallbackPolicy": (Filled(("novelty",), default),)} for default in (1, 3, 4)]
        keeping.cancel()
