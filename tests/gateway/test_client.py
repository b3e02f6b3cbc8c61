"""Connections that are made, kept, and given up: the client against real sockets."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backstop.gateway.client import BrokenError, Client, ConnectTimeoutError, Place, UnreachableError
from backstop.gateway.gateway import guarded_socket
from tests.certificates import make_certificate

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = b"{}"


class Server:
    """Answers each request with the next of `answers`; an empty one is the end of the connection, None is silence."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.closed = asyncio.Event()  # a connection, by the other side
        self.hang_up = asyncio.Event()  # said to the server: close what is open
        self._sockets: list[int] = []

    def end(self) -> None:
        """End all connections, with no turn of the event loop: the other side's system knows it, and its loop does not."""
        for number in self._sockets:
            with socket.socket(fileno=os.dup(number)) as same:
                same.shutdown(socket.SHUT_WR)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        self._sockets.append(writer.get_extra_info("socket").fileno())
        hanging = asyncio.create_task(self._hang_up(writer))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.requests.append(await reader.readuntil(BODY))
                answer = self.answers.pop(0)
                if answer == b"":
                    break
                if answer is not None:
                    writer.write(answer)
        hanging.cancel()
        writer.close()
        self.open -= 1
        self.closed.set()

    async def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        await self.hang_up.wait()
        self.hang_up.clear()
        writer.close()


@contextlib.asynccontextmanager
async def serving(*answers: bytes | None) -> AsyncIterator[tuple[Server, Place]]:
    """A server and where it is."""
    server = Server(*answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        yield server, Place.of(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/x?y=1")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client."""
    client = Client(idle_seconds=60)
    yield client
    client.close()


async def post(client: Client, place: Place, *, connect: float = 5.0) -> bytes:
    """One request; the whole answer."""
    async with asyncio.timeout(5):
        answer = await client.post(place, head=place.head({"A": "b"}), body=BODY, connect=connect)
        try:
            whole = b""
            while piece := await answer.read():
                whole += piece
            return whole
        finally:
            answer.release()


async def test_a_request_is_spelled_as_it_should_be_and_its_connection_is_used_again(client: Client) -> None:
    async with serving(OK, OK) as (server, place):
        assert [await post(client, place) for _ in range(2)] == [b"ok", b"ok"]
        host = place.authority.encode()
        assert server.requests == [b"POST /v1/x?y=1 HTTP/1.1\r\nHost: %s\r\nA: b\r\nContent-Length: 2\r\n\r\n{}" % host] * 2
        assert server.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(client: Client) -> None:
    async with serving(OK, OK) as (server, place):
        await asyncio.gather(post(client, place), post(client, place))
        assert server.connections == 2


async def test_a_connection_that_was_closed_between_two_requests_costs_none(client: Client) -> None:
    async with serving(OK, OK) as (server, place):
        await post(client, place)
        server.hang_up.set()
        await server.closed.wait()
        await asyncio.sleep(0)  # our side hears of it in the same turn of the loop, or the next
        assert await post(client, place) == b"ok"
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_connection_whose_end_the_loop_has_not_read_yet_is_not_used(client: Client) -> None:
    async with serving(OK, OK) as (server, place):
        await post(client, place)
        server.end()
        assert await post(client, place) == b"ok"
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_request_whose_connection_ends_without_an_answer_is_not_sent_again(client: Client) -> None:
    async with serving(OK, b"", OK) as (server, place):
        await post(client, place)
        with pytest.raises(BrokenError):
            await post(client, place)
        assert len(server.requests) == 2, "it may have been answered, or have cost something"


async def test_a_connection_that_was_not_used_for_long_is_closed() -> None:
    client = Client(idle_seconds=0.05)
    async with serving(OK) as (server, place), asyncio.timeout(5):
        await post(client, place)
        await server.closed.wait()
    client.close()


async def test_a_request_that_is_given_up_closes_its_connection_at_once(client: Client) -> None:
    async with serving(None) as (server, place), asyncio.timeout(5):
        asking = asyncio.create_task(post(client, place))
        while not server.requests:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        asking.cancel()
        await server.closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_nobody_there_and_no_name_are_unreachable(client: Client) -> None:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        with pytest.raises(UnreachableError):
            await post(client, Place.of(f"http://127.0.0.1:{there.getsockname()[1]}/"))
    with pytest.raises(UnreachableError):
        await post(client, Place.of("http://no-such-name.invalid/"))


async def test_an_address_that_may_not_be_called_is_unreachable() -> None:
    client = Client(idle_seconds=60, socket_factory=guarded_socket)
    with pytest.raises(UnreachableError):
        await post(client, Place.of("http://169.254.169.254/latest/meta-data"))
    client.close()


async def test_a_server_that_does_not_speak_tls_is_late_or_unreachable(client: Client) -> None:
    async with serving(None) as (_, place):
        with pytest.raises(ConnectTimeoutError):
            await post(client, Place(place.host, place.port, "/", tls=True), connect=0.1)


async def test_tls_is_spoken_with_those_whose_certificate_somebody_vouches_for(client: Client, tmp_path: Path) -> None:
    make_certificate(tmp_path, names=["server", "ca.crt"])
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "server", tmp_path / "server.key")
    server = Server(OK, OK, OK)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=own)
    async with listening:
        place = Place("127.0.0.1", listening.sockets[0].getsockname()[1], "/", tls=True)
        with pytest.raises(UnreachableError):
            await post(client, place)
        assert server.requests == []
        trusting = Client(idle_seconds=60, trust=ssl.create_default_context(cafile=str(tmp_path / "ca.crt")))
        assert [await post(trusting, place) for _ in range(2)] == [b"ok", b"ok"]
        server.end()
        assert await post(trusting, place) == b"ok"
        assert (server.connections, len(server.requests)) == (2, 3)
        trusting.close()


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://model:80/v1", "model", "/v1"),
        ("https://model/", "model", "/"),
        ("https://model:8443", "model:8443", "/"),
        ("http://[::1]:8080/v1?a=b", "[::1]:8080", "/v1?a=b"),
        ("http://model/a b/%20/ü HTTP/1.1", "model", "/a%20b/%20/%C3%BC%20HTTP/1.1"),
    ],
)
def test_a_place_is_called_by_its_name(url: str, authority: str, target: str) -> None:
    place = Place.of(url)
    assert (place.authority, place.target) == (authority, target)


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\0"])
def test_no_header_of_a_request_begins_another_one(value: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        Place.of("http://model").head({"A": value})
