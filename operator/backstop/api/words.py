"""Text as words, so that what is asked and what is looked for are compared alike: without letter case, punctuation and width. PURE."""

import unicodedata
from bisect import bisect_right
from typing import Final

# Scripts that put no spaces between words: each of their characters counts as a word. First characters, and the ones after the last.
_UNSPACED: Final = (
    *(0x0E00, 0x0F00),  # Thai, Lao
    *(0x1000, 0x10A0),  # Burmese
    *(0x1780, 0x1800),  # Khmer
    *(0x3040, 0x3100),  # Japanese syllables
    *(0x3400, 0xA000),  # Chinese characters
    *(0xF900, 0xFB00),
    *(0x20000, 0x40000),
)


def words_of(text: str, *, most: int | None = None) -> list[str]:
    """The words of `text` in order: runs of letters, marks and digits. Linear in the length of `text`.

    `most`: so many characters are looked at, as they are compared: one that is written may stand for eighteen.
    """
    words: list[str] = []
    run: list[str] = []
    for character in _folded(text, most=most):
        if not (character.isalnum() or unicodedata.category(character)[0] == "M"):
            if run:
                words.append("".join(run))
                run = []
        elif bisect_right(_UNSPACED, ord(character)) % 2:
            if run:
                words.append("".join(run))
                run = []
            words.append(character)
        else:
            run.append(character)
    if run:
        words.append("".join(run))
    return words


def _folded(text: str, *, most: int | None) -> str:
    normal = unicodedata.normalize("NFKC", text)[:most]
    return unicodedata.normalize("NFKC", normal.casefold())[:most]
