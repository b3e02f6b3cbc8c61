"""A policy that is deleted while a rollout of it runs: traffic goes back to stable before anything of it goes.

The finalizer holds the policy for as long. Knows no API: what is said here is when it has to be there.
"""

from backstop.api.reasons import Reason

from .look import Look
from .move import Move, roll_back, supersede
from .observed import Known
from .place import CanaryPlace, awaited_generation


def leave(look: Look, canary: CanaryPlace) -> Move | None:
    """The policy is being deleted: the canary ends. One that waits for a person after a breach is rejected: nobody can decide any more."""
    if not look.observed.leaving:
        return None
    if canary.halted is not None:
        halted = canary.halted
        return roll_back(look, canary, reason=halted.reason, message=halted.message, at=halted.at)
    revision = canary.revision
    message = f"the policy is deleted; its canary {revision.prompt_version} ({revision.name}) is ended first"
    return supersede(look, canary, reason=Reason.POLICY_DELETED, message=message)


def needs_finalizer(look: Look) -> bool:
    """Whether the policy must not vanish now: a canary lives, gateways were not seen yet to act on its end, or its verdict waits.

    Without a status the route says whether there is a canary, until what it calls stable can be that again.
    """
    place, route = look.place, look.observed.route
    if place.stable is None:
        has_canary = isinstance(route, Known) and route.value is not None and route.value.permille > 0
        return has_canary and not look.observed.leaving
    waits = place.guard is not None and place.guard.suspect is not None
    return place.canary is not None or waits or awaited_generation(place) is not None
