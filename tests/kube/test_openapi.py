"""Which fields an API server has: on a real one, and what may come over the wire."""

import contextlib
import json
from pathlib import Path

import pytest
from aiohttp import web

from backstop.api.names import GROUP, VERSION
from backstop.crdgen.served import lacks
from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.errors import KubeError, NotFound, Rejected, Unavailable
from backstop.kube.openapi import read_kinds
from e2e.cluster.apiserver import ApiServer
from tests.controller.until import until

from .test_failures import client_of


@pytest.mark.apiserver
async def test_a_user_without_any_right_reads_that_the_projects_definitions_are_whole(api_server: ApiServer) -> None:
    client = Client((await connect(api_server.identity_kubeconfig("nobody-in-particular"))).api_client(), timeout=10.0)

    async def described() -> bool:
        with contextlib.suppress(NotFound):  # which it is for a moment after its definitions were taken
            return lacks(await client.served(GROUP, VERSION)) == ()
        return False

    try:
        await until("every field is described", described)
    finally:
        await client.close()


@pytest.mark.apiserver
async def test_a_group_that_is_not_there_is_not_told(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.served(GROUP, "v9")


@pytest.mark.parametrize(("status", "error"), [(403, Rejected), (404, NotFound), (503, Unavailable), (401, Unavailable)])
async def test_an_answer_that_is_no_document_has_its_word(tmp_path: Path, status: int, error: type[KubeError]) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text="no")

    async with client_of(tmp_path, handle) as client:
        with pytest.raises(error, match=f"/openapi/v3/apis/{GROUP}/{VERSION}: answer {status}"):
            await client.served(GROUP, VERSION)


@pytest.mark.parametrize("text", ["", "no", "[]", "{}", '{"components": 1}', '{"components": {"schemas": {"a": {"properties": []}}}}'])
def test_what_is_no_document_is_told_as_that(text: str) -> None:
    with pytest.raises(Unavailable, match="the answer is no OpenAPI document"):
        read_kinds(text.encode(), group=GROUP, version=VERSION, what="GET it")


def test_only_kinds_of_the_group_and_version_are_read() -> None:
    def schema(group: str, version: str) -> dict[str, object]:
        return {
            "type": "object",
            "properties": {"spec": {"type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": "A"}],
        }

    schemas = {"mine": schema("g", "v1"), "older": schema("g", "v0"), "theirs": schema("h", "v1"), "common": {"type": "string"}}
    found = read_kinds(json.dumps({"components": {"schemas": schemas}}).encode(), group="g", version="v1", what="GET it")
    assert list(found) == ["A"]
    assert list(found["A"].properties) == ["spec"]
