"""Refusals whose text differs with each attempt, as that of an admission webhook which says a request id or the time.

They are waited for without haste and told once, as all others are; status shows the newest text.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backstop.kube.connection import connect
from backstop.kube.resources import POLICIES
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .proxy import Proxy, Refusal, proxy
from .until import until
from .world import Behaviour, World, condition

pytestmark = [pytest.mark.apiserver, pytest.mark.long]

COUNTED_SECONDS = 3.0  # the time in which writes are counted
LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}


async def test_a_refusal_that_reads_otherwise_each_time_is_told_once_and_tried_again_without_haste(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    world.behaviour["v2"] = Behaviour()
    for name in ("v1", "v2"):
        await world.prompt(name)
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig), running(await connect(kubeconfig), world):
        between.refusal = Refusal(403, lambda r: r.write and "poddisruptionbudgets" in r.path, numbered=True)
        await world.apply("v1", canary=LONG)
        await _is_waited_for(world, between, what="PodDisruptionBudget")
        between.refusal = None
        await world.until_status("all is well", lambda s: condition(s, "Accepted")["status"] == "True", within=60)

        await world.apply("v2", canary=LONG)
        await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"), within=60)
        between.refusal = Refusal(403, lambda r: r.write and r.path.endswith("-traffic"), numbered=True)
        world.behaviour["v2"].bad = 0.5
        await _is_waited_for(world, between, what="ConfigMap")


async def _is_waited_for(world: World, between: Proxy, *, what: str) -> None:
    def said(status: Mapping[str, Any]) -> Any:
        return what in condition(status, "Accepted")["message"] and condition(status, "Accepted")["message"]

    first = said(await world.until_status("it is said", said, within=60))

    async def calm() -> bool:
        since = time.monotonic()
        await asyncio.sleep(COUNTED_SECONDS)
        return between.count(lambda request: request.write, since=since) <= COUNTED_SECONDS  # 60 a minute

    await until("the pauses between attempts have grown", calm, within=40)
    newer = said(await world.status())
    assert newer
    assert newer != first, "status says how it was refused last"
    told = [event["note"] for event in await world.told(of=POLICIES) if event["reason"] == "ObjectRefused" and what in event["note"]]
    assert len(told) == 1, told
