"""The Service of a workload of its author's own: reading the state that it carries, writing it, and seeing that endpoints follow.

Nothing of this operator's has to run for Kubernetes to go on routing: pods come and go with their labels and their readiness. A
stale writer gets a Conflict and has to look again; it can undo nothing.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from ..api.names import TRAFFIC_MANAGER
from ..api.traffic import PIN_KEY, STICKY_KEY, TrafficError, TrafficState, parse
from ..kube.client import Client
from ..kube.errors import KubeError
from ..kube.resources import ENDPOINT_SLICES, SERVICES, Body
from ..rendering.owner import Owner
from ..rendering.route import ANNOTATION, routed_service
from ..rollout.observed import Known, Unknown

OF_SERVICE: Final = "kubernetes.io/service-name"
EXTERNAL: Final = "ExternalName"


def observe_service(annotations: Mapping[str, str]) -> Known[TrafficState | None] | Unknown:
    """The state in the annotations of the Service."""
    data = {key.removeprefix(ANNOTATION): value for key, value in annotations.items() if key.startswith(ANNOTATION)}
    try:
        return Known(parse(data))
    except TrafficError as error:
        return Unknown(f"{error}, which is the policy's Service, in annotations that begin with `{ANNOTATION}`")


def strays_from(content: Mapping[str, Any], *, policy: str, state: TrafficState | None) -> bool:
    """Whether the Service leads to other pods, or another port of them, than its own state says. `content`: with its `spec`.

    One whose state cannot be read does what nobody has said.
    """
    if state is None:
        return True
    live, wanted = content.get("spec") or {}, routed_service(Owner("", policy, ""), state=state)["spec"]
    return bool(live.get("selector") != wanted["selector"] or _ports(live) != _ports(wanted) or _leads_elsewhere(live))


def _leads_elsewhere(spec: Mapping[str, Any]) -> bool:
    """Whether callers reach something else than ready pods. Types that only add ways in are their author's choice."""
    return spec.get("type") == EXTERNAL or bool(spec.get("publishNotReadyAddresses"))


def _ports(spec: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(port.get(key) for key in ("name", "port", "targetPort", "protocol")) for port in spec.get("ports") or ()]


async def set_selector(
    client: Client, *, body: Body, over: str | None, content: Mapping[str, Any], falling: bool, orphan: bool = False
) -> Body:
    """Write the rendered Service over the version `over`, with this `content`; None: it must not exist yet. Conflict if that is not so.

    What others have put on it (addresses, annotations of load balancers) stays. It is merged and not applied: ports are a list that
    others may have edited, and the whole of it is replaced where it is wrong, but by no write that takes traffic away. Nor does that one
    put right a Service that leads elsewhere. `orphan`: no controller owns it, so the policy does from now on.
    """
    if over is None:
        return await client.create(SERVICES, body=body, manager=TRAFFIC_MANAGER)
    metadata, live, wanted = body["metadata"], content.get("spec") or {}, body["spec"]
    unsaid = {f"{ANNOTATION}{key}": None for key in (STICKY_KEY, PIN_KEY)}  # nothing here tells callers apart
    spec = {"selector": dict.fromkeys(live.get("selector") or {}) | wanted["selector"]}
    if not falling and _ports(live) != _ports(wanted):
        spec["ports"] = wanted["ports"]
    if not falling and _leads_elsewhere(live):
        spec |= {"publishNotReadyAddresses": None} | (
            {"type": wanted["type"], "externalName": None} if live.get("type") == EXTERNAL else {}
        )
    said = {"labels": metadata["labels"], "annotations": unsaid | metadata["annotations"]}
    if orphan and not falling:
        said["ownerReferences"] = metadata["ownerReferences"]
    patch = {"metadata": {"resourceVersion": over} | said, "spec": spec}
    return await client.patch(SERVICES, namespace=metadata["namespace"], name=metadata["name"], patch=patch, manager=TRAFFIC_MANAGER)


async def endpoints_follow(client: Client, *, namespace: str, service: str, pods: Collection[str], generation: int) -> Known[int] | Unknown:
    """`generation`, when the endpoints of the Service that are ready are exactly these `pods` (names); Unknown while they are not."""
    try:
        slices, _ = await client.list(ENDPOINT_SLICES, namespace=namespace, labels=f"{OF_SERVICE}={service}")
    except KubeError as error:
        return Unknown(f"the endpoints of Service `{service}` cannot be listed ({error})")
    ready = {name for body in slices for name in _ready(body)}
    if not pods:
        return Unknown(f"no pod is ready for Service `{service}`")
    if lacking := sorted(set(pods) - ready):
        return Unknown(f"pod {lacking[0]} is not among the endpoints of Service `{service}` yet")
    if beyond := sorted(ready - set(pods)):
        return Unknown(f"pod {beyond[0]} is still among the endpoints of Service `{service}`")
    return Known(generation)


def _ready(body: Body) -> set[str]:
    """Names of the pods that connections go to."""
    return {
        str((endpoint.get("targetRef") or {}).get("name", ""))
        for endpoint in body.get("endpoints") or ()
        # By the API's word, one that does not say is ready.
        if (endpoint.get("conditions") or {}).get("ready") is not False
    }
