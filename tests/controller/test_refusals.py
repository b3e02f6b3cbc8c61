"""Writes that the API server will not have, and a spec that the operator cannot read: said in status, and a breach still counts."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from backstop.api.names import traffic_object
from backstop.kube.client import MERGE, Client
from backstop.kube.connection import Connection
from backstop.kube.errors import Conflict, NotFound, Rejected
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, Body
from e2e.cluster.ports import free_port

from .operators import running
from .test_told import mine, scrape
from .until import until
from .world import MANAGER, Behaviour, World, condition

pytestmark = pytest.mark.apiserver

LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/fallbackpolicies.backstop.dev"


async def at_40_percent(world: World) -> None:
    world.behaviour["v2"] = Behaviour()
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG)
    await world.stable_on("v1")
    await world.apply("v2", canary=LONG)
    await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))


@contextlib.asynccontextmanager
async def refused(client: Client, world: World, *, verb: str, group: str, plural: str, name: str) -> AsyncIterator[None]:
    """While the context lasts, the API server refuses this verb on this object."""
    policy = f"no-{world.namespace}"
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": [verb], "resources": [plural]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [
            {"expression": f"request.namespace != '{world.namespace}' || request.name != '{name}'", "message": "frozen for the audit"}
        ],
    }
    binding = {"policyName": policy, "validationActions": ["Deny"]}
    paths = {
        "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    }
    for kind, what in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding)):
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": policy}, "spec": what}
        await client._request("POST", f"{ADMISSION}/{paths[kind]}", query={"fieldManager": MANAGER}, body=body)
    try:
        yield
    finally:
        for path in paths.values():
            await client._request("DELETE", f"{ADMISSION}/{path}/{policy}")


async def in_force(client: Client, world: World) -> None:
    """Wait until writes of the traffic object are refused."""

    async def denied() -> bool:
        body = await client.get(CONFIG_MAPS, namespace=world.namespace, name=traffic_object(world.policy))
        path = CONFIG_MAPS.path(namespace=world.namespace, name=traffic_object(world.policy))
        try:
            await client._request("PUT", path, query={"dryRun": "All"}, body=body)
        except Rejected:
            return True
        except Conflict:
            pass
        return False

    await until("the traffic object cannot be written", denied)


async def test_a_refused_write_of_the_traffic_object_is_said_and_made_when_it_is_accepted(
    connection: Connection, client: Client, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="backstop.controller.telling")
    port = free_port()
    async with running(connection, world, telemetry_port=port) as operator:
        await at_40_percent(world)
        async with refused(client, world, verb="UPDATE", group="", plural="configmaps", name=traffic_object(world.policy)):
            await in_force(client, world)
            world.behaviour["v2"].bad = 0.5
            status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectRefused")
            assert "frozen for the audit" in condition(status, "Stalled")["message"]
            assert status["canary"]["weight"] == 40, "status says what gateways do, not what they should"

            async def told() -> bool:
                return "ObjectRefused" in await world.events()

            await until("an event tells it", told)

            shown = mine(await scrape(port), world=world)
            assert shown["backstop_operator_policy_phase", status["phase"]] == 1.0, "metrics say what status says"
            assert shown["backstop_operator_canary_weight_percent", ""] == 40.0
            lines = [record.__dict__["fields"] for record in caplog.records if record.name == "backstop.controller.telling"]
            refusal = next(line for line in lines if line["reason"] == "ObjectRefused")
            assert (refusal["phase"], refusal["weight"]) == (status["phase"], 40)

            def attempts() -> int:
                return sum(write.startswith("PUT") and write.endswith(traffic_object(world.policy)) for write in operator.writes)

            before = attempts()
            await asyncio.sleep(3)  # the time in which they are counted
            assert attempts() - before < 10, "it is tried again without a pause"
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
        status = await world.until_status("all is well", lambda s: condition(s, "Accepted")["status"] == "True")
    assert status["lastRollout"]["reason"] == "LatencyBreach"
    assert await world.shares() == [0, 400, 0]


async def test_a_refused_deletion_is_said_and_keeps_nothing_else_from_being_done(
    connection: Connection, client: Client, world: World
) -> None:
    async with running(connection, world):
        await at_40_percent(world)
        canary = f"{world.policy}-{(await world.status())['canary']['revision']}"
        async with refused(client, world, verb="DELETE", group="apps", plural="deployments", name=canary):

            async def kept() -> bool:
                try:
                    await client._request("DELETE", DEPLOYMENTS.path(namespace=world.namespace, name=canary), query={"dryRun": "All"})
                except Rejected:
                    return True
                return False

            await until("the Deployment cannot be deleted", kept)
            await world.apply("v1", canary=LONG)
            status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectRefused", within=60)
            assert canary in condition(status, "Accepted")["message"]
            assert "canary" not in status
        await world.until_status("all is well", lambda s: condition(s, "Accepted")["status"] == "True", within=60)

        async def gone() -> bool:
            with contextlib.suppress(NotFound):
                await client.get(DEPLOYMENTS, namespace=world.namespace, name=canary)
                return False
            return True

        await until("the Deployment is gone", gone, within=60)


@contextlib.asynccontextmanager
async def newer_definition(client: Client, *, field: str) -> AsyncIterator[None]:
    """While the context lasts, the API server knows a field that the operator does not."""
    versions = (await client._request("GET", DEFINITION))["spec"]["versions"]
    schema = versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    async def write(properties: Body) -> None:
        versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = properties
        await client._request("PATCH", DEFINITION, query={"fieldManager": MANAGER}, body={"spec": {"versions": versions}}, content=MERGE)

    await write(schema | {field: {"type": "string"}})
    try:
        yield
    finally:
        await write(schema)


async def test_a_spec_of_a_newer_version_holds_a_canary_which_a_breach_still_ends(
    connection: Connection, client: Client, world: World
) -> None:
    async with newer_definition(client, field="novelty"), running(connection, world):
        await at_40_percent(world)

        async def taken() -> bool:
            with contextlib.suppress(Rejected):
                written = await world.apply("v2", canary=LONG, novelty="yes")
                return "novelty" in written["spec"]
            return False

        await until("the field is known", taken)
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "Invalid")
        assert condition(status, "Accepted")["message"] == (
            "`spec.novelty` is not known to this operator, which is older than the definition that has it; upgrade the operator, or take"
            " the field out"
        )
        assert status["canary"]["weight"] == 40
        world.behaviour["v2"].bad = 0.5
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("shiftedAt"), within=60)
    assert status["lastRollout"]["reason"] == "LatencyBreach"
    assert condition(status, "Accepted")["reason"] == "Invalid"
    assert await world.shares() == [0, 400, 0]
