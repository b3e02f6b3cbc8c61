"""A step whose hold is over and which does not pass: for how long, when that is told, and when it is enough.

Only time counts in which nothing else keeps the step from passing: no pause, no approval that is waited for, no blindness, no incident
that stable shares, no pods that are missing (stable's, where callers enter, included), no spec or traffic object that cannot be read, no
warm-up. What was never
evaluated says nothing: time without a reading of every SLO does not count, nor what ran up to it, as after a restart nobody knows
since when nobody looked.
"""

from dataclasses import replace
from typing import Final

from backstop.api.reasons import Reason

from .look import Look
from .move import Move, told
from .observed import Known
from .place import CanaryPlace
from .progress import hold_ends, open_slos
from .safety import against
from .shared import shared_breaches

ALERT_SECONDS: Final = 3600.0


def held(look: Look, canary: CanaryPlace) -> Move | None:
    """Count the time; tell it once after an hour; at `maxHoldSeconds` it speaks against the canary."""
    holding = _holds(look, canary)
    if holding and canary.held_since is None:
        return Move(replace(look.place, canary=replace(canary, held_since=look.now)))
    if not holding and canary.held_since is not None:
        seconds = canary.held_seconds + (look.now - canary.held_since if _evaluated(look) else 0.0)
        return Move(replace(look.place, canary=replace(canary, held_since=None, held_seconds=seconds)))
    if canary.held_since is None:
        return None
    seconds, most = held_for(look, canary), look.policy.canary.analysis.maxHoldSeconds
    if most is not None and seconds >= most:
        message = f"{_where(look, canary)} did not pass within {most} s after its hold (`spec.canary.analysis.maxHoldSeconds`): "
        return against(look, canary, reason=Reason.HELD_TOO_LONG, message=message + waits_for(look))
    if seconds >= ALERT_SECONDS and not canary.held_told:
        message = f"{_where(look, canary)} has not passed for an hour after its hold: {waits_for(look)}"
        return told(replace(look.place, canary=replace(canary, held_told=True)), Reason.HOLDING_LONG, message)
    return None


def held_for(look: Look, canary: CanaryPlace) -> float:
    """Seconds for which the step would have ended, and did not pass."""
    return canary.held_seconds + (0.0 if canary.held_since is None else look.now - canary.held_since)


def deadlines(look: Look, canary: CanaryPlace) -> list[float]:
    """When the time that is counted now leads to something (seconds since the epoch)."""
    if canary.held_since is None:
        return []
    most = look.policy.canary.analysis.maxHoldSeconds
    began = canary.held_since - canary.held_seconds
    return [began + ALERT_SECONDS, *([began + most] if most is not None else [])]


def waits_for(look: Look) -> str:
    """What keeps the step from passing, in words."""
    read = {reading.name: reading.evidence.rstrip(".") for reading in look.observed.readings}
    return "not healthy: " + ", ".join(f"{name} ({read.get(name, 'not evaluated')})" for name in open_slos(look))


def _holds(look: Look, canary: CanaryPlace) -> bool:
    if canary.halted is not None or canary.verified_at is None or canary.promoting_since is not None or canary.by_hand:
        return False
    if look.policy.canary.paused or canary.blind_since is not None or canary.unready_since is not None:
        return False
    if shared_breaches(look):
        return False  # which is nothing that the canary could be held against
    if look.wanted is None or not isinstance(look.observed.route, Known):
        return False
    stable = look.place.stable
    if stable is None or look.observed.arm(stable.revision.name).ready == 0:
        return False  # callers enter through stable's pods
    warm = canary.verified_at + look.policy.canary.analysis.warmUpSeconds
    return look.now >= max(hold_ends(look, canary), warm) and _evaluated(look) and bool(open_slos(look))


def _evaluated(look: Look) -> bool:
    return {slo.name for slo in look.policy.slos} <= {reading.name for reading in look.observed.readings}


def _where(look: Look, canary: CanaryPlace) -> str:
    return f"step {canary.step + 1} of {len(look.policy.canary.steps)} ({canary.weight} %)"
