"""The rules of a rules tier: conditions in CEL over a request, and what is answered where they hold. Compiled before they serve.

A YAML document in one key of a ConfigMap. What is accepted costs a bounded time per request: CEL without its macros has no loops, so that a
condition costs its own length times that of the message at most; a pattern is written out, short, and repeats little, since RE2 makes its
automaton anew each time. Knows what is valid; when rules are asked is the gateway's matter.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from pydantic import Field

from .knowledge import LONGEST_PROBLEM, MOST_BYTES, Answer
from .model import ApiModel
from .plainyaml import PlainYAMLError, read_plain
from .problems import InputError, parse_strictly

MOST_RULES: Final = 200
LONGEST_CONDITION: Final = 1024
# Of all rules together: each costs some tens of microseconds, where any other condition costs a few.
MOST_PATTERNS: Final = 32
LONGEST_PATTERN: Final = 128
MOST_REPEATS: Final = 64
_ENVIRONMENT: Final = """
name: rules
stdlib:
  disable_macros: true
"""
_TOKENS: Final = re.compile(
    r"""//[^\n]*|(?P<text>(?:[bB]?[rR][bB]?(?:'[^'\n]*'|"[^"\n]*")|[bB]?(?:'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")))"""
    r"""|(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)|(?P<mark>\S)""",
    re.DOTALL,
)
_UNICODE_CLASS: Final = re.compile(r"\\[pP]")  # of hundreds of ranges: a millisecond for each evaluation
_HALF: Final = re.compile("[\ud800-\udfff]")
_COUNTS: Final = re.compile(r"(?<!\\x)\{(\d{1,9})?,?(\d{1,9})?\}")


class RulesError(ValueError):
    """The rules are not valid; the text is one sentence for their author, without a full stop."""


class Condition(Protocol):
    """A compiled condition."""

    def eval(self, activation: Any) -> Any:
        """What it comes to."""


class Conditions(Protocol):
    """Where conditions are compiled, and given what they are asked about."""

    def compile(self, expression: str) -> Any:
        """A condition. Raises RuntimeError."""

    def Activation(self, data: Mapping[str, Any]) -> Any:  # noqa: N802 - the library's name
        """What conditions are asked about."""


class _Rule(ApiModel):
    """One rule, as it is written."""

    when: str = Field(min_length=1, max_length=LONGEST_CONDITION)
    answer: Answer


class _Document(ApiModel):
    """All of them."""

    entries: list[_Rule] = Field(min_length=1, max_length=MOST_RULES)


class CompiledRule(NamedTuple):
    """A condition, and the answer where it holds."""

    when: Condition
    answer: str


@dataclass(frozen=True)
class RuleSet:
    """Valid rules, in order, and the environment that they were compiled in."""

    conditions: Conditions
    rules: tuple[CompiledRule, ...]


def facts(*, text: str, locale: str, variables: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
    """What conditions may read, by name. No text holds what CEL's do not: NUL, and halves of characters."""
    plain = _plain(text)
    return {
        "request.text": plain,
        "request.folded": plain.casefold(),
        "request.locale": locale,
        "request.variables": {name: _plain(value) for name, value in variables.items()},
        "request.headers": {name: _plain(value) for name, value in headers.items()},
    }


def read_rules(text: str) -> RuleSet:
    """What the YAML document `text` says, compiled. Raises RulesError."""
    try:
        if (half := _HALF.search(text)) is not None:
            raise RulesError(f"line {text.count(chr(10), 0, half.start()) + 1}: half of a character; write all of it")
        if len(text.encode()) > MOST_BYTES:
            raise RulesError(f"they have more than {MOST_BYTES // 1024} KiB; shorten them")
        plain = read_plain(text)
        if not isinstance(plain, dict):
            raise RulesError("it is no map; begin with `entries:` and a list of them")
        document = parse_strictly(_Document, plain, prefix="")
        return _compiled(document.entries)
    except (PlainYAMLError, InputError, RulesError) as error:
        said = str(error)
        raise RulesError(said if len(said) <= LONGEST_PROBLEM else said[:LONGEST_PROBLEM] + "…") from None


def _compiled(rules: list[_Rule]) -> RuleSet:
    conditions = _conditions()
    nothing = conditions.Activation({})
    patterns, compiled = 0, list[CompiledRule]()
    for number, rule in enumerate(rules):
        field = f"entries[{number}].when"
        for literal in _patterns(rule.when, field=field):
            _check_pattern(literal, field=field, conditions=conditions, nothing=nothing)
            patterns += 1
        compiled.append(CompiledRule(_compile(rule.when, field=field, conditions=conditions), rule.answer))
    if patterns > MOST_PATTERNS:
        raise RulesError(f"`entries` use `matches` {patterns} times, and may {MOST_PATTERNS} times; `contains` on `request.folded` is free")
    return RuleSet(conditions, tuple(compiled))


def _conditions() -> Conditions:
    from cel_expr_python import cel  # some MiB, which those without rules need not have

    words = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
    kinds = dict.fromkeys(("request.text", "request.folded", "request.locale"), cel.Type.STRING)
    made: Conditions = cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_ENVIRONMENT), variables=kinds | {"request.variables": words, "request.headers": words}
    )
    return made


