"""From API bodies to what a pass reads: arms, troubles, what belongs to whom."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from backstop.api.names import LABEL_MANAGED_BY, LABEL_POLICY, LABEL_REVISION, MANAGED_BY
from backstop.api.traffic import TrafficState, render
from backstop.controller.observe import arms_of, gateways_of, observe
from backstop.controller.seen import Child, DeploymentSeen, PodSeen, child, pod
from backstop.controller.subject import refusal, refused_deployments
from backstop.controller.verification import NOBODY_ASKED
from backstop.kube.errors import Rejected
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, Body
from backstop.rollout.observed import Foreign, Known, NotTried, Unknown, Unresolved
from backstop.rollout.place import Place, Revision, StablePlace
from backstop.traffic.router import GATEWAYS

NOWHERE = Place()
NOTHING_WANTED = Unresolved(reason="Invalid", message="")  # type: ignore[arg-type]  # not looked at here


def metadata(name: str, *, revision: str | None = None, owner: str = "policy-uid", **rest: Any) -> Body:
    labels = {LABEL_POLICY: "support", LABEL_MANAGED_BY: MANAGED_BY} | ({LABEL_REVISION: revision} if revision else {})
    references = [{"uid": "a-friend"}, {"uid": owner, "controller": True}]
    return {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1", "labels": labels, "ownerReferences": references, **rest}


def gateway_pod(name: str, *, revision: str = "r1", ready: bool = True, container: Body | None = None, **rest: Any) -> PodSeen:
    status = {
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}, *rest.pop("conditions", [])],
        "containerStatuses": [{"name": "gateway", "image": "repo/gateway:1", **(container or {})}],
    }
    return pod({"metadata": metadata(name, revision=revision, **rest), "status": status})


def gateway_deployment(revision: str, *, replicas: int = 2, **rest: Any) -> DeploymentSeen:
    seen = child(
        {"metadata": metadata(f"support-{revision}", revision=revision), "spec": {"replicas": replicas}, **rest}, resource=DEPLOYMENTS
    )
    assert isinstance(seen, DeploymentSeen)
    return seen


def traffic_object(data: Body, *, owner: str = "policy-uid") -> Child:
    return child({"metadata": metadata("support-traffic", owner=owner), "data": data}, resource=CONFIG_MAPS)


def test_ready_pods_are_counted_per_revision_and_those_that_are_going_are_not() -> None:
    pods = [
        gateway_pod("a"),
        gateway_pod("b", ready=False),
        gateway_pod("c", deletionTimestamp="2026-01-01T00:00:00Z"),
        gateway_pod("d", revision="r2"),
    ]
    arms = arms_of([gateway_deployment("r1"), gateway_deployment("r2", replicas=1)], pods=pods)
    assert {name: (arm.desired, arm.ready) for name, arm in arms.items()} == {"r1": (2, 1), "r2": (1, 1)}
    assert [g.pod for g in gateways_of(pods)] == ["a", "d"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off 5m"}}}, "image `repo/gateway:1` cannot be pulled"),
        ({"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}, "image `repo/gateway:1` cannot be pulled"),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 3}}},
            "container `gateway` exited with code 3",
        ),
        (
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "llm-keys" not found'}}},
            'CreateContainerConfigError: secret "llm-keys" not found',
        ),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, None),
        ({"state": {"running": {}}}, None),
    ],
)
def test_why_a_pod_is_not_ready_is_said_in_words_that_do_not_change_with_every_attempt(state: Body, said: str | None) -> None:
    assert gateway_pod("a", ready=False, container=state).trouble == said


@pytest.mark.parametrize(
    ("container", "exits"),
    [
        ({"state": {"running": {}}, "restartCount": 0}, 0),
        ({"state": {"terminated": {"exitCode": 1}}, "restartCount": 0}, 1),
        ({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}, "restartCount": 2}, 3),
        ({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}, "restartCount": 3}, 3),
        ({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 0}}, "restartCount": 3}, 0),
    ],
    ids=["never", "just now", "waiting to be started again", "running again", "in good order"],
)
def test_failed_exits_are_counted(container: Body, exits: int) -> None:
    assert gateway_pod("a", container=container).exits == exits
    assert arms_of([gateway_deployment("r1")], pods=[gateway_pod("a", container=container)] * 2)["r1"].exits == 2 * exits


def test_a_pod_that_its_node_put_out_has_not_failed_by_itself() -> None:
    container = {"name": "gateway", "image": "i", "state": {"terminated": {"exitCode": 137}}, "restartCount": 0}
    evicted = pod({"metadata": metadata("a", revision="r1"), "status": {"phase": "Failed", "containerStatuses": [container]}})
    assert evicted.exits == 0


def test_a_pod_without_a_node_says_so() -> None:
    unscheduled = gateway_pod(
        "a", ready=False, conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
    )
    assert unscheduled.trouble == "not scheduled: 0/3 nodes"


LONG_REFUSAL = 'violates PodSecurity "restricted:latest": ' + ", ".join(["privileged (a container must not be)"] * 50)


def refused_by_admission(message: str) -> str | None:
    conditions = [{"type": "ReplicaFailure", "status": "True", "message": message}]
    return arms_of([gateway_deployment("r1", status={"conditions": conditions})], pods=[])["r1"].trouble


def test_pods_that_cannot_even_be_created_are_told_by_their_deployment() -> None:
    assert refused_by_admission("exceeded quota: small") == (
        "its pods are refused: exceeded quota: small; raise the ResourceQuota, or ask for less in `spec.serving`"
    )
    assert refused_by_admission("webhook says no") == "its pods are refused: webhook says no; see who refuses it"


def test_a_refusal_of_pods_reads_the_same_with_every_attempt_and_keeps_its_advice_however_long_it_is() -> None:
    one, other = (refused_by_admission(f'pods "support-r1-5d9-{attempt}" is forbidden: {LONG_REFUSAL}') for attempt in ("x2x4p", "9kq7z"))
    assert one == other
    assert one is not None
    assert one.startswith('its pods are refused: violates PodSecurity "restricted:latest": ')
    assert one.endswith("`pod-security.kubernetes.io/enforce` allow it")
    assert len(one) < 900


def test_a_deployment_that_the_api_server_refuses_is_why_there_are_no_pods() -> None:
    why = refusal(DEPLOYMENTS, name="support-r2", why=Rejected("exceeded quota: small"))
    refused = refused_deployments(why, policy="support", revisions=["r1", "r2"])
    arms = arms_of([gateway_deployment("r1")], pods=[], refused=refused)
    assert arms["r1"].trouble is None
    assert (arms["r2"].desired, arms["r2"].trouble) == (0, "Deployment `support-r2` was refused by the API server: exceeded quota: small")
    record = refusal(CONFIG_MAPS, name="support-r2", why=Rejected("exceeded quota: small"))
    assert list(refused_deployments(record, policy="support", revisions=["r1", "r2"])) == ["r2"]
    assert refused_deployments(None, policy="support", revisions=["r2"]) == {}
    other = refusal(DEPLOYMENTS, name="support-r2-golden", why=Rejected("exceeded quota: small"))
    assert refused_deployments(other, policy="support", revisions=["r2"]) == {}


def look(traffic: Child | None, *, place: Place = NOWHERE, deployments: Sequence[DeploymentSeen] = ()) -> object:
    return observe(
        place=place,
        wanted=NOTHING_WANTED,
        traffic=traffic,
        router=GATEWAYS,
        owner="policy-uid",
        policy="support",
        deployments=deployments,
        pods=[],
        acting=NOBODY_ASKED,
        acting_since=None,
        readings=(),
        annotations={},
        requests=None,
        reporting=NotTried(),
        probes={},
    ).route


def test_a_traffic_object_is_read_if_it_is_the_policys_own() -> None:
    state = TrafficState(generation=3, stable="r1", canary=None, permille=0, aborted=None)
    assert look(None) == Known(None)
    assert look(traffic_object(render(state))) == Known(state)
    assert look(traffic_object({})) == Unknown("`generation` is missing from the traffic object")
    assert look(traffic_object(render(state), owner="somebody")) == Foreign("ConfigMap `support-traffic` belongs to something else")


def test_a_traffic_object_that_nobody_controls_is_the_policys_if_it_says_so_and_the_policy_runs_something() -> None:
    state = TrafficState(generation=3, stable="r1", canary=None, permille=0, aborted=None)
    orphan = replace(traffic_object(render(state)), owner=None, owning_policy=None)
    foreign = Foreign("ConfigMap `support-traffic` belongs to something else")
    assert look(orphan) == foreign, "what is left of a former policy says nothing of this one"
    assert look(orphan, deployments=[gateway_deployment("r1")]) == Known(state)
    restored = replace(gateway_deployment("r1"), owner=None, owning_policy=None)
    assert look(orphan, deployments=[restored]) == Known(state)
    assert look(orphan, place=Place(stable=StablePlace(Revision("r1", "v1", ""), since=0.0))) == Known(state), "as its status says"
    assert look(orphan, deployments=[replace(restored, owner="somebody")]) == foreign
    assert look(replace(orphan, policy="other"), deployments=[restored]) == foreign


def test_labels_say_whose_an_object_is_only_where_it_says_that_this_operator_manages_it() -> None:
    labels = {LABEL_POLICY: "support", LABEL_MANAGED_BY: "somebody"}
    assert child({"metadata": metadata("support-traffic") | {"labels": labels}}, resource=CONFIG_MAPS).policy == ""
