"""Prompt templates: Mustache's variable tag and nothing else. Substitution only: no sections, no partials, no code. Those of a prompt
that asks for another engine are `jinjatemplate`'s matter.

A template is compiled once into literal parts and names. A value is inserted as it is and never read as template again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .promptversion import PromptVersionSpec, TemplateEngine, Variable
from .templateerror import TemplateError

if TYPE_CHECKING:
    from .jinjatemplate import JinjaTemplate

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Template:
    """A compiled template: parts at even positions are literal text, at odd positions names of variables."""

    parts: tuple[str, ...]

    @property
    def variables(self) -> frozenset[str]:
        """Names that the template uses."""
        return frozenset(self.parts[1::2])

    def render(self, values: Mapping[str, str]) -> str:
        """The text with every name replaced by its value; a missing value raises KeyError."""
        return "".join(values[part] if position % 2 else part for position, part in enumerate(self.parts))


def compile_template(text: str, *, field: str) -> Template:
    """Compile `text`; `field` is where it stands, for the message of a TemplateError."""
    parts = _TAG.split(text)
    for position, tag in enumerate(parts):
        if position % 2 == 0:
            if "{{" in tag:
                raise TemplateError(f"`{field}`: `{{{{` without `}}}}`; close the tag")
            continue
        name = tag.strip()
        if not _NAME.fullmatch(name):
            raise TemplateError(
                f"`{field}`: `{{{{{tag}}}}}` is not a variable; only `{{{{name}}}}` is offered (no sections, partials or code)"
            )
        parts[position] = name
    return Template(tuple(parts))


@dataclass(frozen=True)
class CompiledMessage:
    """A message of the prompt: its role, as the API spells it, and its template; or the place of the caller's messages (both None)."""

    role: str | None
    template: "Template | JinjaTemplate | None"


def compile_prompt(spec: PromptVersionSpec) -> tuple[CompiledMessage, ...]:
    """Compile every message, and hold used against declared variables.

    Raises TemplateError with one sentence for the first thing that is wrong.
    """
    messages: list[CompiledMessage] = []
    used: set[str] = set()
    declared = {variable.name for variable in spec.variables}
    for position, message in enumerate(spec.messages):
        if message.content is None or message.role is None:
            messages.append(CompiledMessage(role=None, template=None))
            continue
        field = f"spec.messages[{position}].content"
        template = _compile(message.content, field=field, spec=spec)
        for name in sorted(template.variables - declared):
            raise TemplateError(f"`{field}` uses the variable `{name}`, which `spec.variables` does not declare; declare it or take it out")
        used |= template.variables
        messages.append(CompiledMessage(role=message.role.value, template=template))
    for name in sorted(declared - used):
        raise TemplateError(f"`spec.variables` declares `{name}`, which no message uses; use it or take it out")
    for variable in spec.variables:
        if spec.template.engine is TemplateEngine.JINJA2:
            _check_optional(variable)
        if variable.default is not None:
            _check_default(variable.name, default=variable.default, kind=variable.type.value, longest=variable.maxLength)
    return tuple(messages)


def _compile(text: str, *, field: str, spec: PromptVersionSpec) -> "Template | JinjaTemplate":
    if spec.template.engine is TemplateEngine.MUSTACHE:
        return compile_template(text, field=field)
    from .jinjatemplate import judge  # the library takes some MiB, which most need not have

    return judge(text, field=field, kinds={variable.name: variable.type.value for variable in spec.variables})


def _check_optional(variable: Variable) -> None:
    """Of what may be missing, text is empty; nothing else has a value that stands for nothing."""
    if not variable.required and variable.default is None and variable.type.value != "String":
        raise TemplateError(
            f"`spec.variables`: `{variable.name}` may be missing, and `Jinja2` cannot compare a missing {variable.type.value}; "
            "give it a `default`"
        )


def _check_default(name: str, *, default: str, kind: str, longest: int) -> None:
    if len(default) > longest or not has_type(default, kind=kind):
        raise TemplateError(f"`spec.variables`: `default` of `{name}` is not a {kind} of at most {longest} characters")


def has_type(text: str, *, kind: str) -> bool:
    """Whether `text` spells a value of the variable type `kind` (`String`, `Integer`, `Number`, `Boolean`)."""
    match kind:
        case "Integer":
            return re.fullmatch(r"-?[0-9]{1,19}", text) is not None
        case "Number":
            return re.fullmatch(r"-?[0-9]{1,19}(\.[0-9]{1,19})?([eE][-+]?[0-9]{1,3})?", text) is not None
        case "Boolean":
            return text in ("true", "false")
        case _:
            return True
