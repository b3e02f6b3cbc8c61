"""One soak: a gateway as a process, two models and a Valkey that get into trouble and out of it again, callers, and the reckoning.

Memory is compared between the second sixth of the time and the last one: before, caches and pools fill.
"""

import asyncio
import contextlib
import itertools
import re
import statistics
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import aiohttp

from backstop.api import metricnames as names
from backstop.api.record import RevisionRecord
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Fault, Rule
from tests.gateway.harness import Gateway, Model, eventually, gateway_process, listening, make_record, model_tier, static_tier
from tests.gateway.valkey import Line, line_to, valkey

from .callers import STATIC, Callers, Ended, Seen

TROUBLE_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.5
REST_SECONDS: Final = 60.0  # until what was kept open for the next request is closed
MOST_GROWTH: Final = 0.05  # of memory
SLACK_MEBIBYTES: Final = 6.0
SLACK_FILES: Final = 8
SHOWN_PROBLEMS: Final = 20
REDIS_ADDRESS: Final = "BACKSTOP_REDIS_ADDRESS_1"
WELL: Final = Rule(echo=True)
TROUBLES: Final = (
    (WELL,),
    (Rule(echo=True, latency_milliseconds=80, jitter_milliseconds=79, token_interval_milliseconds=3),),
    (Rule(error_percent=40, error_status=500, echo=True),),
    (Rule(error_percent=100, error_status=429, error_retry_after="1"),),
    (Rule(fault=Fault.HANG),),
    (Rule(fault=Fault.RESET),),
    (Rule(fault=Fault.MALFORMED),),
    (Rule(fault=Fault.ERROR_BODY),),
    (Rule(fault=Fault.EMPTY),),
    (Rule(fault=Fault.ROLE_ONLY, echo=True),),
    (Rule(fault=Fault.CUT, cut_after_tokens=2, echo=True),),
    (Rule(fault=Fault.STALL, cut_after_tokens=2, echo=True),),
    (Rule(fault=Fault.GARBAGE, cut_after_tokens=2, echo=True),),
    (Rule(fault=Fault.NO_DONE, echo=True),),
    (Rule(slice_bytes=7, line_end="\r\n", echo=True),),
    (Rule(error_percent=30, error_status=400, echo=True),),
)


@dataclass(frozen=True)
class Look:
    """What the gateway's process held at a time (seconds since the beginning)."""

    at: float
    mebibytes: float
    files: int
    tasks: int


@dataclass(frozen=True)
class Report:
    """What is printed, and what is wrong."""

    lines: Sequence[str]
    problems: Sequence[str]


async def soak(folder: Path, *, seconds: float, rate: float, seed: int) -> Report:
    """Run it. `rate`: requests a second."""
    random = Random(seed)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        primary, other = [await stack.enter_async_context(_model(seed + number)) for number in range(2)]
        server = await stack.enter_async_context(valkey(folder))
        line = await stack.enter_async_context(line_to(server.port))
        process = await stack.enter_async_context(
            gateway_process(_record(primary, other=other), http=http, folder=folder, environment={REDIS_ADDRESS: line.url})
        )
        drained = asyncio.create_task(_drain(process.process.stderr))
        gateway, pid = process.gateway, process.process.pid
        first = await _look(gateway, pid=pid, at=0.0)
        callers = Callers(http, address=gateway.address, random=random)
        looks: list[Look] = []
        began = time.monotonic()
        async with asyncio.TaskGroup() as beside:
            trouble = beside.create_task(_trouble(primary, other=other, line=line, random=random))
            looking = beside.create_task(_looking(gateway, pid=pid, began=began, looks=looks))
            await _call(callers, seconds=seconds, rate=rate)
            trouble.cancel()
            looking.cancel()
        line.open.set()
        primary.script(WELL)
        other.script(WELL)
        idle = await _at_rest(gateway, pid=pid, first=first)
        counted = await _counted(gateway)
        drained.cancel()
    return _report(callers.seen, counted=counted, looks=looks, first=first, idle=idle, seconds=seconds)


@contextlib.asynccontextmanager
async def _model(seed: int) -> AsyncIterator[Model]:
    fake = FakeModel(random=Random(seed))
    async with listening(fake.application()) as address:
        model = Model(fake, address)
        model.script(WELL)
        yield model


def _record(primary: Model, *, other: Model) -> RevisionRecord:
    breaker = {"minRequests": 10, "openSeconds": 1}
    quick = {"headersMilliseconds": 300, "firstTokenMilliseconds": 400, "stallMilliseconds": 400}
    redis = {"redis": {"addressRef": {"name": "cache", "key": "url"}}, "ttlSeconds": 30, "timeoutMilliseconds": 50}
    chain = [
        model_tier(primary.url, vectors="e") | {"timeouts": quick, "retries": 1, "circuitBreaker": breaker},
        {"name": "cache", "cache": {"hot": {"ttlSeconds": 5, "maxMebibytes": 2}, "warm": redis, "staleIfErrorSeconds": 20}},
        model_tier(other.url, name="other", vectors="e") | {"timeouts": quick, "circuitBreaker": breaker},
        static_tier(STATIC),
    ]
    return make_record(chain, budget=1500)


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


