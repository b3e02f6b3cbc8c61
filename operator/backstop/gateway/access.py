"""Who a request is from, and with whom it shares kept answers. PURE: knows keys and headers' values, and where neither comes from.

Keys are held as hashes under a secret of this process: what a comparison takes tells nothing about them.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .errors import CallerError

# Shorter ones can be guessed.
SHORTEST_KEY: Final = 16
_SCHEME: Final = "bearer "


class KeysError(ValueError):
    """The callers' keys cannot be used; the text is one sentence that holds none of them."""


class CallerKeys:
    """Callers by their keys."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """`texts`: by caller, its keys, one a line. Raises KeysError."""
        self._salt = secrets.token_bytes(32)
        self._callers: dict[bytes, str] = {}
        for caller, text in sorted(texts.items()):
            for key in filter(None, map(str.strip, text.splitlines())):
                if len(key) < SHORTEST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
                    raise KeysError(
                        f"a key of caller `{caller}` has fewer than {SHORTEST_KEY} characters, or some that no header carries; make another"
                    )
                if self._callers.setdefault(self._hash(key), caller) != caller:
                    raise KeysError(f"callers `{self._callers[self._hash(key)]}` and `{caller}` have the same key; make another for one")
        if not self._callers:
            raise KeysError("there is no key of any caller; add one")

    def caller(self, key: str) -> str | None:
        """Whose key it is."""
        return self._callers.get(self._hash(key))

    def _hash(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), key=self._salt, digest_size=32).digest()


@dataclass
class Access:
    """Who may call. `keys`: None where everybody may. `tenant_header`: in small letters; None where there are no tenants."""

    keys: CallerKeys | None
    tenant_header: str | None

    def partition(self, *, authorization: str, tenant: str | None) -> bytes | None:
        """With whom a request shares kept answers; None: with nobody. Raises CallerError (401) where it may not be made."""
        caller = self._caller(authorization) if self.keys is not None else ""
        if self.tenant_header is not None and not tenant:
            return None
        named = tenant if self.tenant_header is not None and tenant is not None else ""
        return f"{len(caller)}:{caller}{named}".encode()

    def _caller(self, authorization: str) -> str:
        assert self.keys is not None
        has_scheme = authorization[: len(_SCHEME)].lower() == _SCHEME
        caller = self.keys.caller(authorization[len(_SCHEME) :].strip()) if has_scheme else None
        if caller is None:
            said = "is not known" if has_scheme else "is missing"
            raise CallerError(f"the caller's key {said}; send `Authorization: Bearer KEY`", status=401, code="invalid_api_key")
        return caller
