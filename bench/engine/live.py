"""How long it takes from a bad sample to gateways without canary traffic, among other live canaries; and what judging costs."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backstop.analysis.state import PACKED_BYTES
from backstop.api.clock import parse_time
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Body
from e2e.cluster.progress import step

from . import objects
from .api import all_of
from .gateways import PolicyName
from .processes import Operator
from .stage import Stage, load, names
from .table import Row, spread

ONE_BY_ONE: Final = 20
BETWEEN_BREACHES: Final = 2.0
LONGEST_BEGIN: Final = 1200.0
LONGEST_SHIFT: Final = 120.0
STEADY_SECONDS: Final = 60.0
MANY: Final = 1000


@dataclass(frozen=True)
class Breach:
    """One breach, by times in seconds since the epoch.

    `readable`: Prometheus had the first sample with slow requests; `all_readable`: it had one of every pod that callers enter at.
    `detected`: the decision; `written`: a watcher saw the route without the canary; `seen`: the operator saw all gateways act on it.
    """

    flipped: float
    readable: float
    all_readable: float
    detected: float
    written: float
    seen: float


async def measure_live(stage: Stage, *, count: int, breaches: int, burst: int) -> list[Row]:
    """Single breaches among `count` live policies, then `burst` at once."""
    singles = min(breaches, count // 4) if count > 1 else min(breaches, ONE_BY_ONE)
    policies = names("live", count if count > 1 else singles)
    await stage.settle(policies, answering=True)
    await _scraped(stage, policies)
    told = f"{count:,} live: "
    rows = []
    async with stage.operating() as operator:
        await asyncio.sleep(2 * stage.scrape_seconds)
        if count == 1:
            found = [await _alone(stage, of) for of in policies]
        else:
            began = time.time()
            await _begin(stage, policies)
            rows.append(Row(told + "until all canaries were seen healthy", f"{time.time() - began:.0f} s", load=load()))
            rows += await _steady(stage, operator, told=told)
            found = await _in_turn(stage, policies[:singles])
        rows += _rows(found, told=told, target="p99 < 1 s" if count == MANY else "")
        if burst:
            at_once = policies[singles : singles + burst]
            for of in at_once:
                _flip(stage, of)
            found = await asyncio.gather(*(_breach(stage, of, flipped=time.time()) for of in at_once))
            rows += _rows(found, told=f"{count:,} live, {len(at_once)} at once: ")
    return rows


async def measure_queries(stage: Stage, *, count: int) -> list[Row]:
    """What `count` live policies cost in queries, with a scrape interval of 10 s."""
    policies = names("live", count)
    await stage.settle(policies, answering=True)
    await _scraped(stage, policies)
    async with stage.operating() as operator:
        await asyncio.sleep(2 * stage.scrape_seconds)
        await _begin(stage, policies)
        return await _steady(stage, operator, told=f"{count} live at {stage.scrape_seconds} s: ", target="≤ 60")


async def _scraped(stage: Stage, policies: Sequence[PolicyName]) -> None:
    """Wait for the pods, and have them scraped."""

    def all_there() -> bool:
        return sum(1 for _ in stage.gateways.entries()) >= stage.replicas * len(policies)

    await stage.kubelet.until("every pod is there", all_there, within=LONGEST_BEGIN)
    await stage.prometheus.scrape(address for address, _ in stage.gateways.entries())


async def _begin(stage: Stage, policies: Sequence[PolicyName]) -> None:
    """A canary on each, until it is judged and healthy."""

    async def begin(of: PolicyName) -> None:
        namespace, name = of
        prompt = objects.prompt_body(namespace, policy=name, number=2)
        await stage.api.create(PROMPT_VERSIONS, prompt)
        await stage.api.merge(POLICIES, namespace=namespace, name=name, body={"spec": {"promptVersion": prompt["metadata"]["name"]}})

    def healthy() -> bool:
        return all(_is_judged(stage.kubelet.statuses.get(of, {})) for of in policies)

    with step(f"{len(policies)} canaries until they are judged healthy", expected_s=20):
        await all_of(begin(of) for of in policies)
        await stage.kubelet.until("every canary is judged healthy", healthy, within=LONGEST_BEGIN)


def _is_judged(status: Body) -> bool:
    slos = status.get("slos", ())
    return "weightVerifiedAt" in status.get("canary", {}) and bool(slos) and all(slo["state"] == "Healthy" for slo in slos)


async def _steady(stage: Stage, operator: Operator, *, told: str, target: str = "") -> list[Row]:
    """What it costs while nothing happens."""
    asked, before, at = await stage.prometheus.queries(), operator.usage(), time.time()
    await asyncio.sleep(STEADY_SECONDS)
    asked, after = await stage.prometheus.queries() - asked, operator.usage()
    await asyncio.sleep(1.5)  # the audit log is written once a second
    requests = stage.requests(since=at)
    minutes = STEADY_SECONDS / 60
    cpu, evaluating = (after.cpu - before.cpu) / minutes, (after.beside - before.beside) / minutes
    largest = max(len(status.get("analysis", "")) for status in stage.kubelet.statuses.values())
    return [
        Row(told + "Prometheus queries per minute", f"{asked / minutes:.0f}", target),
        Row(told + "Prometheus queries per tick", f"{asked * stage.scrape_seconds / STEADY_SECONDS:.1f}"),
        Row(told + "API writes per minute, without the Lease", f"{requests.writes / minutes:.0f}"),
        Row(told + "CPU", f"{cpu:.1f} s/min, of these {evaluating:.1f} evaluating", load=load()),
        Row(told + "state in status, the largest", f"{largest:,} bytes", f"≤ {PACKED_BYTES:,}"),
        Row(told + "memory", f"{after.resident:.0f} MiB, peak {after.peak:.0f}"),
    ]


async def _alone(stage: Stage, of: PolicyName) -> Breach:
    """A canary, and its breach, with no other live."""
    await _begin(stage, [of])
    await asyncio.sleep(stage.scrape_seconds * random.random())
    _flip(stage, of)
    return await _breach(stage, of, flipped=time.time())


async def _in_turn(stage: Stage, policies: Sequence[PolicyName]) -> list[Breach]:
    """One breach every two seconds or so, at any moment of the scrape interval."""
    pending = []
    for of in policies:
        _flip(stage, of)
        pending.append(asyncio.create_task(_breach(stage, of, flipped=time.time())))
        await asyncio.sleep(BETWEEN_BREACHES * (0.5 + random.random()))
    return list(await asyncio.gather(*pending))


def _flip(stage: Stage, of: PolicyName) -> None:
    """From now on all requests of the canary are slow."""
    policy = stage.gateways.policy(of)
    assert policy.traffic is not None
    assert policy.traffic.canary is not None
    stage.kubelet.shifted.pop(of, None)
    policy.bad.add(policy.traffic.canary)


async def _breach(stage: Stage, of: PolicyName, *, flipped: float) -> Breach:
    """Wait until it is over."""

    def over() -> Body | None:
        last: Body = stage.kubelet.statuses[of].get("lastRollout", {})
        return last if last.get("outcome") == "RolledBack" and "shiftedAt" in last and of in stage.kubelet.shifted else None

    with step(f"{of[0]}/{of[1]} breaches", expected_s=10):
        last = await stage.kubelet.until(f"{of[0]}/{of[1]} is rolled back", over, within=LONGEST_SHIFT)
    told = stage.gateways.policy(of).told.values()
    return Breach(
        flipped=flipped,
        readable=min(told),
        all_readable=max(told),
        detected=parse_time(last["detectedAt"]),
        written=stage.kubelet.shifted[of],
        seen=parse_time(last["shiftedAt"]),
    )


def _rows(found: Sequence[Breach], *, told: str, target: str = "") -> list[Row]:
    machine = load()
    return [
        Row(told + "canary turns bad → route without it", spread([b.written - b.flipped for b in found]), load=machine),
        Row(told + "first bad sample of a pod → decision", spread([b.detected - b.readable for b in found])),
        Row(told + "bad samples of all pods → decision", spread([b.detected - b.all_readable for b in found])),
        Row(told + "decision → route written, seen by a watcher", spread([b.written - b.detected for b in found]), target),
        Row(told + "decision → all gateways seen on it", spread([b.seen - b.detected for b in found]), target),
    ]
