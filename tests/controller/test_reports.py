"""Reports of rollouts on a real API server: what they say, how many are kept, and what becomes of one that is refused."""

import time
from pathlib import Path

import pytest

from backstop.api.clock import parse_time
from backstop.api.names import GROUP
from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import Rejected, Unavailable
from backstop.kube.resources import POLICIES, REPORTS, ROLES, Body
from e2e.cluster.apiserver import ApiServer

from .operators import running
from .proxy import Refusal, proxy
from .test_rights import grant, shipped_rules
from .until import until
from .world import MANAGER, Behaviour, World, condition

pytestmark = pytest.mark.apiserver

OWNER = {"team": "ml-platform", "contact": "#ml-oncall", "runbookURL": "https://runbooks.test/support", "reviewCadence": "Weekly"}
LONG = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}


async def reported(world: World, *, outcome: str, prompt: str) -> Body:
    """Wait until status names the report of this rollout; returns it."""

    def named(status: object) -> object:
        last = status.get("lastRollout", {}) if isinstance(status, dict) else {}
        return (last.get("outcome"), last.get("promptVersion")) == (outcome, prompt) and last.get("report")

    status = await world.until_status(f"the report of {prompt} is written", named, within=60)
    return await world.client.get(REPORTS, namespace=world.namespace, name=status["lastRollout"]["report"])


async def test_b01_the_report_of_a_breach_says_what_happened_when_why_and_to_whom(connection: Connection, world: World) -> None:
    world.behaviour["v2"] = Behaviour(bad=0.5)
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG, owner=OWNER)
    async with running(connection, world):
        stable = (await world.stable_on("v1"))["stable"]
        await world.apply("v2", canary=LONG, owner=OWNER)
        report = await reported(world, outcome="RolledBack", prompt="v2")
        status = await world.status()
    last, policy = status["lastRollout"], await world.client.get(POLICIES, namespace=world.namespace, name=world.policy)
    said = report["spec"]
    assert report["metadata"]["ownerReferences"][0]["uid"] == policy["metadata"]["uid"]
    assert report["metadata"]["labels"][f"{GROUP}/policy"] == world.policy
    assert {name: said[name] for name in ("policy", "promptVersion", "promptDigest")} == {
        "policy": world.policy,
        "promptVersion": "v2",
        "promptDigest": last["promptDigest"],
    }
    assert said["stable"] == {name: stable[name] for name in ("revision", "promptVersion", "promptDigest")}
    for name in ("revision", "outcome", "reason", "message", "detectedAt", "shiftedAt"):
        assert said[name] == last[name]
    assert (said["reason"], said["severity"], said["peakWeight"]) == ("LatencyBreach", "P2", 40)
    times = [parse_time(said[name]) for name in ("startedAt", "detectedAt", "shiftedAt")]
    assert times == sorted(times)
    assert said["startToDetectionSeconds"] == int(times[1] - times[0])
    assert said["detectionToShiftMilliseconds"] == round(1000 * (times[2] - times[1]))
    (slo,) = said["slos"]
    assert (slo["name"], slo["state"], slo["limit"]) == ("latency", "Breached", "5")
    assert slo["canary"]["total"] >= 20
    assert slo["canary"]["bad"] == round(slo["canary"]["total"] * 0.5)
    assert slo["stable"]["bad"] == 0
    assert slo["evidence"] in said["message"]
    assert said["breachToDetectionSeconds"] == int(times[1] - parse_time(slo["breachedSince"]))
    assert said["canaryRequests"] >= slo["canary"]["total"]
    # A scrape may come late on a busy machine; that is told too, and changes nothing of the rest.
    assert [(t["reason"], t["weight"]) for t in said["transitions"] if not t["reason"].startswith("Metrics")] == [
        ("CanaryStarted", 0),
        ("StepStarted", 40),
        ("WeightVerified", 40),
        ("RolledBack", 0),
        ("TrafficShifted", 0),
    ]
    assert said["owner"] == OWNER
    assert parse_time(said["reviewDueAt"]) - parse_time(said["endedAt"]) == 7 * 86_400
    assert "status" not in report, "the review is a person's"


