"""The canary's share over many requests."""

import asyncio
import math

import aiohttp
import pytest

from backstop.kube.resources import SERVICES
from e2e.load import REQUEST
from e2e.tests.scenario import ALSO_GOOD, GOOD, POLICY, Scenario, policy, prompt

pytestmark = pytest.mark.cluster

REQUESTS = 20_000
CALLERS = 32


@pytest.mark.parametrize("replicas", [1, 5])
async def test_t05_5_percent_of_20000_requests_are_5_percent(scenario: Scenario, replicas: int) -> None:
    await scenario.apply(
        prompt("1.0.0", text=GOOD),
        prompt("2.0.0", text=ALSO_GOOD),
        policy("1.0.0", steps=[(5, 3600), (100, 5)], replicas=replicas, slos=[]),
    )
    await scenario.until_stable("1.0.0")
    await scenario.want("2.0.0")
    await scenario.until_weight(5)
    tracks = await ask(scenario)
    canary = tracks.count("canary")
    # Five standard deviations of a binomial: a right split fails once in 1.7 million runs.
    spread = 5 * math.sqrt(REQUESTS * 0.05 * 0.95)
    assert abs(canary - 0.05 * REQUESTS) <= spread, f"{canary} of {REQUESTS}"


async def ask(scenario: Scenario) -> list[str]:
    """The track that answered each request."""
    service = await scenario.client.get(SERVICES, namespace=scenario.namespace, name=POLICY)
    url = f"http://{service['spec']['clusterIP']}:8080/v1/chat/completions"
    tracks: list[str] = []

    async def caller(session: aiohttp.ClientSession) -> None:
        while len(tracks) < REQUESTS:
            async with session.post(url, json=REQUEST, timeout=aiohttp.ClientTimeout(total=10)) as response:
                await response.read()
                assert response.status == 200
                tracks.append(response.headers["x-backstop-track"])

    connector = aiohttp.TCPConnector(limit=CALLERS)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller(session))
    return tracks[:REQUESTS]
