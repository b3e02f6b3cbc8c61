"""The API server goes away and comes back: the operator waits, goes on, and has missed nothing."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backstop.kube.connection import connect
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .until import until
from .world import World, condition

pytestmark = pytest.mark.apiserver


class Wire:
    """A TCP proxy to the API server that can be cut and mended; `refused` counts attempts while it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = True
        self._open: set[asyncio.StreamWriter] = set()
        self.refused = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if not self._whole:
            self.refused += 1
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, there_writer}
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            self._open -= {writer, there_writer}

    def cut(self) -> None:
        """Nothing goes through any more."""
        self._whole = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """As before."""
        self._whole = True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def wire(server: ApiServer, *, folder: Path) -> AsyncIterator[tuple[Wire, Path]]:
    """A wire to the API server, and a kubeconfig that goes over it."""
    wire = Wire(int(server.url.rsplit(":", 1)[1]))
    listening = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    document = json.loads(server.kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    try:
        yield wire, path
    finally:
        listening.close()
        wire.cut()


async def test_r10_what_happened_while_the_api_server_was_gone_is_caught_up_with(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1")
    async with wire(api_server, folder=tmp_path) as (line, kubeconfig), running(await connect(kubeconfig), world):
        stable = await world.stable_on("v1")
        line.cut()
        # Seen by the watches, which try again and again.
        await until("the watches have noticed", lambda: refusals(line, more_than=10))
        await world.apply("v2")
        await world.delete_deployment(f"support-{stable['stable']['revision']}")
        line.mend()
        status = await world.stable_on("v2", within=60)
    assert condition(status, "Stalled")["status"] == "Absent"
    assert status["previous"]["promptVersion"] == "v1"
    await world.deployment(f"support-{stable['stable']['revision']}")


async def refusals(line: Wire, *, more_than: int) -> bool:
    return line.refused > more_than
