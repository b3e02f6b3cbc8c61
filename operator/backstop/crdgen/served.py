"""Which fields of this program's models an API server does not keep, because the definitions in it are of an older version.

Knows the models and the shape of a schema. Asks nobody, and compares no bounds: what a definition refuses is said by its refusal, while
a field that it does not know is dropped without a word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec
from pydantic import BaseModel

from .kinds import KINDS

MOST_NAMED: Final = 3
# Where a schema or a value is, from the root: names of fields, and these for what a list and a map hold.
Path = tuple[str, ...]
OF_LIST: Final = "[]"
OF_MAP: Final = "{}"


class Served(msgspec.Struct, frozen=True):
    """One schema of an API server's OpenAPI document, as far as it says which fields there are."""

    properties: dict[str, "Served"] = msgspec.field(default_factory=dict)
    items: "Served | None" = None
    additionalProperties: "Served | bool | None" = None
    default: Any = msgspec.UNSET
    keeps_unknown: bool = msgspec.field(default=False, name="x-kubernetes-preserve-unknown-fields")


@dataclass(frozen=True)
class Lack:
    """What is not kept of one kind. `fields`: paths such as `status.canary.steps[].weight`; none where the whole kind is not served."""

    kind: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        if not self.fields:
            return f"{self.kind} is not served"
        named, more = self.fields[:MOST_NAMED], len(self.fields) - MOST_NAMED
        return f"{self.kind} lacks {', '.join(f'`{field}`' for field in named)}" + (f" and {more} more" if more > 0 else "")


def lacks(served: Mapping[str, Served]) -> tuple[Lack, ...]:
    """What the served schemas, by kind, do not keep of what the models have. A field that they have besides is no matter."""
    return tuple(
        lack for kind in KINDS for lack in _lack(kind.kind, served=served.get(kind.kind), parts={"spec": kind.spec, "status": kind.status})
    )


def sentence(found: Sequence[Lack]) -> str:
    """What is lacking, and what to do about it."""
    return (
        f"the CustomResourceDefinitions in the cluster are older than this operator: {'; '.join(map(str, found))};"
        " apply those of its version, and it goes on by itself"
    )


def element_of(served: Served, *, path: Path) -> tuple[Served, Path]:
    """What a list or a map holds in the end; what is neither, itself."""
    if served.items is not None:
        return element_of(served.items, path=(*path, OF_LIST))
    if isinstance(served.additionalProperties, Served):
        return element_of(served.additionalProperties, path=(*path, OF_MAP))
    return served, path


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a field's type, as in `list[Step] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def _lack(kind: str, *, served: Served | None, parts: Mapping[str, type[BaseModel]]) -> Iterator[Lack]:
    if served is None:
        yield Lack(kind, ())
        return
    missing = (
        path for name, model in parts.items() for path in _missing(model, served=served.properties.get(name, Served()), path=(name,))
    )
    if fields := tuple(_spelled(path) for path in missing):
        yield Lack(kind, fields)


def _missing(model: type[BaseModel], *, served: Served, path: Path) -> Iterator[Path]:
    if served.keeps_unknown:
        return
    for name, field in model.model_fields.items():
        inner = served.properties.get(name)
        if inner is None:
            yield (*path, name)
            continue
        element, where = element_of(inner, path=(*path, name))
        for part in models_in(field.annotation):
            yield from _missing(part, served=element, path=where)


def _spelled(path: Path) -> str:
    return "".join(part if part in (OF_LIST, OF_MAP) else f".{part}" for part in path).removeprefix(".")
