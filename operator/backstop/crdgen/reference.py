"""The reference of a kind, as Markdown: every field with its type, default and bounds, from the very schema that the API server gets."""

from collections.abc import Iterator
from typing import Any

from .kinds import Kind, definition
from .schema import Schema


def reference(kind: Kind) -> str:
    """The page of one kind. Raises SchemaError."""
    version = definition(kind)["spec"]["versions"][0]
    root: Schema = version["schema"]["openAPIV3Schema"]
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    columns = [[f"{c['name']}{' (wide)' if c.get('priority') else ''}", c["description"]] for c in version["additionalPrinterColumns"]]
    parts = [
        f"# {kind.kind}\n\n{kind.description} Short name: `{kind.short}`.",
        "## `spec`\n\n" + _table(["Field", "Type", "Default", "Bounds", "Meaning"], list(_rows(spec, path=""))),
        "## Rules\n\n" + _rules(root),
        "## `status`\n\n" + _table(["Field", "Type", "Meaning"], [[row[0], row[1], row[4]] for row in _rows(status, path="")]),
        "## Columns of `kubectl get`\n\n" + _table(["Column", "Meaning"], columns),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(schema: Schema, *, path: str) -> Iterator[list[str]]:
    """One row per field, parents before their children."""
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        inner = f"{path}.{name}" if path else name
        default = "required" if name in required else _default(field)
        yield [f"`{inner}`", _type(field), default, _bounds(field), field["description"]]
        items = field.get("items", {})
        if "properties" in field:
            yield from _rows(field, path=inner)
        elif "properties" in items:
            yield from _rows(items, path=f"{inner}[]")


def _type(field: Schema) -> str:
    if field["type"] == "array":
        return f"list of {_type(field['items'])}s"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}s"
    return str(field["type"])


def _default(field: Schema) -> str:
    default = field.get("default")
    if default is None or default == {} or "properties" in field:
        return ""
    return f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{name}: {_yaml(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(_yaml(inner) for inner in value) + "]"
        case _:
            return str(value)


def _bounds(field: Schema) -> str:
    found = []
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None or high is not None:
        found.append(f"{low if low is not None else ''} to {high if high is not None else ''}".strip())
    if "maxItems" in field:
        found.append(f"{field.get('minItems', 0)} to {field['maxItems']} elements")
    if "maxProperties" in field:
        found.append(f"at most {field['maxProperties']} entries")
    if "maxLength" in field and "enum" not in field:
        found.append(f"at most {field['maxLength']} characters")
    if "pattern" in field:
        found.append(f"`{field['pattern']}`")
    return ", ".join(found)


def _rules(schema: Schema) -> str:
    messages = dict.fromkeys(_messages(schema))
    return "\n".join(f"* {message}" for message in messages) or "None beyond the bounds above."


def _messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _messages(field)
    if "items" in schema:
        yield from _messages(schema["items"])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
