"""A pydantic model as a structural OpenAPI schema, as `apiextensions.k8s.io/v1` wants it.

Knows what an API server accepts (no references, no unions, no null) and what this project asks of its API: a description on
every field, a bound on every string and list. Whatever falls short stops the generation, by name. Knows no particular kind.
"""

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ..api.model import Rule

Schema = dict[str, Any]

_KEYWORDS: Final = frozenset(
    {
        "additionalProperties", "default", "description", "enum", "format", "items", "maxItems", "maxLength", "maxProperties", "maximum",
        "minItems", "minLength", "minimum", "pattern", "properties", "required", "type", "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
    }
)  # fmt: skip


class SchemaError(Exception):
    """A model that cannot be told to an API server, or is not told well; the text names model and field."""


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, without what a structural schema cannot hold, and with the rules of each model."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        model: type[BaseModel] = schema["cls"]
        for name, field in model.model_fields.items():
            if not field.description:
                raise SchemaError(f"{model.__name__}.{name} has no description")
        generated = super().model_schema(schema)
        # The API server drops or refuses unknown fields by itself; the keyword may not stand beside `properties`.
        generated.pop("additionalProperties", None)
        for name, field in model.model_fields.items():
            # Left out by pydantic where it repeats the docstring of the field's model.
            generated["properties"][name]["description"] = field.description
        rules: tuple[Rule, ...] = getattr(model, "rules", ())
        if rules:
            generated["x-kubernetes-validations"] = validations(rules)
        return generated

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # None is "not set by the user", which is spelled by leaving the field out

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        if "default" in generated:
            generated["default"] = _without_null(generated["default"])
            if generated["default"] is None:
                del generated["default"]
        return generated


def validations(rules: tuple[Rule, ...]) -> list[dict[str, str]]:
    """`x-kubernetes-validations` of the rules."""
    return [{"rule": rule.cel, "message": rule.message} for rule in rules]


def structural_schema(model: type[BaseModel], *, description: str, defaults: bool) -> Schema:
    """The schema of `model`, references inlined. `defaults`: whether the API server shall fill them in. Raises SchemaError."""
    generated = _Generator(by_alias=True, ref_template="#/$defs/{model}").generate(model.__pydantic_core_schema__, mode="validation")
    definitions: dict[str, Schema] = generated.pop("$defs", {})
    schema = _inlined(generated | {"description": description}, definitions=definitions, defaults=defaults)
    _check(schema, path=model.__name__)
    return schema


def _inlined(schema: Schema, *, definitions: dict[str, Schema], defaults: bool) -> Schema:
    if "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]] | beside
        return _inlined(schema, definitions=definitions, defaults=defaults)
    result = {key: value for key, value in schema.items() if key != "title" and (defaults or key != "default")}
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "properties" in result:
        result["properties"] = {
            name: _inlined(value, definitions=definitions, defaults=defaults) for name, value in result["properties"].items()
        }
    if result.get("x-kubernetes-preserve-unknown-fields"):
        result.pop("additionalProperties", None)
    elif isinstance(result.get("additionalProperties"), dict):
        result["additionalProperties"] = _inlined(result["additionalProperties"], definitions=definitions, defaults=defaults)
    if "items" in result:
        result["items"] = _inlined(result["items"], definitions=definitions, defaults=defaults)
    return result


def _check(schema: Schema, *, path: str) -> None:
    strange = schema.keys() - _KEYWORDS
    if strange:
        raise SchemaError(f"{path}: {', '.join(sorted(strange))} cannot stand in a structural schema")
    match schema.get("type"):
        case "object":
            _check_object(schema, path=path)
        case "array":
            if "maxItems" not in schema:
                raise SchemaError(f"{path}: a list without a bound; set `max_length`")
            _check(schema["items"], path=f"{path}[]")
        case "string":
            if "maxLength" not in schema and "enum" not in schema:
                raise SchemaError(f"{path}: a string without a bound; set `max_length`")
        case "integer" | "boolean":
            pass
        case other:
            raise SchemaError(f"{path}: type {other} is not one of object, array, string, integer, boolean")


def _check_object(schema: Schema, *, path: str) -> None:
    if "properties" not in schema and "maxProperties" not in schema:
        raise SchemaError(f"{path}: a map without a bound; set `max_length`")
    for name, value in schema.get("properties", {}).items():
        if "description" not in value:
            raise SchemaError(f"{path}.{name} has no description")
        _check(value, path=f"{path}.{name}")
    if "additionalProperties" in schema:
        _check(schema["additionalProperties"], path=f"{path}{{}}")


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value
