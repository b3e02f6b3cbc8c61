"""Probes on a real API server: their Jobs end as the test says, in the words of the job controller."""

import json
from typing import Any

import pytest

from backstop.api.names import LABEL_PROBE, probe_job
from backstop.api.traffic import Steering
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.errors import NotFound
from backstop.kube.resources import JOBS, PODS, SERVICES, Body

from .operators import running
from .until import until
from .world import MANAGER, World, condition

pytestmark = pytest.mark.apiserver

STARTED, ENDED = "2026-01-31T09:30:00Z", "2026-01-31T09:30:07Z"


def canary_with(*probes: str) -> dict[str, Any]:
    return {
        "steps": [{"weight": 20, "holdSeconds": 1}, {"weight": 100, "holdSeconds": 1}],
        "analysis": {"warmUpSeconds": 0},
        "probes": [{"name": name, "job": {"image": "prober:1"}} for name in probes],
    }


async def second_version(world: World, *, probes: tuple[str, ...], **spec: Any) -> str:
    """Version 1 is stable, version 2 meets these probes. Its revision."""
    for name in ("v1", "v2", "v3"):
        await world.prompt(name)
    await world.apply("v1", canary=canary_with(), **spec)
    await world.stable_on("v1")
    await world.apply("v2", canary=canary_with(*probes), **spec)
    return str((await world.canary_is("v2"))["canary"]["revision"])


async def job_of(world: World, revision: str, probe: str, *, other_than: str = "") -> Body:
    """Wait for a probe's Job."""

    async def look() -> Body | None:
        try:
            job = await world.client.get(JOBS, namespace=world.namespace, name=probe_job(world.policy, revision=revision, probe=probe))
        except NotFound:
            return None
        return job if job["metadata"]["uid"] != other_than else None

    return await until(f"the Job of {probe}", look)


async def end(world: World, job: Body, *, passed: bool) -> None:
    """As the job controller ends it."""
    reason = "CompletionsReached" if passed else "BackoffLimitExceeded"
    kinds = ("SuccessCriteriaMet", "Complete") if passed else ("FailureTarget", "Failed")
    times = {"lastTransitionTime": ENDED, "lastProbeTime": ENDED}
    status: Body = {
        "startTime": STARTED,
        "uncountedTerminatedPods": {},
        "terminating": 0,
        "ready": 0,
        "conditions": [{"type": kind, "status": "True", "reason": reason, "message": "", **times} for kind in kinds],
    }
    status |= {"completionTime": ENDED, "succeeded": 1} if passed else {"failed": 1}
    await world.client.patch_status(
        JOBS,
        namespace=world.namespace,
        name=job["metadata"]["name"],
        patch=status,
        resource_version=job["metadata"]["resourceVersion"],
        manager=MANAGER,
    )


