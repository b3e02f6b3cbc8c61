"""Numbers of the command line and the environment, from their texts. PURE. A refusal is one sentence that names the option."""

import math
from typing import Final

from .revision import ConfigurationError

# Longer than any request may take; beyond it timers lose their meaning.
LONGEST_SECONDS: Final = 86_400
_LAST_PORT: Final = 65_535


def parse_seconds(text: str, *, option: str) -> float:
    """A length of time in seconds. Raises ConfigurationError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_SECONDS:  # NaN is in no range
        raise ConfigurationError(f"`{option}` must be seconds between 0 and {LONGEST_SECONDS}, not `{text}`; correct it")
    return seconds


def parse_port(text: str, *, option: str) -> int:
    """A TCP port; 0 stands for any. Raises ConfigurationError."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LAST_PORT)) and int(text) <= _LAST_PORT):
        raise ConfigurationError(f"`{option}` must be a port between 0 and {_LAST_PORT}, not `{text}`; correct it")
    return int(text)
