"""Times in status that are yet to come: the operator's clock was ahead when they were written, or another operator's was.

Judging counts from when a weight was seen in effect, so that until that time came again a failing canary would stay, and nothing would
say why. They are taken for now: what they tell of has happened. So a hold begins anew, and no time that is counted becomes less than none.
"""

from dataclasses import replace
from typing import Final

from backstop.api.reasons import Reason

from .look import Look
from .move import Move, told
from .place import CanaryPlace

# Clocks of two operators that are kept, and the rounding of what is written, differ by far less. As far ahead samples are not counted.
AHEAD_SECONDS: Final = 30.0


def of_canary(look: Look, canary: CanaryPlace) -> Move | None:
    """What was written of a canary's step is from a time to come."""
    if canary.halted is not None:
        return None
    ahead = _ahead(
        look,
        canary.step_started_at,
        canary.verified_at,
        canary.routed_at,
        canary.unready_since,
        canary.blind_since,
        canary.seeing_since,
        canary.held_since,
    )
    if ahead <= AHEAD_SECONDS:
        return None
    now = replace(
        canary,
        step_started_at=_past(look, canary.step_started_at),
        verified_at=_past(look, canary.verified_at),
        routed_at=_past(look, canary.routed_at),
        unready_since=_past(look, canary.unready_since),
        blind_since=_past(look, canary.blind_since),
        seeing_since=_past(look, canary.seeing_since),
        held_since=_past(look, canary.held_since),
    )
    held = "" if canary.verified_at == now.verified_at else "; its hold begins anew, and requests are judged from now on"
    message = f"what was written of the canary {canary.revision.name} is of {ahead:.0f} s from now by the operator's clock{held}"
    return told(replace(look.place, canary=now), Reason.CLOCK_SET_BACK, message)


def of_guard(look: Look) -> Move | None:
    """When traffic was seen to have gone to a stable that is watched is a time to come."""
    guard, last, stable = look.place.guard, look.place.last, look.place.stable
    if guard is None or last is None or stable is None:
        return None
    ahead = _ahead(look, last.shifted_at, guard.seeing_since)
    if ahead <= AHEAD_SECONDS:
        return None
    place = replace(
        look.place,
        guard=replace(guard, seeing_since=_past(look, guard.seeing_since)),
        last=replace(last, shifted_at=_past(look, last.shifted_at)),
    )
    message = (
        f"what was written of {stable.revision.prompt_version} ({stable.revision.name}), which is watched, is of {ahead:.0f} s from now "
        "by the operator's clock; requests are judged from now on"
    )
    return told(place, Reason.CLOCK_SET_BACK, message)


def _ahead(look: Look, *times: float | None) -> float:
    """By how many seconds the latest of these times is ahead of now; 0 where none is."""
    return max((at - look.now for at in times if at is not None and at > look.now), default=0.0)


def _past(look: Look, at: float | None) -> float | None:
    return None if at is None else min(at, look.now)
