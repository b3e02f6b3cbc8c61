"""Carries TCP connections from a listening socket that was opened in another network namespace to a local port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

CHUNK = 65536


async def copy(source: asyncio.StreamReader, *, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):  # a peer that went away ends the copy as an orderly close does
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()
    sink.close()


async def serve(listener: socket.socket, *, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:  # nobody listens yet: the caller sees a closed connection and asks again
            writer.close()
            return
        await asyncio.gather(copy(reader, sink=there_writer), copy(there_reader, sink=writer))

    server = await asyncio.start_server(carry, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), port=int(sys.argv[2])))
