"""One soak: a gateway as a process, what it stands between getting into trouble and out of it again, callers, and the reckoning.

Memory is compared between the second sixth of the time and the last one: before, caches and pools fill.
"""

import asyncio
import base64
import contextlib
import itertools
import re
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final

import aiohttp

from backstop.api import metricnames as names
from backstop.api.record import RevisionRecord
from tests.gateway.harness import Gateway, eventually, gateway_process, make_record, model_tier, static_tier

from .answers import ACKNOWLEDGEMENT, ASKS_HOURS, HOURS, STATIC
from .callers import BUDGET_SECONDS, Callers
from .ledger import HEDGE_SECONDS, OTHER, PRIMARY
from .reckoning import HOT_MEBIBYTES, Account, Counted, accounts
from .report import SLACK_FILES, Look, Observed, Report, openings, report
from .surroundings import Surroundings, surroundings

LOOK_SECONDS: Final = 0.5
PATIENT: Final = 1 / 3  # of the time, in which nobody leaves
KEPT_SECONDS: Final = 2.0  # connections of callers that nobody uses
REST_SECONDS: Final = 60.0  # until all is well again, and what was kept open for the next request is closed
SETTLE_SECONDS: Final = 10.0  # until what was written, judged or delivered last is counted
KEYS: Final = {
    "BACKSTOP_FEEDBACK_KEY": "k" * 32,
    "BACKSTOP_WEBHOOK_SECRET_4": "whsec_" + base64.b64encode(b"a key of twenty-four byt").decode(),
}
REDIS_ADDRESS: Final = "BACKSTOP_REDIS_ADDRESS_1"
RULES: Final = f"""
entries:
- when: request.variables.nobody == 'x'          # an error, wherever it is asked
  answer: Never.
- when: request.text.contains('{ASKS_HOURS}')
  answer: {HOURS}
"""


async def soak(folder: Path, *, seconds: float, rate: float, seed: int) -> Report:
    """Run it. `rate`: requests a second."""
    random = Random(seed)
    async with AsyncExitStack() as stack:
        connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connections))
        around = await stack.enter_async_context(surroundings(folder, seed=seed))
        process = await stack.enter_async_context(
            gateway_process(
                _record(around),
                http=http,
                folder=folder,
                options=("--cache-folder", str(folder), "--tickets-folder", str(folder)),
                environment={**KEYS, REDIS_ADDRESS: around.store.line.url},
            )
        )
        drained = asyncio.create_task(_drain(process.process.stderr))
        gateway, pid = process.gateway, process.process.pid
        callers = Callers(http, address=gateway.address, random=random)
        first = await _look(gateway, pid=pid, at=0.0)
        observed = Observed(callers.seen, first, first)
        over, began = asyncio.Event(), time.monotonic()
        async with asyncio.TaskGroup() as beside:
            beside.create_task(around.suffer(random=random, over=over))
            looking = beside.create_task(_looking(gateway, pid=pid, began=began, looks=observed.looks))
            await _call(callers, seconds=seconds * PATIENT, rate=rate)
            observed.early = await _settled(gateway, observed=observed, around=around)
            callers.may_leave = True
            await _call(callers, seconds=seconds * (1 - PATIENT), rate=rate)
            over.set()
            looking.cancel()
        observed.unwell = await _recovered(gateway, callers=callers)
        observed.idle = await _at_rest(gateway, pid=pid, first=first)
        observed.late = await _settled(gateway, observed=observed, around=around)
        drained.cancel()
    return report(observed, seconds=seconds)


