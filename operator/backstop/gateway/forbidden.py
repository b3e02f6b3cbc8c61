"""Where nothing of a request may go, whatever a record says: addresses that hold credentials, and other jurisdictions. PURE."""

import ipaddress
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from ..api.record import RevisionRecord
from .revision import ConfigurationError

# Addresses that answer with a machine's credentials. A model never lives there.
FORBIDDEN_NETWORKS: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure
        "192.0.0.192/32",  # Oracle Cloud
        "fe80::/10",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    )
)
# What is sent here goes to the IPv4 address in the last 32 bits: compatible addresses (RFC 4291), and those of a NAT64 (RFC 6052).
_LAST_BITS: Final = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))
# A NAT64's own prefixes are in here, and their length says behind which bit the IPv4 address begins (RFC 8215). Bits 64 to 71 are left out.
_OWN_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_OWN_LENGTHS: Final = (48, 56, 64)
# The interface of an ISATAP address is this, but for one bit, and the IPv4 address (RFC 5214).
_ISATAP: Final = 0x5EFE
_ISATAP_BITS: Final = 0xFDFFFFFF
_ABROAD: Final = "`spec.{path}.jurisdiction` is not one of `spec.residency.allowedJurisdictions`; take the {what} out, or allow it"


def is_forbidden(address: str) -> bool:
    """Whether `address` (an IP address as text) is link-local or a cloud's metadata service."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    reached = [parsed, *_within(parsed)] if isinstance(parsed, ipaddress.IPv6Address) else [parsed]
    return any(each in network for each in reached for network in FORBIDDEN_NETWORKS)


def _within(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that what is sent to this one may go to."""
    yield from filter(None, (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())))
    bits = int(address)
    if any(address in network for network in (*_LAST_BITS, _OWN_NAT64)) or (bits >> 32) & _ISATAP_BITS == _ISATAP:
        yield ipaddress.IPv4Address(bits & 0xFFFFFFFF)
    if address in _OWN_NAT64:
        without = (bits >> 64 << 56) | (bits & ((1 << 56) - 1))  # 120 bits
        yield from (ipaddress.IPv4Address(without >> (120 - length - 32) & 0xFFFFFFFF) for length in _OWN_LENGTHS)


def refuse_forbidden(url: str, *, field: str, whose: str) -> None:
    """No `url` of a revision may be such an address. A name is none yet. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"{field} is not a URL; correct the host or the port") from None
    if not url.isascii():
        raise ConfigurationError(f"{field} holds characters that no URL does; write those of its path as `%` and two digits each")
    try:
        forbidden = is_forbidden(host)
    except ValueError:
        return  # a name: its addresses are checked when a connection is made
    if forbidden:
        raise ConfigurationError(f"{field} is a link-local or metadata address, which is never called; name {whose} own host")


def refuse_abroad(record: RevisionRecord) -> None:
    """Nothing of a request, or of its answer, may go elsewhere, whoever has written the record. Raises ConfigurationError."""
    if record.residency is None:
        return
    allowed = record.residency.allowedJurisdictions
    for position, tier in enumerate(record.chain):
        warm, webhook = tier.cache.warm if tier.cache else None, tier.human.webhook if tier.human else None
        for part, target in (("model", tier.model), ("cache.warm", warm), ("human.webhook", webhook)):
            if target is not None and target.jurisdiction not in allowed:
                raise ConfigurationError(_ABROAD.format(path=f"chain[{position}].{part}", what="target"))
    for position, scorer in enumerate(record.quality.scorers if record.quality else ()):
        if scorer.http is not None and scorer.http.jurisdiction not in allowed:
            raise ConfigurationError(_ABROAD.format(path=f"quality.scorers[{position}].http", what="scorer"))
