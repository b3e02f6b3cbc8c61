"""What the client makes of servers that misbehave: real sockets, one word for each failure."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from backstop.kube.client import Client
from backstop.kube.connection import NotConnected, connect
from backstop.kube.errors import Conflict, KubeError, NotFound, Rejected, Unavailable
from backstop.kube.events import LONGEST_NOTE, event
from backstop.kube.resources import CONFIG_MAPS, POLICIES

DEADLINE = 0.5


def kubeconfig(folder: Path, *, server: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{server}"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
    )
    return path


@contextlib.asynccontextmanager
async def client_of(folder: Path, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = await connect(kubeconfig(folder, server=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    client = Client(connection.api_client(), timeout=DEADLINE)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, NotFound),
        (409, Conflict),
        (403, Rejected),
        (422, Rejected),
        (401, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_every_refusal_has_its_word_and_the_servers_own_message(tmp_path: Path, status: int, error: type[KubeError]) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": "because of the moon"}, status=status)

    async with client_of(tmp_path, refuse) as client:
        with pytest.raises(error, match="because of the moon") as caught:
            await client.get(CONFIG_MAPS, namespace="shop", name="a")
    assert type(caught.value) is error
    assert "GET /api/v1/namespaces/shop/configmaps/a" in str(caught.value)


async def test_a_log_is_read_as_bytes_and_no_more_of_it_than_was_asked_for(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/api/v1/namespaces/shop/pods/a/log"
        assert dict(request.query) == {"container": "probe", "tailLines": "16", "limitBytes": "8"}
        return web.Response(body=b"not JSON \xff", content_type="text/plain")

    async with client_of(tmp_path, answer) as client:
        assert await client.log(namespace="shop", pod="a", container="probe", lines=16, most_bytes=8) == b"not JSON"


async def test_a_log_that_cannot_be_had_is_told_in_the_same_words_as_an_object(tmp_path: Path) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": "no"}, status=404)

    async with client_of(tmp_path, refuse) as client:
        with pytest.raises(NotFound, match="pods/a/log: answer 404"):
            await client.log(namespace="shop", pod="a", container="probe", lines=1, most_bytes=1)


async def test_a_server_that_does_not_answer_is_unavailable_at_the_deadline(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with client_of(tmp_path, hang) as client, asyncio.timeout(10):
        with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
            await client.get(CONFIG_MAPS, namespace="shop", name="a")
    assert asked.is_set()


async def test_a_server_that_stops_in_the_middle_of_its_answer_is_unavailable(tmp_path: Path) -> None:
    async def stop(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"kind":')
        await asyncio.Event().wait()
        return response

    async with client_of(tmp_path, stop) as client, asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await client.get(CONFIG_MAPS, namespace="shop", name="a")


@pytest.mark.parametrize("garbage", [b"<html>", b"", b"[]", b"\xff\xfe"])
async def test_an_answer_that_is_no_object_is_unavailable(tmp_path: Path, garbage: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=garbage)

    async with client_of(tmp_path, answer) as client:
        with pytest.raises(Unavailable, match="is not a JSON object"):
            await client.get(CONFIG_MAPS, namespace="shop", name="a")


async def test_nobody_listening_is_unavailable(tmp_path: Path, unused_tcp_port: int) -> None:
    connection = await connect(kubeconfig(tmp_path, server=f"http://127.0.0.1:{unused_tcp_port}"))
    client = Client(connection.api_client(), timeout=DEADLINE)
    with pytest.raises(Unavailable):
        await client.get(CONFIG_MAPS, namespace="shop", name="a")
    await client.close()


WORKING = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist; check the path"),
        (b"{", "is not YAML: "),
        (b"clusters: \xff", "is not YAML: "),
        (b"x", "is not a kubeconfig file; give one as `kubectl config view --raw` prints it"),
        (b"", "is not a kubeconfig file; give one as `kubectl config view --raw` prints it"),
        (b"- x", "is not a kubeconfig file; give one as `kubectl config view --raw` prints it"),
        (b"kind: Config", "cannot be used as a kubeconfig file: Invalid kube-config file. Expected key current-context"),
        *(
            (json.dumps(WORKING | change).encode(), f"cannot be used as a kubeconfig file{reason}")
            for change, reason in (
                ({"clusters": 5}, ""),
                ({"clusters": [1]}, ""),
                ({"clusters": ["name"]}, ""),
                ({"clusters": [{"name": "k", "cluster": {"server": 5}}]}, ""),
                ({"clusters": [{"name": "k", "cluster": {"server": "https://a", "certificate-authority-data": "a"}}]}, ""),
                ({"clusters": [{"name": "k", "cluster": {"server": "https://a", "certificate-authority": "/gone"}}]}, ": "),
                ({"users": {"u": {}}}, ""),
                ({"contexts": [{"name": "c", "context": "x"}]}, ""),
                ({"current-context": "other"}, ": Invalid kube-config file. Expected object with name other in "),
            )
        ),
    ],
)
async def test_an_unusable_kubeconfig_is_named_in_one_sentence(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotConnected) as caught:
        await connect(path)
    assert str(caught.value).startswith(f"`{path}` {said}")
    assert "\n" not in str(caught.value)


async def test_a_folder_is_no_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match=r"cannot be read \(Is a directory\); check the path"):
        await connect(tmp_path)


async def test_a_certificate_that_is_none_is_said_with_its_way_out(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": base64.b64encode(b"none").decode()}
    path.write_text(json.dumps(WORKING | {"clusters": [{"name": "k", "cluster": cluster}]}))
    connection = await connect(path)
    with pytest.raises(NotConnected, match="certificates for the API server cannot be used"):
        connection.api_client()


async def test_the_kubeconfig_of_those_cases_works_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(WORKING))
    assert (await (await connect(path)).credentials()).server == "http://127.0.0.1:1"


async def test_without_a_kubeconfig_and_outside_of_a_cluster_the_option_is_named() -> None:
    with pytest.raises(NotConnected, match="`--kubeconfig`"):
        await connect(None)


def test_a_long_message_fits_into_an_event_without_a_broken_character() -> None:
    body = event(
        POLICIES,
        namespace="shop",
        name="a" * 253,
        uid="u",
        reason="Because",
        message="é" * 2000,
        event_type="Normal",
        component="c",
        instance="i",
        now=1_700_000_000.0,
    )
    assert len(body["note"].encode()) <= LONGEST_NOTE
    assert body["note"].rstrip("…") == "é" * (len(body["note"]) - 1)
    assert len(body["metadata"]["name"]) <= 253
