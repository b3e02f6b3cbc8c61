"""One look at a policy: from what was seen of the cluster to the values a decision is made from. Pure; knows no API and no queue."""

from collections.abc import Mapping, Sequence
from typing import Final

from ..analysis.reading import SLOReading
from ..api.names import GROUP
from ..rollout.observed import Arm, Foreign, Known, Observed, ProbeSeen, Reporting, Unknown, Unresolved
from ..rollout.place import Place, Revision, Tokens
from ..traffic.acting import Acting, Gateway
from ..traffic.router import Router, Shares
from .belonging import is_ours, is_route_of
from .kept import NOTHING_KEPT, Memory
from .seen import Child, DeploymentSeen, PodSeen

LONGEST_TOKEN: Final = 256
LONGEST_REFUSAL: Final = 400
NOTHING_REFUSED: Final[Mapping[str, str]] = {}


def observe(
    *,
    place: Place,
    wanted: Known[Revision] | Unresolved,
    traffic: Child | None,
    owner: str,
    policy: str,
    router: Router,
    deployments: Sequence[DeploymentSeen],
    pods: Sequence[PodSeen],
    acting: Acting,
    acting_since: float | None,
    readings: tuple[SLOReading, ...],
    annotations: Mapping[str, str],
    requests: int | None,
    reporting: Reporting,
    probes: Mapping[str, Known[ProbeSeen] | Unknown],
    leaving: bool = False,
    memory: Memory = NOTHING_KEPT,
    refused: Mapping[str, str] = NOTHING_REFUSED,
) -> Observed:
    """The observed values. `owner` is the policy's uid, `policy` its name: what belongs to another is not the policy's, its namesake
    before it included.

    `refused`: by revision, why its Deployment could not be written.
    """
    route: Shares = Known(None)
    strays = False
    owned = [d for d in deployments if is_ours(d, owner=owner, policy=policy)]
    runs = place.stable is not None or bool(owned)
    if traffic is not None and not is_route_of(owner, policy=policy, traffic=traffic, runs=runs):
        route = Foreign(f"{traffic.resource.kind} `{traffic.name}` belongs to something else")
    elif traffic is not None:
        route = router.observe(traffic.content, annotations=traffic.annotations)
        state = route.value if isinstance(route, Known) else None
        # Without its labels it is watched no more, without its owner it outlives the policy.
        lost = isinstance(route, Known) and traffic.policy != traffic.owning_policy
        strays = lost or router.strays(traffic.content, policy=traffic.name, state=state)
    return Observed(
        place=place,
        wanted=wanted,
        route=route,
        arms=arms_of(owned, pods=pods, refused=refused),
        acting=acting.lowest,
        newest=acting.highest,
        acting_since=acting_since,
        readings=readings,
        tokens=_tokens(annotations),
        leaving=leaving,
        accepted=memory.accepted,
        remembered=memory.rejected,
        requests=requests,
        reporting=reporting,
        probes=probes,
        strays=strays,
        with_pods=frozenset(pod.revision for pod in pods if pod.revision is not None and not pod.deleting),
    )


def _tokens(annotations: Mapping[str, str]) -> Tokens:
    """What is asked for by hand. A value that is too long to be kept is told from others by its beginning."""

    def token(name: str) -> str | None:
        value = annotations.get(f"{GROUP}/{name}")
        return value[:LONGEST_TOKEN] if value else None

    refresh = annotations.get(f"{GROUP}/refresh")
    return Tokens(
        abort=token("abort"),
        retry=token("retry"),
        promote=token("promote"),
        approve=token("approve"),
        skip_step=token("skip-step"),
        refresh=refresh[:LONGEST_TOKEN] if refresh is not None else None,  # empty says something too
    )


def arms_of(
    deployments: Sequence[DeploymentSeen], *, pods: Sequence[PodSeen], refused: Mapping[str, str] = NOTHING_REFUSED
) -> Mapping[str, Arm]:
    """Pods per revision. A pod that is going away is not counted, whatever it says of itself."""
    arms = {revision: Arm(desired=0, ready=0, trouble=why[:LONGEST_REFUSAL]) for revision, why in refused.items()}
    for deployment in deployments:
        if deployment.revision is None or deployment.deleting:
            continue
        mine = [pod for pod in pods if pod.revision == deployment.revision and not pod.deleting]
        ready = sum(pod.ready for pod in mine)
        trouble = next(
            (pod.trouble for pod in sorted(mine, key=lambda p: p.name) if pod.trouble and not pod.ready),
            deployment.failure or refused.get(deployment.revision),
        )
        exits = sum(pod.exits for pod in mine)
        arms[deployment.revision] = Arm(desired=deployment.replicas, ready=ready, trouble=trouble, exits=exits)
    return arms


def gateways_of(pods: Sequence[PodSeen]) -> list[Gateway]:
    """The ready pods, of every revision: those that traffic may enter through."""
    return [Gateway(pod.name, pod.address) for pod in pods if pod.ready and not pod.deleting and pod.address]