def _compile(source: str, *, field: str, conditions: Conditions) -> Condition:
    try:
        compiled = conditions.compile(source)
    except RuntimeError as error:
        raise RulesError(f"`{field}`: {_in_one_line(str(error))}") from None
    kind = compiled.return_type().name()
    if kind != "BOOL":
        raise RulesError(f"`{field}` is of type {kind.lower()}, and a condition is true or false; compare it with something")
    condition: Condition = compiled
    return condition


def _patterns(source: str, *, field: str) -> Iterator[str]:
    """The patterns that a condition matches with, as CEL spells them."""
    if "'''" in source or '"""' in source or "`" in source:
        raise RulesError(f"`{field}`: texts in three quotes and names in backquotes are not read; write them plainly")
    tokens = [(token.lastgroup, token.group()) for token in _TOKENS.finditer(source) if token.lastgroup]
    for at, token in enumerate(tokens):
        if token != ("name", "matches"):
            continue
        before, after = tokens[at - 1 : at] if at else [], tokens[at + 1 : at + 4]
        if before != [("mark", ".")] or [t[0] for t in after] != ["mark", "text", "mark"] or (after[0][1], after[2][1]) != ("(", ")"):
            raise RulesError(f"`{field}`: `matches` takes a pattern that is written out, as in `request.text.matches('(?i)refund')`")
        yield after[1][1]


def _check_pattern(literal: str, *, field: str, conditions: Conditions, nothing: Any) -> None:
    try:
        pattern = conditions.compile(literal).eval(nothing).value()
        tried = conditions.compile(f"''.matches({literal})").eval(nothing)
    except RuntimeError as error:
        raise RulesError(f"`{field}`: {_in_one_line(str(error))}") from None
    if len(pattern) > LONGEST_PATTERN:
        raise RulesError(f"`{field}`: a pattern has {len(pattern)} characters, and may have {LONGEST_PATTERN}; shorten it")
    if _UNICODE_CLASS.search(pattern) is not None:
        raise RulesError(f"`{field}`: `\\p` and `\\P` are not offered in patterns; write the characters out, as in `[a-zäöü]`")
    repeats = 1
    for least, most in _COUNTS.findall(pattern):
        repeats *= max(int(least or 0), int(most or 0), 1)
    if repeats > MOST_REPEATS:
        raise RulesError(f"`{field}`: the counts of a pattern's repetitions come to more than {MOST_REPEATS}; take `*` or `+`")
    if tried.type().name() != "BOOL":
        raise RulesError(f"`{field}`: {_in_one_line(str(tried.value()))}")


def _in_one_line(error: str) -> str:
    """What the compiler says first, without its drawing of the place."""
    said = error.removeprefix("INVALID_ARGUMENT: ").removeprefix("CANCELLED: ").split("\n")[0]
    return re.sub(r"^ERROR: <input>:(\d+):(\d+): ", r"line \1, column \2: ", said).replace(" (in container '')", "")


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\x00", "�")
