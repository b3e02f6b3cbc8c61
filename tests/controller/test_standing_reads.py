"""Reads that hang or fail while a pass looks for what it does not see: they hold up no judging, and end no pass."""

import logging
from pathlib import Path

import pytest

from backstop.api.names import LABEL_MANAGED_BY, LABEL_POLICY, traffic_object
from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.resources import CONFIG_MAPS
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .proxy import Refusal, proxy
from .until import until
from .world import MANAGER, World

pytestmark = pytest.mark.apiserver

HELD = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}


async def test_a_route_that_cannot_be_read_is_said_and_ends_no_pass(
    api_server: ApiServer, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = f"/configmaps/{traffic_object(world.policy)}"
    await world.prompt("v1")
    await world.apply("v1")
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig):
        between.refusal = Refusal(503, lambda request: request.method == "GET" and request.path.endswith(path))
        async with running(await connect(kubeconfig), world):
            await world.stable_on("v1", within=60)
            assert (await world.route()).permille == 0, "it is made, though nobody could say whether it was there"
    assert f"ConfigMap `{traffic_object(world.policy)}`, the policy's route, cannot be read; going on without" in caplog.text


async def test_a_canary_is_judged_while_a_read_of_its_first_pass_hangs(connection: Connection, world: World, client: Client) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=HELD)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=HELD)
        await world.until_status("v2 has a share", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
    name = traffic_object(world.policy)
    patch = {"metadata": {"labels": {LABEL_POLICY: None, LABEL_MANAGED_BY: None}}}
    await client.patch(CONFIG_MAPS, namespace=world.namespace, name=name, patch=patch, manager=MANAGER)
    asked = world.queries
    async with running(connection, world) as operator:
        release, _ = operator.hold_read(f"/configmaps/{name}")

        async def judged() -> bool:
            return world.queries > asked

        await until("metrics are asked for", judged, within=9.0)
        assert not operator.gave_up.is_set(), "it still waits for the read"
        release.set()
