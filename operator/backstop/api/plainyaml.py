"""YAML that is lists, maps and text, and nothing else: for documents that people write and a program must not be surprised by. PURE.

What YAML has beyond that is refused: aliases (a kilobyte that stands for a gigabyte), tags, a key twice, a second document, deep nesting.
"""

from collections.abc import Iterator
from typing import Final

import yaml

MOST_DEPTH: Final = 8
_NULLS: Final = ("", "~", "null", "Null", "NULL")
_TEXT_TAGS: Final = (None, "!", "tag:yaml.org,2002:str")
# The C parser where the library has it: the other one takes a second for a large document.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Plain = str | list["Plain"] | dict[str, "Plain"] | None


class PlainYAMLError(ValueError):
    """The document is not valid, or says more than lists, maps and text; the text is one sentence with the line, without a full stop."""


def read_plain(text: str) -> Plain:
    """The one document of `text`; every scalar as it is spelled, an empty one and `null` as None. Raises PlainYAMLError."""
    try:
        return _document(yaml.parse(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or "check its characters, indentation and quotes"
        raise PlainYAMLError(f"{where}not valid YAML; {problem}") from None


def _document(events: Iterator[yaml.Event]) -> Plain:
    found: Plain = None
    seen = False
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if seen:
                raise PlainYAMLError(f"{_line(event)}a second document begins; put everything into one")
            seen = True
        elif isinstance(event, yaml.NodeEvent):
            found = _node(event, events=events, depth=0)
    return found


def _node(event: yaml.Event, *, events: Iterator[yaml.Event], depth: int) -> Plain:
    if depth > MOST_DEPTH:
        raise PlainYAMLError(f"{_line(event)}nested too deeply; take levels out")
    if isinstance(event, yaml.AliasEvent):
        raise PlainYAMLError(f"{_line(event)}a YAML alias; write out what it stands for")
    if isinstance(event, yaml.ScalarEvent):
        return _text(event)
    if isinstance(event, yaml.SequenceStartEvent):
        _refuse_tag(event, tag=event.tag, own="tag:yaml.org,2002:seq")
        return [_node(inner, events=events, depth=depth + 1) for inner in _until(yaml.SequenceEndEvent, events=events)]
    assert isinstance(event, yaml.MappingStartEvent), "a parser gives nothing else here"
    _refuse_tag(event, tag=event.tag, own="tag:yaml.org,2002:map")
    members: dict[str, Plain] = {}
    for key in _until(yaml.MappingEndEvent, events=events):
        if not isinstance(key, yaml.ScalarEvent):
            raise PlainYAMLError(f"{_line(key)}a key that is no text; write a plain name")
        if key.value in members:
            raise PlainYAMLError(f"{_line(key)}`{key.value[:64]}` is given twice; leave one out")
        _refuse_tag(key, tag=key.tag, own=None)
        members[key.value] = _node(next(events), events=events, depth=depth + 1)
    return members


def _until(end: type[yaml.Event], *, events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _text(event: yaml.ScalarEvent) -> str | None:
    _refuse_tag(event, tag=event.tag, own=None)
    is_plain = event.implicit[0] and event.tag is None
    value: str = event.value
    return None if is_plain and value in _NULLS else value


def _refuse_tag(event: yaml.Event, *, tag: str | None, own: str | None) -> None:
    if tag not in (*_TEXT_TAGS, own):
        raise PlainYAMLError(f"{_line(event)}the YAML tag `{str(tag)[:64]}`; take it out")


def _line(event: yaml.Event) -> str:
    mark = event.start_mark
    return f"line {mark.line + 1}: " if mark is not None else ""
