"""A step that ends before its hold does, where the policy asks for that: there is evidence for every SLO that the canary is good enough."""

from backstop.api.reasons import Reason

from .look import Look
from .move import Move
from .place import CanaryPlace
from .plan import Announcement
from .progress import advance, hold_ends, may_pass


def pass_step(look: Look, canary: CanaryPlace) -> Move | None:
    """On to the next step, before the hold is over. All else that keeps a step from passing keeps it here too."""
    if not may_pass(look, canary) or look.now >= hold_ends(look, canary) or not is_good_enough(look):
        return None
    left = hold_ends(look, canary) - look.now
    message = f"step {canary.step + 1} of {len(look.policy.canary.steps)} ends {left:.0f} s early: every SLO is good enough"
    return advance(look, canary, told_before=Announcement(Reason.STEP_PASSED_EARLY, message))


def is_good_enough(look: Look) -> bool:
    """Whether that is asked for, and there is such evidence for every SLO."""
    good = {reading.name for reading in look.readings_in("Healthy") if reading.promotable}
    return look.policy.canary.analysis.promoteEarly and bool(look.policy.slos) and all(slo.name in good for slo in look.policy.slos)
