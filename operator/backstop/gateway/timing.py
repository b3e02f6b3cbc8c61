"""Deadlines on the injected clock, as asyncio's timers want them.

An event loop's own time is coarse (uvloop: milliseconds, read once per turn): good for timers, too coarse to measure with.
"""

import asyncio
from collections.abc import Callable


def on_loop(moment: float, *, clock: Callable[[], float]) -> float:
    """`moment` of `clock` (monotonic, seconds) in the running loop's time."""
    return asyncio.get_running_loop().time() + moment - clock()
