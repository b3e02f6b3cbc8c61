"""`p-traffic`: the contract between the operator, which writes it, and the gateways, which act on it.

A ConfigMap with a few keys, all strings, so that `kubectl get configmap p-traffic -o yaml` reads like a sentence. The write of
an abort carries the verdict (`aborted`), so that a crash right after it cannot bring the revision back. Keys that are not there are
headers that nobody is told apart by, and unknown keys are left alone: gateways live longer than the operator that made them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from .clock import parse_time

STICKY_KEY: Final = "stickyHeader"
PIN_KEY: Final = "pinHeader"


class TrafficError(ValueError):
    """The object does not hold a traffic state; the text says which key and why."""


@dataclass(frozen=True)
class Abort:
    """The record of an abort: which revision, why (one word), when (RFC 3339), and whether it is only suspected of it."""

    revision: str
    reason: str
    time: str
    suspected: bool = False


@dataclass(frozen=True)
class Steering:
    """Headers by which callers are told apart, in lower case: the one that keeps a caller on one track, and the one that names it."""

    sticky: str | None = None
    pin: str | None = None


NO_STEERING: Final = Steering()


@dataclass(frozen=True)
class TrafficState:
    """Who serves. `permille` is the canary's share in thousandths (0..1000); `generation` grows with every change of the others."""

    generation: int
    stable: str
    canary: str | None
    permille: int
    aborted: Abort | None
    steering: Steering = NO_STEERING

    def changed(self, *, stable: str, canary: str | None, permille: int, aborted: Abort | None, steering: Steering) -> "TrafficState":
        """The successor: the same object when nothing differs, else one generation on."""
        wanted = replace(self, stable=stable, canary=canary, permille=permille, aborted=aborted, steering=steering)
        return self if wanted == self else replace(wanted, generation=self.generation + 1)


class PodRole(StrEnum):
    """What a gateway pod is, by comparing its own revision with the traffic state."""

    STABLE = "stable"
    CANARY = "canary"
    NEITHER = "neither"


def role_of(revision: str, *, state: TrafficState | None) -> PodRole:
    """Role of a pod of `revision`. Without a readable state a pod serves as stable does."""
    if state is None or state.stable == revision:
        return PodRole.STABLE
    return PodRole.CANARY if state.canary == revision else PodRole.NEITHER


def takes_forwarded(revision: str, *, target: str, state: TrafficState | None, pinned: bool = False) -> bool:
    """Whether a pod of `revision` serves a request that names `target`: forwarded by an entry hop, or `pinned`. Else it declines (421).

    A canary that is aborted declines, and so does one that has no share, unless it is asked for by a pin: the sender has an old view.
    """
    if target != revision:
        return False
    match role_of(revision, state=state):
        case PodRole.STABLE:
            return True
        case PodRole.CANARY:
            assert state is not None
            return (pinned or state.permille > 0) and not is_aborted(revision, state=state)
        case PodRole.NEITHER:
            return False


def is_aborted(revision: str, *, state: TrafficState) -> bool:
    """Whether the state carries the verdict that this revision was rolled back."""
    return state.aborted is not None and state.aborted.revision == revision


def render(state: TrafficState) -> dict[str, str]:
    """`data` of the ConfigMap."""
    aborted, steering = state.aborted, state.steering
    headers = {STICKY_KEY: steering.sticky, PIN_KEY: steering.pin}
    return {
        "generation": str(state.generation),
        "stable": state.stable,
        "canary": state.canary or "",
        "permille": str(state.permille),
        "aborted": _abort_text(aborted) if aborted else "",
        **{key: name for key, name in headers.items() if name is not None},
    }


def parse(data: Mapping[str, str]) -> TrafficState:
    """The state in a ConfigMap's `data`; raises TrafficError that names the key."""
    for key in ("generation", "stable", "canary", "permille", "aborted"):
        if key not in data:
            raise TrafficError(f"`{key}` is missing from the traffic object")
    generation, permille = _integer(data, "generation"), _integer(data, "permille")
    if not 0 <= permille <= 1000:
        raise TrafficError(f"`permille` is {permille}, outside of 0 to 1000, in the traffic object")
    if not data["stable"]:
        raise TrafficError("`stable` is empty in the traffic object")
    if permille > 0 and not data["canary"]:
        raise TrafficError("`permille` is above 0 without a `canary` in the traffic object")
    return TrafficState(
        generation=generation,
        stable=data["stable"],
        canary=data["canary"] or None,
        permille=permille,
        aborted=_abort(data["aborted"]),
        steering=Steering(sticky=_header(data, STICKY_KEY), pin=_header(data, PIN_KEY)),
    )


def _header(data: Mapping[str, str], key: str) -> str | None:
    return data.get(key, "").strip().lower() or None


def _integer(data: Mapping[str, str], key: str) -> int:
    try:
        return int(data[key])
    except ValueError:
        raise TrafficError(f"`{key}` is not a whole number in the traffic object") from None


def _abort_text(aborted: Abort) -> str:
    told = {"revision": aborted.revision, "reason": aborted.reason, "time": aborted.time}
    return json.dumps(told | {"suspected": True} if aborted.suspected else told)


def _abort(text: str) -> Abort | None:
    if not text:
        return None
    try:
        parsed = json.loads(text)
        parse_time(parsed["time"])
        suspected = parsed.get("suspected") is True
        return Abort(revision=str(parsed["revision"]), reason=str(parsed["reason"]), time=parsed["time"], suspected=suspected)
    except (ValueError, KeyError, TypeError):
        raise TrafficError("`aborted` is not `{revision, reason, time}` in the traffic object") from None
