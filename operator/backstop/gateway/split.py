"""Where a request goes: served here, or forwarded to a revision. PURE: traffic state, own revision and one random number decide."""

from dataclasses import dataclass
from enum import StrEnum

from ..api.traffic import PodRole, TrafficState, role_of


class SplitReason(StrEnum):
    """Why a request went where it went; a label of `backstop_split_total`."""

    SHARE = "share"  # the canary's share
    OLDER_REVISION = "older_revision"  # this pod is neither stable nor canary
    CONNECT_FAILED = "connect_failed"  # served here after all: nobody took the connection
    DECLINED = "declined"  # served here after all: 421


@dataclass(frozen=True)
class ServeHere:
    """This pod answers."""


@dataclass(frozen=True)
class Forward:
    """Another revision answers; `to` is its role."""

    revision: str
    to: PodRole
    reason: SplitReason


def route(revision: str, *, state: TrafficState | None, draw: float) -> ServeHere | Forward:
    """Where an entry request goes. `draw` is uniform in [0, 1).

    Only a stable pod splits. A canary pod serves what reaches it (a router in front has split already), an older one forwards to stable.
    """
    if state is None:
        return ServeHere()
    match role_of(revision, state=state):
        case PodRole.CANARY:
            return ServeHere()
        case PodRole.NEITHER:
            return Forward(revision=state.stable, to=PodRole.STABLE, reason=SplitReason.OLDER_REVISION)
        case PodRole.STABLE:
            if gets_share(state) and draw * 1000 < state.permille and state.canary is not None and state.canary != revision:
                return Forward(revision=state.canary, to=PodRole.CANARY, reason=SplitReason.SHARE)
            return ServeHere()


def gets_share(state: TrafficState) -> bool:
    """Whether the canary takes requests at all: it has a share and was not aborted."""
    return state.canary is not None and state.permille > 0 and (state.aborted is None or state.aborted.revision != state.canary)


def newer(known: TrafficState | None, *, read: TrafficState) -> TrafficState:
    """What to act on after `read`: never an older generation than the known one."""
    return read if known is None or read.generation > known.generation else known