async def test_b01_the_event_of_a_rollback_says_whom_to_call_and_other_events_do_not(connection: Connection, world: World) -> None:
    world.behaviour["v2"] = Behaviour(bad=0.5)
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", owner=OWNER)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", owner=OWNER)
        await reported(world, outcome="RolledBack", prompt="v2")

        async def told() -> Body | None:
            return next((event for event in await world.told() if event["reason"] == "RolledBack"), None)

        event = await until("the event is told", told)
        others = [other for other in await world.told() if other["type"] == "Normal"]
    assert event["note"].endswith(" — owner: ml-platform (#ml-oncall); runbook: https://runbooks.test/support")
    assert event["note"].startswith("Rolled back v2 (")
    assert event["metadata"]["annotations"] == {
        f"{GROUP}/team": "ml-platform",
        f"{GROUP}/contact": "#ml-oncall",
        f"{GROUP}/runbook-url": "https://runbooks.test/support",
    }
    assert others
    assert [other for other in others if "ml-oncall" in other["note"]] == []


async def test_of_more_reports_than_are_kept_the_oldest_go(connection: Connection, world: World) -> None:
    kept = {"keepPreviousSeconds": 15, "guardSeconds": 0, "reportHistoryLimit": 2}
    for name in ("v1", "v2", "v3", "v4"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG, rollback=kept)
    async with running(connection, world):
        await world.stable_on("v1")
        for name in ("v2", "v3", "v4"):
            await world.apply(name, canary=LONG, rollback=kept)
            await world.canary_is(name)
            await world.ask(abort=name)
            await reported(world, outcome="RolledBack", prompt=name)
        assert [report["spec"]["promptVersion"] for report in await world.reports()] == ["v3", "v4"]


async def test_a_report_that_is_refused_is_said_holds_up_nothing_and_is_written_when_it_is_accepted(
    api_server: ApiServer, client: Client, world: World
) -> None:
    user = f"operator-of-{world.namespace}"
    await grant(client, user=user, namespace=world.namespace)
    await allow(client, world, reports=False)
    connection = await connect(api_server.identity_kubeconfig(user))
    world.behaviour["v2"] = Behaviour(bad=0.5)
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    await world.apply("v1")
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2")

        async def told() -> Body | None:
            return next((event for event in await world.told() if event["reason"] == "ReportFailed"), None)

        event = await until("it is told", told, within=60)
        assert event["note"].startswith("RolloutReport `support-")
        status = await world.status()
        assert (status["lastRollout"]["outcome"], "shiftedAt" in status["lastRollout"]) == ("RolledBack", True)
        assert condition(status, "Accepted")["status"] == "True", "the policy is not at fault"
        assert condition(status, "Stalled")["reason"] == "RolledBack"
        assert (await world.route()).permille == 0
        await world.apply("v3")
        await world.until_status("v3 serves", lambda s: s["stable"]["promptVersion"] == "v3", within=90)

        async def listed() -> list[list[Body]] | None:
            try:
                return [await world.reports()]
            except Unavailable:  # nobody has had a report yet: the API server makes room for them at the first request
                return None

        assert await until("reports can be listed", listed) == [[]]
        await allow(client, world, reports=True)
        report = await reported(world, outcome="Promoted", prompt="v3")
        await world.until_status("all is well", lambda s: condition(s, "Accepted")["status"] == "True", within=60)
    assert report["spec"]["transitions"][0]["reason"] == "CanaryStarted"


