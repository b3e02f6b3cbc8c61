"""Text as words, so that what is asked and what is looked for are compared alike: without letter case, punctuation and width. PURE."""

import unicodedata
from typing import Final

# Scripts that put no spaces between words: each of their characters counts as a word.
_UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Japanese syllables
    (0x3400, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_FIRST_UNSPACED: Final = _UNSPACED[0][0]


def words_of(text: str, *, most: int | None = None) -> list[str]:
    """The words of `text` in order: runs of letters, marks and digits. Linear in the length of `text`.

    `most`: so many characters are looked at, as they are compared: one that is written may stand for eighteen.
    """
    words: list[str] = []
    run: list[str] = []
    for character in _folded(text)[:most]:
        if not (character.isalnum() or unicodedata.category(character)[0] == "M"):
            if run:
                words.append("".join(run))
                run = []
        elif character >= chr(_FIRST_UNSPACED) and _is_unspaced(ord(character)):
            if run:
                words.append("".join(run))
                run = []
            words.append(character)
        else:
            run.append(character)
    if run:
        words.append("".join(run))
    return words


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _is_unspaced(code: int) -> bool:
    return any(first <= code <= last for first, last in _UNSPACED)
