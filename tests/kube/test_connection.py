"""Which way requests to the API server take, by what the environment says; and whom they take for it."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import certifi
import kopf
import pytest
import yaml
from kubernetes.aio.config import incluster_config

from backstop.controller.watchsession import watch_session
from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import KubeError
from backstop.kube.resources import POLICIES
from tests.certificates import Authority

NAME = "http://api.cluster.test:6443"  # which only a proxy could find


def kubeconfig(folder: Path, *, server: str, authority: str = "") -> Path:
    """For an API server at this address, with this CA bundle."""
    trust = {"certificate-authority-data": base64.b64encode(authority.encode()).decode()} if authority else {}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, **trust}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@contextlib.asynccontextmanager
async def listener(heard: list[str], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port at which the first line of each connection is heard, and answered with 404."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\n")).decode(errors="replace"))
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


async def ask(connection: Connection) -> None:
    client = Client(connection.api_client(), timeout=5.0)
    try:
        with pytest.raises(KubeError):
            await client.get(POLICIES, namespace="shop", name="support")
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("server", "no_proxy", "goes"),
    [
        (NAME, "", True),
        (NAME, "other.test, 10.0.0.0/8", True),
        (NAME, "api.cluster.test", False),
        (NAME, "api.cluster.test:6443", False),
        (NAME, "api.cluster.test:443", True),
        ("http://[::1]:1", "::1", False),
        ("http://[::1]:1", "0:0::1", False),
        ("http://[::1]:1", "[::1]", False),
        ("http://[::1]:1", "::/120", False),
        ("http://[::1]:1", "fd00::/8", True),
        ("http://127.0.0.7:1", "10.0.0.0/8, 127.0.0.0/8", False),
        ("http://127.0.0.7:1", "127.0.0.1/8", False),
        ("http://127.0.0.7:1", "127.0.0.1", True),
    ],
)
async def test_a_proxy_of_the_environment_is_used_unless_the_environment_excepts_the_api_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, goes: bool
) -> None:
    heard: list[str] = []
    async with listener(heard) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", no_proxy)
        await ask(await connect(kubeconfig(tmp_path, server=server)))
    assert [line.split()[1].startswith(f"{server}/apis/") for line in heard] == [True] * goes


async def test_inside_a_cluster_no_proxy_stands_before_the_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("of a service account")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certifi.where())
    through: list[str] = []
    straight: list[str] = []
    async with listener(through) as proxy, listener(straight) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server))
        await ask(await connect(None))
    assert (len(through), len(straight)) == (0, 1)


@pytest.mark.parametrize(("address", "reached"), [("127.0.0.1", 2), ("127.0.0.2", 0)], ids=["its own name", "another name"])
async def test_the_authority_may_be_one_in_the_middle_and_lack_what_python_asks_of_authorities(
    tmp_path: Path, address: str, reached: int
) -> None:
    below = Authority("below", above=Authority("above"))
    heard: list[str] = []
    async with listener(heard, tls=below.server(tmp_path, address=address)) as port:
        connection = await connect(kubeconfig(tmp_path, server=f"https://127.0.0.1:{port}", authority=below.pem))
        await ask(connection)
        given = await connection.credentials()
        watched_by = kopf.ConnectionInfo(server=given.server, ca_path=given.ca_file)
        async with watch_session(watched_by, watched={}, on_begin=lambda _: None) as session:
            with contextlib.suppress(aiohttp.ClientConnectorCertificateError):
                await session.get(given.server)
    assert len(heard) == reached
