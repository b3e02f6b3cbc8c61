"""Times in status that are yet to come: the operator's clock was ahead when they were written, or another operator's was.

Judging counts from when a weight was seen in effect, so that until that time came again a failing canary would stay, and nothing would
say why; so would a way back, pods that are kept for a while, a deletion. They are taken for now: what they tell of has happened. So a hold
begins anew, and no time that is counted becomes less than none.
"""

from dataclasses import replace
from typing import Final

from backstop.api.reasons import Reason

from .look import Look
from .move import RETIRE_SECONDS, Move, told
from .place import CanaryPlace, Halt, LastRollout, Place

# Clocks of two operators that are kept, and the rounding of what is written, differ by far less. As far ahead samples are not counted.
AHEAD_SECONDS: Final = 30.0


def of_canary(look: Look, canary: CanaryPlace) -> Move | None:
    """What was written beside a canary, and of its step, is from a time to come."""
    step = () if canary.halted is not None else _of_step(canary)
    ahead, of_step = _ahead(look, *step, *_elsewhere(look)), _ahead(look, *step)
    if ahead <= AHEAD_SECONDS:
        return None
    now = canary if canary.halted is None else replace(canary, halted=_watched_from_now(look, canary.halted))
    if of_step > AHEAD_SECONDS:
        now = replace(
            canary,
            step_started_at=_past(look, canary.step_started_at),
            verified_at=_past(look, canary.verified_at),
            routed_at=_past(look, canary.routed_at),
            unready_since=_past(look, canary.unready_since),
            blind_since=_past(look, canary.blind_since),
            seeing_since=_past(look, canary.seeing_since),
            held_since=_past(look, canary.held_since),
            pods_ended_at=_past(look, canary.pods_ended_at),
            waiting_since=_past(look, canary.waiting_since),
        )
    place = replace(_counted_from_now(look), canary=now)
    if of_step <= AHEAD_SECONDS:
        return _told_of_ends(place, ahead=ahead)
    held = "" if canary.verified_at == now.verified_at else "; its hold begins anew, and requests are judged from now on"
    message = f"what was written of the canary {canary.revision.name} is of {ahead:.0f} s from now by the operator's clock{held}"
    return told(place, Reason.CLOCK_SET_BACK, message)


def of_guard(look: Look) -> Move | None:
    """The same without a canary; with a stable that is watched, also when traffic was seen to have gone to it."""
    guard, last, stable = look.place.guard, look.place.last, look.place.stable
    watched = guard is not None and last is not None and stable is not None
    judged = (
        _ahead(look, last.shifted_at, guard.seeing_since, guard.unready_since)
        if guard is not None and last is not None and watched
        else 0.0
    )
    ahead = max(judged, _ahead(look, *_elsewhere(look)))
    if ahead <= AHEAD_SECONDS:
        return None
    place = _counted_from_now(look)
    if judged <= AHEAD_SECONDS or stable is None:
        return _told_of_ends(place, ahead=ahead)
    message = (
        f"what was written of {stable.revision.prompt_version} ({stable.revision.name}), which is watched, is of {ahead:.0f} s from now "
        "by the operator's clock; requests are judged from now on"
    )
    return told(place, Reason.CLOCK_SET_BACK, message)


def _told_of_ends(place: Place, *, ahead: float) -> Move:
    message = f"what was written in status is of {ahead:.0f} s from now by the operator's clock: what is waited for counts from now on"
    return told(place, Reason.CLOCK_SET_BACK, message)


def _of_step(canary: CanaryPlace) -> tuple[float | None, ...]:
    """Times of a canary's step, each of what has happened."""
    begun = canary.step_started_at, canary.verified_at, canary.routed_at
    waits = canary.unready_since, canary.waiting_since, canary.pods_ended_at
    return (*begun, *waits, canary.blind_since, canary.seeing_since, canary.held_since)


def _elsewhere(look: Look) -> tuple[float | None, ...]:
    """Other times in the place, of what has happened, that something is counted from. Pods that retire do so since their end at most."""
    place, halted = look.place, look.place.canary.halted if look.place.canary is not None else None
    return (
        place.stable.since if place.stable is not None else None,
        place.waiting.since if place.waiting is not None else None,
        place.guard.returning.at if place.guard is not None and place.guard.returning is not None else None,
        place.guard.unready_since if place.guard is not None else None,
        place.last.watched_since if place.last is not None and _is_counted_from(place.last, place=place) else None,
        halted.watched_since if halted is not None and _is_waited_for(look, halted) else None,
        *(retiring.until - RETIRE_SECONDS for retiring in place.retiring),
    )


def _counted_from_now(look: Look) -> Place:
    """All but the canary. What ends by stable's begin ends as long after now; verdicts keep their times, by which they are known."""
    place, guard, last, stable = look.place, look.place.guard, look.place.last, look.place.stable
    later = _ahead(look, stable.since) if stable is not None else 0.0
    if guard is not None:
        returning = replace(guard.returning, at=min(guard.returning.at, look.now)) if guard.returning is not None else None
        guard = replace(
            guard,
            seeing_since=_past(look, guard.seeing_since),
            unready_since=_past(look, guard.unready_since),
            returning=returning,
            until=guard.until - later,
        )
    if last is not None:
        again = _is_counted_from(last, place=place) and last.watched_since > look.now
        last = replace(last, shifted_at=_past(look, last.shifted_at), ended_at=look.now if again else last.ended_at)
    return replace(
        place,
        stable=replace(stable, since=min(stable.since, look.now)) if stable is not None else None,
        previous=replace(place.previous, until=place.previous.until - later) if place.previous is not None else None,
        retiring=tuple(replace(r, until=min(r.until, look.now + RETIRE_SECONDS)) for r in place.retiring),
        waiting=replace(place.waiting, since=min(place.waiting.since, look.now)) if place.waiting is not None else None,
        guard=guard,
        last=last,
    )


def _is_counted_from(last: LastRollout, *, place: Place) -> bool:
    """Whether something is counted from its end, which was not seen: gateways are watched for it, or requests in the guard window are."""
    return last.shifted_at is None and (last.generation is not None or place.guard is not None)


def _is_waited_for(look: Look, halt: Halt) -> bool:
    """The same of a halt: gateways are watched for it, or pods that make shares end by it."""
    return halt.generation is not None or look.by_replicas


def _watched_from_now(look: Look, halt: Halt) -> Halt:
    return replace(halt, taken_at=look.now) if _is_waited_for(look, halt) and halt.watched_since > look.now else halt


def _ahead(look: Look, *times: float | None) -> float:
    """By how many seconds the latest of these times is ahead of now; 0 where none is."""
    return max((at - look.now for at in times if at is not None and at > look.now), default=0.0)


def _past(look: Look, at: float | None) -> float | None:
    return None if at is None else min(at, look.now)
