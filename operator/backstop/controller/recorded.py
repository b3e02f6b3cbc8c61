"""Which Deployments of a fresh list are as their records say, so that after a start they need not be read one by one. Pure.

Works on whole objects while they are at hand, page by page, and keeps nothing of them: the store holds no pod template.
"""

import json
import zlib
from collections.abc import Iterator, Sequence

from ..api.names import LABEL_POLICY, LABEL_REVISION, TEMPLATE_KEY
from ..kube.resources import CONFIG_MAPS, DEPLOYMENTS, Body, Resource
from ..rendering.owner import Owner
from ..rendering.revision import deployment
from .compare import covers

_Name = tuple[str, str]  # namespace, name


class Recorded:
    """The records of one list, which gives them before the Deployments. `look` in the order in which the pages come."""

    def __init__(self) -> None:
        self._templates: dict[_Name, bytes] = {}

    def look(self, resource: Resource, bodies: Sequence[Body]) -> Iterator[tuple[Body, Body]]:
        """Deployments with a template that covers their record's, each with what it was rendered as."""
        if resource is CONFIG_MAPS:
            for body in bodies:
                if (text := (body.get("data") or {}).get(TEMPLATE_KEY)) is not None:
                    self._templates[_name(body)] = zlib.compress(text.encode(), level=1)
        elif resource is DEPLOYMENTS:
            for body in bodies:
                packed = self._templates.pop(_name(body), None)
                rendered = _rendered(body, template=zlib.decompress(packed)) if packed is not None else None
                if rendered is not None and covers(body["spec"], wanted=rendered["spec"]):
                    yield body, rendered


def _name(body: Body) -> _Name:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _rendered(live: Body, *, template: bytes) -> Body | None:
    """What the Deployment should be, with the replicas that it has; None where it is nobody's, or its record holds no template."""
    metadata = live["metadata"]
    labels = metadata.get("labels") or {}
    owner = next((ref["uid"] for ref in metadata.get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None or LABEL_POLICY not in labels or LABEL_REVISION not in labels:
        return None
    try:
        parsed = json.loads(template)
    except ValueError:
        return None
    of = Owner(metadata["namespace"], labels[LABEL_POLICY], owner)
    return deployment(of, revision=labels[LABEL_REVISION], template=parsed, replicas=live["spec"].get("replicas", 1))
