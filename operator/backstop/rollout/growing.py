"""Pods for the next weight, which are made before a step passes: they count as lacking only while nothing else keeps it from passing.

A canary that holds its weight well is not taken back for want of pods that nobody could use now. What was made stays meanwhile; but where
pods make the share, those of it that are not ready yet end, and every second time are made again after a while only: what keeps the step
may come and go with every evaluation.
"""

from dataclasses import replace

from . import early
from .look import Look
from .move import Move
from .place import CanaryPlace
from .progress import hold_ends, is_edited, may_be_raised, would_pass


def held_up(look: Look, canary: CanaryPlace) -> Move | None:
    """Something else keeps the step from passing by now: its time for pods begins anew when that is over."""
    if not canary.awaits_pods or _goes_on(look, canary):
        return None
    held = replace(canary, awaits_pods=False)
    if look.by_replicas and look.pods_made(held) < look.observed.arm(canary.revision.name).desired:
        # Every second time they are made at once: what ends them at a pace of its own could else meet them each time.
        waits = canary.pods_ended_at is None and not look.policy.canary.paused  # a pause is a person's, and its end too
        held = replace(held, pods_ended_at=look.now if waits else None)
    return Move(replace(look.place, canary=held))


def _goes_on(look: Look, canary: CanaryPlace) -> bool:
    if look.is_held:
        return False
    if is_edited(look, canary):
        return may_be_raised(look, canary)
    return would_pass(look, canary) and (look.now >= hold_ends(look, canary) or early.is_good_enough(look))
