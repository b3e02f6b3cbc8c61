"""The base of every API type: strict, frozen, and with cross-field rules that hold in the API server (CEL) and in Python alike.

A rule stands once, with both spellings side by side, so that a manifest which `kubectl apply` refuses is refused by
`backstop-gateway --manifests` too, with the same sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

# White space, inside of a class in a pattern: the same to pydantic and to the API server, where `\s` is a part of ASCII's only.
SPACE: Final = r"\s\v\x{85}\p{Z}"


@dataclass(frozen=True)
class Rule:
    """One cross-field rule: `cel` for the API server, `holds` for Python (given the parsed model), `message` for the author."""

    cel: str
    message: str
    holds: Callable[[Any], bool]


class ApiModel(BaseModel):
    """A part of an API object. Unknown fields are errors; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _list_map_keys_are_unique(self) -> Self:
        for name, field in type(self).model_fields.items():
            for key in _list_map_keys(field):
                values = [getattr(element, key) for element in getattr(self, name)]
                for twice in (value for position, value in enumerate(values) if value in values[:position]):
                    raise ValueError(f"`{name}`: `{key}` must be unique; `{twice}` is given twice")
        return self

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self


def _list_map_keys(field: FieldInfo) -> list[str]:
    """Keys that are unique among the elements of a list, declared as the API server wants it declared."""
    extra = field.json_schema_extra
    keys = extra.get("x-kubernetes-list-map-keys") if isinstance(extra, dict) else None
    return [str(key) for key in keys] if isinstance(keys, list) else []


class StatusModel(BaseModel):
    """A part of a status. Read leniently (a newer operator may have written more), written whole."""

    model_config = ConfigDict(extra="ignore", frozen=True)
