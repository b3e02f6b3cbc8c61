"""Events of the API: what happened to an object, for `kubectl describe`. Knows their shape, not what is worth telling."""

import hashlib
from typing import Final

from ..api.clock import render_time
from .resources import EVENTS, Body, Resource

LONGEST_NOTE: Final = 1024  # bytes, by the API
LONGEST_PREFIX: Final = 200


def event(
    resource: Resource,
    *,
    namespace: str,
    name: str,
    uid: str,
    reason: str,
    message: str,
    event_type: str,
    component: str,
    instance: str,
    now: float,
) -> Body:
    """An Event about one object. The same event at the same moment has the same name, so that it is told once."""
    digest = hashlib.sha256("\0".join((uid, reason, message, f"{now:.3f}")).encode()).hexdigest()[:16]
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{name[:LONGEST_PREFIX].rstrip('.-')}.{digest}", "namespace": namespace},
        "eventTime": render_time(now).removesuffix("Z") + "000Z",
        "reportingController": component,
        "reportingInstance": instance,
        "action": reason,
        "reason": reason,
        "type": event_type,
        "note": _shortened(message),
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
    }


def _shortened(message: str) -> str:
    text = message.encode()
    if len(text) <= LONGEST_NOTE:
        return message
    return text[: LONGEST_NOTE - 3].decode(errors="ignore") + "…"
