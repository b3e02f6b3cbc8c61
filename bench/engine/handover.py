"""How long nobody acts when the operator that leads is told to end (a rollout of the operator, a drained node), is killed, or freezes."""

import asyncio
import signal
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
# What the leader gets, how it is told, what is promised, and for every so many of the times that were asked for.
ENDS: Final = (
    (signal.SIGTERM, "SIGTERM to the one that leads", "< 1 s", 1),
    (signal.SIGKILL, "SIGKILL to the one that leads", "≤ 15 s", 2),
    (signal.SIGSTOP, "SIGSTOP to the one that leads", "≤ 15 s", 2),
)


async def measure_handover(stage: Stage, *, count: int) -> list[Row]:
    """So many times: the one of two that leads gets a signal, and a third is started when the second leads."""
    rows = []
    async with AsyncExitStack() as all_of_them:
        leads = await all_of_them.enter_async_context(stage.operating())
        await _led_by(stage, leads)
        for number, told, target, every in ENDS:
            took: list[float] = []
            for _ in range(0, count, every):
                follows = await all_of_them.enter_async_context(stage.operating())
                await _until(follows.is_ready)  # it has listed the cluster, and stands in line for the Lease
                began = time.monotonic()
                leads.signal(number)
                await _led_by(stage, follows)
                took.append(time.monotonic() - began)
                leads.signal(signal.SIGCONT)  # one that was frozen has to end
                leads.signal(signal.SIGTERM)
                leads = follows
            value = f"p50 {percentile(took, percent=50):.2f} s, max {max(took):.2f} s (n={len(took)})"
            rows.append(Row(f"{told} → another holds the Lease", value, target, load()))
    return rows


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
