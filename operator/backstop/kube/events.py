"""Events of the API: what happened to an object, for `kubectl describe`. Knows their shape, not what is worth telling."""

import hashlib
from collections.abc import Mapping
from typing import Final

from ..api.clock import render_time
from .resources import EVENTS, Body, Resource

LONGEST_NOTE: Final = 1024  # bytes, by the API
LONGEST_ENDING: Final = 512
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
    ending: str = "",
    annotations: Mapping[str, str] | None = None,
) -> Body:
    """An Event about one object. The same event at the same moment has the same name, so that it is told once.

    `ending` follows the message, which is cut for it where both together are too long.
    """
    digest = hashlib.sha256("\0".join((uid, reason, message, f"{now:.3f}")).encode()).hexdigest()[:16]
    last = _shortened(ending, to=LONGEST_ENDING)
    metadata: Body = {"name": f"{name[:LONGEST_PREFIX].rstrip('.-')}.{digest}", "namespace": namespace}
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": metadata | ({"annotations": dict(annotations)} if annotations else {}),
        "eventTime": render_time(now).removesuffix("Z") + "000Z",
        "reportingController": component,
        "reportingInstance": instance,
        "action": reason,
        "reason": reason,
        "type": event_type,
        "note": _shortened(message, to=LONGEST_NOTE - len(last.encode())) + last,
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
    }


def _shortened(message: str, *, to: int) -> str:
    text = message.encode()
    if len(text) <= to:
        return message
    return text[: to - 3].decode(errors="ignore") + "…"
