"""What a metrics source asks of who asks it: headers and TLS, kept in files that a cluster mounts from Secrets.

Files are read anew for each question, so that what is rotated is taken up. Messages name the Secret and its key, never what is in them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_HEADER_VALUE = re.compile(r"[!-~]([ -~\t]*[!-~])?")
LARGEST_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True)
class SecretFile:
    """One key of a Secret, as a file."""

    secret: str
    key: str
    path: Path

    def __str__(self) -> str:
        return f"key `{self.key}` of Secret `{self.secret}`"


@dataclass(frozen=True)
class Credentials:
    """`headers`: name, and where its whole value is. `authority`: who signed the server's certificate; None: those that `requests` knows.

    `certificate` and `key`: what the client shows; both or none.
    """

    headers: tuple[tuple[str, SecretFile], ...] = ()
    authority: SecretFile | None = None
    certificate: SecretFile | None = None
    key: SecretFile | None = None


class CredentialsError(Exception):
    """They cannot be used; the text is the end of a sentence that names no value."""


def read_headers(credentials: Credentials) -> dict[str, str]:
    """Headers with their values. Raises CredentialsError."""
    return {name: _header(name, file=file) for name, file in credentials.headers}


def tls_options(credentials: Credentials) -> dict[str, str | tuple[str, str]]:
    """`verify` and `cert` of a request, as `requests` takes them. Raises CredentialsError."""
    options: dict[str, str | tuple[str, str]] = {}
    if credentials.authority is not None:
        _read(credentials.authority, of="`tls.caRef`")
        options["verify"] = str(credentials.authority.path)
    if credentials.certificate is not None and credentials.key is not None:
        _read(credentials.certificate, of="`tls.certificateRef`")
        _read(credentials.key, of="`tls.keyRef`")
        options["cert"] = (str(credentials.certificate.path), str(credentials.key.path))
    return options


def _header(name: str, *, file: SecretFile) -> str:
    value = _read(file, of=f"header `{name}`").decode("ascii", errors="replace").strip()
    if _HEADER_VALUE.fullmatch(value) is None:
        raise CredentialsError(f"header `{name}` cannot be sent: {file} does not hold one line of printable ASCII")
    return value


def _read(file: SecretFile, *, of: str) -> bytes:
    try:
        with file.path.open("rb") as opened:
            return opened.read(LARGEST_SECRET_BYTES)
    except OSError:
        raise CredentialsError(f"{of} is missing: the operator cannot read {file} in its own namespace") from None
