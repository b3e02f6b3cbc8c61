"""JSON Schemas that answers are held against: what may be one, and that none makes much work. PURE.

A schema stands for itself: nothing is fetched. What is accepted costs a bounded time per answer: regular expressions are matched in linear
time, without look-around and back-references, and a schema that refers to itself from many places counts as often as it does. The library
that knows JSON Schema is imported by those who have one.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

LONGEST_SCHEMA: Final = 32_768  # characters
MOST_DEPTH: Final = 64
# Subschemas, those that are referred to counted each time: each is looked at for every part of an answer at most.
MOST_WORK: Final = 500
MOST_PATTERNS: Final = 32
LATEST: Final = "https://json-schema.org/draft/2020-12/schema"
DIALECTS: Final = ("http://json-schema.org/draft-07/schema", "https://json-schema.org/draft/2019-09/schema", LATEST)
# Of one pattern, compiled; and of what is remembered while it is matched.
_PATTERN_BYTES: Final = 256 << 10
_OF_SCHEMAS: Final = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_KEPT: Final = ("$defs", "definitions")  # looked at where they are referred to
_NO_SCHEMAS: Final = ("enum", "const", "default", "examples")
_ELSEWHERE: Final = ("$dynamicRef", "$recursiveRef")
_LONGEST_PROBLEM: Final = 200
_HALF: Final = re.compile("[\ud800-\udfff]")

Accepts = Callable[[object], bool]


class AnswerSchemaError(ValueError):
    """The schema cannot be used; the text is one sentence for its author, without a full stop."""


def compile_schema(text: str) -> Accepts:
    """What says whether a value, as JSON reads it, follows the schema. Raises AnswerSchemaError."""
    schema = _read(text)
    _Work(schema).check()
    import jsonschema_rs  # six MiB, for those who have a schema

    bounds = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)
    try:
        return jsonschema_rs.validator_for(schema, pattern_options=bounds, validate_formats=True, offline=True).is_valid
    except jsonschema_rs.ValidationError as error:
        path = [str(part) for part in error.instance_path]
        where = f"`{'.'.join(path)}`: " if path else ""
        if path[-1:] == ["pattern"] or path[-2:-1] == ["patternProperties"]:
            raise AnswerSchemaError(
                f"{where}not a regular expression that is matched in linear time; take out look-around and back-references, or make it "
                "shorter"
            ) from None
        raise AnswerSchemaError(f"{where}{error.message[:_LONGEST_PROBLEM]}") from None
    except ValueError:  # of a value that is no schema, such as a `default`: the library's bound on depth
        raise AnswerSchemaError("it holds a value that is nested hundreds of levels deep; leave that out") from None


def _read(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise AnswerSchemaError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise AnswerSchemaError(f"it is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except AnswerSchemaError:
        raise
    except ValueError:  # Python's bound on digits
        raise AnswerSchemaError("it holds a number of thousands of digits; write a smaller one") from None
    if _HALF.search(json.dumps(schema, ensure_ascii=False)):
        raise AnswerSchemaError("it holds half of a character, such as `\\ud83d`; write the whole of it")
    if not isinstance(schema, dict):
        raise AnswerSchemaError("it must be a JSON object")
    dialect = schema.get("$schema", LATEST)
    if not isinstance(dialect, str) or dialect.removesuffix("#") not in DIALECTS:
        raise AnswerSchemaError(f"`$schema` must be one of {', '.join(f'`{known}`' for known in DIALECTS)}")
    return schema


def _no_number(name: str) -> None:
    """`NaN` and its like, which Python reads and JSON does not have."""
    raise AnswerSchemaError(f"it is not JSON: `{name}`")


class _Work:
    """How much there is to do by a schema, each place looked at once. A schema within itself is not counted again: validators remember
    what they have said of a part of an answer.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[int, int] = {}  # by identity; of what is being counted, 0
        self._patterns = 0

    def check(self) -> None:
        """Raises AnswerSchemaError."""
        if self._of(self._root, depth=0) > MOST_WORK:
            raise AnswerSchemaError(
                f"it has more than {MOST_WORK} parts, those that `$ref` names counted each time; leave out what the answer can do without"
            )
        if self._patterns > MOST_PATTERNS:
            raise AnswerSchemaError(f"it has more than {MOST_PATTERNS} patterns; leave some out")

    def _of(self, schema: object, *, depth: int) -> int:
        if not isinstance(schema, dict | list):
            return 0
        if depth > MOST_DEPTH:
            raise AnswerSchemaError(f"it is nested deeper than {MOST_DEPTH} levels")
        if id(schema) not in self._known:
            self._known[id(schema)] = 0
            inner = schema if isinstance(schema, list) else self._inner(schema)
            self._known[id(schema)] = 1 + sum(self._of(one, depth=depth + 1) for one in inner)
        return self._known[id(schema)]

    def _inner(self, schema: Mapping[str, Any]) -> Iterator[object]:
        if "$id" in schema and schema is not self._root:
            raise AnswerSchemaError("`$id` can only stand at its top; write what it refers to as `#/$defs/…`")
        for keyword in _ELSEWHERE:
            if keyword in schema:
                raise AnswerSchemaError(f"`{keyword}` cannot be used; write `$ref`")
        self._patterns += ("pattern" in schema) + len(_map(schema.get("patternProperties")))
        for keyword, value in schema.items():
            if keyword == "$ref" and isinstance(value, str):
                yield self._referred(value)
            elif keyword in _OF_SCHEMAS:
                yield from _map(value).values()
            elif keyword not in _KEPT and keyword not in _NO_SCHEMAS:
                yield value

    def _referred(self, reference: str) -> object:
        if reference != "#" and not reference.startswith("#/"):
            raise AnswerSchemaError(
                f"it refers to `{reference[:_LONGEST_PROBLEM]}`, and nothing is fetched; put that into `$defs`, and write `#/$defs/…`"
            )
        found: Any = self._root
        for part in reference.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (LookupError, TypeError, ValueError):
                raise AnswerSchemaError(f"`$ref` names `{reference[:_LONGEST_PROBLEM]}`, which is not there; correct it") from None
        return found


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
