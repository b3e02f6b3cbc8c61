"""Text as words, so that what is asked and what is looked for are compared alike. PURE.

Without letter case, punctuation, emoji and width, and without what cannot be seen.
"""

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
# What cannot be seen, beside all of the category Cf (soft hyphens, joiners, marks of direction): fillers, selectors of a variant of the
# character before, and the frame around the digit of a key. First characters, and the ones after the last.
_UNSEEN: Final = (
    *(0x034F, 0x0350),
    *(0x115F, 0x1161),
    *(0x17B4, 0x17B6),
    *(0x180B, 0x1810),
    *(0x20E3, 0x20E4),
    *(0x3164, 0x3165),
    *(0xFE00, 0xFE10),
    *(0xFFA0, 0xFFA1),
    *(0xE0100, 0xE01F0),
)


def words_of(text: str, *, most: int | None = None) -> list[str]:
    """The words of `text` in order: runs of letters, digits and the marks on them. Linear in the length of `text`.

    `most`: so many characters are looked at, as they are compared: one that is written may stand for eighteen.
    """
    words: list[str] = []
    run: list[str] = []
    is_whole = False  # of the run: a character that is a word
    for character in _folded(_seen(text), most=most):
        if unicodedata.category(character)[0] == "M":
            if run:  # a mark goes on with a word, and begins none
                run.append(character)
            continue
        is_letter, is_alone = character.isalnum(), _is_in(_UNSPACED, character)
        if run and (is_whole or is_alone or not is_letter):
            words.append("".join(run))
            run = []
        if is_letter:
            run.append(character)
            is_whole = is_alone
    if run:
        words.append("".join(run))
    return words


def _seen(text: str) -> str:
    """`text` without what cannot be seen, which stands inside words as well as between them."""
    if text.isascii():
        return text
    return "".join([character for character in text if unicodedata.category(character) != "Cf" and not _is_in(_UNSEEN, character)])


def _is_in(ranges: tuple[int, ...], character: str) -> bool:
    return bisect_right(ranges, ord(character)) % 2 == 1


def _folded(text: str, *, most: int | None) -> str:
    normal = unicodedata.normalize("NFKC", text)[:most]
    return unicodedata.normalize("NFKC", normal.casefold())[:most]