async def _trouble(primary: Model, *, other: Model, line: Line, random: Random) -> None:
    """Every few seconds something else: each trouble of the primary in turn, and by chance with one of the others'."""
    for number in itertools.count():
        primary.script(*TROUBLES[number % len(TROUBLES)])
        other.script(*(random.choice(TROUBLES) if random.random() < 0.3 else (WELL,)))
        if random.random() < 0.3:
            line.open.clear()
        else:
            line.open.set()
        await asyncio.sleep(TROUBLE_SECONDS)


async def _looking(gateway: Gateway, *, pid: int, began: float, looks: list[Look]) -> None:
    while True:
        looks.append(await _look(gateway, pid=pid, at=time.monotonic() - began))
        await asyncio.sleep(LOOK_SECONDS)


async def _look(gateway: Gateway, *, pid: int, at: float) -> Look:
    mebibytes, files = _held(Path(f"/proc/{pid}"))
    return Look(at=at, mebibytes=mebibytes, files=files, tasks=(await gateway.status())["tasks"])


def _held(process: Path) -> tuple[float, int]:
    """Resident memory in MiB, and open files."""
    resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert resident is not None
    return int(resident[1]) / 1024, sum(1 for _ in (process / "fd").iterdir())


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


async def _counted(gateway: Gateway) -> Tally[str]:
    """Requests by outcome, as the gateway's counters for the analysis have them."""
    found: Tally[str] = Tally()
    for labels, value in (await gateway.metrics(names.SERVED_TOTAL)).get(names.SERVED_TOTAL, []):
        found[labels["outcome"]] += int(value)
    return found


async def _drain(log: asyncio.StreamReader | None) -> None:
    assert log is not None
    while await log.readline():
        pass


def _report(seen: Seen, *, counted: Tally[str], looks: Sequence[Look], first: Look, idle: Look, seconds: float) -> Report:
    sixth = seconds / 6
    early = statistics.median(look.mebibytes for look in looks if sixth < look.at <= 2 * sixth)
    late = statistics.median(look.mebibytes for look in looks if look.at > 5 * sixth)
    problems = [*seen.problems[:SHOWN_PROBLEMS], *_sums(seen, counted=counted)]
    if len(seen.problems) > SHOWN_PROBLEMS:
        problems.append(f"… and {len(seen.problems) - SHOWN_PROBLEMS} more")
    if late > early * (1 + MOST_GROWTH) + SLACK_MEBIBYTES:
        problems.append(f"memory grows: {early:.1f} MiB in the second sixth of the time, {late:.1f} MiB in the last")
    if idle.tasks > first.tasks:
        problems.append(f"{idle.tasks} tasks are left at rest, of {first.tasks} at the start")
    if idle.files > first.files + SLACK_FILES:
        problems.append(f"{idle.files} files are open at rest, {first.files} at the start")
    files, tasks = max(look.files for look in looks), max(look.tasks for look in looks)
    lines = [
        f"{sum(seen.kinds.values()):,} requests in {seconds / 60:g} min: {_told(seen.kinds)}",
        f"answered by tier: {_told(seen.tiers)}",
        f"seen by callers: {_told(seen.judged + seen.others)}; counted for the analysis: {_told(counted)}",
        f"memory: {first.mebibytes:.1f} MiB at the start, {early:.1f} in the second sixth, {late:.1f} in the last",
        f"files: {first.files} at the start, at most {files}, {idle.files} at rest",
        f"tasks: {first.tasks} at the start, at most {tasks}, {idle.tasks} at rest",
    ]
    return Report(lines, problems)


def _sums(seen: Seen, *, counted: Tally[str]) -> list[str]:
    """Each outcome is counted as often as callers saw it; those who left may be among any of them, or have come to nobody's notice."""
    left = seen.judged[Ended.LEFT]
    problems = []
    for outcome in (Ended.SUCCESS, Ended.ERROR, Ended.TRUNCATED, Ended.CALLER_ERROR):
        saw = seen.judged[outcome]
        if not saw <= counted[outcome] <= saw + left:
            problems.append(f"outcome `{outcome}`: callers saw {saw}, {counted[outcome]} were counted, and {left} callers left")
    saw = sum(seen.judged.values())
    if not saw - left <= sum(counted.values()) <= saw:
        problems.append(f"callers made {saw} requests, of which they left {left}, and {sum(counted.values())} were counted")
    return problems


def _told(tally: Tally[str] | Tally[Ended]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(tally.items()))
