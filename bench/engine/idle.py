"""What policies in rest cost: start-up, memory, CPU, requests and writes."""

import asyncio
import time
from typing import Final

from .processes import Operator
from .stage import Stage, load, names
from .table import Row

LOOK_SECONDS: Final = 1.0
LONGEST_START: Final = 1200.0
CALM_SECONDS: Final = 20.0
MANY: Final = 10_000
FEW: Final = 200


async def measure_idle(stage: Stage, *, count: int, seconds: float) -> list[Row]:
    """Figures of `count` policies; `seconds`: how long to look at them in rest."""
    await stage.settle(names("idle", count), answering=False)
    began = time.time()
    async with stage.operating() as operator:
        started = await _started(operator, passes=2 * count)
        took = time.time() - began
        await asyncio.sleep(CALM_SECONDS)
        start, peak = stage.requests(since=began), operator.usage().peak
        before, at = operator.usage(), time.time()
        await asyncio.sleep(seconds)
        after = operator.usage()
        await asyncio.sleep(1.5)  # the audit log is written once a second
        rest = stage.requests(since=at)
    cpu = (after.cpu - before.cpu) * 60 / seconds
    many, few = count == MANY, count == FEW
    told = f"{count:,} idle: "
    return [
        Row(
            told + "start, until every policy and prompt had a pass",
            f"{took:.1f} s ({started:.1f} CPU-s)",
            "≤ 60 s" if many else "",
            load(),
        ),
        Row(told + "requests at start", f"{sum(start.verbs.values())}, of these {start.writes} writes", "0 writes"),
        Row(told + "memory in rest", f"{after.resident:.0f} MiB", "≤ 400 MiB" if many else "≤ 120 MiB" if few else ""),
        Row(told + "memory, peak at start", f"{peak:.0f} MiB"),
        Row(
            told + "CPU in rest",
            f"{cpu:.2f} s/min = {cpu / 0.6:.1f} % of a core",
            "≤ 5 %" if many else "≤ 0.13 s/min" if few else "",
            load(),
        ),
        Row(told + "API requests in rest, per minute", f"{rest.per_minute:.0f}: {rest.told()}", "≤ 35" if few else ""),
        Row(told + f"writes in {seconds:.0f} s, without the Lease", f"{rest.writes}", "0"),
    ]


async def _started(operator: Operator, *, passes: int) -> float:
    """Wait until so many passes have been made and none waits; returns the CPU seconds that it took."""
    async with asyncio.timeout(LONGEST_START):
        while True:
            metrics = await operator.metrics()
            if metrics.get("backstop_operator_pass_seconds_count", 0) >= passes and not metrics.get("backstop_operator_queue_depth"):
                return operator.usage().cpu
            await asyncio.sleep(LOOK_SECONDS)
