"""Where a request goes: served here, or forwarded to a revision. PURE: traffic state, own revision, what the caller says by the policy's
headers, and one random number decide.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from ..api.traffic import PodRole, TrafficState, is_aborted, role_of


class SplitReason(StrEnum):
    """Why a request went where it went; a label of `backstop_split_total`."""

    SHARE = "share"  # the canary's share
    PINNED = "pinned"  # its caller named the track
    SYNTHETIC = "synthetic"  # a probe's
    OLDER_REVISION = "older_revision"  # this pod is neither stable nor canary
    NO_SHARE = "no_share"  # this pod is of a canary that has no share, or was rolled back
    CONNECT_FAILED = "connect_failed"  # served here after all: nobody took the connection
    DECLINED = "declined"  # served here after all: 421


@dataclass(frozen=True)
class ServeHere:
    """This pod answers. `pinned`: because the caller said so."""

    pinned: bool = False


@dataclass(frozen=True)
class Forward:
    """Another revision answers; `to` is its role."""

    revision: str
    to: PodRole
    reason: SplitReason

    @property
    def pinned(self) -> bool:
        """Whether the caller said so."""
        return self.reason is SplitReason.PINNED


def route(
    revision: str, *, state: TrafficState | None, draw: float, sticky: str | None = None, track: str | None = None
) -> ServeHere | Forward:
    """Where an entry request goes. `draw` is uniform in [0, 1). `sticky`: the caller's key; `track`: the track that the caller names.

    Only a stable pod splits. A canary pod serves what reaches it while it has a share (a router in front has split already); without one
    it forwards to stable, as an older pod does: callers may be connected to it still from when it was to be promoted.
    """
    if state is None:
        return ServeHere()
    match role_of(revision, state=state):
        case PodRole.CANARY if has_no_share(revision, state=state):
            return Forward(revision=state.stable, to=PodRole.STABLE, reason=SplitReason.NO_SHARE)
        case PodRole.CANARY:
            return ServeHere()
        case PodRole.NEITHER:
            return Forward(revision=state.stable, to=PodRole.STABLE, reason=SplitReason.OLDER_REVISION)
        case PodRole.STABLE:
            return _split(state, draw=draw, sticky=sticky, track=track)


def has_no_share(revision: str, *, state: TrafficState | None) -> bool:
    """Whether this is a canary that nobody who splits sends anything to."""
    if state is None or role_of(revision, state=state) is not PodRole.CANARY:
        return False
    return state.permille == 0 or is_aborted(revision, state=state)


def route_synthetic(revision: str, *, state: TrafficState | None, canary: str) -> Forward | None:
    """Where a probe's request for `canary` goes: there, while it has a share, or nowhere."""
    if state is None or role_of(revision, state=state) is not PodRole.STABLE or state.canary != canary or canary == revision:
        return None
    if state.permille == 0 or is_aborted(canary, state=state):
        return None
    return Forward(revision=canary, to=PodRole.CANARY, reason=SplitReason.SYNTHETIC)


def _split(state: TrafficState, *, draw: float, sticky: str | None, track: str | None) -> ServeHere | Forward:
    canary = state.canary
    if canary is None or canary == state.stable or is_aborted(canary, state=state):
        return ServeHere()
    if track == PodRole.CANARY:
        return Forward(revision=canary, to=PodRole.CANARY, reason=SplitReason.PINNED)
    if track == PodRole.STABLE:
        return ServeHere(pinned=True)
    if (draw if sticky is None else draw_of(sticky, canary=canary)) * 1000 < state.permille:
        return Forward(revision=canary, to=PodRole.CANARY, reason=SplitReason.SHARE)
    return ServeHere()


def draw_of(key: str, *, canary: str) -> float:
    """A caller's lot in [0, 1) for this canary: the same in every pod, and another one for the next canary, so that it is not always
    the same callers who go first.
    """
    digest = blake2b(key.encode(errors="surrogatepass"), key=canary.encode()[:64], digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def newer(known: TrafficState | None, *, read: TrafficState) -> TrafficState:
    """What to act on after `read`: never an older generation than the known one."""
    return read if known is None or read.generation > known.generation else known
