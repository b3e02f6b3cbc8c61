"""What the documents promise to hold of the code, where code can tell whether they do."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.policystatus import Phase
from backstop.api.promptversion import PromptVersionSpec
from backstop.crdgen.kinds import KINDS, definition
from backstop.crdgen.schema import structural_schema
from backstop.rollout.safety import CRASHES

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"


def test_every_dependency_has_its_reason_in_the_decisions_and_no_other_has_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"].values()
    groups = [project["project"]["dependencies"], *optional, *project["dependency-groups"].values()]
    declared = {re.split(r"[<>=; ]", dependency)[0].lower() for group in groups for dependency in group}
    explained = re.findall(r"^\*\*`(.+?)`\*\*", (DECISIONS / "dependencies.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name.lower() for name in explained) == sorted(declared)


def defaults(schema: dict[str, Any], name: str = "") -> Iterator[tuple[str, str | int | bool]]:
    """Every default of a single value, with the name of its field."""
    if isinstance(schema.get("default"), str | int):
        yield name, schema["default"]
    for field, inner in schema.get("properties", {}).items():
        yield from defaults(inner, field)
    if "items" in schema:
        yield from defaults(schema["items"], name)


def test_every_default_of_the_api_has_its_reason_in_the_decisions() -> None:
    text = (DECISIONS / "api.md").read_text(encoding="utf-8")
    found = [
        pair
        for spec in (FallbackPolicySpec, PromptVersionSpec)
        for pair in defaults(structural_schema(spec, description="x", defaults=True))
    ]
    spelled = {f"`{name}: {str(value).lower() if isinstance(value, bool) else value}`" for name, value in found}
    assert len(spelled) > 10
    assert sorted(default for default in spelled if default not in text) == []
    steps = FallbackPolicySpec.model_fields["canary"].default.steps
    assert f"{', '.join(str(step.weight) for step in steps[:-1])} and {steps[-1].weight} %" in text


def test_every_phase_is_named_where_kubectl_explains_them() -> None:
    (policy,) = (kind for kind in KINDS if kind.kind == "FallbackPolicy")
    status = definition(policy)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert [phase for phase in Phase if f"`{phase}`" not in status["properties"]["phase"]["description"]] == []


def test_the_page_of_the_rollout_says_after_how_many_exits_a_canary_is_rolled_back() -> None:
    page = (ROOT / "docs" / "concepts" / "rollout.md").read_text(encoding="utf-8")
    assert f"exited {CRASHES} times with a code other than 0" in page
