"""Watches of metadata: on a real API server, and what may come over the wire."""

import asyncio
from contextlib import aclosing
from uuid import uuid4

import pytest

from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.errors import Expired, NotFound, Rejected, Unavailable
from backstop.kube.heads import LONGEST_EVENT, Head, Lines, read_event
from backstop.kube.resources import CONFIG_MAPS, Body, Resource
from e2e.cluster.apiserver import ApiServer

HUGE = "x" * 250_000  # what `kubectl apply` leaves in an annotation; longer than what aiohttp takes for a line


def config_map(name: str, **data: str) -> Body:
    metadata = {"name": name, "namespace": "default", "annotations": {"huge": HUGE}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def heard(client: Client, *, since: str, of: str, times: int) -> list[Head]:
    found: list[Head] = []
    async with asyncio.timeout(20), aclosing(client.heads(CONFIG_MAPS, namespace="default", version=since)) as heads:
        async for head in heads:
            if head.name == of:
                found.append(head)
            if len(found) == times:
                return found
    raise AssertionError(f"the watch ended after {found}")


@pytest.mark.apiserver
async def test_a_watch_of_metadata_tells_of_every_change_after_its_version_in_order(client: Client) -> None:
    name = f"heads-{uuid4().hex[:8]}"
    since = await client.newest(CONFIG_MAPS, namespace="default")
    versions = []
    for turn in ("1", "2"):
        body = await client.apply(CONFIG_MAPS, body=config_map(name, turn=turn), manager="me")
        versions.append(body["metadata"]["resourceVersion"])
    await client.delete(CONFIG_MAPS, namespace="default", name=name, uid=body["metadata"]["uid"])
    heads = await heard(client, since=since, of=name, times=3)
    assert [head.version for head in heads[:2]] == versions
    assert int(heads[2].version) > int(versions[1])
    assert await heard(client, since=versions[0], of=name, times=2) == heads[1:]


@pytest.mark.apiserver
async def test_a_watch_of_what_is_not_there_or_not_allowed_says_so(client: Client, api_server: ApiServer) -> None:
    nothing = Resource("", "v1", "nothings", "Nothing")
    with pytest.raises(NotFound):
        async with aclosing(client.heads(nothing, namespace="default", version="1")) as heads:
            await anext(heads)
    stranger = Client((await connect(api_server.identity_kubeconfig("stranger"))).api_client(), timeout=10.0)
    try:
        with pytest.raises(Rejected):
            await stranger.newest(CONFIG_MAPS, namespace="default")
    finally:
        await stranger.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_are_cut_wherever_they_came_apart(size: int) -> None:
    text = b"first\n\nsecond line\n" + b"t" * 100 + b"\nrest"
    lines = Lines()
    found = [line for start in range(0, len(text), size) for line in lines.feed(text[start : start + size])]
    assert found == [b"first", b"second line", b"t" * 100]


def test_a_line_without_an_end_is_given_up() -> None:
    lines = Lines()
    assert list(lines.feed(b"x" * LONGEST_EVENT)) == []
    with pytest.raises(Unavailable, match="an event of more than 4 MiB"):
        list(lines.feed(b"x"))


@pytest.mark.parametrize(
    ("line", "head"),
    [
        (b'{"type":"ADDED","object":{"metadata":{"name":"n","namespace":"s","resourceVersion":"7"}}}', Head("s", "n", "7")),
        (b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","name":""}}}', Head("", "", "9")),
    ],
)
def test_an_event_says_which_object_is_in_which_version(line: bytes, head: Head) -> None:
    assert read_event(line, what="watch") == head


@pytest.mark.parametrize(
    ("line", "error", "sentence"),
    [
        (b'{"type":"ERROR","object":{"code":410,"message":"too old"}}', Expired, "watch: ended with 410 too old"),
        (b'{"type":"ERROR","object":{"code":500}}', Unavailable, "watch: ended with 500"),
        (b'{"type":"ADDED","object":{}}', Unavailable, "watch: what came is no event"),
        (b"<html>", Unavailable, "watch: what came is no event"),
    ],
)
def test_what_ends_a_watch_says_why(line: bytes, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as ended:
        read_event(line, what="watch")
    assert type(ended.value) is error
    assert str(ended.value).startswith(sentence)
