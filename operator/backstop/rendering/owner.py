"""The policy that owns what is rendered, and the metadata that every one of its objects has. Knows no kind."""

from dataclasses import dataclass
from typing import Any

from ..api.names import (
    API_VERSION,
    GATEWAY_COMPONENT,
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_POLICY,
    LABEL_REVISION,
    MANAGED_BY,
)

# An object of the API as JSON gives it.
Body = dict[str, Any]


@dataclass(frozen=True)
class Owner:
    """A FallbackPolicy, as far as its objects name it."""

    namespace: str
    name: str
    uid: str


def labels(policy: str, *, revision: str | None = None, component: str = GATEWAY_COMPONENT) -> dict[str, str]:
    """Labels of an object of `policy`, of one `revision` or of all."""
    common = {
        LABEL_NAME: f"backstop-{component}",
        LABEL_INSTANCE: policy,
        LABEL_COMPONENT: component,
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_POLICY: policy,
    }
    return common if revision is None else common | {LABEL_REVISION: revision}


def pod_selector(policy: str, *, revision: str) -> dict[str, str]:
    """Labels that select the gateway pods of one revision and no others."""
    return {LABEL_POLICY: policy, LABEL_REVISION: revision}


def metadata(owner: Owner, *, name: str, revision: str | None = None, component: str = GATEWAY_COMPONENT) -> Body:
    """Metadata of a child: it is found by its labels and goes when its owner goes."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels(owner.name, revision=revision, component=component),
        "ownerReferences": owner_references(owner),
    }


def owner_references(owner: Owner) -> list[Body]:
    """That an object goes with its policy."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "FallbackPolicy",
            "name": owner.name,
            "uid": owner.uid,
            "controller": True,
            # True would need the right to update finalizers of policies, and delay nothing that matters here.
            "blockOwnerDeletion": False,
        }
    ]