@pytest.mark.parametrize("status", [403, 404, 503], ids=["a quota", "no definition of reports", "no answer"])
async def test_reports_that_fail_are_told_once_tried_again_with_pauses_and_touch_nothing_of_the_policy(
    api_server: ApiServer, world: World, tmp_path: Path, status: int
) -> None:
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG)
    async with (
        proxy(api_server, folder=tmp_path) as (between, kubeconfig),
        running(await connect(kubeconfig), world, sweep_seconds=1.0) as operator,
    ):
        await world.stable_on("v1")
        between.refusal = Refusal(status, fits=lambda request: request.write and request.path.endswith("/rolloutreports"))
        await world.apply("v2", canary=LONG)
        await world.canary_is("v2")
        await world.ask(abort="now")

        async def told() -> list[Body]:
            return [event for event in await world.told() if event["reason"] == "ReportFailed"]

        await until("it is told", told, within=60)
        begun, listed = time.monotonic(), operator.listed
        await operator.lists(8)
        tried = between.count(lambda request: request.path.endswith("/rolloutreports") and request.method == "POST", since=begun)
        assert tried <= 4, f"{operator.listed - listed} sweeps, each with a pass"
        assert len(await told()) == 1
        said = await world.status()
        assert condition(said, "Accepted")["status"] == "True"
        assert condition(said, "Stalled")["reason"] == "RolledBack"
        await world.apply("v3", canary=LONG)
        await world.canary_is("v3")
        between.refusal = None


async def test_a_report_in_trouble_does_not_cut_short_the_pauses_of_a_route_that_is_refused(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    guarded = {"guardSeconds": 600, "keepPreviousSeconds": 600}
    world.behaviour |= {name: Behaviour() for name in ("v1", "v2")}
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", rollback=guarded)
    async with (
        proxy(api_server, folder=tmp_path) as (between, kubeconfig),
        running(await connect(kubeconfig), world, sweep_seconds=1.0) as operator,
    ):
        await world.stable_on("v1")
        between.refusal = Refusal(403, fits=lambda request: request.write and request.path.endswith("/rolloutreports"))
        await world.apply("v2", rollback=guarded)
        await world.stable_on("v2", within=90)

        async def told() -> Body | None:
            return next((event for event in await world.told() if event["reason"] == "ReportFailed"), None)

        await until("the report is refused", told, within=60)
        between.refusal = Refusal(403, fits=lambda request: request.write and ("/configmaps" in request.path or "reports" in request.path))
        world.behaviour["v2"].bad = 0.5

        def says_refused(status: object) -> object:
            return isinstance(status, dict) and "as scripted" in str(status.get("conditions"))

        await world.until_status("the way back is refused", says_refused, within=60)
        begun, listed = time.monotonic(), operator.listed
        await operator.lists(10)
        tried = between.count(lambda request: request.write and "/configmaps" in request.path, since=begun)
        assert 0 < tried <= 4 * (operator.listed - listed), "once for each sweep and evaluation, and with pauses that double"
        between.refusal = None


async def test_what_a_report_says_cannot_be_changed_and_its_review_can_be_added(
    connection: Connection, client: Client, world: World
) -> None:
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=LONG)
    async with running(connection, world):
        await world.stable_on("v1")
        await world.apply("v2", canary=LONG)
        await world.canary_is("v2")
        await world.ask(abort="now")
        report = await reported(world, outcome="RolledBack", prompt="v2")
        name, version = report["metadata"]["name"], report["metadata"]["resourceVersion"]
        with pytest.raises(Rejected, match="it says what happened; a review goes into `status"):
            await client.replace(REPORTS, body=report | {"spec": report["spec"] | {"severity": "P1"}}, manager=MANAGER)
        review = {"review": {"state": "Reviewed", "by": "sam", "note": "the model was slow"}}
        await client.patch_status(REPORTS, namespace=world.namespace, name=name, patch=review, resource_version=version, manager=MANAGER)
        await world.apply("v1", canary=LONG)
        await world.stable_on("v1")
    (after,) = await world.reports()
    assert after["status"] == review
    assert after["spec"] == report["spec"]


async def allow(client: Client, world: World, *, reports: bool) -> None:
    """The shipped rules for the world's operator, with or without those for reports."""
    rules = [rule for rule in shipped_rules("ClusterRole") if reports or "rolloutreports" not in rule["resources"]]
    body = await client.get(ROLES, namespace=world.namespace, name="shipped")
    await client.replace(ROLES, body=body | {"rules": rules}, manager=MANAGER)
