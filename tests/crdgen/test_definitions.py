"""What the generator makes of the models, and what it refuses to make anything of."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, Field

from backstop.api.fallbackpolicy import POLICY_RULES, FallbackPolicySpec
from backstop.crdgen.__main__ import DEFINITIONS, REFERENCE, differences, files
from backstop.crdgen.kinds import KINDS, Kind, definition
from backstop.crdgen.schema import SchemaError, structural_schema

ROOT = Path(__file__).parents[2]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def root_of(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_the_files_in_the_repository_are_what_the_models_say() -> None:
    assert differences(ROOT, wanted=files()) == []


def test_a_changed_missing_or_foreign_file_is_noticed(tmp_path: Path) -> None:
    wanted = files()
    for path, content in wanted.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert differences(tmp_path, wanted=wanted) == []
    first, second, *_ = wanted
    foreign = REFERENCE / "foreign.md"
    (tmp_path / first).write_text("changed")
    (tmp_path / second).unlink()
    (tmp_path / foreign).touch()
    assert differences(tmp_path, wanted=wanted) == sorted([first, second, foreign])


def test_the_reference_says_of_a_field_what_the_api_server_holds_it_to() -> None:
    policy, *_ = (content for path, content in sorted(files().items()) if path.parent == REFERENCE)
    rows = {line.split(" | ")[0].strip("| `"): line for line in policy.splitlines() if line.startswith("| `")}
    assert "| `120` | 0 to 604800 |" in rows["canary.steps[].holdSeconds"]
    assert "| required | at most 512 characters" in rows["serving.workload.image"]
    assert "| `Automatic` or `Pause` or `DryRun` | `Automatic` |" in rows["rollback.mode"]
    assert "* `spec.canary.steps`: weights must increase" in policy.splitlines()


@kinds
def test_every_field_has_a_description_that_ends_a_sentence(kind: Kind) -> None:
    fields = [(path, node) for path, node in nodes(root_of(kind)) if node["type"] == "object" or not path.endswith("[]")]
    assert [path for path, node in fields if not node.get("description", "").endswith(".")] == [".metadata"]


@kinds
def test_no_field_knows_null_or_a_union(kind: Kind) -> None:
    text = json.dumps(definition(kind))
    assert [word for word in ("anyOf", "oneOf", "allOf", "$ref", "null", '"title"', '"additionalProperties": true') if word in text] == []


@kinds
def test_a_definition_fits_into_the_annotation_of_client_side_apply(kind: Kind) -> None:
    assert len(json.dumps(definition(kind)).encode()) < 256 * 1024 // 2


@kinds
def test_a_definition_outlives_the_chart(kind: Kind) -> None:
    assert definition(kind)["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@kinds
def test_status_has_no_default_but_that_nothing_was_observed_yet(kind: Kind) -> None:
    defaults = {path: node["default"] for path, node in nodes(root_of(kind)["properties"]["status"]) if "default" in node}
    assert defaults == ({"": {"observedGeneration": -1}} if "observedGeneration" in kind.status.model_fields else {})


def test_the_defaults_of_the_api_server_are_those_of_the_models() -> None:
    least = {
        "promptVersion": "a",
        "latencyBudgetMilliseconds": 1,
        "chain": [{"name": "p", "model": {"baseURL": "http://m/v1", "name": "m"}, "timeouts": {}}],
    }
    schema = structural_schema(FallbackPolicySpec, description="x", defaults=True)
    filled = defaulted(least, schema=schema)
    assert filled["canary"]["steps"][0] == {"weight": 5, "holdSeconds": 120, "approval": False}
    assert filled["chain"][0]["timeouts"] == {"stallMilliseconds": 10_000, "totalSeconds": 300}
    assert FallbackPolicySpec.model_validate(filled) == FallbackPolicySpec.model_validate(least)


def defaulted(value: Any, *, schema: dict[str, Any]) -> Any:
    """Defaulting as an API server does it: a missing field gets its default, and then that value's own fields theirs."""
    if schema["type"] == "object":
        given = {name: inner["default"] for name, inner in schema["properties"].items() if "default" in inner} | value
        return {name: defaulted(inner, schema=schema["properties"][name]) for name, inner in given.items()}
    return [defaulted(inner, schema=schema["items"]) for inner in value] if schema["type"] == "array" else value


def test_rules_stand_where_their_model_stands() -> None:
    (policy,) = (kind for kind in KINDS if kind.kind == "FallbackPolicy")
    root = root_of(policy)
    assert [rule["message"] for rule in root["x-kubernetes-validations"]] == [rule.message for rule in POLICY_RULES]
    assert [rule["message"] for rule in root["properties"]["spec"]["properties"]["canary"]["x-kubernetes-validations"]] == [
        "`spec.canary.steps`: weights must increase",
        "`spec.canary.steps`: the last weight must be 100",
    ]


@pytest.mark.parametrize("folder", DEFINITIONS, ids=str)
def test_the_files_hold_one_definition_each(folder: Path) -> None:
    found = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / folder).glob("*.yaml"))]
    assert [(body["kind"], body["metadata"]["name"]) for body in found] == [
        ("CustomResourceDefinition", "fallbackpolicies.backstop.dev"),
        ("CustomResourceDefinition", "promptversions.backstop.dev"),
        ("CustomResourceDefinition", "rolloutreports.backstop.dev"),
    ]


class Undescribed(BaseModel):
    flag: bool


class Unbounded(BaseModel):
    text: str = Field(description="Text.")


class UnboundedList(BaseModel):
    flags: list[bool] = Field(description="Flags.")


class UnboundedElement(BaseModel):
    texts: list[str] = Field(max_length=2, description="Texts.")


class Union(BaseModel):
    either: int | Annotated[str, Field(max_length=1)] = Field(description="Either.")


class Free(BaseModel):
    anything: dict[str, int] = Field(description="Anything.")


class FreeText(BaseModel):
    anything: dict[str, str] = Field(max_length=2, description="Anything.")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Undescribed, "Undescribed.flag has no description"),
        (Unbounded, "Unbounded.text: a string without a bound"),
        (UnboundedList, "UnboundedList.flags: a list without a bound"),
        (UnboundedElement, "UnboundedElement.texts[]: a string without a bound"),
        (Union, "Union.either: anyOf cannot stand in a structural schema"),
        (Free, "Free.anything: a map without a bound"),
        (FreeText, "FreeText.anything{}: a string without a bound"),
    ],
)
def test_a_model_that_falls_short_stops_the_generation(model: type[BaseModel], message: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(message)):
        structural_schema(model, description="x", defaults=True)
