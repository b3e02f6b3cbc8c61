"""The base of every API type: strict, frozen, and with cross-field rules that hold in the API server (CEL) and in Python alike.

A rule stands once, with both spellings side by side, so that a manifest which `kubectl apply` refuses is refused by
`backstop-gateway --manifests` too, with the same sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator


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
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self


class StatusModel(BaseModel):
    """A part of a status. Read leniently (a newer operator may have written more), written whole."""

    model_config = ConfigDict(extra="ignore", frozen=True)
