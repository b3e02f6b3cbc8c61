"""Rollouts that go wrong, on a whole cluster, with callers who must not notice."""

import pytest

from backstop.api.clock import parse_time
from backstop.kube.resources import PROMPT_VERSIONS, REPORTS
from e2e.tests.scenario import ALSO_GOOD, GOOD, SLOW, Scenario, condition, name_of, policy, prompt

pytestmark = pytest.mark.cluster

OWNER = {"team": "support-platform", "contact": "#support-oncall", "runbookURL": "https://wiki.example/runbooks/support"}


async def test_b01_b05_a_slow_version_is_rolled_back_and_its_pods_drain(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=SLOW), policy("1.0.0", steps=[(20, 60), (100, 10)], owner=OWNER))
    await scenario.until_stable("1.0.0")
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        canary = await scenario.until_weight(20)
        pods_before = {pod["metadata"]["uid"] for pod in await scenario.pods(canary["revision"])}
        last = await scenario.until_ended(canary["revision"], within=60)
        assert {pod["metadata"]["uid"] for pod in await scenario.pods(canary["revision"])} == pods_before, (
            "pods went before the route was back"
        )
        status = await scenario.until(
            lambda status: status if not status.get("retiring") else None, within=40, what="the canary's pods retired"
        )
        await scenario.until_no_deployment(canary["revision"])
    assert last["outcome"] == "RolledBack"
    assert last["reason"] == "LatencyBreach"
    assert "canary requests" in last["message"]
    assert condition(status, "Stalled") == "True"
    assert condition(status, "Ready") == "False"
    assert [rejection["revision"] for rejection in status["rejected"]] == [canary["revision"]]
    assert (await scenario.traffic()).permille == 0
    bad = [answer for answer in load.answers if answer.revision == canary["revision"]]
    began = min(answer.began + answer.seconds for answer in bad if answer.seconds > 0.150)
    detected = parse_time(last["detectedAt"])
    assert detected - began >= 29, "30 s of breach were asked for"
    # How soon after those 30 s is measured (the demo, bench/engine), not tested: the first scrape that counts is the first after the
    # weight was verified, and on a busy machine that and each scrape may come seconds late.
    assert max(answer.began for answer in bad) < detected + 10
    rejected = (await scenario.client.get(PROMPT_VERSIONS, namespace=scenario.namespace, name=name_of("2.0.0")))["status"]
    assert condition(rejected, "Rejected") == "True"
    assert rejected["rejections"][0]["revision"] == canary["revision"]
    named = await scenario.until(lambda status: status["lastRollout"].get("report"), within=90, what="the report is named")
    report = (await scenario.client.get(REPORTS, namespace=scenario.namespace, name=named))["spec"]
    assert (report["outcome"], report["reason"], report["severity"]) == ("RolledBack", "LatencyBreach", "P2")
    assert (report["revision"], report["peakWeight"]) == (canary["revision"], 20)
    assert (report["detectedAt"], report["shiftedAt"]) == (last["detectedAt"], last["shiftedAt"])
    assert report["owner"] == OWNER
    told = [transition["reason"] for transition in report["transitions"]]
    # A scrape may come late on a busy machine; that is told too, and changes nothing of the rest.
    assert [reason for reason in told if reason not in ("MetricsUnavailable", "MetricsAvailable")] == [
        "CanaryStarted",
        "StepStarted",
        "WeightVerified",
        "RolledBack",
        "TrafficShifted",
    ]
    slo = next(slo for slo in report["slos"] if slo["name"] == "latency")
    assert slo["state"] == "Breached"
    assert "evidence e = " in slo["evidence"]
    assert "false-rollback risk of the whole rollout ≤ 1 %" in last["message"]
    assert slo["canary"]["bad"] > slo["canary"]["total"] / 20
    assert report["canaryRequests"] >= slo["canary"]["total"]
    assert report["breachToDetectionSeconds"] >= 30


@pytest.mark.parametrize("image", ["localhost/none:missing", "localhost/prometheus:dev"], ids=["no-such-image", "crash-loop"])
async def test_b06_a_canary_that_cannot_start_is_rolled_back_at_its_deadline(scenario: Scenario, image: str) -> None:
    serving = {"replicas": 2, "resources": {"requests": {"cpu": "25m", "memory": "64Mi"}}}
    wanted = policy("1.0.0", steps=[(5, 10), (100, 10)], deadline=25, serving=serving)
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), wanted)
    before = await scenario.until_stable("1.0.0")
    async with scenario.load() as load:
        broken = {**wanted["spec"], "promptVersion": name_of("2.0.0"), "serving": {**serving, "image": image}}
        await scenario.apply({**wanted, "spec": broken})
        canary = await scenario.until(lambda status: status.get("canary"), within=20, what="a canary")
        last = await scenario.until_ended(canary["revision"], within=60)
    assert (last["outcome"], last["reason"]) == ("RolledBack", "CanaryUnavailable")
    assert parse_time(last["detectedAt"]) - parse_time(canary["startedAt"]) >= 25
    status = await scenario.status()
    assert (status["stable"]["revision"], status["stable"]["since"]) == (before["stable"]["revision"], before["stable"]["since"])
    assert {answer.revision for answer in load.answers} == {before["stable"]["revision"]}


async def test_b01_b07_a_version_that_turns_slow_after_its_promotion_is_taken_back_at_once(scenario: Scenario) -> None:
    rollback = {"guardSeconds": 600, "keepPreviousSeconds": 600}
    slos = [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150}]
    wanted = policy("1.0.0", steps=[(50, 6), (100, 6)], rollback=rollback, slos=slos)
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text="Answer in one patient sentence."), wanted)
    before = await scenario.until_stable("1.0.0")
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        promoted = await scenario.until_stable("2.0.0", within=90)
        revision = promoted["stable"]["revision"]
        async with scenario.slow_model(for_prompts_with="one patient sentence") as slow_since:
            status = await scenario.until(
                lambda s: s if (s.get("lastRollout") or {}).get("outcome") == "RolledBack" else None, within=60, what="the way back"
            )
            last = await scenario.until_ended(revision, within=10)
            assert status["stable"]["revision"] == before["stable"]["revision"]
            assert [(r["revision"], r["suspected"]) for r in status["rejected"]] == [(revision, True)]
            status = await scenario.until(
                lambda s: s if not s["rejected"][0].get("suspected") else None, within=90, what="the verdict is certain"
            )
    assert last["reason"] == "LatencyBreach"
    after = load.since(parse_time(last["shiftedAt"]) + 1)
    assert len(after) > 50
    assert {answer.revision for answer in after} == {before["stable"]["revision"]}
    assert parse_time(last["detectedAt"]) > slow_since
    rejected = (await scenario.client.get(PROMPT_VERSIONS, namespace=scenario.namespace, name=name_of("2.0.0")))["status"]
    assert rejected["rejections"][0]["revision"] == revision
