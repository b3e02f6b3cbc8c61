"""A status that was lost: a backup that was restored without it, or somebody who took it away. What the route says goes on from there.

The route belongs to this very policy and is written after status, so a route beside an empty status says that there was more. So do pods
of what was accepted last, where the route is gone too.
"""

from dataclasses import replace

from backstop.api.reasons import Reason

from .look import Look
from .move import RETIRE_SECONDS, Move, told
from .observed import Known
from .place import Retiring, Revision, StablePlace
from .replicas import route_words
from .rest import first_guard, recalled, serves_already


def recover(look: Look) -> Move | None:
    """What the route calls stable is stable as soon as one of its pods is ready. A canary beside it is judged no more, so it ends.

    What the spec asks for then begins anew at its first step, unless a verdict on it is known. Tokens that are there already may have been
    acted on, and ask for nothing.
    """
    place, route = look.place, look.observed.route
    if place.stable is not None or not isinstance(route, Known) or (name := serves_already(look)) is None:
        return None
    serving = _named(look, name)
    if look.observed.arm(serving.name).ready == 0:
        return None
    wanted = look.wanted
    rejected = tuple(
        replace(r, revision=wanted) if wanted is not None and r.revision.name == wanted.name else r
        for r in recalled(look)
        if r.revision.name != serving.name
    )
    # What is left of status may name it where the route does not yet, or no more.
    canary = (route.value.canary if route.value is not None else None) or (place.canary.revision.name if place.canary is not None else None)
    retiring = (Retiring(canary, until=look.now + RETIRE_SECONDS),) if canary is not None and canary != serving.name else ()
    message = f"status was lost; {serving.prompt_version} ({serving.name}) goes on serving as stable"
    message += f", as {route_words(look)}" if route.value is not None else ", which was accepted last"
    if retiring:
        message += f", and the canary {canary} beside it, of which nothing is known any more, is ended"
    return told(
        replace(
            place,
            stable=StablePlace(serving, since=look.now),
            canary=None,
            rejected=rejected,
            retiring=retiring,
            guard=first_guard(look),
            first=None,
            acknowledged=look.observed.tokens.over(place.acknowledged),
        ),
        Reason.STATUS_LOST,
        message,
    )


def _named(look: Look, name: str) -> Revision:
    """The revision of this name, with its prompt version where that is known."""
    for known in (look.wanted, look.observed.accepted):
        if known is not None and known.name == name:
            return known
    return Revision(name, prompt_version=name, prompt_digest="")
