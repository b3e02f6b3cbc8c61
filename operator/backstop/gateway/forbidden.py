"""Where nothing of a request may go, whatever a record says: addresses that hold credentials, and other jurisdictions. PURE."""

import ipaddress
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
# An IPv4 address in its last 32 bits is where a NAT64 sends what is for it.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ABROAD: Final = "`spec.{path}.jurisdiction` is not one of `spec.residency.allowedJurisdictions`; take the {what} out, or allow it"


def is_forbidden(address: str) -> bool:
    """Whether `address` (an IP address as text) is link-local or a cloud's metadata service."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # A 6to4 address is sent to the IPv4 address in it.
        if (within := parsed.ipv4_mapped or parsed.sixtofour) is not None:
            parsed = within
        elif parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return any(parsed in network for network in FORBIDDEN_NETWORKS)


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
