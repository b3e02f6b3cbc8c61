"""Which revision's requests are judged at a place, and from when on: the canary's; without one, those of a stable that is watched."""

from dataclasses import dataclass

from backstop.api.fallbackpolicy import FallbackPolicySpec

from .place import LastRollout, Place, StablePlace

WATCH_SHIFT_SECONDS = 60.0  # how long the end of a rollout is watched for the last gateway to act on it


@dataclass(frozen=True)
class Judged:
    """`revision` is judged, `beside` is what it is compared with; empty: nothing.

    `since`: from when on its requests count, seconds since the epoch; None while that is still to come. `from_zero`: it had no
    request before. `watched`: it is stable already.
    """

    revision: str
    beside: str
    since: float | None
    from_zero: bool
    watched: bool


def judged(place: Place, *, policy: FallbackPolicySpec) -> Judged | None:
    """What is to be judged at this place; None when nothing is: no objective, or neither traffic to a canary nor a watch."""
    stable, canary, guard = place.stable, place.canary, place.guard
    if stable is None or not policy.slos:
        return None
    warm_up = policy.canary.analysis.warmUpSeconds
    if canary is not None:
        if canary.weight == 0:
            return None
        return Judged(
            canary.revision.name,
            beside=stable.revision.name,
            since=None if canary.verified_at is None else canary.verified_at + warm_up,
            from_zero=canary.step == 0 and warm_up == 0,
            watched=False,
        )
    pair = _pair(place)
    if guard is None or pair is None:
        return None
    since = _served_since(stable, last=place.last)
    # What was under judgement until now is warm; what traffic came to, or came back to, is not.
    warm = guard.suspect is None and place.previous is not None
    return Judged(
        pair[0],
        beside=pair[1],
        since=since if since is None or warm else since + warm_up,
        from_zero=False,
        watched=True,
    )


def same_subject(before: Place, after: Place) -> bool:
    """Whether the same revision is under judgement beside the same other one: only then does what was found so far go on."""
    one = _pair(before)
    return one is not None and one == _pair(after)


def _pair(place: Place) -> tuple[str, str] | None:
    stable, canary, guard = place.stable, place.canary, place.guard
    if stable is None or (canary is not None and canary.halted is not None):
        return None
    if canary is not None:
        return canary.revision.name, stable.revision.name
    if guard is None or guard.returning is not None:
        return None
    return stable.revision.name, guard.suspect or (place.previous.revision.name if place.previous is not None else "")


def _served_since(stable: StablePlace, *, last: LastRollout | None) -> float | None:
    """When every gateway was seen to act on the last change of traffic; None while that is awaited."""
    if last is None:
        return stable.since
    if last.shifted_at is not None:
        return last.shifted_at
    return None if last.generation is not None else last.watched_since + WATCH_SHIFT_SECONDS
