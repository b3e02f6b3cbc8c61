"""Which way requests to the API server take, by what the environment says."""

import asyncio
from pathlib import Path

import pytest
import yaml

from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.errors import KubeError
from backstop.kube.resources import POLICIES

HOST = "api.cluster.test"


def kubeconfig(folder: Path) -> Path:
    """For an API server that only a proxy could find."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://{HOST}:6443"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(("no_proxy", "goes"), [("", True), (HOST, False)], ids=["through it", "past it"])
async def test_a_proxy_of_the_environment_is_used_unless_the_environment_excepts_the_api_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str, goes: bool
) -> None:
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0])
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("no_proxy", no_proxy)
    client = Client((await connect(kubeconfig(tmp_path))).api_client(), timeout=5.0)
    try:
        with pytest.raises(KubeError):
            await client.get(POLICIES, namespace="shop", name="support")
    finally:
        await client.close()
        server.close()
    assert [line.split()[1].startswith(f"http://{HOST}:6443/apis/") for line in heard] == [True] * goes
