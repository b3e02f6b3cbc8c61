"""What an older definition does not keep of the models: found for every field, and said in one sentence."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from backstop.crdgen.kinds import KINDS, Kind, definition
from backstop.crdgen.served import Lack, Served, lacks, sentence

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)

Schema = dict[str, Any]


def schema_of(kind: Kind) -> Schema:
    schema: Schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def served(**schemas: Schema) -> dict[str, Served]:
    """What the API server serves of these kinds, and of the others all there is."""
    return {kind.kind: msgspec.convert(schemas.get(kind.kind) or schema_of(kind), Served) for kind in KINDS}


def fields_in(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema, str]]:
    """Every field inside a schema: its path, the properties that it is one of, its name there."""
    for name, inner in schema.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        yield where, schema["properties"], name
        yield from fields_in(inner, where)
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from fields_in(schema[key], path + mark)


def without(kind: Kind, *paths: str) -> Schema:
    schema = schema_of(kind)
    for path, properties, name in list(fields_in(schema)):
        if path in paths:
            del properties[name]
    return schema


def kind_of(name: str) -> Kind:
    (kind,) = [kind for kind in KINDS if kind.kind == name]
    return kind


def test_the_definitions_of_this_version_lack_nothing() -> None:
    assert lacks(served()) == ()


@kinds
def test_each_field_that_a_definition_does_not_have_is_found(kind: Kind) -> None:
    whole = schema_of(kind)
    complete = served()
    paths = [path for path, _, _ in fields_in(whole) if path.startswith(("spec.", "status."))]
    assert paths
    for path, properties, name in list(fields_in(whole)):
        if path not in paths:
            continue
        taken = properties.pop(name)
        assert lacks(complete | {kind.kind: msgspec.convert(whole, Served)}) == (Lack(kind.kind, (path,)),)
        properties[name] = taken


@kinds
def test_a_newer_definition_lacks_nothing(kind: Kind) -> None:
    newer = schema_of(kind)
    for part in ("spec", "status"):
        newer["properties"][part]["properties"]["novelty"] = {"type": "object", "properties": {"inner": {"type": "string"}}}
    assert lacks(served(**{kind.kind: newer})) == ()


def test_a_definition_that_keeps_what_it_does_not_know_lacks_nothing() -> None:
    schema = schema_of(kind_of("FallbackPolicy"))
    schema["properties"]["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert lacks(served(FallbackPolicy=schema)) == ()


def test_a_definition_without_a_status_lacks_all_that_is_in_it() -> None:
    kind = kind_of("PromptVersion")
    schema = deepcopy(schema_of(kind))
    del schema["properties"]["status"]
    assert lacks(served(PromptVersion=schema)) == (Lack("PromptVersion", tuple(f"status.{name}" for name in kind.status.model_fields)),)


def test_a_kind_that_is_not_served_is_found() -> None:
    found = served()
    del found["RolloutReport"]
    assert lacks(found) == (Lack("RolloutReport", ()),)


def test_the_sentence_names_three_fields_of_a_kind_and_how_many_more_and_what_to_do() -> None:
    policy = without(
        kind_of("FallbackPolicy"), "spec.owner", "status.canary.step", "status.canary.weight", "status.phase", "status.previous"
    )
    found = served(FallbackPolicy=policy, PromptVersion=without(kind_of("PromptVersion"), "status.users"))
    del found["RolloutReport"]
    assert sentence(lacks(found)) == (
        "the CustomResourceDefinitions in the cluster are older than this operator: PromptVersion lacks `status.users`;"
        " FallbackPolicy lacks `spec.owner`, `status.phase`, `status.canary.step` and 2 more; RolloutReport is not served;"
        " apply those of its version, and it goes on by itself"
    )
