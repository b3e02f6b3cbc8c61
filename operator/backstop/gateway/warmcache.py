"""The warm level's store: a Redis or Valkey, shared by the gateways of a policy. An adapter over redis-py.

One connection reads and one writes. What comes back is not trusted: at most as much as an answer may have is asked for, and what is no
answer to the question closes the connection. So does a refusal: behind an address that stays, a server may have changed places with its
replica, which goes on to answer on the connections that it has, and takes nothing to keep. No error's own text goes on, for it may hold
what the server was told.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError  # fmt: skip
from redis.exceptions import ConnectionError as NotConnectedError

from .dial import Dial
from .lowerlevel import STORE_SECONDS, StoreError
from .redisaddress import RedisAddress
from .storedentry import LONGEST_ENTRY
from .trust import trust_of

Answer = TypeVar("Answer")
_CONNECTIONS: Final = 2


class _DialedConnection(Connection):
    """On a socket of ours: the library looks names up in threads that everybody shares, where one that hangs holds up the others."""

    def __init__(self, *, dial: Dial, **options: Any) -> None:
        super().__init__(**options)
        self._dial = dial

    async def _connect(self) -> None:
        async with asyncio.timeout(STORE_SECONDS):
            self._socket = await self._dial(self.host, port=self.port)
        try:
            await super()._connect()  # type: ignore[no-untyped-call]  # the library has no types here
        except BaseException:
            self._socket.close()
            raise

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments(), sock=self._socket)
        host, _ = arguments.pop("host"), arguments.pop("port")
        return arguments | ({"server_hostname": host} if "ssl" in arguments else {})


class _SecuredConnection(_DialedConnection, SSLConnection):
    """Over TLS, by `trust`: what the library makes of a CA bundle trusts the system's authorities as well, and is made for each anew."""

    def __init__(self, *, trust: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = trust


class RedisStore:
    """Entries under `<prefix><key in hexadecimal digits>`."""

    def __init__(self, address: RedisAddress, *, prefix: str, dial: Dial) -> None:
        self._prefix = prefix
        options: dict[str, Any] = {
            "dial": dial,
            "host": address.host,
            "port": address.port,
            "db": address.database,
            "username": address.username,
            "password": address.password,
            "protocol": 2,  # every server and proxy speaks it, and nothing here needs more
            "socket_timeout": None,  # the owner has the deadline
            "socket_connect_timeout": STORE_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "client_name": "backstop-gateway",
        }
        if address.tls:
            options["trust"] = trust_of(address.authorities)
        kind = _SecuredConnection if address.tls else _DialedConnection
        pool = ConnectionPool(connection_class=kind, max_connections=_CONNECTIONS, **options)
        self._pool = pool
        self._redis: Any = Redis(connection_pool=pool)

    async def open(self) -> None:
        """As of `Store`."""
        await self._ask(self._redis.ping())

    async def read(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """As of `Store`."""
        asked = self._redis.pipeline(transaction=False)
        for key in keys:
            asked.getrange(self._name(key), 0, LONGEST_ENTRY)
        answers = await self._ask(asked.execute(raise_on_error=False))
        try:
            return [self._value(answer) for answer in answers]
        except StoreError:
            await self._dial_again()
            raise

    async def write(self, key: bytes, *, value: bytes, seconds: float) -> None:
        """As of `Store`."""
        await self._ask(self._redis.set(self._name(key), value, px=max(1, int(seconds * 1000))))

    async def add(self, name: str, *, amount: int, seconds: float) -> int:
        """Add to a counter under `<prefix><name>`, which no key of an entry is; it is forgotten after so many seconds. What it comes to."""
        asked = self._redis.pipeline(transaction=True)
        asked.incrby(self._prefix + name, amount)
        asked.pexpire(self._prefix + name, int(seconds * 1000))
        total, _ = await self._ask(asked.execute())
        if not isinstance(total, int):
            raise StoreError("it does not speak Redis")
        return total

    async def close(self) -> None:
        """As of `Store`."""
        await self._pool.disconnect()

    def _name(self, key: bytes) -> str:
        return self._prefix + key.hex()

    def _value(self, answer: object) -> bytes | None:
        match answer:
            case bytes():
                return answer or None  # of what is not there, the range is empty
            case ResponseError() if str(answer).startswith("WRONGTYPE"):
                return None  # somebody else's
            case ResponseError():
                raise StoreError(_refusal(answer))
            case _:
                raise StoreError("it does not speak Redis")

    async def _ask(self, answer: Awaitable[Answer]) -> Answer:
        try:
            return await answer
        except (AuthenticationError, ResponseError) as error:
            await self._dial_again()
            raise StoreError(_refusal(error)) from None
        except NotConnectedError:
            raise StoreError("it cannot be reached") from None
        except OSError:
            raise StoreError("it cannot be used") from None
        except Exception:  # noqa: BLE001 - its parser stumbles over garbage in any way
            await self._dial_again()
            raise StoreError("it does not speak Redis") from None

    async def _dial_again(self) -> None:
        """The next question goes over a new connection. The one that another question waits on is not of this."""
        await self._pool.disconnect(inuse_connections=False)


def _refusal(error: RedisError) -> str:
    """The word that an error of Redis begins with, such as `OOM` or `NOAUTH`: what comes after it may be anything."""
    word = str(error).split(" ", 1)[0]
    return f"it refuses with `{word}`" if word.isascii() and word.isalpha() and word.isupper() and len(word) <= 20 else "it refuses"
