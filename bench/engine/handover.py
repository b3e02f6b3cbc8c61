"""How long nobody acts when the operator that leads is told to end, as in a rollout of the operator or a drain of its node."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from backstop.kube.resources import LEASES

from .processes import OPERATOR_NAMESPACE, Operator
from .stage import Stage, load
from .table import Row, percentile

LEASE: Final = "backstop"  # as the operator names it where its configuration does not
LONGEST: Final = 120.0
LOOK_SECONDS: Final = 0.01


async def measure_handover(stage: Stage, *, count: int) -> list[Row]:
    """So many times: the one of two that leads gets SIGTERM, and a third is started when the second leads."""
    took: list[float] = []
    async with AsyncExitStack() as both:
        leads = await both.enter_async_context(stage.operating())
        await _led_by(stage, leads)
        for _ in range(count):
            follows = await both.enter_async_context(stage.operating())
            await _until(follows.is_ready)  # it has listed the cluster, and stands in line for the Lease
            began = time.monotonic()
            leads.end()
            await _led_by(stage, follows)
            took.append(time.monotonic() - began)
            leads = follows
    value = f"p50 {percentile(took, percent=50):.2f} s, max {max(took):.2f} s (n={count})"
    return [Row("SIGTERM to the one that leads → another holds the Lease", value, "< 1 s", load())]


async def _led_by(stage: Stage, operator: Operator) -> None:
    async def led() -> bool:
        return f"-{operator.pid}-" in await _holder(stage)

    await _until(led)


async def _holder(stage: Stage) -> str:
    """Who holds the Lease; empty while nobody has."""
    for lease in await stage.api.list(LEASES, namespace=OPERATOR_NAMESPACE):
        if lease["metadata"]["name"] == LEASE:
            return str(lease["spec"].get("holderIdentity") or "")
    return ""


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LONGEST):
        while True:
            if await holds():
                return
            await asyncio.sleep(LOOK_SECONDS)
