"""An answer as it lies outside of the process: one spelling, versioned, bounded, and bound to its key. PURE.

Whatever else is found under a key (another format, a part of an entry, an entry of another key) is not an entry: a miss.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from .hotcache import LONGEST_ANSWER

# What reads an older or newer format misses; so does a gateway that is older than the one that wrote.
FORMAT: Final = 1
_HEAD: Final = struct.Struct(">B?dd")  # format, whether usage is known, kept at, fresh until
_SEAL_BYTES: Final = 16
LONGEST_ENTRY: Final = _HEAD.size + _SEAL_BYTES + LONGEST_ANSWER
# Clocks of pods differ by less than this. What was kept later than now is of a clock that is wrong.
_SKEW_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Entry:
    """An answer. Times are of the wall clock, in seconds; until `fresh_until` it is given without a model being asked."""

    body: bytes
    has_usage: bool
    kept_at: float
    fresh_until: float


def encode(entry: Entry, *, key: bytes) -> bytes:
    """The bytes to keep under `key`."""
    text = _HEAD.pack(FORMAT, entry.has_usage, entry.kept_at, entry.fresh_until) + entry.body
    return _seal(text, key=key) + text


def decode(raw: bytes, *, key: bytes, now: float) -> Entry | None:
    """The entry that was kept under `key`; None where `raw` is none."""
    if not _HEAD.size + _SEAL_BYTES < len(raw) <= LONGEST_ENTRY or raw[_SEAL_BYTES] != FORMAT:
        return None
    text = raw[_SEAL_BYTES:]
    if _seal(text, key=key) != raw[:_SEAL_BYTES]:
        return None
    _, has_usage, kept_at, fresh_until = _HEAD.unpack_from(text)
    if kept_at > now + _SKEW_SECONDS:
        return None
    return Entry(text[_HEAD.size :], has_usage, min(kept_at, now), fresh_until)


def _seal(text: bytes, *, key: bytes) -> bytes:
    """Not against forgery (who may write into the store may write anything) but against what is damaged or of another key."""
    return hashlib.blake2b(text, key=key, digest_size=_SEAL_BYTES).digest()
