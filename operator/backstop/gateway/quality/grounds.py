"""What an answer may be built on: words, figures and links of the messages that it answers. PURE, and linear in their length.

Words are compared by how they begin, so that most of their forms are one; figures without the ways to write them.
"""

import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Final

from .written import Steps, in_pieces

_PIECE: Final = 2048  # characters a step
# Scripts without spaces between words: two characters that follow one another stand for a word.
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORDS: Final = re.compile(rf"[{_UNSPACED}](?=([{_UNSPACED}]))|[^\W\d_{_UNSPACED}]{{4,}}")
_PLAIN_WORDS: Final = re.compile(r"[a-z]{4,}")
_BEGINNING: Final = 5  # characters
_FIGURES: Final = re.compile(r"\d+(?:[.,:'\u2019\u00a0\u202f]\d+)*")
_GROUPED: Final = re.compile(r"\d{1,3}(?:([,.'\u2019\u00a0\u202f])\d{3})(?:\1\d{3})*(?!\d)")
_GROUP_SIGNS: Final = re.compile(r"[,.'\u2019\u00a0\u202f](?=\d{3}(?!\d))")
_LINKS: Final = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]{}\"'`]+", re.IGNORECASE)
_AFTER_LINKS: Final = ".,;:!?*_"
# A number of a list, which is no figure.
_ITEM: Final = re.compile(r"^[ \t]*\d{1,2}[.)](?=[ \t])", re.MULTILINE)


@dataclass(frozen=True)
class Grounds:
    """What a request holds."""

    words: frozenset[str]
    figures: frozenset[str]
    links: frozenset[str]


def grounds_of(context: Iterable[str]) -> Steps[Grounds]:
    """Of the texts of a request."""
    words: set[str] = set()
    figures: set[str] = set()
    links: set[str] = set()
    for piece in in_pieces(context, longest=_PIECE):
        words.update(words_in(piece))
        rest, found = without_links(piece)
        links.update(found)
        for spelled in _FIGURES.findall(rest):
            figures.update(_readings(spelled))
        # A link's figures may be said without it, such as the number of an order.
        for link in found:
            for spelled in _FIGURES.findall(link):
                figures.update(_readings(spelled))
        yield
    return Grounds(frozenset(words), frozenset(figures), frozenset(links))


def words_in(text: str) -> list[str]:
    """The words of four letters or more, by how they begin."""
    if text.isascii():
        return [word.removesuffix("s")[:_BEGINNING] for word in _PLAIN_WORDS.findall(text.lower())]
    return [_compared(found) for found in _WORDS.finditer(text.casefold())]


def _compared(found: re.Match[str]) -> str:
    following = found[1]
    return found[0] + following if following is not None else found[0].removesuffix("s")[:_BEGINNING]


def figures_in(text: str) -> Generator[frozenset[str], None, None]:
    """The figures of an answer without links, each as the ways that it can be read. What counts or numbers, up to nine, is left out."""
    for spelled in _FIGURES.findall(_ITEM.sub("", text)):
        if len(spelled.lstrip("0")) > 1:  # 05 is a day or a month
            yield _readings(spelled)


def without_links(text: str) -> tuple[str, list[str]]:
    """The text without its links, and these."""
    if "://" not in text and "www." not in text.lower():
        return text, []
    links = [_link(found) for found in _LINKS.findall(text)]
    return _LINKS.sub(" ", text), links


def _link(spelled: str) -> str:
    bare = re.sub(r"^https?://", "", spelled.casefold().rstrip(_AFTER_LINKS)).removeprefix("www.")
    return bare.rstrip("/")


def _readings(spelled: str) -> frozenset[str]:
    """A figure without signs of thousands, and with one sign for all others; a comma may be either."""
    readings = {_plain(spelled)}
    if _GROUPED.match(spelled):
        readings.add(_plain(_GROUP_SIGNS.sub("", spelled)))
    return frozenset(readings)


def _plain(spelled: str) -> str:
    whole, *parts = re.split(r"[.,:'\u2019\u00a0\u202f]", spelled)
    whole = whole.lstrip("0") or "0"
    if len(parts) == 1:
        fraction = parts[0].rstrip("0")
        return f"{whole}.{fraction}" if fraction else whole
    return ".".join([whole, *parts])
