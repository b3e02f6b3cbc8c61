"""The Services of a policy: who is called under which name."""

from typing import Final

from ..api.names import TRAFFIC_PORT, callers_service, canary_service, stable_service
from .owner import Body, Owner, metadata, pod_selector

# No revision has this name: revisions are named by hashes of ten digits.
NO_REVISION: Final = "none"


def service(owner: Owner, *, name: str, selector: dict[str, str], revision: str | None = None) -> Body:
    """A Service in front of the gateway pods that `selector` selects."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, name=name, revision=revision),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [{"name": "http", "port": TRAFFIC_PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}],
        },
    }


def caller_services(owner: Owner, *, serving: str, canary: str | None) -> list[Body]:
    """`p` for applications; `p-stable` and `p-canary` for routers and people. Without a canary, `p-canary` selects no pod."""
    callers = service(owner, name=callers_service(owner.name), selector=pod_selector(owner.name, revision=serving))
    return [callers, *role_services(owner, serving=serving, canary=canary)]


def role_services(owner: Owner, *, serving: str, canary: str | None) -> list[Body]:
    """`p-stable` and `p-canary` alone."""
    return [
        service(owner, name=stable_service(owner.name), selector=pod_selector(owner.name, revision=serving)),
        service(owner, name=canary_service(owner.name), selector=pod_selector(owner.name, revision=canary or NO_REVISION)),
    ]
