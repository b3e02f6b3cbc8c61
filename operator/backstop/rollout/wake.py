"""When a policy has to be looked at again although nothing in the cluster changes."""

from . import blindness, holding, replicas
from .guard import RETURN_SECONDS, compared_at
from .judged import WATCH_SHIFT_SECONDS
from .look import Look
from .place import CanaryPlace, awaited_generation
from .progress import PODS_AGAIN_SECONDS, VERIFY_SECONDS, hold_ends
from .route import SWITCH_SECONDS


def wake_at(look: Look) -> float | None:
    """The earliest deadline that is still ahead (seconds since the epoch); None when only a change can matter."""
    place, canary = look.place, look.place.canary
    deadlines = [retiring.until for retiring in place.retiring]
    if place.previous is not None:
        deadlines.append(place.previous.until)
    if place.last is not None and place.last.shifted_at is None and awaited_generation(place) is not None:
        deadlines.append(place.last.watched_since + WATCH_SHIFT_SECONDS)
    if place.waiting is not None:
        deadlines.append(place.waiting.since + look.policy.canary.progressDeadlineSeconds)
    if place.guard is not None:
        deadlines.append(place.guard.until)
        if place.guard.unready_since is not None:
            deadlines.append(place.guard.unready_since + RETURN_SECONDS)
        if place.guard.returning is not None:
            deadlines.append(place.guard.returning.at + RETURN_SECONDS)
            deadlines.append(place.guard.returning.at + look.policy.canary.progressDeadlineSeconds)
        if (compared := compared_at(look)) is not None:
            deadlines.append(compared)
    if canary is not None:
        deadlines += _deadlines_of(canary, look=look)
    deadlines += blindness.deadlines(look)
    ahead = [deadline for deadline in deadlines if deadline > look.now]
    return min(ahead) if ahead else None


def _deadlines_of(canary: CanaryPlace, *, look: Look) -> list[float]:
    deadlines: list[float] = []
    if canary.halted is not None and canary.halted.generation is not None:
        deadlines.append(canary.halted.watched_since + WATCH_SHIFT_SECONDS)
    if (ends := replicas.pods_end_at(look, canary)) is not None:
        deadlines.append(ends)
    if canary.unready_since is not None:
        deadlines.append(canary.unready_since + look.policy.canary.progressDeadlineSeconds)
    if canary.waiting_since is not None:
        deadlines.append(canary.waiting_since + 3 * look.policy.canary.progressDeadlineSeconds)
    if canary.pods_ended_at is not None:
        deadlines.append(canary.pods_ended_at + PODS_AGAIN_SECONDS)
    if canary.routed_at is not None:
        deadlines.append(canary.routed_at + SWITCH_SECONDS)
    elif canary.step_started_at is not None and canary.verified_at is None:
        deadlines.append(canary.step_started_at + VERIFY_SECONDS)
    elif canary.step_started_at is not None:
        deadlines.append(hold_ends(look, canary))
    if canary.blind_since is not None:
        deadlines.append(canary.blind_since + look.policy.rollback.onMetricsUnavailable.afterSeconds)
    return [*deadlines, *holding.deadlines(look, canary)]
