"""What all gateways of a policy share, whatever their revision: their identity, its one right, and the traffic object."""

from typing import Final

from ..api.names import gateway_account, traffic_object
from ..api.traffic import TrafficState, render
from .owner import Body, Owner, metadata

_RBAC: Final = "rbac.authorization.k8s.io"


def account(owner: Owner) -> list[Body]:
    """ServiceAccount, Role and RoleBinding: a gateway may look at its policy's traffic object, and at nothing else."""
    name = gateway_account(owner.name)
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(owner, name=name)},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": metadata(owner, name=name),
            "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [traffic_object(owner.name)], "verbs": ["get", "watch"]}
            ],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata(owner, name=name),
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": owner.namespace}],
        },
    ]


def traffic(owner: Owner, *, state: TrafficState) -> Body:
    """The traffic object that says `state`."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, name=traffic_object(owner.name)),
        "data": render(state),
    }
