"""Metrics that cannot be seen: they stop a step's clock, never decide anything, and are told once.

The clock stops and goes on with every look. What is told does not follow each of them: metrics that come and go are told when they
go first, and again only when they have stayed for a while. Of a guard window in which nothing could be judged that is said at its end.
"""

from dataclasses import replace
from typing import Final

from backstop.analysis.reading import SLOReading
from backstop.api.reasons import Reason

from .judged import judged
from .look import Look
from .move import Move, told
from .place import CanaryPlace
from .progress import open_slos

# Metrics that can be seen for so long have come to stay.
SEEN_SECONDS: Final = 60.0
# What was found of a canary goes on to be said of the stable that it becomes: from so long after, it was found of that.
OWN_FINDING_SECONDS: Final = 15.0


def of_canary(look: Look, canary: CanaryPlace) -> Move | None:
    """Metrics that cannot be seen stop the step's clock; they never decide anything."""
    if canary.verified_at is None:
        return None
    unknown = look.readings_in("Unknown")
    if unknown and canary.blind_since is None:
        blind = replace(look.place, canary=replace(canary, blind_since=look.now, blind_told=True, seeing_since=None))
        message = f"{_cannot(unknown[0])}; the rollout holds at {canary.weight} % until it can be seen again"
        return Move(blind) if canary.blind_told else told(blind, unknown[0].reason, message)
    if unknown or (not look.observed.readings and look.policy.slos):
        return None
    if canary.blind_since is not None:
        blind_seconds = canary.blind_seconds + look.now - canary.blind_since
        seeing = replace(canary, blind_since=None, blind_seconds=blind_seconds, seeing_since=look.now if canary.blind_told else None)
        return Move(replace(look.place, canary=seeing))
    if canary.seeing_since is not None and look.now >= canary.seeing_since + SEEN_SECONDS:
        message = f"metrics can be seen again; the step went on where it was ({canary.blind_seconds:.0f} s do not count)"
        seeing = replace(canary, blind_told=False, seeing_since=None)
        return told(replace(look.place, canary=seeing), Reason.METRICS_AVAILABLE, message)
    return None


def of_guard(look: Look) -> Move | None:
    """The same of a stable that is watched: nothing holds, but its watch sees nothing. Also that it could be judged, as the end asks."""
    guard, stable = look.place.guard, look.place.stable
    if guard is None or stable is None or judged(look.place, policy=look.policy) is None:
        return None
    unknown = look.readings_in("Unknown")
    name = f"{stable.revision.prompt_version} ({stable.revision.name})"
    if unknown and (not guard.blind_told or guard.seeing_since is not None):
        blind = replace(look.place, guard=replace(guard, blind_told=True, seeing_since=None))
        message = f"{_cannot(unknown[0])}; {name} is stable, and its guard window cannot judge it until it can be seen again"
        return Move(blind) if guard.blind_told else told(blind, unknown[0].reason, message)
    if unknown or not look.observed.readings:
        return None
    judging_since = _judging_since(look)
    if not guard.judged and judging_since is not None and look.now >= judging_since and not _unjudged(look):
        return Move(replace(look.place, guard=replace(guard, judged=True)))
    if guard.blind_told and guard.seeing_since is None:
        return Move(replace(look.place, guard=replace(guard, seeing_since=look.now)))
    if guard.seeing_since is not None and look.now >= guard.seeing_since + SEEN_SECONDS:
        seeing = replace(guard, blind_told=False, seeing_since=None)
        return told(replace(look.place, guard=seeing), Reason.METRICS_AVAILABLE, f"metrics can be seen again; {name} is judged by them")
    return None


def never_judged(look: Look) -> Move | None:
    """The guard window is over, and at no time could every SLO be judged: it has found nothing, and says so.

    Not of a comparison: that a verdict could not be compared is what its end says.
    """
    guard, stable = look.place.guard, look.place.stable
    if guard is not None and guard.suspect is not None:
        return None
    if guard is None or stable is None or guard.returning is not None or guard.judged or look.now < guard.until or not look.policy.slos:
        return None
    read = {reading.name: reading.evidence.rstrip(".") for reading in look.observed.readings}
    why = ", ".join(f"{name} ({read.get(name, 'not evaluated')})" for name in _unjudged(look))
    message = f"the guard window of {stable.revision.prompt_version} ({stable.revision.name}) is over, and could never judge it: {why}"
    return told(replace(look.place, guard=None), Reason.NEVER_JUDGED, message)


def deadlines(look: Look) -> list[float]:
    """When metrics that can be seen again have stayed, and when a watch has a finding of its own (seconds since the epoch)."""
    guard, own = look.place.guard, _judging_since(look)
    stayed = [subject.seeing_since + SEEN_SECONDS for subject in (look.place.canary, look.place.guard) if subject and subject.seeing_since]
    return [*stayed, *([own] if guard is not None and own is not None and not guard.judged else [])]


def _judging_since(look: Look) -> float | None:
    """From when on what is found is found of this guard window; None where nothing is judged yet. Half of a short one at most."""
    guard, subject = look.place.guard, judged(look.place, policy=look.policy)
    if guard is None or subject is None or not subject.watched or subject.since is None:
        return None
    return subject.since + min(OWN_FINDING_SECONDS, max(0.0, guard.until - subject.since) / 2)


def _unjudged(look: Look) -> tuple[str, ...]:
    """The SLOs of which it cannot be said now whether they hold."""
    breaching = {reading.name for reading in (*look.readings_in("Breaching"), *look.readings_in("Breached"))}
    return tuple(name for name in open_slos(look) if name not in breaching)


def _cannot(reading: SLOReading) -> str:
    return f"{reading.name}: {reading.evidence.rstrip('.')}"
