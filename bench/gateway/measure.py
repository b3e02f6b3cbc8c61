"""The runs of one stack, and of the model alone. Times in seconds."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from .calls import BenchError, Caller, Calls, Way
from .stacks import Fault, Model, Running, Setting, Stack

CONNECTIONS: Final = (1, 32, 256)
BUSY_CONNECTIONS: Final = 32  # of streams, and of cache hits
# So many times longer than others: of ten streams a second a p99 would be the one or two slowest.
PACED_LONGER: Final = 10


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
    ruled: Calls | None = None  # answers of rules, where the primary refuses connections
    idle: float | None = None  # MiB
    loaded: float | None = None
    faults: dict[Fault, Calls] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what it did not do


async def measure_model(model: Model, *, caller: Caller, seconds: float) -> Figures:
    """The ceiling: callers and model without anything between them."""
    found = Figures("nothing between", "")
    for connections in CONNECTIONS:
        found.whole[connections] = await caller(_direct(model.good), connections=connections, seconds=seconds)
    found.stream = await caller(_direct(model.paced), connections=1, seconds=PACED_LONGER * seconds, stream=True)
    found.streams = await caller(_direct(model.good), connections=BUSY_CONNECTIONS, seconds=seconds, stream=True)
    return found


async def measure(
    stack: Stack, *, model: Model, caller: Caller, core: int, folder: Path, seconds: float, faults: Sequence[Fault]
) -> Figures:
    """One stack, started anew for each setting. What it does not do is left out, and told in `notes`."""
    found = Figures(stack.name, stack.version)

    async def plain(running: Running) -> None:
        found.idle = running.usage().resident
        for connections in CONNECTIONS:
            found.whole[connections] = await caller(running.way, connections=connections, seconds=seconds)
        found.streams = await caller(running.way, connections=BUSY_CONNECTIONS, seconds=seconds, stream=True)
        found.loaded = running.usage().resident

    async def paced(running: Running) -> None:
        found.stream = await caller(running.way, connections=1, seconds=PACED_LONGER * seconds, stream=True)

    async def keeping(running: Running) -> None:
        found.hit = await caller(running.way, connections=1, seconds=seconds)
        found.hits = await caller(running.way, connections=BUSY_CONNECTIONS, seconds=seconds)

    async def ruled(running: Running) -> None:
        found.ruled = await caller(running.way, connections=1, seconds=seconds)

    async def failing(running: Running, *, fault: Fault) -> None:
        found.faults[fault] = await caller(running.way, connections=1, seconds=seconds)

    runs: list[tuple[Setting, Callable[[Running], Awaitable[None]]]] = [(Setting([model.good]), plain), (Setting([model.paced]), paced)]
    if stack.keeps:
        runs.append((Setting([model.good], cache=True), keeping))
    if stack.rules:
        runs.append((Setting([model.failing(Fault.REFUSE)], rules=True), ruled))
    runs += [(Setting([model.failing(fault), model.good]), partial(failing, fault=fault)) for fault in faults]
    for setting, run in runs:
        try:
            async with stack.running(setting, core=core, folder=folder) as running:
                await run(running)
        except BenchError as error:
            found.notes.append(f"{stack.name}: {error}")
    return found


def _direct(url: str) -> Way:
    return Way(f"{url}/chat/completions")
