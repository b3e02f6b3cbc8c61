"""JSON Schemas for answers: what may be one, in which one sentence everything else is refused, and that none takes long."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.answerschema import DIALECTS, AnswerSchemaError, compile_schema

TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [{"type": "null"}, {"properties": {"left": {"$ref": "#/$defs/node"}}}]}}}


def accepts(schema: Any, value: object) -> bool:
    return compile_schema(json.dumps(schema))(value)


def test_a_value_follows_a_schema_or_does_not() -> None:
    schema = {
        "type": "object",
        "properties": {"link": {"type": "string", "pattern": "^https://"}, "day": {"type": "string", "format": "date"}},
        "required": ["link"],
        "additionalProperties": False,
    }
    assert accepts(schema, {"link": "https://shop.example"})
    assert accepts(schema, {"link": "https://shop.example", "day": "2026-11-22"})
    assert not accepts(schema, [])
    for unlike in ({}, {"link": "http://shop.example"}, {"link": "https://a", "x": 1}, {"link": "https://a", "day": "2026-22-11"}):
        assert not accepts(schema, unlike)


def test_a_schema_may_refer_to_itself_and_be_of_an_older_draft() -> None:
    assert accepts(TREE, {"left": {"left": None}})
    assert accepts({"items": {"$ref": "#"}, "type": "array"}, [[], [[]]])
    assert not accepts({"items": {"$ref": "#"}, "type": "array"}, [[], [5]])
    assert accepts({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "string"}}}, "")
    for dialect in (*DIALECTS, f"{DIALECTS[0]}#"):
        assert accepts({"$schema": dialect, "$id": "https://shop.example/answer", "type": "string"}, "yes")
    # In draft 7 a list of `items` is by position; today it would be refused.
    assert not accepts({"$schema": DIALECTS[0], "items": [{"type": "string"}]}, [5])


def test_what_has_the_name_of_a_keyword_is_not_taken_for_one() -> None:
    named = {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$id": {"type": "string"}, "enum": {"$ref": "#/$defs/a"}}
    schema = {"properties": named, "const": {"$ref": "https://elsewhere.example"}, "$defs": {"a": True}}
    assert accepts(schema, {"$ref": "https://elsewhere.example"})


NOT_LINEAR = "not a regular expression that is matched in linear time; take out look-around and back-references, or make it shorter"
DOUBLING = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(9)} | {"d9": {}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{type: object}", "it is not JSON: Expecting property name enclosed in double quotes (line 1, column 2)"),
        ('{"minimum": NaN}', "it is not JSON: `NaN`"),
        (f'{{"minimum": {"1" * 5000}}}', "it holds a number of thousands of digits; write a smaller one"),
        ('{"const": "\\ud83d"}', "it holds half of a character, such as `\\ud83d`; write the whole of it"),
        ('{"properties": {"\\ud83d": {"$ref": "#/\\ud83d"}}}', "it holds half of a character, such as `\\ud83d`; write the whole of it"),
        ("[" * 30_000, "it is nested deeper than 64 levels"),
        (json.dumps(nested(65)), "it is nested deeper than 64 levels"),
        (f'{{"default": {"[" * 300}{"]" * 300}}}', "it holds a value that is nested hundreds of levels deep; leave that out"),
        ("true", "it must be a JSON object"),
        ('{"$schema": "https://elsewhere.example"}', f"`$schema` must be one of `{DIALECTS[0]}`, `{DIALECTS[1]}`, `{DIALECTS[2]}`"),
        ('{"$schema": 7}', f"`$schema` must be one of `{DIALECTS[0]}`, `{DIALECTS[1]}`, `{DIALECTS[2]}`"),
        ('{"type": "objekt"}', "`type`: \"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword"),
        ('{"properties": {"a": {"minLength": -1}}}', "`properties.a.minLength`: -1 is less than the minimum of 0"),
        ('{"$ref": "#/$defs/a"}', "`$ref` names `#/$defs/a`, which is not there; correct it"),
        ('{"allOf": [{"$ref": "#/allOf/x"}]}', "`$ref` names `#/allOf/x`, which is not there; correct it"),
        ('{"$defs": {"a": {"$id": "a"}}, "$ref": "#/$defs/a"}', "`$id` can only stand at its top; write what it refers to as `#/$defs/…`"),
        ('{"items": {"$dynamicRef": "#a"}}', "`$dynamicRef` cannot be used; write `$ref`"),
        *(
            (
                json.dumps({"properties": {"a": {"$ref": reference}}}),
                f"it refers to `{reference}`, and nothing is fetched; put that into `$defs`, and write `#/$defs/…`",
            )
            for reference in ("https://elsewhere.example/s.json", "file:///etc/passwd", "other.json#/a", "#anchor")
        ),
        *(
            (
                json.dumps({"properties": {"a": {"pattern": pattern}}}),
                f"`properties.a.pattern`: {NOT_LINEAR}",
            )
            for pattern in ("(", "(?=a)b", r"(a)\1", "((a{100}){100}){100}")
        ),
        (
            '{"patternProperties": {"(?!x)": true}}',
            f"`patternProperties.(?!x)`: {NOT_LINEAR}",
        ),
        (json.dumps({"allOf": [{"pattern": str(n)} for n in range(33)]}), "it has more than 32 patterns; leave some out"),
        (
            json.dumps({"$ref": "#/$defs/d0", "$defs": DOUBLING}),
            "it has more than 500 parts, those that `$ref` names counted each time; leave out what the answer can do without",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(AnswerSchemaError) as refused:
        compile_schema(text)
    assert str(refused.value) == sentence


def test_nothing_is_fetched_wherever_a_reference_hides() -> None:
    """What the check does not look at (here: what no reference leads to) is refused by the library, which asks nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/s.json"
        with pytest.raises(AnswerSchemaError, match="Retrieval is disabled"):
            compile_schema(json.dumps({"$defs": {"unused": {"$ref": address}}}))
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.long
def test_the_library_is_there_for_those_who_have_a_schema_only() -> None:
    code = "import sys, backstop.gateway.main, backstop.controller.wanted; print('jsonschema_rs' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": "operator"})
    assert found.stdout.strip() == "False"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
KEYWORDS = (
    "type",
    "properties",
    "items",
    "allOf",
    "anyOf",
    "not",
    "$ref",
    "$defs",
    "pattern",
    "enum",
    "const",
    "required",
    "minimum",
    "$id",
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), JSON_VALUES | st.just("#") | st.just("string"), max_size=4), JSON_VALUES)
def test_any_schema_and_any_value_end_in_a_verdict_or_a_sentence(schema: dict[str, Any], value: object) -> None:
    said = ""
    try:
        compile_schema(json.dumps(schema))(value)
    except AnswerSchemaError as error:
        said = str(error)
    assert "\n" not in said
