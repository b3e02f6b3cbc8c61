"""What is told of a rollout: one event, one log line and one count per transition, and series that say where each policy is."""

import contextlib
import json
import logging
from collections import Counter

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from backstop.api.clock import parse_time
from backstop.api.policystatus import Phase
from backstop.api.reasons import ADVICE, WARNINGS, Reason
from backstop.controller.seen import declared
from backstop.controller.store import Store
from backstop.controller.telling import Telling
from backstop.controller.writes import Writes
from backstop.kube.client import Client
from backstop.kube.connection import Connection
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Resource
from backstop.rollout.plan import Announcement
from backstop.telemetry.metrics import Metrics
from e2e.cluster.ports import free_port

from .operators import running
from .until import until
from .world import Behaviour, World, condition

pytestmark = pytest.mark.apiserver

ROLLED_BACK = ["FirstRevision", "CanaryStarted", "StepStarted", "WeightVerified", "RolledBack", "TrafficShifted"]
START = 1_800_000_000.0
UNWATCHED = {"keepPreviousSeconds": 15, "guardSeconds": 0}


def is_transition(name: str, labels: dict[str, str], *, of: Resource) -> bool:
    return name == "backstop_operator_transitions_total" and labels["kind"] == of.kind


async def a_rollback(world: World) -> None:
    """v1 becomes stable, v2 is rolled back, and its report is written."""
    world.behaviour["v2"] = Behaviour(bad=0.5)
    for name in ("v1", "v2"):
        await world.prompt(name)
    steps = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
    await world.apply("v1", canary=steps, rollback=UNWATCHED)
    await world.stable_on("v1")
    await world.apply("v2", canary=steps, rollback=UNWATCHED)
    await world.until_status("v2 is reported", lambda s: s.get("lastRollout", {}).get("report"), within=60)
    await world.quiet()


async def test_every_warning_s_event_says_after_its_message_what_to_do_next(client: Client, world: World) -> None:
    body = await world.apply("v1")
    about = declared(body, resource=POLICIES)
    writes = Writes(client, store=Store(), instance="test", wake=lambda _: None)
    telling = Telling(writes, metrics=Metrics())
    for number, reason in enumerate(sorted(WARNINGS)):
        said = Announcement(reason, f"this was seen: {reason}")
        await telling.tell(about, said, owner=None, phase=Phase.IDLE, weight=0, now=START + number)
    noted = {event["reason"]: event["note"] for event in await world.told()}
    assert noted == {reason: f"this was seen: {reason}" + (f"; {ADVICE[reason]}" if reason in ADVICE else "") for reason in WARNINGS}


async def test_r06_a_transition_is_told_once_in_an_event_a_log_line_and_a_count_and_never_again(
    connection: Connection, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    caplog.set_level(logging.INFO, logger="backstop.controller.telling")
    async with running(connection, world, telemetry_port=port):
        await a_rollback(world)
        counted = await scrape(port)
    told = [event["reason"] for event in await world.told()]
    # A scrape may come late on a busy machine; that is a transition like others.
    assert [reason for reason in told if not reason.startswith("Metrics")] == ROLLED_BACK
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "backstop.controller.telling"]
    lines = [line for line in lines if "promptVersion" not in line]
    assert [line["reason"] for line in lines] == told
    assert {(line["namespace"], line["policy"]) for line in lines} == {(world.namespace, world.policy)}
    assert json.dumps(lines)
    transitions = {labels["reason"]: value for name, labels, value in counted if is_transition(name, labels, of=POLICIES)}
    assert transitions == Counter(told)
    (report,) = await world.reports()
    assert [transition["reason"] for transition in report["spec"]["transitions"]] == told[1:]
    async with running(connection, world, sweep_seconds=0.5) as second:
        await second.lists(4)
    assert [event["reason"] for event in await world.told()] == told


async def test_r06_what_becomes_of_a_prompt_version_is_told_on_it_once_in_an_event_a_log_line_and_a_count(
    connection: Connection, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    caplog.set_level(logging.INFO, logger="backstop.controller.telling")
    async with running(connection, world, telemetry_port=port):
        await a_rollback(world)
        counted = await scrape(port)
    told = [(event["regarding"]["name"], event["type"], event["reason"]) for event in await world.told(of=PROMPT_VERSIONS)]
    assert sorted(told) == [("v1", "Normal", "Accepted"), ("v2", "Normal", "Accepted"), ("v2", "Warning", "RolledBack")]
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "backstop.controller.telling"]
    named = Counter((line["promptVersion"], line["reason"]) for line in lines if "promptVersion" in line)
    assert named == {("v1", "Accepted"): 1, ("v2", "Accepted"): 1, ("v2", "RolledBack"): 1}
    transitions = {labels["reason"]: value for name, labels, value in counted if is_transition(name, labels, of=PROMPT_VERSIONS)}
    assert transitions == {"Accepted": 2.0, "RolledBack": 1.0}
    async with running(connection, world, sweep_seconds=0.5) as second:
        await second.lists(4)
    assert len(await world.told(of=PROMPT_VERSIONS)) == 3