async def leave_pod(world: World, job: Body, *, code: int) -> None:
    """The pod that a Job leaves behind."""
    template = job["spec"]["template"]
    metadata = {"name": f"{job['metadata']['name']}-x", "namespace": world.namespace, "labels": template["metadata"]["labels"]}
    containers = [{"name": "probe", "image": "prober:1"}]
    spec = {"containers": containers, "automountServiceAccountToken": False, "restartPolicy": "Never"}
    made = await world.client.create(PODS, body={"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, manager=MANAGER)
    ended = {"terminated": {"exitCode": code, "reason": "Error"}}
    container = {"name": "probe", "image": "prober:1", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    await world.client.patch_status(
        PODS,
        namespace=world.namespace,
        name=metadata["name"],
        patch={"phase": "Failed", "containerStatuses": [container]},
        resource_version=made["metadata"]["resourceVersion"],
        manager=MANAGER,
    )


async def test_a02_the_first_weight_waits_for_every_probe_and_their_jobs_go_with_the_rollout(connection: Connection, world: World) -> None:
    async with running(connection, world):
        revision = await second_version(world, probes=("golden", "smoke"))
        golden, smoke = await job_of(world, revision, "golden"), await job_of(world, revision, "smoke")
        status = await world.until_status("it says so", lambda s: s.get("reason") == "WaitingForProbes" and s["canary"].get("probesAt"))
        assert condition(status, "Progressing")["message"] == "waiting for probes `golden`, `smoke` to pass"
        await end(world, smoke, passed=True)
        status = await world.until_status(
            "smoke has passed", lambda s: [mark.split(":")[0] for mark in s["canary"]["probesPassed"]] == ["smoke"]
        )
        assert condition(status, "Progressing")["message"] == "waiting for probe `golden` to pass"
        assert (await world.route()).permille == 0
        await end(world, golden, passed=True)
        await world.stable_on("v2", within=60)

        async def gone() -> bool:
            return not await world.names(JOBS)

        await until("the Jobs went with the rollout", gone)
        told = {"WaitingForProbes", "ProbePassed", "StepStarted", "Promoted"}

        async def all_told() -> bool:
            return told <= await world.events()

        await until("every transition has its event", all_told)


async def test_a_failed_probe_rolls_the_canary_back_and_a_retry_runs_it_again(connection: Connection, world: World) -> None:
    async with running(connection, world):
        revision = await second_version(world, probes=("golden",))
        job = await job_of(world, revision, "golden")
        uid = job["metadata"]["uid"]
        assert job["spec"]["template"]["metadata"]["labels"][LABEL_PROBE] == "golden"
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert labels["batch.kubernetes.io/controller-uid"] == uid, "by this label its pods are found"
        await leave_pod(world, job, code=3)
        await end(world, job, passed=False)
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
        assert status["lastRollout"]["reason"] == "ProbeFailed"
        assert "probe `golden` exited with code 3; its log cannot be read" in status["lastRollout"]["message"], "no kubelet is there"
        assert condition(status, "RolledBack")["reason"] == "ProbeFailed"
        assert "exited with code 3" in condition(status, "Stalled")["message"]
        assert (await world.status())["rejected"][0]["revision"] == revision
        assert await world.names(JOBS) == {job["metadata"]["name"]}, "it stays for its log, until its time to live is over"
        await world.ask(retry="1")
        again = await job_of(world, revision, "golden", other_than=uid)
        await end(world, again, passed=True)
        await world.stable_on("v2", within=60)
    assert await world.shares() == [0, 200, 1000, 0]


async def test_a01_a_first_revision_meets_its_probes_before_it_is_stable(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1", canary=canary_with("golden"))
    async with running(connection, world):
        status = await world.until_status("its probes begin", lambda s: s.get("first"))
        revision = status["first"]["revision"]
        job = await job_of(world, revision, "golden")
        assert {world.policy, f"{world.policy}-stable"} & await world.names(SERVICES) == set(), "nobody calls it yet"
        assert f"{world.policy}-{revision}" in await world.names(SERVICES), "but its probe does"
        await leave_pod(world, job, code=3)
        await end(world, job, passed=False)
        status = await world.until_status("it is said", lambda s: s.get("reason") == "ProbeFailed")
        assert "stable" not in status
        assert "probe `golden` exited with code 3" in condition(status, "Stalled")["message"]
        assert condition(status, "Ready")["status"] == "False"
    async with running(connection, world):
        await world.quiet()
        assert (await world.status())["reason"] == "ProbeFailed", "another operator does not try it again"
        await world.ask(retry="1")
        again = await job_of(world, revision, "golden", other_than=job["metadata"]["uid"])
        await end(world, again, passed=True)
        status = await world.stable_on("v1", within=60)
        assert "first" not in status
        assert {world.policy, f"{world.policy}-stable"} <= await world.names(SERVICES)


async def test_a_probe_that_is_edited_runs_as_it_is_now(connection: Connection, world: World) -> None:
    async with running(connection, world):
        revision = await second_version(world, probes=("golden",))
        job = await job_of(world, revision, "golden")
        edited = canary_with("golden")
        edited["probes"][0]["job"]["args"] = ["--at-least", "95"]
        await world.apply("v2", canary=edited)
        again = await job_of(world, revision, "golden", other_than=job["metadata"]["uid"])
        (container,) = again["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["--at-least", "95"]
        assert (await world.route()).permille == 0
        await end(world, again, passed=True)
        await world.stable_on("v2", within=60)


async def test_another_operator_runs_no_probe_twice_and_takes_none_that_is_gone_for_one_that_never_ran(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        revision = await second_version(world, probes=("golden", "smoke"))
        golden, smoke = await job_of(world, revision, "golden"), await job_of(world, revision, "smoke")
        await end(world, golden, passed=True)
        await world.until_status("golden has passed", lambda s: len(s["canary"]["probesPassed"]) == 1)
    await world.client.delete(JOBS, namespace=world.namespace, name=golden["metadata"]["name"], uid=golden["metadata"]["uid"])
    async with running(connection, world) as operator:
        await operator.lists(1)
        await world.quiet()
        jobs, _ = await world.client.list(JOBS, namespace=world.namespace)
        assert [job["metadata"]["uid"] for job in jobs] == [smoke["metadata"]["uid"]]
        await end(world, smoke, passed=True)
        await world.stable_on("v2", within=60)


async def test_an_end_that_nobody_saw_is_seen_by_the_next_operator(connection: Connection, world: World) -> None:
    async with running(connection, world):
        revision = await second_version(world, probes=("golden",))
        job = await job_of(world, revision, "golden")
    await end(world, job, passed=False)
    async with running(connection, world):
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
    assert "it left no pod, and so no log" in status["lastRollout"]["message"]


async def test_another_wish_and_a_pause_leave_no_probe_running(connection: Connection, world: World) -> None:
    async with running(connection, world):
        revision = await second_version(world, probes=("golden",))
        await job_of(world, revision, "golden")

        async def none_runs() -> bool:
            return not await world.names(JOBS)

        await world.apply("v2", canary=canary_with("golden") | {"paused": True})
        await until("the pause ends the probe", none_runs)
        await world.apply("v2", canary=canary_with("golden"))
        await job_of(world, revision, "golden")
        await world.apply("v1", canary=canary_with("golden"))
        await world.until_status("v2 is ended", lambda s: "canary" not in s)
        await until("the end of the rollout ends the probe", none_runs)


async def test_a_probe_that_the_api_server_refuses_is_said_and_begun_when_it_may_be(
    connection: Connection, world: World, client: Client
) -> None:
    async with running(connection, world):
        for name in ("v1", "v2"):
            await world.prompt(name)
        await world.apply("v1", canary=canary_with())
        await world.stable_on("v1")
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "no-jobs", "namespace": world.namespace},
            "spec": {"hard": {"count/jobs.batch": "0"}},
        }
        path = f"/api/v1/namespaces/{world.namespace}/resourcequotas"
        await client._request("POST", path, query={"fieldManager": MANAGER}, body=quota)
        await client._request(
            "PATCH",
            f"{path}/no-jobs/status",
            query={"fieldManager": MANAGER},
            body={"status": {"hard": {"count/jobs.batch": "0"}, "used": {"count/jobs.batch": "0"}}},
            content="application/merge-patch+json",
        )
        await world.apply("v2", canary=canary_with("golden"))
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectRefused")
        assert "Job `" in condition(status, "Accepted")["message"]
        assert "exceeded quota" in condition(status, "Accepted")["message"], json.dumps(status)
        await client._request("DELETE", f"{path}/no-jobs")
        await job_of(world, str(status["canary"]["revision"]), "golden")
        await world.until_status("it is well", lambda s: condition(s, "Accepted")["status"] == "True", within=60)


async def test_a_job_of_somebody_else_is_left_alone_and_named(connection: Connection, world: World) -> None:
    async with running(connection, world):
        for name in ("v1", "v2"):
            await world.prompt(name)
        await world.apply("v1")
        await world.stable_on("v1")
        # The name is known before the Job is made: the revision is that of a first try without probes.
        await world.apply("v2", canary=canary_with() | {"paused": True})
        revision = str((await world.canary_is("v2"))["canary"]["revision"])
        name = probe_job(world.policy, revision=revision, probe="golden")
        container = {"name": "c", "image": "theirs:1"}
        theirs = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": world.namespace},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
        made = await world.client.create(JOBS, body=theirs, manager=MANAGER)
        await world.apply("v2", canary=canary_with("golden"))
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["reason"] == "ObjectNotOurs")
        assert f"Job `{name}` exists and belongs to something else" in condition(status, "Accepted")["message"]
        there = await world.client.get(JOBS, namespace=world.namespace, name=name)
        assert there["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert (await world.route()).permille == 0


async def test_t03_headers_of_the_policy_reach_the_traffic_object_without_a_rollout(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1")
    async with running(connection, world):
        before = await world.stable_on("v1")
        steered = {"traffic": {"stickyHeader": "X-User-Id", "pinHeader": "x-backstop-track"}}
        await world.apply("v1", canary=canary_with() | steered)

        async def steering() -> bool:
            return (await world.route()).steering == Steering(sticky="x-user-id", pin="x-backstop-track")

        await until("gateways are told", steering)
        assert (await world.status())["stable"]["revision"] == before["stable"]["revision"]
        assert "CanaryStarted" not in await world.events()


async def test_requests_beside_callers_are_sent_from_the_first_weight_to_the_end_of_the_rollout(
    connection: Connection, world: World
) -> None:
    synthetic = {"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 2}
    canary = canary_with() | {"probes": [synthetic], "steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}]}
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1", canary=canary)
    async with running(connection, world):
        await world.stable_on("v1")
        assert await world.names(JOBS) == set()
        await world.apply("v2", canary=canary)
        status = await world.until_status("v2 is at 40 %", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        job = await job_of(world, str(status["canary"]["revision"]), "synthetic")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "localhost/backstop:test"
        await world.apply("v1", canary=canary)

        async def gone() -> bool:
            return not await world.names(JOBS)

        await until("nothing is sent any more", gone)
