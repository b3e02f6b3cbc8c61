"""What a gate answers: the next place, and what to tell. The rest of a plan follows from the place."""

from dataclasses import dataclass, replace

from backstop.api.clock import render_time
from backstop.api.reasons import Reason
from backstop.api.traffic import Abort

from .look import Look
from .place import CanaryPlace, Guard, Halt, LastRollout, Outcome, Place, Rejection, Retiring, Revision, StablePlace
from .plan import Announcement

RETIRE_SECONDS = 15.0  # pods of a former canary stay this long: connections of gateways live 10 s at most
REJECTED_KEPT = 20
# Where nothing served beside a revision that breached, what it is compared with is watched afterwards, for at least this long.
LEAST_SUSPICION_SECONDS = 600.0
SLO_BREACHES = frozenset(
    {
        Reason.LATENCY_BREACH,
        Reason.ERROR_RATE_BREACH,
        Reason.FALLBACK_RATE_BREACH,
        Reason.PROMQL_BREACH,
        Reason.TOKENS_BREACH,
        Reason.COST_BREACH,
        Reason.HALLUCINATION_RATE_BREACH,
        Reason.FEEDBACK_BREACH,
        Reason.NO_TRAFFIC,
    }
)


@dataclass(frozen=True)
class Move:
    """One transition. `aborted` is the verdict that the traffic object has to carry."""

    place: Place
    announcements: tuple[Announcement, ...] = ()
    aborted: Abort | None = None

    def after(self, said: Announcement) -> "Move":
        """The same, and this is told before."""
        return replace(self, announcements=(said, *self.announcements))


def told(place: Place, reason: Reason, message: str) -> Move:
    """A move with one announcement."""
    return Move(place, (Announcement(reason, message),))


def roll_back(look: Look, canary: CanaryPlace, *, reason: Reason | str, message: str, at: float, suspected: bool = False) -> Move:
    """The canary is rejected: all traffic to stable, its pods retire, and the revision is remembered.

    `suspected`: stable had too little traffic to compare with.
    """
    alone = suspected or (reason in SLO_BREACHES and _served_alone(canary))
    place = without_canary(look, canary)
    if place.previous is not None and place.previous.revision == canary.revision:
        place = replace(place, previous=None)  # nothing goes back to what is rejected
    return _rejecting(look, revision=canary.revision, place=place, reason=reason, message=message, at=at, suspected=alone)


def _served_alone(canary: CanaryPlace) -> bool:
    """Whether nothing served beside it. One that was halted is ended by a person, or nobody can decide any more: that is certain."""
    return canary.halted is None and (canary.weight == 100 or canary.routed_at is not None)


def go_back(look: Look, back: Revision, *, reason: Reason | str, message: str, at: float) -> Move:
    """Stable is rejected: all traffic to the revision before it, which is stable from now on.

    An SLO that it breached may be breached by that one too; that its pods do not run is its own.
    """
    stable = look.place.stable
    assert stable is not None
    place = replace(without(look, stable.revision), stable=StablePlace(back, since=look.now), previous=None, guard=None)
    suspected = reason != Reason.CANARY_UNAVAILABLE
    return _rejecting(look, revision=stable.revision, place=place, reason=reason, message=message, at=at, suspected=suspected)


def _rejecting(look: Look, *, revision: Revision, place: Place, reason: Reason | str, message: str, at: float, suspected: bool) -> Move:
    """`place`: with all traffic on its stable."""
    assert place.stable is not None
    back = place.stable.revision
    text = f"Rolled back {revision.prompt_version} ({revision.name}) → {back.prompt_version} ({back.name}): {message}"
    text += short_of_pods(look, back)
    rejection = Rejection(revision, reason=str(reason), message=text, at=at, suspected=suspected)
    last = LastRollout(
        Outcome.ROLLED_BACK,
        revision,
        reason=str(reason),
        message=text,
        detected_at=at,
        generation=None,
        ended_at=None if at == look.now else look.now,
    )
    place = replace(place, last=last, rejected=_remember(look, rejection))
    if suspected:
        place = replace(place, guard=suspicion(look, of=revision))
    return Move(
        place,
        (Announcement(Reason.ROLLED_BACK, text),),
        aborted=Abort(revision=revision.name, reason=str(reason), time=render_time(at), suspected=suspected),
    )


def suspicion(look: Look, *, of: Revision) -> Guard:
    """The watch over what serves now, under the traffic in which this revision was suspected."""
    return Guard(until=look.now + max(look.policy.rollback.guardSeconds, LEAST_SUSPICION_SECONDS), suspect=of.name)


