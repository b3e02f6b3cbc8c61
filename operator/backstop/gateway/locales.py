"""Which language a caller wants, and which of the texts that there are comes closest: the look-up of RFC 4647. PURE."""

from collections.abc import Mapping
from typing import Final

MOST_RANGES: Final = 16
LONGEST_HEADER: Final = 256


def wanted_locales(header: str) -> tuple[str, ...]:
    """Locales in small letters out of an `Accept-Language` header, the best liked first. What cannot be read in it wants nothing."""
    ranges: list[tuple[float, str]] = []
    for part in header.split(",")[:MOST_RANGES]:
        locale, _, parameter = part.partition(";")
        weight = _weight(parameter)
        if weight > 0 and locale.strip():
            ranges.append((weight, locale.strip().lower()))
    # A sort keeps the order of what is liked equally.
    return tuple(locale for _, locale in sorted(ranges, key=lambda pair: -pair[0]))


def closest(texts: Mapping[str, str], *, wanted: tuple[str, ...]) -> str | None:
    """The text for the first of the wanted locales that has one, in the locale itself or in what it is a part of (`de-at`, then `de`)."""
    for locale in wanted:
        while locale:
            if (text := texts.get(locale)) is not None:
                return text
            locale = locale.rpartition("-")[0]
    return None


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not parameter.strip():
        return 1.0
    try:
        weight = float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
