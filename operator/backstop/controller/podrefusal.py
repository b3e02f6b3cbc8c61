"""Why a Deployment gets no pods, in words: from what the controller manager was told by admission. Pure.

Knows how the API server begins such a message, and what to do about the refusals that have a name; judges nothing.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

LONGEST_CAUSE: Final = 600  # PodSecurity names each field of each container

# The name in it is of one attempt, and the next attempt has another.
_BEGINNING: Final = re.compile(r'^pods "[^"]*" is forbidden: ')

_ADVICE: Final = {
    "violates PodSecurity": "take it out of what is added to the pods (such as a sidecar), or let the namespace's label "
    "`pod-security.kubernetes.io/enforce` allow it",
    "exceeded quota": "raise the ResourceQuota, or ask for less in `spec.serving`",
}


def refused_pods(conditions: Iterable[Mapping[str, Any]]) -> str | None:
    """What a Deployment's condition `ReplicaFailure` says: why no pod is made, and what to do; None where it does not hold.

    The words stay the same while the refusal does.
    """
    said = next((c.get("message") or "" for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)
    if said is None:
        return None
    cause = _BEGINNING.sub("", said)
    advice = next((advice for beginning, advice in _ADVICE.items() if cause.startswith(beginning)), "see who refuses it")
    return f"its pods are refused: {_cut(cause or 'nobody says why')}; {advice}"


def _cut(cause: str) -> str:
    return cause if len(cause) <= LONGEST_CAUSE else cause[: LONGEST_CAUSE - 1] + "…"
