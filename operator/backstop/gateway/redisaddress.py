"""The address of a Redis, as its Secret spells it. PURE. A refusal never repeats the text: it may hold a password."""

import ipaddress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

DEFAULT_PORT: Final = 6379
_FORM: Final = "`redis://[user:password@]host[:port][/database]`, or `rediss://…` for TLS"


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is, and how it is spoken to. `authorities`: PEM of those that TLS trusts; None: the system's."""

    host: str
    port: int
    database: int
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    authorities: str | None = field(default=None, repr=False)


def read_redis_address(text: str, *, authorities: str | None) -> RedisAddress:
    """Read it. Raises ValueError, whose text says what is wrong and nothing of what the text holds."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"the address is not {_FORM}") from None
    database = parts.path.strip("/") or "0"
    known = parts.scheme in ("redis", "rediss") and not parts.query and not parts.fragment
    if not (known and host and database.isascii() and database.isdigit() and len(database) <= 5):
        raise ValueError(f"the address is not {_FORM}")
    if authorities is not None and parts.scheme == "redis":
        raise ValueError("a CA bundle is for TLS, and the address begins with `redis://`; begin it with `rediss://`")
    return RedisAddress(
        host=host,
        port=DEFAULT_PORT if port is None else port,
        database=int(database),
        tls=parts.scheme == "rediss",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        authorities=authorities,
    )


def literal_address(host: str) -> str | None:
    """`host`, where it is an IP address and not a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return host