def unsuspected(look: Look, *, why: str) -> Move | None:
    """The revision whose verdict waits can be compared no more: what was not withdrawn stands. None where no verdict waits."""
    guard = look.place.guard
    rejection = look.place.rejection_of(guard.suspect) if guard is not None and guard.suspect is not None else None
    if rejection is None:
        return None
    rejected = tuple(replace(r, suspected=False) if r is rejection else r for r in look.place.rejected)
    suspect = rejection.revision
    message = f"the rejection of {suspect.prompt_version} ({suspect.name}) stands, and is compared no more: {why}"
    return told(replace(look.place, rejected=rejected, guard=None), Reason.REJECTION_CONFIRMED, message)


def short_of_pods(look: Look, stable: Revision) -> str:
    """That stable carries everything with fewer pods than it should have: no reason to stay with a canary that breaches, but to be said."""
    ready = look.observed.arm(stable.name).ready
    return f" (stable has {ready} of {look.replicas} pods ready)" if ready < look.replicas else ""


def halt(look: Look, canary: CanaryPlace, *, reason: Reason | str, message: str, at: float, suspected: bool = False) -> Move:
    """All traffic to stable, and the canary waits at weight 0 for a person. `suspected`: as with `roll_back`."""
    revision = canary.revision
    text = (
        f"{revision.prompt_version} ({revision.name}) has no traffic any more, and waits for a new value of the annotation "
        f"`backstop.dev/retry` or `backstop.dev/abort` (`spec.rollback.mode` is `Pause`): {message}"
    )
    halted = replace(
        at_zero(look, canary),
        halted=Halt(
            at,
            reason=str(reason),
            message=message,
            taken_at=None if at == look.now else look.now,
        ),
    )
    return Move(
        replace(look.place, canary=halted),
        (Announcement(Reason.HALTED, text),),
        aborted=Abort(revision=revision.name, reason=str(reason), time=render_time(at), suspected=suspected),
    )


def at_zero(look: Look, canary: CanaryPlace) -> CanaryPlace:
    """The canary without traffic, at the step whose share it had: also where that was passed, and the next was still to begin."""
    had = (position for position, step in enumerate(look.policy.canary.steps) if step.weight <= canary.weight)
    return replace(
        canary,
        step=max(had, default=0) if canary.weight else canary.step,
        step_started_at=None,
        weight=0,
        generation=None,
        verified_at=None,
        blind_since=None,
        blind_seconds=0.0,
        pods_for=0,
        awaits_pods=False,
        promoting_since=canary.promoting_since if canary.by_hand else None,
        routed_at=None,
    )


def supersede(look: Look, canary: CanaryPlace, *, reason: Reason, message: str) -> Move:
    """The spec asks for something else now: the canary ends without a verdict, unless it waits for a person after a breach."""
    place, halt = without_canary(look, canary), canary.halted
    last = LastRollout(Outcome.SUPERSEDED, canary.revision, reason=reason, message=message, detected_at=look.now, generation=None)
    if halt is not None:
        # Also one that had nothing beside it: from now on nothing is compared with it.
        rejection = Rejection(canary.revision, reason=halt.reason, message=halt.message, at=halt.at)
        place = replace(place, rejected=_remember(look, rejection))
        last = replace(
            last,
            outcome=Outcome.ROLLED_BACK,
            reason=halt.reason,
            message=halt.message,
            detected_at=halt.at,
            shifted_at=halt.shifted_at,
            ended_at=look.now,
        )
    return told(replace(place, last=last), reason, message)


def without_canary(look: Look, canary: CanaryPlace) -> Place:
    """The place without its canary, whose pods finish what they have."""
    return replace(without(look, canary.revision), canary=None)


def without(look: Look, revision: Revision) -> Place:
    """The place, with the pods of this revision finishing what they have."""
    retiring = tuple(r for r in look.place.retiring if r.revision != revision.name)
    return replace(look.place, retiring=(*retiring, Retiring(revision.name, until=look.now + RETIRE_SECONDS))[-8:])


def with_remembered(look: Look) -> tuple[Rejection, ...]:
    """The rejections of this policy and of a former one of its name, oldest first, as many as are kept; never without the wanted one."""
    known = {rejection.revision.name for rejection in look.place.rejected}
    before = [rejection for rejection in look.observed.remembered if rejection.revision.name not in known]
    rejections = sorted((*look.place.rejected, *before), key=lambda r: r.at)
    wanted = look.wanted.name if look.wanted else None
    while len(rejections) > REJECTED_KEPT:
        rejections.pop(1 if rejections[0].revision.name == wanted else 0)
    return tuple(rejections)


def _remember(look: Look, rejection: Rejection) -> tuple[Rejection, ...]:
    """The newest rejections; never without the one the spec names."""
    others = [r for r in look.place.rejected if r.revision.name != rejection.revision.name]
    wanted = look.wanted.name if look.wanted else None
    while len(others) >= REJECTED_KEPT:
        others.pop(1 if others[0].revision.name == wanted else 0)
    return (*others, rejection)
