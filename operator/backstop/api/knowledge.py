"""The knowledge base of a static tier: which words are answered by what, in which languages. PURE.

A YAML document in one key of a ConfigMap. Everything in it is text, so a number or a `no` is read as it is spelled, and nothing in it
is ever run: no tags, no aliases, no regular expressions. Knows what is valid; how a message is searched is the gateway's matter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

from pydantic import Field

from .model import ApiModel
from .plainyaml import PlainYAMLError, read_plain
from .problems import InputError, parse_strictly
from .words import words_of

# A quarter of what an API server takes for one object: the record of a revision holds the prompt too. Read in half a second.
MOST_BYTES: Final = 256 * 1024
MOST_ENTRIES: Final = 2000
LONGEST_PHRASE: Final = 128
LONGEST_PROBLEM: Final = 400
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")

Phrase = Annotated[str, Field(min_length=1, max_length=LONGEST_PHRASE)]
Answer = Annotated[str, Field(min_length=1, max_length=16384)]
Answers = Annotated[dict[str, Answer], Field(min_length=1, max_length=64)]


class KnowledgeError(ValueError):
    """The knowledge base is not valid; the text is one sentence for its author, without a full stop."""


class _Entry(ApiModel):
    """What some questions are answered by."""

    keywords: list[Phrase] = Field(default_factory=list, max_length=64)
    patterns: list[Phrase] = Field(default_factory=list, max_length=64)
    answer: Answer | None = None
    answers: Answers | None = None


class _Document(ApiModel):
    """A whole knowledge base, as it is written."""

    locale: str | None = None
    entries: list[_Entry] = Field(min_length=1, max_length=MOST_ENTRIES)
    defaults: Answers | None = None


class PatternWord(NamedTuple):
    """One word of a pattern. `open`: any word that begins so."""

    text: str
    open: bool


@dataclass(frozen=True)
class Entry:
    """One entry: phrases (words one right after another), patterns (words in this order), and answers by locale.

    Locales are in small letters; the empty one is for every caller.
    """

    keywords: tuple[tuple[str, ...], ...]
    patterns: tuple[tuple[PatternWord, ...], ...]
    answers: Mapping[str, str]


@dataclass(frozen=True)
class KnowledgeBase:
    """A valid knowledge base. `locale`: which answer a caller gets who asks for none of those that there are; in small letters."""

    locale: str
    entries: tuple[Entry, ...]
    defaults: Mapping[str, str]


def read_knowledge_base(text: str) -> KnowledgeBase:
    """What the YAML document `text` says. Raises KnowledgeError."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        half, line = ord(text[error.start]), text.count("\n", 0, error.start) + 1
        raise KnowledgeError(f"line {line}: half of a character that is written in two halves (U+{half:04X}); write all of it") from None
    if size > MOST_BYTES:
        raise KnowledgeError(f"it has {-(-size // 1024)} KiB, and may have {MOST_BYTES // 1024} KiB; shorten it")
    try:
        plain = read_plain(text)
        if not isinstance(plain, dict):
            raise KnowledgeError("it is no map; begin with `entries:` and a list of them")
        document = parse_strictly(_Document, plain, prefix="")
        locale = _locale(document.locale, field="locale") if document.locale is not None else ""
        entries = tuple(_entry(entry, field=f"entries[{number}]", locale=locale) for number, entry in enumerate(document.entries))
        return KnowledgeBase(locale=locale, entries=entries, defaults=_by_locale(document.defaults or {}, field="defaults"))
    except (PlainYAMLError, InputError, KnowledgeError) as error:
        raise KnowledgeError(_short(str(error))) from None


def _entry(entry: _Entry, *, field: str, locale: str) -> Entry:
    if not entry.keywords and not entry.patterns:
        raise KnowledgeError(f"`{field}` has neither `keywords` nor `patterns`; say what it answers")
    if entry.answer is None and entry.answers is None:
        raise KnowledgeError(f"`{field}` has neither `answer` nor `answers`; set one of them")
    if entry.answer is not None and entry.answers is not None:
        raise KnowledgeError(f"`{field}` has both `answer` and `answers`; take one of them out")
    return Entry(
        keywords=tuple(_keyword(text, field=f"{field}.keywords[{number}]") for number, text in enumerate(entry.keywords)),
        patterns=tuple(_pattern(text, field=f"{field}.patterns[{number}]") for number, text in enumerate(entry.patterns)),
        answers=_answers(entry, field=field, locale=locale),
    )


def _answers(entry: _Entry, *, field: str, locale: str) -> Mapping[str, str]:
    if entry.answers is None:
        return {"": entry.answer or ""}
    answers = _by_locale(entry.answers, field=f"{field}.answers")
    if not locale:
        raise KnowledgeError(f"`{field}.answers` is by locale, and `locale` does not say which of them is for everybody else; set it")
    if locale not in answers:
        raise KnowledgeError(f"`{field}.answers` has none in the knowledge base's own `locale`, `{locale}`; add it")
    return answers


def _by_locale(answers: Mapping[str, str], *, field: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, answer in answers.items():
        locale = _locale(name, field=f"{field}.{name}")
        if locale in found:
            raise KnowledgeError(f"`{field}.{name}` is given twice, in other letters; leave one out")
        found[locale] = answer
    return found


def _locale(name: str, *, field: str) -> str:
    if not _LOCALE.fullmatch(name):
        raise KnowledgeError(f"`{_short(field)}` is not a locale; write one such as `de` or `pt-BR`")
    return name.lower()


def _keyword(text: str, *, field: str) -> tuple[str, ...]:
    if "*" in text:
        raise KnowledgeError(f"`{field}` has a `*`, which only `patterns` know; move it there")
    words = words_of(text)
    if not words:
        raise KnowledgeError(f"`{field}` has no word in it; give letters or digits")
    return tuple(words)


def _pattern(text: str, *, field: str) -> tuple[PatternWord, ...]:
    words: list[PatternWord] = []
    for piece in text.split():
        stem, is_open = (piece[:-1], True) if piece.endswith("*") else (piece, False)
        if "*" in stem:
            raise KnowledgeError(f"`{field}`: a `*` stands at the end of a word, for any ending; take the others out")
        inner = words_of(stem)
        if is_open and not inner:
            raise KnowledgeError(f"`{field}`: a `*` alone says nothing, for other words may stand between anyway; take it out")
        words += [PatternWord(word, is_open and position == len(inner) - 1) for position, word in enumerate(inner)]
    if not words:
        raise KnowledgeError(f"`{field}` has no word in it; give letters or digits")
    return tuple(words)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_PROBLEM else text[:LONGEST_PROBLEM] + "…"
