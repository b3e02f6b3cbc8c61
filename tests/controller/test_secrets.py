"""What is in a Secret stays there: the operator hands references on, and never asks for one."""

import json
import logging
from pathlib import Path

import aiohttp
import pytest

from backstop.kube.client import Client
from backstop.kube.connection import connect
from backstop.kube.resources import CHILDREN, EVENTS, POLICIES, PROMPT_VERSIONS
from e2e.cluster.apiserver import ApiServer
from e2e.cluster.ports import free_port

from .operators import running
from .proxy import proxy
from .world import MANAGER, Behaviour, World

pytestmark = pytest.mark.apiserver

KEY = "sk-5ecret-of-the-target"


async def test_m08_a_key_is_in_no_status_event_object_log_line_or_metric_and_secrets_are_never_asked_for(
    api_server: ApiServer, client: Client, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"primary": KEY}}
    await client._request("POST", f"/api/v1/namespaces/{world.namespace}/secrets", query={"fieldManager": MANAGER}, body=secret)
    target = {"baseURL": "http://model.test/v1", "name": "m", "apiKeyRef": {"name": "keys", "key": "primary"}}
    chain = [{"name": "primary", "model": target}, {"name": "static", "static": {"default": "Sorry."}}]
    world.behaviour["v2"] = Behaviour(bad=0.5)
    port = free_port()
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", chain=chain)
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig):
        async with running(await connect(kubeconfig), world, telemetry_port=port):
            await world.stable_on("v1", within=60)
            await world.apply("v2", chain=chain)
            await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
                said = [await response.text()]
        assert not [request for request in between.requests if "secrets" in request.path]
        assert [request for request in between.requests if request.watch], "all it asks for goes through here"
    for resource in (POLICIES, PROMPT_VERSIONS, EVENTS, *CHILDREN):
        items, _ = await client.list(resource, namespace=world.namespace)
        said += [json.dumps(item) for item in items]
    said += [record.getMessage() + str(vars(record)) for record in caplog.records]
    assert any('"secretKeyRef"' in text for text in said), "the pods have the reference"
    assert not [text for text in said if KEY in text]