async def test_r06_two_texts_of_one_version_are_told_on_the_policy_and_the_prompt_version_and_when_it_is_over(
    connection: Connection, world: World
) -> None:
    older = await world.prompt("a-first", text="One.", version="1.0.0")
    await world.prompt("b-later", text="Another.", version="1.0.0")
    await world.apply("b-later")
    async with running(connection, world, sweep_seconds=0.5) as operator:
        await world.until_status("the conflict is told", lambda s: condition(s, "Accepted")["reason"] == "VersionConflict")
        await world.until_prompt_status("b-later", "it says so too", lambda s: condition(s, "Accepted")["status"] == "False")
        await operator.lists(2)
        assert [event["reason"] for event in await world.told()] == ["VersionConflict"]
        uid = older["metadata"]["uid"]
        await world.client.delete(PROMPT_VERSIONS, namespace=world.namespace, name="a-first", uid=uid)
        await world.stable_on("b-later", within=60)
        await world.quiet()
    assert [event["reason"] for event in await world.told()] == ["VersionConflict", "Accepted", "FirstRevision"]
    later = [event for event in await world.told(of=PROMPT_VERSIONS) if event["regarding"]["name"] == "b-later"]
    assert [(event["type"], event["reason"]) for event in later] == [("Warning", "VersionConflict"), ("Normal", "Accepted")]
    assert "`a-first`" in later[0]["note"]
    assert "create this one anew with another `spec.version`" in later[0]["note"]


async def test_r06_a_spec_that_cannot_be_run_is_told_once_and_told_when_it_can_be(connection: Connection, world: World) -> None:
    await world.apply("v1")
    async with running(connection, world, sweep_seconds=0.5) as first:
        await world.until_status("it is said", lambda s: condition(s, "ResolvedRefs")["reason"] == "PromptVersionNotFound")
        await first.lists(2)
    async with running(connection, world, sweep_seconds=0.5) as second:
        await second.lists(2)
        assert [event["reason"] for event in await world.told()] == ["PromptVersionNotFound"]
        await world.prompt("v1")
        await world.stable_on("v1")
        await world.quiet()
    assert [event["reason"] for event in await world.told()] == ["PromptVersionNotFound", "Resolved", "FirstRevision"]


async def test_r07_metrics_say_where_a_policy_is_and_when_what_was_decided_and_leave_nothing_behind(
    connection: Connection, client: Client, world: World
) -> None:
    port = free_port()
    async with running(connection, world, telemetry_port=port):
        await a_rollback(world)
        last = (await world.status())["lastRollout"]
        series = mine(await scrape(port), world=world)
        assert series == {
            ("backstop_operator_canary_weight_percent", ""): 0.0,
            ("backstop_operator_policy_phase", "RolledBack"): 1.0,
            ("backstop_operator_last_rollout_outcome", "RolledBack"): 1.0,
            ("backstop_operator_last_decision_timestamp_seconds", ""): parse_time(last["detectedAt"]),
            ("backstop_operator_last_shift_timestamp_seconds", ""): parse_time(last["shiftedAt"]),
        }
        others = await scrape(port)
        ended = {
            (labels["outcome"], labels["reason"]): value for name, labels, value in others if name == "backstop_operator_rollouts_total"
        }
        assert ended == {("RolledBack", "LatencyBreach"): 1.0}
        shifts = [value for name, _, value in others if name == "backstop_operator_decision_to_shift_seconds_count"]
        assert shifts == [1.0]
        (took,) = (value for name, _, value in others if name == "backstop_operator_decision_to_shift_seconds_sum")
        assert took == pytest.approx(parse_time(last["shiftedAt"]) - parse_time(last["detectedAt"]), abs=0.002), "status has milliseconds"
        assert took > 0.002
    # What the policies' series say follows from status, so that another operator shows the same.
    async with running(connection, world, telemetry_port=port):

        async def shown() -> bool:
            with contextlib.suppress(aiohttp.ClientConnectionError):  # it has not begun to listen
                return mine(await scrape(port), world=world) == series
            return False

        await until("another operator shows the same", shown)
        policy = await client.get(POLICIES, namespace=world.namespace, name=world.policy)
        await client.delete(POLICIES, namespace=world.namespace, name=world.policy, uid=policy["metadata"]["uid"])

        async def gone() -> bool:
            return mine(await scrape(port), world=world) == {}

        await until("a deleted policy has no series", gone)


async def test_r07_the_labels_of_the_operators_metrics_are_bounded(connection: Connection, world: World) -> None:
    port = free_port()
    async with running(connection, world, telemetry_port=port):
        await a_rollback(world)
        labels = {(name, value) for _, all_labels, _ in await scrape(port) for name, value in all_labels.items()}
    assert {name for name, _ in labels} <= {"namespace", "policy", "phase", "outcome", "reason", "verb", "kind", "cause", "le"}
    assert {value for name, value in labels if name == "reason"} <= {reason.value for reason in Reason}


async def scrape(port: int) -> list[tuple[str, dict[str, str], float]]:
    """Every series of the operator."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        text = await response.text()
    families = text_string_to_metric_families(text)
    return [(s.name, dict(s.labels), s.value) for family in families for s in family.samples if s.name.startswith("backstop_")]


def mine(series: list[tuple[str, dict[str, str], float]], *, world: World) -> dict[tuple[str, str], float]:
    """The series of the world's policy, by name and what else they are labelled with."""
    return {
        (name, labels.get("phase") or labels.get("outcome") or ""): value
        for name, labels, value in series
        if (labels.get("namespace"), labels.get("policy")) == (world.namespace, world.policy)
    }
