"""The runs of one stack, and of the model alone. Times in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .calls import Caller, Calls, Way
from .stacks import Fault, Model, Setting, Stack

CONNECTIONS: Final = (1, 32, 256)
BUSY_CONNECTIONS: Final = 32  # of streams, and of cache hits


@dataclass
class Figures:
    """What was measured of one stack; of the model alone, neither memory nor faults."""

    name: str
    version: str
    whole: dict[int, Calls] = field(default_factory=dict)  # by connections
    stream: Calls | None = None  # one at a time, a token every two milliseconds
    streams: Calls | None = None  # many at once, tokens without pause
    hit: Calls | None = None
    hits: Calls | None = None
    idle: float | None = None  # MiB
    loaded: float | None = None
    faults: dict[Fault, Calls] = field(default_factory=dict)


async def measure_model(model: Model, *, caller: Caller, seconds: float) -> Figures:
    """The ceiling: callers and model without anything between them."""
    found = Figures("nothing between", "")
    for connections in CONNECTIONS:
        found.whole[connections] = await caller(_direct(model.good), connections=connections, seconds=seconds)
    found.stream = await caller(_direct(model.paced), connections=1, seconds=seconds, stream=True)
    found.streams = await caller(_direct(model.good), connections=BUSY_CONNECTIONS, seconds=seconds, stream=True)
    return found


async def measure(
    stack: Stack, *, model: Model, caller: Caller, core: int, folder: Path, seconds: float, faults: Sequence[Fault]
) -> Figures:
    """One stack, started anew for each setting."""
    found = Figures(stack.name, stack.version)
    async with stack.running(Setting([model.good]), core=core, folder=folder) as plain:
        found.idle = plain.usage().resident
        for connections in CONNECTIONS:
            found.whole[connections] = await caller(plain.way, connections=connections, seconds=seconds)
        found.streams = await caller(plain.way, connections=BUSY_CONNECTIONS, seconds=seconds, stream=True)
        found.loaded = plain.usage().resident
    async with stack.running(Setting([model.paced]), core=core, folder=folder) as paced:
        found.stream = await caller(paced.way, connections=1, seconds=seconds, stream=True)
    if stack.keeps:
        async with stack.running(Setting([model.good], cache=True), core=core, folder=folder) as keeping:
            found.hit = await caller(keeping.way, connections=1, seconds=seconds)
            found.hits = await caller(keeping.way, connections=BUSY_CONNECTIONS, seconds=seconds)
    for fault in faults:
        async with stack.running(Setting([model.failing(fault), model.good]), core=core, folder=folder) as failing:
            found.faults[fault] = await caller(failing.way, connections=1, seconds=seconds)
    return found


def _direct(url: str) -> Way:
    return Way(f"{url}/chat/completions")
