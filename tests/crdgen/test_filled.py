"""What newer definitions fill into a spec is taken for nobody's wish; what its author wrote stays."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from backstop.crdgen.filled import Filled, filled_in, without
from backstop.crdgen.kinds import KINDS, definition
from backstop.crdgen.served import Served

NUMBER = {"type": "integer", "default": 5}
PART = {
    "type": "object",
    "default": {"name": "x"},
    "properties": {
        "name": {"type": "string"},
        "percent": NUMBER,
        "deep": {"type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": True}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"percent": NUMBER}}},
    },
}
WHOLE_PART = {"name": "x", "percent": 5, "deep": {"on": True}}


def served(**added: tuple[str, Mapping[str, Any]]) -> dict[str, Served]:
    """The definitions of this version, with fields of a newer one in a policy's spec: name=(where, schema)."""
    schemas = {kind.kind: definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind in KINDS}
    for name, (where, schema) in added.items():
        part = schemas["FallbackPolicy"]["properties"]["spec"]
        for step in where.split("/") if where else ():
            part = {"[]": part.get("items"), "{}": part.get("additionalProperties")}.get(step) or part["properties"][step]
        part["properties"][name] = dict(schema)
    return {kind: msgspec.convert(schema, Served) for kind, schema in schemas.items()}


def test_the_definitions_of_this_version_fill_in_nothing_that_is_not_known() -> None:
    assert filled_in(served()) == {}
    assert filled_in({}) == {}


@pytest.mark.parametrize(
    ("where", "schema", "path", "value"),
    [
        ("", NUMBER, ("novelty",), 5),
        ("canary", PART, ("canary", "novelty"), WHOLE_PART),
        ("canary/steps/[]", NUMBER, ("canary", "steps", "[]", "novelty"), 5),
        ("", {"type": "array", "default": [], "items": {"type": "string"}}, ("novelty",), []),
        (
            "",
            {"type": "array", "default": [{}], "items": {"type": "object", "properties": {"percent": NUMBER}}},
            ("novelty",),
            [{"percent": 5}],
        ),
        (
            "",
            {"type": "object", "default": {"a": {}}, "additionalProperties": {"type": "object", "properties": {"percent": NUMBER}}},
            ("novelty",),
            {"a": {"percent": 5}},
        ),
    ],
    ids=["field", "object", "in a list", "list", "list of objects", "map of objects"],
)
def test_a_field_of_a_newer_definition_is_filled_in_with_the_defaults_inside_of_it(
    where: str, schema: Mapping[str, Any], path: tuple[str, ...], value: Any
) -> None:
    assert filled_in(served(novelty=(where, schema))) == {"FallbackPolicy": (Filled(path, value),)}


def test_a_field_without_a_default_is_filled_in_by_nobody() -> None:
    assert filled_in(served(novelty=("canary", {"type": "integer"}))) == {}


FILLED = (
    Filled(("novelty",), 5),
    Filled(("part", "novelty"), {"percent": 5}),
    Filled(("list", "[]", "novelty"), "none"),
    Filled(("map", "{}", "novelty"), True),
)


def test_what_is_filled_in_is_taken_out_wherever_it_is() -> None:
    spec = {
        "novelty": 5,
        "part": {"novelty": {"percent": 5}, "other": 1},
        "list": [{"novelty": "none", "name": "a"}, {"name": "b"}],
        "map": {"one": {"novelty": True}, "two": {}},
    }
    written = {"part": {"other": 1}, "list": [{"name": "a"}, {"name": "b"}], "map": {"one": {}, "two": {}}}
    before = str(spec)
    assert without(spec, FILLED) == written
    assert without(written, FILLED) == written
    assert str(spec) == before, "what was read stays as it is"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"novelty": 7},
        {"part": {"novelty": {"percent": 5, "names": []}}},
        {"list": [{"novelty": "some"}]},
        {"map": {"one": {"novelty": False}}},
        {"part": "a text", "list": {"a": "map"}, "map": ["a list"]},
        {"part": None, "list": None, "map": None, "other": {"novelty": 5}},
    ],
    ids=str,
)
def test_what_the_author_wrote_stays_also_where_it_has_another_shape(spec: Mapping[str, Any]) -> None:
    assert without(spec, FILLED) == spec
