"""A status that was lost: a backup that was restored without it, or somebody who took it away. What the route says goes on from there.

The route belongs to this very policy and is written after status, so a route beside an empty status says that there was more. So do pods
of what was accepted last, where the route is gone too.
"""

from dataclasses import replace

from backstop.api.reasons import Reason

from .look import Look
from .move import RETIRE_SECONDS, Move, suspicion, told
from .observed import Known
from .place import Guard, LastRollout, Outcome, Rejection, Retiring, Revision, StablePlace
from .replicas import route_words
from .rest import first_guard, recalled, serves_already


def recover(look: Look) -> Move | None:
    """What the route calls stable is stable as soon as one of its pods is ready. A canary beside it is judged no more, so it ends.
    Of a policy that is being deleted it is so at once, and the end is one that has to be seen on every gateway.

    What the spec asks for then begins anew at its first step, unless a verdict on it is known. Tokens that are there already may have been
    acted on, and ask for nothing.
    """
    place, route = look.place, look.observed.route
    if place.stable is not None or not isinstance(route, Known) or (name := serves_already(look)) is None:
        return None
    serving = _named(look, name)
    leaving = look.observed.leaving
    if look.observed.arm(serving.name).ready == 0 and not leaving:
        return None
    wanted = look.wanted
    rejected = tuple(
        replace(r, revision=wanted) if wanted is not None and r.revision.name == wanted.name else r
        for r in recalled(look)
        if r.revision.name != serving.name
    )
    canary = _beside(look, serving)
    # Also the pods of a canary that the route does not name any more: it was taken off before this was decided.
    others = {name for name, arm in look.observed.arms.items() if arm.desired > 0} | ({canary} if canary is not None else set())
    retiring = tuple(Retiring(name, until=look.now + RETIRE_SECONDS) for name in sorted(others - {serving.name}))
    message = f"status was lost; {serving.prompt_version} ({serving.name}) goes on serving as stable"
    message += f", as {route_words(look)}" if route.value is not None else ", which was accepted last"
    last = place.last
    if canary is not None:
        message += f", and the canary {canary} beside it, of which nothing is known any more, is ended"
        last = _ended(look, canary, message=message) if leaving else last
    return told(
        replace(
            place,
            stable=StablePlace(serving, since=look.now),
            canary=None,
            rejected=rejected,
            retiring=retiring,
            last=last,
            guard=_guard(look, rejected=rejected),
            first=None,
            acknowledged=look.observed.tokens.over(place.acknowledged),
        ),
        Reason.STATUS_LOST,
        message,
    )


def _guard(look: Look, *, rejected: tuple[Rejection, ...]) -> Guard | None:
    """The watch over what serves. A verdict of the route that was only suspected goes on waiting for what this one does."""
    route = look.observed.route
    aborted = route.value.aborted if isinstance(route, Known) and route.value is not None else None
    suspects = [r for r in rejected if r.suspected and aborted is not None and r.revision.name == aborted.revision]
    return suspicion(look, of=suspects[0].revision) if suspects else first_guard(look)


def _beside(look: Look, serving: Revision) -> str | None:
    """The canary: by the route, or what is left of status where the route does not name it yet. A policy that is being deleted has its pods
    still when the route does not name it any more, which was written before this was written into status.
    """
    route, canary = look.observed.route, look.place.canary
    routed = route.value.canary if isinstance(route, Known) and route.value is not None else None
    with_pods = sorted(name for name, arm in look.observed.arms.items() if arm.desired > 0) if look.observed.leaving else []
    names = [routed, canary.revision.name if canary is not None else None, *with_pods]
    return next((name for name in names if name not in (None, serving.name)), None)


def _ended(look: Look, canary: str, *, message: str) -> LastRollout:
    revision, reason = _named(look, canary), Reason.POLICY_DELETED
    return LastRollout(Outcome.SUPERSEDED, revision, reason=reason, message=message, detected_at=look.now, generation=None)


def _named(look: Look, name: str) -> Revision:
    """The revision of this name, with its prompt version where that is known."""
    for known in (look.wanted, look.observed.accepted):
        if known is not None and known.name == name:
            return known
    return Revision(name, prompt_version=name, prompt_digest="")
