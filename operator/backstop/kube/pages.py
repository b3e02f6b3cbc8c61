"""A page of a list, read only as far as is asked for: which objects there are in which version; whole ones one by one.

A sweep over a large cluster finds nearly everything as it knew it; reading that whole would be most of what an operator in rest does.
"""

from dataclasses import dataclass

import msgspec

from .errors import Unavailable
from .resources import Body


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of a list. `namespace`: empty for what has none."""

    namespace: str
    name: str
    version: str
    _raw: msgspec.Raw

    def body(self) -> Body:
        """The whole object; without its `kind`, as the API gives it."""
        found: Body = msgspec.json.decode(self._raw)
        return found


@dataclass(frozen=True)
class Page:
    """Some objects of a list. `version`: the resourceVersion that the list was read at; `following`: the token of the next page, if any."""

    items: list[Listed]
    version: str
    following: str


class _Metadata(msgspec.Struct):
    name: str
    resourceVersion: str
    namespace: str = ""


class _Head(msgspec.Struct):
    metadata: _Metadata


class _ListMetadata(msgspec.Struct, rename={"following": "continue"}):
    resourceVersion: str
    following: str = ""


class _Page(msgspec.Struct):
    items: list[msgspec.Raw] | None  # Go writes an empty list as null
    metadata: _ListMetadata


def read_page(text: bytes, *, what: str) -> Page:
    """The answer to a list request. Raises Unavailable where it is none."""
    try:
        page = msgspec.json.decode(text, type=_Page)
        items = [_listed(raw) for raw in page.items or ()]
    except msgspec.DecodeError as error:
        raise Unavailable(f"{what}: the answer is no list of objects ({error})") from None
    return Page(items, page.metadata.resourceVersion, page.metadata.following)


def _listed(raw: msgspec.Raw) -> Listed:
    metadata = msgspec.json.decode(raw, type=_Head).metadata
    return Listed(metadata.namespace, metadata.name, metadata.resourceVersion, raw)
