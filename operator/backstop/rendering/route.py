"""The Service that callers use, as the route of a workload of its author's own: its selector is what shares connections out.

The traffic state is kept in its annotations, under the keys of the traffic object, so that one write moves traffic and says why.
"""

from typing import Final

from ..api.names import GROUP, LABEL_POLICY, callers_service
from ..api.traffic import TrafficState, render
from .owner import Body, Owner, pod_selector
from .services import service

ANNOTATION: Final = f"{GROUP}/"


def routed_service(owner: Owner, *, state: TrafficState) -> Body:
    """The Service of the policy's name that does what `state` says."""
    body = service(owner, name=callers_service(owner.name), selector=selector_of(owner.name, state=state))
    body["metadata"]["annotations"] = {f"{ANNOTATION}{key}": value for key, value in render(state).items()}
    return body


def selector_of(policy: str, *, state: TrafficState) -> dict[str, str]:
    """Labels of the pods that callers' connections go to: those of one revision, or of all that the policy has."""
    serving = revisions_of(state)
    return pod_selector(policy, revision=serving[0]) if len(serving) == 1 else {LABEL_POLICY: policy}


def revisions_of(state: TrafficState) -> tuple[str, ...]:
    """The revisions that callers reach: one, or stable and canary."""
    if state.canary is None or state.permille == 0:
        return (state.stable,)
    return (state.canary,) if state.permille == 1000 else (state.stable, state.canary)
