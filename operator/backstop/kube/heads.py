"""What a watch of metadata tells: which object has changed, and to which version. What is in the object stays where it is.

For resources that anybody may have tens of thousands of, of which a few matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from .errors import Expired, KubeError, Unavailable

WATCHED_AS: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
LISTED_AS: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# More than any object that an API server takes.
LONGEST_EVENT: Final = 4 << 20
_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Head:
    """An object that was made, changed or deleted; without a name: no more than how far the watch has come. `version`: resourceVersion."""

    namespace: str
    name: str
    version: str


class _Metadata(msgspec.Struct):
    resourceVersion: str
    name: str = ""
    namespace: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Lines:
    """Cuts a stream into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in `chunk`. Raises Unavailable where one is longer than any object."""
        self._rest += chunk
        if b"\n" in chunk:
            *lines, rest = self._rest.split(b"\n")
            self._rest = rest
            yield from (bytes(line) for line in lines if line)
        if len(self._rest) > LONGEST_EVENT:
            raise Unavailable(f"an event of more than {LONGEST_EVENT >> 20} MiB")


def read_event(line: bytes, *, what: str) -> Head:
    """One event of a watch. Raises Expired or Unavailable for the error that ends it, and for what is no event."""
    try:
        event = msgspec.json.decode(line, type=_Event)
        if event.type == "ERROR":
            raise _ended(msgspec.json.decode(event.object, type=_Status), what=what)
        metadata = msgspec.json.decode(event.object, type=_Object).metadata
    except msgspec.DecodeError as error:
        raise Unavailable(f"{what}: what came is no event ({error})") from None
    if event.type == "BOOKMARK":
        return Head("", "", metadata.resourceVersion)
    return Head(metadata.namespace, metadata.name, metadata.resourceVersion)


def _ended(status: _Status, *, what: str) -> KubeError:
    message = f"{what}: ended with {status.code} {status.message[:200]}".rstrip()
    return Expired(message) if status.code == _GONE else Unavailable(message)
