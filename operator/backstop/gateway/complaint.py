"""What goes wrong again and again is said once a minute: a log that repeats itself for each request takes the disk, and the eye."""

import logging
from collections.abc import Callable
from typing import Final

AGAIN_SECONDS: Final = 60.0
_LOG: Final = logging.getLogger("backstop.gateway")


class Complaint:
    """A warning. `clock` is monotonic, in seconds."""

    def __init__(self, text: str, *, clock: Callable[[], float]) -> None:
        self._text = text
        self._clock = clock
        self._again_at = clock()

    def say(self) -> None:
        """It goes wrong now."""
        if (now := self._clock()) >= self._again_at:
            self._again_at = now + AGAIN_SECONDS
            _LOG.warning(self._text)
