"""CA bundles: the certificates of the authorities that a server's own is checked against. PURE.

Knows what a bundle may hold, whether each certificate can be read, and how strictly it is taken; neither who is to be trusted nor until
when.
"""

import ssl
from typing import Final

# As many as browsers trust take less than half.
MOST_BYTES: Final = 512 << 10
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_PRIVATE_KEY: Final = "PRIVATE KEY-----"


class AuthoritiesError(ValueError):
    """It is no CA bundle; the text is one sentence for its author, without a full stop, and repeats nothing of the bundle."""


def taken_as_declared(trust: ssl.SSLContext) -> ssl.SSLContext:
    """The context, in which authorities that somebody has declared are taken as by any other client.

    Also in the middle of a chain, and whatever this Python thinks of how they were made: since 3.13 it refuses many a company's authority,
    and that of many a cluster, for an extension that they lack. Chains, names and dates are checked as ever.
    """
    trust.verify_flags = (trust.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return trust


def read_authorities(text: str) -> str:
    """The certificates of a bundle, as PEM, without what stands between them. Raises AuthoritiesError."""
    if not text.strip():
        raise AuthoritiesError("it is empty; give the certificates of the authorities as PEM")
    if (size := len(text.encode())) > MOST_BYTES:
        raise AuthoritiesError(
            f"it takes {-(-size // 1024)} KiB, and may take {MOST_BYTES // 1024}; leave out authorities that the server does not need"
        )
    if _PRIVATE_KEY in text:
        raise AuthoritiesError("it holds a private key, which many can read here; take it out, and use another key in its place")
    blocks = [_BEGIN + block for block in text.split(_BEGIN)[1:]]
    if not blocks:
        raise AuthoritiesError(f"it holds no certificate; give those of the authorities as PEM, each of which begins with `{_BEGIN}`")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificates = []
    for number, block in enumerate(blocks, start=1):
        body, end, _ = block.partition(_END)
        certificate = f"{body}{end}\n"
        try:
            trust.load_verify_locations(cadata=certificate.encode("ascii").decode())
        except (ssl.SSLError, UnicodeEncodeError):
            raise AuthoritiesError(f"certificate {number} of {len(blocks)} in it cannot be read; copy the whole of it again") from None
        certificates.append(certificate)
    return "".join(certificates)