def _record(around: Surroundings) -> RevisionRecord:
    breaker = {"minRequests": 10, "openSeconds": 1}
    quick = {"headersMilliseconds": 300, "firstTokenMilliseconds": 400, "stallMilliseconds": 400}
    redis = {"redis": {"addressRef": {"name": "cache", "key": "url"}}, "ttlSeconds": 8, "timeoutMilliseconds": 50}
    cache = {"hot": {"ttlSeconds": 4, "maxMebibytes": HOT_MEBIBYTES}, "warm": redis, "cold": {"ttlSeconds": 15}, "staleIfErrorSeconds": 20}
    hook = {"url": f"http://{around.helpers.address}/tickets", "secretRef": {"name": "desk", "key": "secret"}}
    primary = model_tier(around.primary.address, name=PRIMARY, vectors="e")
    primary["model"]["askUsage"] = True
    chain = [
        primary | {"timeouts": quick, "retries": 1, "circuitBreaker": breaker, "hedgeAfterMilliseconds": round(HEDGE_SECONDS * 1000)},
        {"name": "cache", "cache": cache},
        model_tier(around.other.address, name=OTHER, vectors="e") | {"timeouts": quick, "circuitBreaker": breaker},
        {"name": "rules", "ruleEngine": {"rulesRef": {"name": "rules", "key": "rules.yaml"}}},
        {"name": "people", "human": {"webhook": hook, "acknowledgement": ACKNOWLEDGEMENT, "queueLimit": 20}},
        static_tier(STATIC),
    ]
    judge = {"name": "judge", "type": "HTTP", "http": {"url": f"http://{around.helpers.address}/score", "timeoutMilliseconds": 500}}
    return make_record(
        chain,
        budget=round(BUDGET_SECONDS * 1000),
        contents={"rules": RULES},
        stream={"onInterruption": "Continue"},
        feedback={"keyRef": {"name": "feedback", "key": "key"}, "maxAgeSeconds": 3600},
        quality={"samplePercent": 100, "scorers": [{"name": "figures", "type": "NumbersAndLinks"}, judge]},
    )


async def _call(callers: Callers, *, seconds: float, rate: float) -> None:
    """An open loop: requests begin at their time, whatever becomes of those before."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as requests:
        for number in itertools.count():
            ahead = began + number / rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            if time.monotonic() - began > seconds:
                return
            requests.create_task(callers.one())


async def _looking(gateway: Gateway, *, pid: int, began: float, looks: list[Look]) -> None:
    while True:
        looks.append(await _look(gateway, pid=pid, at=time.monotonic() - began))
        await asyncio.sleep(LOOK_SECONDS)


async def _look(gateway: Gateway, *, pid: int, at: float) -> Look:
    mebibytes, files = _held(Path(f"/proc/{pid}"))
    status = await gateway.status()
    left_alone = frozenset(target for target, breaker in status["breakers"].items() if breaker["state"] != "closed")
    return Look(at=at, mebibytes=mebibytes, files=files, tasks=status["tasks"], left_alone=left_alone)


def _held(process: Path) -> tuple[float, int]:
    """Resident memory in MiB, and open files."""
    resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert resident is not None
    return int(resident[1]) / 1024, sum(1 for _ in (process / "fd").iterdir())


async def _recovered(gateway: Gateway, *, callers: Callers) -> Sequence[str]:
    """Ask until the first model and every level of the cache are used again, and no ticket waits; what has not recovered in time."""
    unwell: list[str] = []

    async def well() -> bool:
        await callers.chat()
        metrics = await gateway.metrics()
        states = {labels["tier"]: value for labels, value in metrics[names.BREAKER_STATE]}
        # Nobody asks the other model while the first one answers: that it may be tried is all that it can come to.
        unwell[:] = [f"the breaker of `{tier}` is not closed" for tier, state in states.items() if state > (tier == OTHER)]
        unwell.extend(f"target `{labels['target']}` is taken out" for labels, value in metrics[names.TARGET_UP] if value != 1)
        unwell.extend(f"{value:.0f} tickets wait" for _, value in metrics[names.TICKETS_WAITING] if value)
        return not unwell

    with contextlib.suppress(AssertionError):  # it is told
        await eventually(well, within=REST_SECONDS)
    return unwell


async def _at_rest(gateway: Gateway, *, pid: int, first: Look) -> Look:
    """When nothing is asked any more and what is kept open has been closed, or the time for that is over."""
    newest = first

    async def rests() -> bool:
        nonlocal newest
        newest = await _look(gateway, pid=pid, at=0.0)
        return newest.tasks <= first.tasks and newest.files <= first.files + SLACK_FILES and (await gateway.status())["inFlight"] == 0

    with contextlib.suppress(AssertionError):  # what is left then is told
        await eventually(rests, within=REST_SECONDS)
    return newest


async def _settled(gateway: Gateway, *, observed: Observed, around: Surroundings) -> Sequence[Account]:
    """What the counters come to, as soon as they add up, or the time for that is over."""
    found: list[Account] = []

    async def adds_up() -> bool:
        counted = Counted(await gateway.metrics())
        kept = await around.store.kept()
        found[:] = accounts(counted, seen=observed.seen, around=around, kept=kept, opened=openings(observed.looks))
        observed.unknown = counted.unknown()
        return all(account.adds_up for account in found)

    with contextlib.suppress(AssertionError):  # what does not add up then is told
        await eventually(adds_up, within=SETTLE_SECONDS)
    return found


async def _drain(log: asyncio.StreamReader | None) -> None:
    assert log is not None
    while await log.readline():
        pass
