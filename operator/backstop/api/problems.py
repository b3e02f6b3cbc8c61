"""One clear sentence for input that a model refuses: where, what is wrong, what to do.

Knows how pydantic reports errors and how this API names its fields; never shows a value, which may be a secret.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

_WANTED: Final = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
# Texts that would be right if they were not texts.
_SPELLINGS: Final = {"int_type": r"[-+]?[0-9]+", "float_type": r"[-+]?[0-9]+(\.[0-9]+)?", "bool_type": "true|false"}


class InputError(ValueError):
    """Input that a model refuses; the text is one sentence for its author."""


class UnknownFieldError(InputError):
    """A field that the model does not have. `path`: where it is, as `spec.canary.novelty`."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


def parse_strictly(model: type[Model], value: object, *, prefix: str) -> Model:
    """`value` (as JSON or YAML gives it) as a `model`, as the API server takes it: `"5"` is no number, a field that is null is not set.

    `prefix` is where `value` stands, such as `spec`; empty: it is the whole document. Raises InputError.
    """
    try:
        text = json.dumps(value)
    except TypeError:
        path = field_path(_foreign(value) or (), prefix=prefix)
        raise InputError(f"`{path}` is of a type that JSON does not have, such as a bare date; put it in quotes") from None
    except ValueError:
        raise InputError(f"{f'`{prefix}`' if prefix else 'the document'} holds itself, by a YAML alias; write it out") from None
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        if (unknown := _unknown(error)) is not None:  # to the API server too, whether it is null or not
            raise UnknownFieldError(_sentence(unknown, prefix=prefix), path=field_path(unknown["loc"], prefix=prefix)) from None
    try:
        return model.model_validate_json(json.dumps(_without_nulls(value)), strict=True)
    except ValidationError as error:
        raise InputError(first_problem(error, prefix=prefix)) from None


def _foreign(value: object) -> tuple[int | str, ...] | None:
    """Where the first value or key is that JSON has no type for; None: nowhere in `value`."""
    match value:
        case None | bool() | int() | float() | str():
            return None
        case dict() | list():
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                here = key if isinstance(key, int) and isinstance(value, list) else str(key)
                found = () if _foreign(key) is not None else _foreign(inner)
                if found is not None:
                    return (here, *found)
            return None
        case _:
            return ()


def first_problem(error: ValidationError, *, prefix: str) -> str:
    """One sentence (no full stop) for the first thing that is wrong; `prefix` is where the model stands, such as `spec`.

    An unknown field comes first: a misspelt name also shows up as a missing field, and the spelling is what to correct.
    """
    return _sentence(_unknown(error) or error.errors(include_url=False)[0], prefix=prefix)


def _unknown(error: ValidationError) -> ErrorDetails | None:
    return next((p for p in error.errors(include_url=False) if p["type"] == "extra_forbidden"), None)


def _without_nulls(value: object) -> object:
    """Without the members of objects that are null; the elements of lists stay, as they do in the API server."""
    match value:
        case dict():
            return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
        case _:
            return value


def _sentence(problem: ErrorDetails, *, prefix: str) -> str:
    path = field_path(problem["loc"], prefix=prefix)
    context: Mapping[str, Any] = problem.get("ctx", {})
    match problem["type"]:
        case "value_error":
            # A rule of the API: its message names the field; an index in the path says which element.
            message = str(context["error"])
            return f"{message} (at `{path}`)" if "[" in path else message
        case "extra_forbidden":
            return f"`{path}` is not a known field; take it out or correct its name"
        case "missing":
            return f"`{path}` is missing; set it"
        case "string_pattern_mismatch":
            return f"`{path}` does not match `{context['pattern']}`; correct the value"
        case "enum" | "literal_error":
            return f"`{path}` must be {context['expected']}"
        case kind if kind in _WANTED:
            return f"`{path}` must be {_WANTED[kind]}, not {_kind_of(problem['input'])}{_hint(kind, given=problem['input'])}"
        case _:
            return f"`{path}` {_bound(problem['type'], context=context) or 'is not valid: ' + _lower_first(problem['msg'])}"


def field_path(location: tuple[int | str, ...], *, prefix: str) -> str:
    """`("steps", 0, "weight")` under `spec.canary` → `spec.canary.steps[0].weight`."""
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _bound(kind: str, *, context: Mapping[str, Any]) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "string_too_short":
            return "must not be empty" if context["min_length"] == 1 else f"must have at least {context['min_length']} characters"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "too_short":
            return f"must have at least {_counted(context['min_length'], noun='element')}"
        case "too_long":
            return f"must have at most {_counted(context['max_length'], noun='element')}"
        case _:
            return None


def _counted(count: int, *, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "`null`"
        case bool():
            return "`true` or `false`"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _hint(kind: str, *, given: object) -> str:
    if kind == "string_type" and isinstance(given, int | float):
        return "; put it in quotes"
    if not isinstance(given, str) or kind not in _SPELLINGS:
        return ""
    if re.fullmatch(_SPELLINGS[kind], given):
        return "; write it without quotes"
    return "" if kind == "bool_type" else "; write digits alone, without a unit"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
