"""The manifests of this folder: what they hold, and what is expected of them.

A file of `invalid/` starts with `# expect: TEXT`, a part of what the API server says. A second line `# python: TEXT` gives the
models' sentence where it is another; `none: …` where a model alone cannot know. Documents before the last are valid.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from backstop.api.fallbackpolicy import POLICY_RULES, FallbackPolicySpec
from backstop.api.problems import InputError, parse_strictly
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.rolloutreport import RolloutReportSpec

_HERE: Final = Path(__file__).parent
SPECS: Final[dict[str, type[BaseModel]]] = {
    "FallbackPolicy": FallbackPolicySpec,
    "PromptVersion": PromptVersionSpec,
    "RolloutReport": RolloutReportSpec,
}


@dataclass(frozen=True)
class Manifest:
    """One file. `python` is None where the models have nothing to refuse."""

    path: Path
    documents: tuple[dict[str, Any], ...]
    expected: str = ""
    python: str | None = None

    @property
    def name(self) -> str:
        return self.path.stem


@cache
def valid() -> list[Manifest]:
    return [Manifest(path, documents=_documents(path)) for path in sorted((_HERE / "valid").glob("*.yaml"))]


@cache
def invalid() -> list[Manifest]:
    return [_invalid(path) for path in sorted((_HERE / "invalid").glob("*.yaml"))]


def refuse_like_the_models(document: dict[str, Any]) -> None:
    """Raises InputError for what the models and the rules over the whole object refuse."""
    parse_strictly(SPECS[document["kind"]], document["spec"], prefix="spec")
    if document["kind"] == "FallbackPolicy":
        for rule in POLICY_RULES:
            if not rule.holds(document["metadata"]["name"]):
                raise InputError(rule.message)


def _documents(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


def _invalid(path: Path) -> Manifest:
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# expect: "), f"{path} does not say what is expected"
    expected = first.removeprefix("# expect: ")
    python = second.removeprefix("# python: ") if second.startswith("# python: ") else expected
    return Manifest(path, documents=_documents(path), expected=expected, python=None if python.startswith("none: ") else python)
