"""The API server's OpenAPI document of one group and version, of which no more is read than which fields each kind has.

It is what every authenticated user may read, whereas a CustomResourceDefinition is of the whole cluster.
"""

from collections.abc import Mapping

import msgspec

from ..crdgen.served import Served
from .errors import Unavailable


class _GroupVersionKind(msgspec.Struct, frozen=True):
    group: str
    version: str
    kind: str


class _Schema(Served, frozen=True):
    of: tuple[_GroupVersionKind, ...] = msgspec.field(default=(), name="x-kubernetes-group-version-kind")


class _Components(msgspec.Struct):
    schemas: dict[str, _Schema] = msgspec.field(default_factory=dict)


class _Document(msgspec.Struct):
    components: _Components


def openapi_path(group: str, version: str) -> str:
    """Where the document is."""
    return f"/openapi/v3/apis/{group}/{version}"


def read_kinds(text: bytes, *, group: str, version: str, what: str) -> Mapping[str, Served]:
    """By kind, the schemas of this group and version. Raises Unavailable where the text is no such document."""
    try:
        schemas = msgspec.json.decode(text, type=_Document).components.schemas
    except msgspec.DecodeError as error:
        raise Unavailable(f"{what}: the answer is no OpenAPI document ({error})") from None
    # Beside these it describes what kinds have in common, such as the metadata, and lists of them.
    return {of.kind: schema for schema in schemas.values() for of in schema.of if (of.group, of.version) == (group, version)}
