"""A mutant: one small change of the engine's source that must not go unnoticed. Knows how to apply it to a copy; runs no tests.

A mutant is found by the name of the function or constant it changes and by the text in it, with any white space between its words, so
that it survives what is added around it.
"""

import ast
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "operator"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class DoesNotFit(Exception):  # noqa: N818 - the name says what happened
    """The source has changed under a mutant; the text says what to do."""


@dataclass(frozen=True)
class Mutant:
    """`breaks`: one sentence. `file`: below the package. `inside`: a function, method or constant of it. `old` becomes `new` there.

    `invariant`: the one of the design that it breaks, so that state machines must see it by themselves; None: it breaks something else,
    a sentence or a wait, or one that no table of events would meet often enough.
    """

    name: str
    breaks: str
    file: str
    inside: str
    old: str
    new: str
    invariant: int | None = None

    def applied(self, source: str) -> str:
        """The file's text with the change in it. Raises DoesNotFit."""
        start, end = _place_of(self.inside, source=source, mutant=self)
        found = list(re.finditer(r"\s*".join(map(re.escape, self.old.split())), source[start:end]))
        if len(found) != 1:
            raise DoesNotFit(
                f"mutant `{self.name}`: `{self.old}` is {len(found)} times in `{self.inside}` of {self.file}; "
                "give it the text that does the same today, in tests/mutants/engine.py"
            )
        mutated = source[: start + found[0].start()] + self.new + source[start + found[0].end() :]
        try:
            ast.parse(mutated)
        except SyntaxError as error:
            raise DoesNotFit(f"mutant `{self.name}` is no Python any more ({error}); correct it in tests/mutants/engine.py") from None
        return mutated

    def copy_to(self, folder: Path) -> None:
        """A copy of the package with this change, below `folder`. Raises DoesNotFit."""
        copy_package(folder)
        path = folder / "backstop" / self.file
        path.write_text(self.applied(path.read_text()))


def copy_package(folder: Path) -> None:
    """The package as it is, below `folder`."""
    shutil.copytree(SOURCE / "backstop", folder / "backstop", ignore=shutil.ignore_patterns("__pycache__"))


def _place_of(name: str, *, source: str, mutant: Mutant) -> tuple[int, int]:
    """Where this definition begins and ends in the text."""
    module = ast.parse(source)
    nodes: list[ast.stmt] = [node for node in ast.walk(module) if isinstance(node, DEFINITIONS) and node.name == name]
    nodes += [node for node in module.body if name == _constant(node)]
    if len(nodes) != 1:
        raise DoesNotFit(
            f"mutant `{mutant.name}`: {mutant.file} defines `{name}` {len(nodes)} times; name what does the same today, "
            "in tests/mutants/engine.py"
        )
    lines = source.splitlines(keepends=True)
    start = sum(map(len, lines[: nodes[0].lineno - 1]))
    return start, start + sum(map(len, lines[nodes[0].lineno - 1 : nodes[0].end_lineno]))


def _constant(node: ast.stmt) -> str | None:
    """The name that a statement of a module gives a value to."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return None
