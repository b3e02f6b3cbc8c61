"""The prompt as JSON text: messages rendered around the caller's, with values that are only ever values. PURE.

Literal parts are spelled as JSON once, at the start; a request costs one encoding per value it uses. A prompt in Jinja2 is spelled anew for
each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..api.promptversion import Variable
from ..api.template import CompiledMessage, Template, has_type
from .errors import CallerError, named
from .jsontext import NotJSONError, parse_scalar, quoted

if TYPE_CHECKING:
    from ..api.jinjatemplate import JinjaTemplate, Rendering


@dataclass(frozen=True)
class JSONMessage:
    """One message: JSON text at even positions of `parts`, names of variables at odd ones."""

    parts: tuple[bytes | str, ...]

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """The message as JSON; `values` are spelled as JSON strings without their quotes."""
        return b"".join([values[part] if isinstance(part, str) else part for part in self.parts])


@dataclass(frozen=True)
class JinjaMessage:
    """One message of a prompt in Jinja2. `opening`: its JSON up to the content."""

    opening: bytes
    template: "JinjaTemplate"
    rendering: "Rendering"

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """The message as JSON; `values` are spelled as JSON strings without their quotes."""
        plain = {name: str(parse_scalar(b'"' + values[name] + b'"')) for name in self.template.variables}
        return self.opening + quoted(self.rendering.render(self.template.typed(plain))) + b"}"


@dataclass(frozen=True)
class Prompt:
    """Messages before and after the caller's, and the declared variables by name."""

    before: tuple[JSONMessage | JinjaMessage, ...]
    after: tuple[JSONMessage | JinjaMessage, ...]
    variables: Mapping[str, Variable]

    def render(self, history: list[bytes], *, values: Mapping[str, bytes]) -> bytes:
        """The `messages` of the upstream body; `history` are the caller's, as spelled."""
        rendered = [message.render(values) for message in self.before]
        rendered += history
        rendered += [message.render(values) for message in self.after]
        return b"[" + b",".join(rendered) + b"]"


def compile_for_json(messages: tuple[CompiledMessage, ...], *, variables: tuple[Variable, ...]) -> Prompt:
    """Spell the compiled messages as JSON; without a placeholder the caller's messages come last."""
    place = next((i for i, message in enumerate(messages) if message.template is None), len(messages))
    return Prompt(
        before=tuple(_spell(m.role, template=m.template) for m in messages[:place] if m.role and m.template),
        after=tuple(_spell(m.role, template=m.template) for m in messages[place:] if m.role and m.template),
        variables={variable.name: variable for variable in variables},
    )


def _spell(role: str, *, template: "Template | JinjaTemplate") -> JSONMessage | JinjaMessage:
    if not isinstance(template, Template):
        return JinjaMessage(b'{"role":' + quoted(role) + b',"content":', template, template.compile())
    parts: list[bytes | str] = [part if position % 2 else quoted(part)[1:-1] for position, part in enumerate(template.parts)]
    parts[0] = b'{"role":' + quoted(role) + b',"content":"' + bytes_of(parts[0])
    parts[-1] = bytes_of(parts[-1]) + b'"}'
    return JSONMessage(tuple(parts))


def bytes_of(part: bytes | str) -> bytes:
    """A literal part: templates begin and end with one, possibly empty."""
    assert isinstance(part, bytes)
    return part


def check_values(variables: Mapping[str, Variable], *, metadata: Mapping[str, bytes], headers: Mapping[str, str]) -> dict[str, bytes]:
    """Values for the template, as JSON strings without quotes; a header wins over `metadata`. Raises a CallerError that names it."""
    for name in headers:
        if name not in variables:
            header = f"x-backstop-var-{named(name)}"
            raise CallerError(f"`{header}` is not a variable of this prompt; leave the header out", param=header)
    return {name: quoted(_value(variable, metadata=metadata, headers=headers))[1:-1] for name, variable in variables.items()}


def _value(variable: Variable, *, metadata: Mapping[str, bytes], headers: Mapping[str, str]) -> str:
    name = variable.name
    text: str | None
    if name in headers:
        param, text = f"x-backstop-var-{name}", headers[name]
    else:
        param, text = f"metadata.{name}", _from_metadata(variable, spelled=metadata.get(name))
    if text is None:
        if variable.default is not None:
            return variable.default
        if variable.required:
            raise CallerError(f"the variable `{name}` is missing; set `metadata.{name}` or the header `x-backstop-var-{name}`", param=param)
        return ""
    if len(text) > variable.maxLength:
        raise CallerError(f"the variable `{name}` is longer than {variable.maxLength} characters; shorten it", param=param)
    if not has_type(text, kind=variable.type.value):
        raise CallerError(f"the variable `{name}` must be of type {variable.type.value}", param=param)
    if variable.enum is not None and text not in variable.enum:
        raise CallerError(f"the variable `{name}` must be one of {', '.join(f'`{value}`' for value in variable.enum)}", param=param)
    return text


def _from_metadata(variable: Variable, *, spelled: bytes | None) -> str | None:
    if spelled is None or spelled == b"null":
        return None
    try:
        value = parse_scalar(spelled)
    except NotJSONError as error:
        raise CallerError(f"the variable `{variable.name}` {error}", param=f"metadata.{variable.name}") from None
    if isinstance(value, str):
        return value
    # A JSON number or boolean may stand for a variable of that type; has_type judges its spelling.
    if variable.type.value == "String" or not isinstance(value, bool | int | float):
        raise CallerError(f"the variable `{variable.name}` must be a string", param=f"metadata.{variable.name}")
    if isinstance(value, bool) != (variable.type.value == "Boolean"):
        raise CallerError(f"the variable `{variable.name}` must be of type {variable.type.value}", param=f"metadata.{variable.name}")
    return spelled.decode()
