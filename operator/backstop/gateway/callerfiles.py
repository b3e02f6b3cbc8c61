"""Callers' keys out of a mounted Secret, read again and again: a key that was taken away must not hold until the pod goes."""

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Final

from .access import Access, CallerKeys, KeysError

# A kubelet takes about a minute to bring a change to the pod; this comes on top.
READ_SECONDS: Final = 10.0
_LOG: Final = logging.getLogger("backstop.gateway")


def read_callers(folder: Path) -> dict[str, str]:
    """By caller, the text of its keys. Raises KeysError."""
    try:
        # The kubelet's own links begin with two dots.
        return {file.name: file.read_text() for file in sorted(folder.iterdir()) if not file.name.startswith("..")}
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"the callers' keys in {folder} cannot be read ({type(error).__name__}); mount a Secret of texts") from None


async def follow_callers(folder: Path, *, access: Access, texts: dict[str, str], jitter: Random, interval: float = READ_SECONDS) -> None:
    """Hold `access` to what is in `folder`, until cancelled. `texts`: what it was. What cannot be used changes nothing, and is told."""
    told = ""
    while True:
        await asyncio.sleep(interval * jitter.uniform(0.8, 1.2))
        try:
            found = await asyncio.to_thread(read_callers, folder)
            if found != texts:
                access.keys, texts = CallerKeys(found), found
                _LOG.info("callers' keys were changed; there are %d callers", len(found))
            told = ""
        except KeysError as error:
            if str(error) != told:
                told = str(error)
                _LOG.error("%s; those from before go on to hold", error)
