"""Fields of a spec that the API server fills in by itself and this program does not know: its definitions are newer than the program.

Their author has not written them, and what is not written is as it was before there was such a field. So a spec is read without them. A
field that this program does not know and that has another value than its default is the author's wish, and stays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel

from .kinds import KINDS
from .served import OF_LIST, OF_MAP, Path, Served, element_of, models_in


@dataclass(frozen=True)
class Filled:
    """One such field: where it is in `spec`, and what the API server writes there."""

    path: Path
    value: Any


def filled_in(served: Mapping[str, Served]) -> Mapping[str, tuple[Filled, ...]]:
    """By kind, what the served schemas fill in that the models do not have; no kind of which there is nothing."""
    found = {
        kind.kind: tuple(_filled(kind.spec, served=served[kind.kind].properties.get("spec", Served()), path=()))
        for kind in KINDS
        if kind.kind in served
    }
    return {kind: fields for kind, fields in found.items() if fields}


def without(spec: Mapping[str, Any], filled: Iterable[Filled]) -> Mapping[str, Any]:
    """The spec as its author wrote it."""
    for one in filled:
        spec = _without(spec, path=one.path, value=one.value)
    return spec


def _filled(model: type[BaseModel], *, served: Served, path: Path) -> Iterator[Filled]:
    for name, inner in served.properties.items():
        field = model.model_fields.get(name)
        if field is None:
            if inner.default is not msgspec.UNSET:
                yield Filled((*path, name), _whole(inner.default, served=inner))
            continue
        element, where = element_of(inner, path=(*path, name))
        for part in models_in(field.annotation):
            yield from _filled(part, served=element, path=where)


def _whole(value: Any, *, served: Served) -> Any:
    """A default with the defaults inside of it, as the API server goes on to fill in what it has filled in."""
    if isinstance(value, list) and served.items is not None:
        return [_whole(inner, served=served.items) for inner in value]
    if not isinstance(value, dict):
        return value
    missing = {name: inner.default for name, inner in served.properties.items() if inner.default is not msgspec.UNSET}
    rest = served.additionalProperties if isinstance(served.additionalProperties, Served) else Served()
    return {name: _whole(inner, served=served.properties.get(name, rest)) for name, inner in (missing | value).items()}


def _without(part: Any, *, path: Sequence[str], value: Any) -> Any:
    here, *rest = path
    if here == OF_LIST:
        return [_without(inner, path=rest, value=value) for inner in part] if isinstance(part, list) else part
    if not isinstance(part, dict):
        return part
    if here == OF_MAP:
        return {name: _without(inner, path=rest, value=value) for name, inner in part.items()}
    if here not in part:
        return part
    if rest:
        return part | {here: _without(part[here], path=rest, value=value)}
    return {name: inner for name, inner in part.items() if name != here} if part[here] == value else part
