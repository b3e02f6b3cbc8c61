"""Prompt templates in Jinja2: of its language what cannot fail, loop or grow, so that rendering costs what template and values are long.

A template is parsed and judged here, node by node, before anything of it is compiled: a list of what may be, not of what may not. Kinds
are checked as well (text, number, truth), so that no request finds a mistake that its author could have been told.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .templateerror import TemplateError

MOST_NODES: Final = 2000
MOST_DEPTH: Final = 16


class Kind(Enum):
    """What an expression comes to. MIXED: one thing or another, which can be put out, or be a condition, and nothing else."""

    TEXT = "text"
    NUMBER = "a number"
    TRUTH = "true or false"
    MIXED = "of several kinds"


_KINDS: Final = {"String": Kind.TEXT, "Integer": Kind.NUMBER, "Number": Kind.NUMBER, "Boolean": Kind.TRUTH}
_CONSTANTS: Final = {str: Kind.TEXT, int: Kind.NUMBER, float: Kind.NUMBER, bool: Kind.TRUTH}
# From text to text, each at most a few times as long.
_TEXT_FILTERS: Final = ("upper", "lower", "capitalize", "title", "trim")
_ORDERS: Final = ("lt", "lteq", "gt", "gteq")


class Rendering(Protocol):
    """A compiled template."""

    def render(self, values: Mapping[str, Any], /) -> str:
        """The text."""


class _Spelled(float):
    """A number that is put out as it was written."""

    def __new__(cls, text: str) -> "_Spelled":
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __str__(self) -> str:
        return self.text


class _SpelledInteger(int):
    """A whole number that is put out as it was written."""

    def __new__(cls, text: str) -> "_SpelledInteger":
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class JinjaTemplate:
    """A template that was judged. `kinds`: types of the declared variables, by name."""

    source: str
    variables: frozenset[str]
    kinds: Mapping[str, str]

    def compile(self) -> Rendering:
        """Ready to render values that `typed` has made."""
        return _environment().from_string(self.source)

    def typed(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Values as the template compares them. Each is of its declared type."""
        return {name: _typed(values[name], kind=self.kinds[name]) for name in self.variables}


def judge(text: str, *, field: str, kinds: Mapping[str, str]) -> JinjaTemplate:
    """A template, if it is one that may be. `kinds`: types of the declared variables. Raises TemplateError."""
    try:
        parsed = _environment().parse(text)
    except TemplateSyntaxError as error:
        raise TemplateError(f"`{field}`, line {error.lineno}: no Jinja2 template: {error.message or 'it cannot be read'}") from None
    except RecursionError:
        raise TemplateError(f"`{field}` is nested too deeply; take levels out") from None
    judge = _Judge(field=field, kinds=kinds)
    judge.statements(parsed.body, depth=0)
    return JinjaTemplate(text, variables=frozenset(judge.used), kinds=kinds)


