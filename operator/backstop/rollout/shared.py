"""An incident that stable shares: both arms break the SLO, and the canary is no worse. The rollout holds; a rollback cannot help."""

from dataclasses import replace

from backstop.analysis.reading import SLOReading
from backstop.api.reasons import Reason

from .look import Look
from .move import Move, told
from .place import CanaryPlace


def incident(look: Look, canary: CanaryPlace) -> Move | None:
    """Told once a step. That no step is passed meanwhile follows from the SLO, which is not healthy."""
    shared = shared_breaches(look)
    if not shared or canary.halted is not None or Reason.SHARED_BREACH in canary.reported:
        return None
    message = f"{shared[0].evidence.rstrip('.')}; the rollout holds at {canary.weight} %"
    reported = replace(canary, reported=(*canary.reported, str(Reason.SHARED_BREACH)))
    return told(replace(look.place, canary=reported), Reason.SHARED_BREACH, message)


def shared_breaches(look: Look) -> tuple[SLOReading, ...]:
    """The SLOs that stable breaks too."""
    return tuple(reading for reading in look.readings_in("Breaching") if reading.reason is Reason.SHARED_BREACH)
