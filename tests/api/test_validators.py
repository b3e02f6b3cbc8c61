"""What a model refuses, the definition refuses too: a spec that the API server has accepted can be read.

One that cannot be is of no use after a restart: a canary is judged by what its policy's spec says.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.model import SPACE, ApiModel
from backstop.api.promptversion import PromptVersionSpec

# Each with all the bounds that it may have here: those that the generator of definitions writes down, or does not know and so stops at.
WRITTEN_DOWN: dict[str, set[str]] = {
    "bool": set(),
    "str": {"min_length", "max_length", "pattern"},
    "int": {"ge", "le"},
    "list": {"items_schema", "min_length", "max_length"},
    "dict": {"keys_schema", "values_schema", "min_length", "max_length"},
    "enum": {"ref", "cls", "members", "sub_type", "missing"},
    "any": set(),
}
# Rules, which stand beside their CEL; and keys of lists, which are the definition's `x-kubernetes-list-map-keys`.
SPELLED_TWICE = {"_rules_hold", "_list_map_keys_are_unique"}
AROUND = {"model", "model-fields", "model-field", "default", "nullable", "definitions", "definition-ref", "function-after"}

specs = pytest.mark.parametrize("spec", [FallbackPolicySpec, PromptVersionSpec], ids=lambda spec: spec.__name__)


def schemas(within: Any) -> Iterator[dict[str, Any]]:
    """Every part of a pydantic core schema."""
    if isinstance(within, dict):
        if "type" in within and isinstance(within["type"], str):
            yield within
        for name, inner in within.items():
            if name not in ("metadata", "function", "config", "serialization", "default", "members"):
                yield from schemas(inner)
    elif isinstance(within, list | tuple):
        for inner in within:
            yield from schemas(inner)


@specs
def test_no_model_refuses_what_the_definition_cannot_say(spec: type[ApiModel]) -> None:
    parts = list(schemas(spec.__pydantic_core_schema__))
    said = {(part["type"], key) for part in parts if part["type"] not in AROUND for key in part.keys() - {"type", "metadata"}}
    assert said <= {(kind, key) for kind, keys in WRITTEN_DOWN.items() for key in keys}
    assert {part["type"] for part in parts} <= WRITTEN_DOWN.keys() | AROUND
    functions = {part["function"]["function"].__name__ for part in parts if part["type"].startswith("function-")}
    assert functions == SPELLED_TWICE


@specs
def test_a_pattern_says_the_same_to_the_api_server(spec: type[ApiModel]) -> None:
    """Both have classes for spaces, digits, words and case, and mean ASCII's or Unicode's by them."""
    patterns = {part["pattern"] for part in schemas(spec.__pydantic_core_schema__) if "pattern" in part}
    assert len(patterns) > 1
    assert [pattern for pattern in patterns if re.search(r"\\[sSdDwWbB]|\(\?", pattern.replace(SPACE, ""))] == []
