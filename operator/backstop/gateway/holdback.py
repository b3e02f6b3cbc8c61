"""Holding a stream back after its first content, so that one that breaks off soon can still be handed over unnoticed."""

import asyncio
from collections.abc import Callable
from typing import Final

from ..api.metricnames import FailureMode
from .errors import Failure
from .timing import on_loop
from .upstream import CutError, Failed, Streaming

# No more than this is held; a model that is so fast does not break off for being slow.
MOST_HELD_BYTES: Final = 1 << 20


async def held_back(stream: Streaming, *, tier: str, until: float, clock: Callable[[], float]) -> Streaming | Failed:
    """The stream, with what has come until then in its head; or its failure, where it has broken off. `clock` is monotonic, in seconds.

    What is cancelled closes the stream.
    """
    kept = False
    try:
        async with asyncio.timeout_at(on_loop(until, clock=clock)):
            while len(stream.head) < MOST_HELD_BYTES and (piece := await stream.more()) is not None:
                stream.head += piece[0]
        kept = True
    except TimeoutError:  # that it goes on is all that was to be known; what comes meanwhile waits in the connection
        kept = True
    except CutError as error:
        return Failed(Failure(FailureMode.DEPENDENCY_FAILURE, f"tier `{tier}`: {error}"))
    finally:
        if not kept:
            await stream.close()
    return stream
