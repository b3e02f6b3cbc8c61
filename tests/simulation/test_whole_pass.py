"""Invariants of the whole pass, with everything that can go wrong between two operators and their API server."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from backstop.api.names import REJECTED
from backstop.controller.reconcile import LONGEST_LEAVE_SECONDS
from backstop.kube.resources import DEPLOYMENTS, PROMPT_VERSIONS

from .api import Id
from .cluster import NAMESPACE, Cluster
from .machine import WholePasses
from .options import WholePassesWithOptions
from .wire import Fault
from .wishes import MISSING, REPLICAS, UNSEEING, spec

THOROUGH = settings.get_current_profile_name() == "found"

TestWholePasses = WholePasses.TestCase
TestWholePassesWithOptions = WholePassesWithOptions.TestCase
TestWholePasses.settings = TestWholePassesWithOptions.settings = settings(
    max_examples=15 if THOROUGH else 3, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)


def test_b14_a_pass_that_began_before_an_abort_does_not_write_over_its_verdict() -> None:
    machine = played("Pause")
    machine.somebody_asks("abort")
    machine.a_canary_begins("v2")
    machine.an_operator_is_cut_off(0, 3.0)
    # One operator aborts and is cut off; the other one leads then, is slow, and hears of the abort while its pass is under way.
    machine.somebody_asks("abort")
    machine.the_network_is(1, 1.5, 15.0)
    machine.gateways_turn_deaf_or_hear_again()
    machine.watches_go_on(0, True)
    machine.watches_freeze(1)
    machine.pods_break_or_recover("v2")
    machine.time_passes(0.5)
    machine.an_operator_is_cut_off(0, 20.0)
    machine.what_is_at_rest_stays_so()
    machine.nothing_is_broken()
    machine.teardown()


def test_b01_a_breach_whose_first_write_is_lost_to_somebody_else_is_acted_on_at_once() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    machine.a_breach_meets_another_writer()
    machine.nothing_is_broken()
    machine.teardown()


def test_a_prompt_version_that_is_held_while_it_goes_stops_nothing_and_is_not_asked_for_again_and_again() -> None:
    machine = played("Automatic")
    api, asked = machine.cluster.api, list[str]()
    version = (PROMPT_VERSIONS.plural, NAMESPACE, "v1")
    api.write(version, {"metadata": api.objects[version]["metadata"] | {"finalizers": ["example.com/hold"]}}, who="person")
    machine.time_passes(5.0)
    answer = api.answer

    def counted(method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        asked.extend([path] if method == "GET" and path.endswith("/promptversions/v1") else [])
        return answer(method, path, **rest)

    api.answer = counted  # type: ignore[method-assign]
    api.delete(version, who="person")
    machine.time_passes(5.0)
    _lose_deployments(machine)
    machine.time_passes(65.0)
    assert len(asked) <= 2
    assert _deployments(machine), "what serves is made again"
    machine.nothing_is_broken()
    machine.cluster.end()


def test_a_prompt_version_that_may_not_be_read_by_its_name_stops_nothing_else() -> None:
    machine = played("Automatic")
    api = machine.cluster.api
    answer = api.answer

    def refused(method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        if method == "GET" and path.endswith("/promptversions/v9"):
            return 403, b'{"kind": "Status", "message": "forbidden"}'
        return answer(method, path, **rest)

    api.answer = refused  # type: ignore[method-assign]
    machine.cluster.apply(spec("v9"))
    machine.time_passes(65.0)
    _lose_deployments(machine)
    machine.time_passes(65.0)
    said = {condition["type"]: condition for condition in machine.cluster.policy["status"]["conditions"]}
    assert said["ResolvedRefs"]["reason"] == "PromptVersionNotFound"
    assert _deployments(machine), "what serves is made again"
    machine.nothing_is_broken()
    machine.cluster.end()


def _deployments(machine: WholePasses) -> list[Id]:
    return [id_ for id_ in machine.cluster.api.objects if id_[0] == DEPLOYMENTS.plural]


def _lose_deployments(machine: WholePasses) -> None:
    for id_ in _deployments(machine):
        machine.cluster.api.delete(id_, who="person")


def test_m01_what_a_metric_source_said_before_the_spec_named_another_moves_nothing() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    machine.metrics_come_from(MISSING)
    machine.time_passes(65.0)
    machine.time_passes(65.0)
    machine.metrics_come_from(UNSEEING)
    machine.time_passes(65.0)
    machine.nothing_is_broken()
    canary = machine.cluster.place.canary
    assert canary is not None
    assert canary.weight == 5
    machine.teardown()
    assert machine.cluster.place.stable is not None
    assert machine.cluster.place.stable.revision == canary.revision


def test_a03_a_healthy_version_is_promoted_with_the_pods_that_were_judged() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    canary = machine.cluster.place.canary
    assert canary is not None
    deployment = "deployments", "shop", f"support-{canary.revision.name}"
    judged = machine.cluster.api.objects[deployment]["metadata"]["uid"]
    machine.time_passes(65.0)
    stable = machine.cluster.place.stable
    assert stable is not None
    assert stable.revision == canary.revision
    assert machine.cluster.api.objects[deployment]["metadata"]["uid"] == judged
    machine.teardown()
    assert machine.cluster.place.stable == stable


@pytest.mark.parametrize("own", [False, True])
def test_pods_that_are_kept_to_go_back_to_are_made_again_when_somebody_deletes_them(own: bool) -> None:
    machine = played("Automatic", own=own)
    cluster = machine.cluster
    first = cluster.place.stable
    assert first is not None
    machine.a_canary_begins("v2")
    while cluster.place.guard is None or cluster.place.canary is not None:
        machine.time_passes(0.5)
    cluster.lose_deployment(first.revision.name)
    assert cluster.replicas(first.revision.name) is None
    machine.time_passes(5.0)
    assert cluster.ready(first.revision.name) == REPLICAS
    machine.metrics_say("v2", "breached")
    machine.time_passes(2.0)
    assert cluster.place.stable is not None
    assert cluster.place.stable.revision == first.revision
    machine.nothing_is_broken()
    machine.teardown()


def test_g07_a_policy_that_is_deleted_goes_though_somebody_never_stops_writing_it() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    cluster = machine.cluster
    attempts = itertools.count(1)

    def contended(method: str, path: str) -> Fault | None:
        """Every write comes second, but for one of five that let go of the policy."""
        if method == "GET" or ("fallbackpolicies" not in path and "support-traffic" not in path):
            return None
        return None if not path.endswith("/status") and "fallbackpolicies" in path and next(attempts) % 5 == 0 else Fault.CONTENDED

    for process in cluster.processes:
        process.wire._fault = contended  # type: ignore[method-assign]  # for as long as the storm lasts
    cluster.delete_policy()
    machine.time_passes(65.0)
    assert cluster.exists, "its shift is waited for"
    machine.time_passes(LONGEST_LEAVE_SECONDS)
    assert not cluster.exists
    cluster.end()


def test_what_has_lost_its_owner_is_taken_back_in_mid_canary() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    cluster = machine.cluster
    there = set(cluster.api.objects)
    cluster.lose_owners()
    assert cluster.orphans()
    machine.time_passes(2.0)
    machine.metrics_say("v2", "unseen")
    machine.time_passes(65.0)
    assert not cluster.orphans()
    assert there <= set(cluster.api.objects), "nothing is taken for somebody else's, or for nobody's"
    machine.nothing_is_broken()
    machine.teardown()


def test_what_something_else_controls_is_not_written_and_a_breach_ends_when_it_lets_go() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    cluster = machine.cluster
    cluster.take_route()
    machine.metrics_say("v2", "breached")
    machine.time_passes(65.0)
    assert cluster.traffic is not None
    assert cluster.traffic.permille > 0, "it is not written over"
    assert cluster.place.last is None, "nothing is called rolled back"
    cluster.give_route_back()
    machine.time_passes(65.0)
    assert cluster.traffic.permille == 0
    assert [r.revision.prompt_version for r in cluster.place.rejected] == ["v2"]
    machine.nothing_is_broken()
    machine.teardown()


def test_a_standby_that_saw_nothing_of_a_canary_and_finds_no_status_ends_it_before_its_pods() -> None:
    machine = played("Pause")
    machine.watches_freeze(1)
    machine.a_canary_begins("v2")
    canary = machine.cluster.place.canary
    assert canary is not None
    machine.the_status_is_lost()
    machine.an_operator_is_cut_off(0, 20.0)
    machine.nothing_is_broken()
    assert machine.cluster.place.stable is not None, "the standby has taken over"
    machine.teardown()


def test_a_standby_that_knows_an_older_route_and_finds_no_status_leads_nobody_to_pods_that_are_gone() -> None:
    machine = played("Automatic")
    cluster = machine.cluster
    standby = cluster.processes[1]
    tell, answer = standby._tell, cluster.api.answer
    first = cluster.place.stable
    assert first is not None

    def told(operator: Any, *, plural: str, body: Mapping[str, Any], gone: bool) -> None:
        """All but the route, whose watch is behind."""
        if body["metadata"]["name"] != cluster.traffic_id[2]:
            tell(operator, plural=plural, body=body, gone=gone)

    def answered(method: str, path: str, *, who: str, **rest: Any) -> tuple[int, bytes]:
        busy = who == standby.name and method == "GET" and path.endswith("/configmaps")
        return (503, b'{"kind": "Status", "message": "busy"}') if busy else answer(method, path, who=who, **rest)

    standby._tell = told  # type: ignore[method-assign]
    cluster.api.answer = answered  # type: ignore[method-assign]
    machine.a_canary_begins("v2")
    while cluster.replicas(first.revision.name) is not None:
        machine.time_passes(65.0)
    cluster.pods_take = 30.0
    machine.the_status_is_lost()
    cluster.processes[0].wire.cut = True
    for _ in range(60):
        machine.time_passes(0.5)
        reached = cluster.selected()["support"]
        assert reached is not None
        assert cluster.ready(reached) > 0, "callers reach nobody"
    stable = cluster.place.stable
    assert stable is not None, "the standby has taken over"
    assert stable.revision.prompt_version == "v2"
    cluster.api.answer = answer  # type: ignore[method-assign]
    standby._tell = tell  # type: ignore[method-assign]
    cluster.end()


def test_a_policy_does_not_go_with_its_canary_because_something_else_controlled_the_route_a_moment_ago() -> None:
    machine = played("Automatic")
    machine.a_canary_begins("v2")
    cluster = machine.cluster
    cluster.take_route()
    machine.time_passes(65.0)
    # What operators know of the route when they hear of the deletion is what was.
    for process in cluster.processes:
        process.watch_delay = 15.0
    cluster.give_route_back()
    cluster.delete_policy()
    machine.time_passes(65.0)
    machine.nothing_is_broken()
    assert not cluster.exists
    cluster.end()


@pytest.mark.parametrize("refused", [False, True])
def test_no_step_and_no_wish_waits_for_a_child_that_is_refused_all_the_while(refused: bool) -> None:
    machine = played("Automatic")
    cluster = machine.cluster
    answer = cluster.api.answer

    def refusing(method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        if refused and method != "GET" and "/poddisruptionbudgets" in path:
            return 403, b'{"kind": "Status", "message": "denied by an admission webhook"}'
        return answer(method, path, **rest)

    cluster.api.answer = refusing  # type: ignore[method-assign]
    # Three steps of 8 s, and a pause between attempts that has grown to half a minute.
    machine.the_spec_names("v2")
    machine.time_passes(40.0)
    assert cluster.place.stable is not None
    assert (cluster.place.stable.revision.prompt_version, cluster.place.canary) == ("v2", None)
    machine.the_spec_names("v3")
    machine.time_passes(6.0)
    assert cluster.traffic is not None
    assert cluster.traffic.permille == 50
    assert ("refused" in cluster.status.model_dump_json()) is refused
    cluster.end()


@pytest.mark.parametrize("mode", ["Automatic", "Pause"])
@pytest.mark.parametrize("first", ["breach", "route"])
def test_a_verdict_outlives_a_policy_that_is_deleted_while_something_else_controls_its_route(mode: str, first: str) -> None:
    machine = played(mode)
    machine.a_canary_begins("v2")
    cluster = machine.cluster
    canary = cluster.place.canary
    assert canary is not None
    if first == "route":
        cluster.take_route()
    cluster.judge("v2", "breached")
    machine.time_passes(65.0)
    if first == "breach":
        cluster.take_route()
    cluster.delete_policy()
    machine.time_passes(5.0)
    assert not cluster.exists
    assert [(one["policy"], one["revision"]) for one in rejections(cluster)] == [("support", canary.revision.name)]
    cluster.end()


@pytest.mark.parametrize(("status", "refusals"), [(403, 99), (409, 2)])
def test_a_verdict_that_is_refused_does_not_hold_a_deletion_and_one_that_somebody_was_faster_than_is_written(
    status: int, refusals: int
) -> None:
    machine = played("Pause")
    machine.a_canary_begins("v2")
    cluster = machine.cluster
    # For so long that the route is tried again every half minute alone.
    cluster.take_route()
    cluster.judge("v2", "breached")
    machine.time_passes(65.0)
    answer, left = cluster.api.answer, refusals

    def refused(method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        nonlocal left
        if method != "GET" and path.endswith("/promptversions/v2/status") and left:
            left -= 1
            return status, b'{"kind": "Status", "message": "no"}'
        return answer(method, path, **rest)

    cluster.api.answer = refused  # type: ignore[method-assign]
    cluster.delete_policy()
    machine.time_passes(5.0)
    cluster.api.answer = answer  # type: ignore[method-assign]
    assert left < refusals
    assert not cluster.exists
    assert len(rejections(cluster)) == (1 if status == 409 else 0)
    cluster.end()


@pytest.mark.parametrize("conflicts", [0, 2])
def test_what_was_no_fault_of_its_prompt_outlives_such_a_policy_on_the_record_of_what_it_accepted_last(conflicts: int) -> None:
    """The prompt of what was rolled back is stable's, too, rolled out anew: nothing is said of it on the PromptVersion."""
    machine = played("Pause")
    cluster = machine.cluster
    cluster.ask("refresh", "1")
    machine.time_passes(6.0)
    canary = cluster.place.canary
    assert canary is not None
    cluster.take_route()
    cluster.judge("v1", "breached")
    machine.time_passes(65.0)
    answer, left = cluster.api.answer, conflicts

    def contended(method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        nonlocal left
        if method == "PATCH" and "/configmaps/" in path and left:
            left -= 1
            return 409, b'{"kind": "Status", "message": "somebody was faster"}'
        return answer(method, path, **rest)

    cluster.api.answer = contended  # type: ignore[method-assign]
    cluster.delete_policy()
    machine.time_passes(5.0)
    assert left == 0
    assert not cluster.exists
    said = [body["metadata"].get("annotations", {}) for body in cluster.api.of("configmaps")]
    kept = [annotations[REJECTED] for annotations in said if REJECTED in annotations]
    assert [[one["revision"] for one in json.loads(text)] for text in kept] == [[canary.revision.name]]
    cluster.end()


def rejections(cluster: Cluster) -> list[dict[str, Any]]:
    """What v2 says of itself."""
    found: list[dict[str, Any]] = cluster.api.objects["promptversions", NAMESPACE, "v2"]["status"].get("rejections", [])
    return found


def played(mode: str, *, own: bool = False) -> WholePasses:
    """A machine to be told step by step."""
    machine = WholePasses()
    machine.version_1_is_stable(mode, (), own=own)
    return machine