class _Judge:
    """Walks one template, and raises TemplateError at the first node that may not be."""

    def __init__(self, *, field: str, kinds: Mapping[str, str]) -> None:
        self._field = field
        self._kinds = kinds
        self._count = 0
        self.used: set[str] = set()

    def statements(self, body: Iterable[nodes.Node], *, depth: int) -> None:
        """What stands one after another."""
        for node in body:
            self._enter(node, depth=depth)
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        if not isinstance(part, nodes.TemplateData):
                            self._kind(part, depth=depth + 1)
                case nodes.If():
                    self._kind(node.test, depth=depth + 1)
                    self.statements(node.body, depth=depth + 1)
                    self.statements(node.elif_, depth=depth)
                    self.statements(node.else_, depth=depth + 1)
                case _:
                    raise self._refusal(node)

    def _kind(self, node: nodes.Node, *, depth: int) -> Kind:
        self._enter(node, depth=depth)
        match node:
            case nodes.Name():
                return self._variable(node)
            case nodes.Const() if (kind := _CONSTANTS.get(type(node.value))) is not None:
                return kind
            case nodes.Concat():
                for part in node.nodes:
                    if self._kind(part, depth=depth + 1) not in (Kind.TEXT, Kind.NUMBER):
                        raise self._refusal(part)
                return Kind.TEXT
            case nodes.Not():
                self._kind(node.node, depth=depth + 1)
                return Kind.TRUTH
            case nodes.And() | nodes.Or():
                return _common(self._kind(node.left, depth=depth + 1), self._kind(node.right, depth=depth + 1))
            case nodes.CondExpr() if node.expr2 is not None:
                self._kind(node.test, depth=depth + 1)
                return _common(self._kind(node.expr1, depth=depth + 1), self._kind(node.expr2, depth=depth + 1))
            case nodes.Compare():
                return self._compared(node, depth=depth)
            case nodes.Filter():
                return self._filtered(node, depth=depth)
            case _:
                raise self._refusal(node)

    def _variable(self, node: nodes.Name) -> Kind:
        if node.name not in self._kinds:
            raise TemplateError(
                f"`{self._field}` uses the variable `{node.name}`, which `spec.variables` does not declare; declare it or take it out"
            )
        self.used.add(node.name)
        return _KINDS[self._kinds[node.name]]

    def _compared(self, node: nodes.Compare, *, depth: int) -> Kind:
        left = self._kind(node.expr, depth=depth + 1)
        for operand in node.ops:
            if operand.op in ("in", "notin") and isinstance(operand.expr, nodes.List | nodes.Tuple):
                if not all(isinstance(item, nodes.Const) for item in operand.expr.items):
                    raise self._refusal(operand.expr)
                self._count += len(operand.expr.items)
                left = Kind.TRUTH
                continue
            right = self._kind(operand.expr, depth=depth + 1)
            is_ordered = left is right and left in (Kind.TEXT, Kind.NUMBER)
            is_inside = left is right is Kind.TEXT
            is_alike = left is right or Kind.MIXED in (left, right)
            fits = is_ordered if operand.op in _ORDERS else is_alike if operand.op in ("eq", "ne") else is_inside
            if not fits:
                raise TemplateError(
                    f"`{self._field}`, line {node.lineno}: a comparison of what is {left.value} with what is {right.value}; "
                    "declare the variable's `type`, or compare with a value of its kind"
                )
            left = right
        return Kind.TRUTH

    def _filtered(self, node: nodes.Filter, *, depth: int) -> Kind:
        if node.node is None:
            raise self._refusal(node)
        kind = self._kind(node.node, depth=depth + 1)
        plain = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
        if node.name in _TEXT_FILTERS and plain and kind is Kind.TEXT:
            return Kind.TEXT
        if node.name == "length" and plain and kind is Kind.TEXT:
            return Kind.NUMBER
        if node.name == "default" and not (node.kwargs or node.dyn_args or node.dyn_kwargs) and len(node.args) in (1, 2):
            given = [self._kind(argument, depth=depth + 1) for argument in node.args if isinstance(argument, nodes.Const)]
            if len(given) == len(node.args) and given[1:] in ([], [Kind.TRUTH]):
                return _common(kind, given[0])
        raise TemplateError(
            f"`{self._field}`, line {node.lineno}: the filter `{node.name}` is not offered so; there are "
            f"{', '.join(f'`{name}`' for name in _TEXT_FILTERS)} and `length` for text, without arguments, and `default` with constants"
        )

    def _enter(self, node: nodes.Node, *, depth: int) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            raise TemplateError(f"`{self._field}` has more than {MOST_NODES} tags and parts of them; take some out")
        if depth > MOST_DEPTH:
            raise TemplateError(f"`{self._field}`, line {node.lineno}: nested more than {MOST_DEPTH} deep; take levels out")

    def _refusal(self, node: nodes.Node) -> TemplateError:
        return TemplateError(
            f"`{self._field}`, line {node.lineno}: `{type(node).__name__.lower()}` is not offered; there are variables, `if`, comparisons, "
            "`and`, `or`, `not`, `~` and some filters"
        )


def _common(one: Kind, other: Kind) -> Kind:
    return one if one is other else Kind.MIXED


def _typed(text: str, *, kind: str) -> Any:
    match kind:
        case "Integer":
            return _SpelledInteger(text)
        case "Number":
            return _Spelled(text)
        case "Boolean":
            return text == "true"
        case _:
            return text


def _put_out(value: Any) -> Any:
    """Truth is put out as JSON spells it; numbers spell themselves."""
    return ("true" if value else "false") if isinstance(value, bool) else value


def _environment() -> ImmutableSandboxedEnvironment:
    """Without extensions, globals and an optimizer, which would compute constants while it compiles."""
    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, optimized=False, finalize=_put_out, cache_size=0
    )
    made.globals.clear()
    return made
