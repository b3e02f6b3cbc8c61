"""Gates for a policy without a canary: a new rollout, and what is left of former ones."""

from dataclasses import replace

from backstop.api.clock import parse_time
from backstop.api.reasons import Reason

from .judged import WATCH_SHIFT_SECONDS
from .look import Look, steps_hash
from .move import REJECTED_KEPT, Move, told, unsuspected, with_remembered
from .observed import Known
from .place import CanaryPlace, Guard, Place, Rejection, Revision
from .replicas import everywhere, seen_everywhere
from .wayback import is_late


def first_guard(look: Look) -> Guard | None:
    """The watch over a revision that begins to serve with nothing before it."""
    seconds = look.policy.rollback.guardSeconds
    return Guard(until=look.now + seconds) if seconds else None


def recalled(look: Look) -> tuple[Rejection, ...]:
    """The rejections; where status was lost, the one that the traffic object still carries, and those that are remembered elsewhere."""
    route = look.observed.route
    aborted = route.value.aborted if isinstance(route, Known) and route.value is not None else None
    rejected = with_remembered(look)
    if aborted is None or any(r.revision.name == aborted.revision for r in rejected):
        return rejected
    message = f"{aborted.revision} was rolled back for {aborted.reason} at {aborted.time}, as the traffic object says"
    revision = Revision(aborted.revision, prompt_version="", prompt_digest="")
    newest = Rejection(revision, reason=aborted.reason, message=message, at=parse_time(aborted.time), suspected=aborted.suspected)
    return (*rejected, newest)[-REJECTED_KEPT:]


def serves_already(look: Look) -> str | None:
    """The revision that the traffic object calls stable; None where it cannot be read, or nothing says that any has served.

    Without a traffic object it is the one that was accepted last, where its pods are this policy's and not a former one's of the name.
    """
    route, accepted = look.observed.route, look.observed.accepted
    if not isinstance(route, Known):
        return None
    if route.value is not None:
        return route.value.stable
    if accepted is None or accepted == look.wanted or look.observed.arm(accepted.name).desired == 0:
        return None
    return accepted.name


def is_unknown_what_serves(look: Look) -> bool:
    """Whether status was lost, the route cannot be read, and other pods than those of the wanted revision run: one of them may serve.

    Nothing becomes stable then and nothing is changed, until the route can be read, or is gone. A status that says how a first revision
    fares was not lost.
    """
    place = look.place
    if place.stable is not None or place.waiting is not None or place.first is not None or isinstance(look.observed.route, Known):
        return False
    wanted = look.wanted.name if look.wanted is not None else None
    return any(arm.desired > 0 for name, arm in look.observed.arms.items() if name != wanted)


def recall_rejection(look: Look) -> Move | None:
    """Status was lost, and the traffic object carries a verdict on the wanted revision: remember it."""
    wanted, rejected_before = look.wanted, recalled(look)
    if look.place.stable is not None or wanted is None or look.place.rejection_of(wanted.name) is not None:
        return None
    rejection = next((r for r in rejected_before if r.revision.name == wanted.name), None)
    if rejection is None:
        return None
    rejected = tuple(replace(r, revision=wanted) if r is rejection else r for r in rejected_before)
    return told(replace(look.place, rejected=rejected), Reason.ROLLED_BACK, rejection.message)


def name_rejection(look: Look) -> Move | None:
    """What the traffic object remembers of a verdict is no more than its revision. When the spec asks for that, it has a name."""
    wanted = look.wanted
    rejection = look.place.rejection_of(wanted.name) if wanted is not None else None
    if wanted is None or rejection is None or rejection.revision.prompt_version:
        return None
    named = tuple(replace(r, revision=wanted) if r is rejection else r for r in look.place.rejected)
    return Move(replace(look.place, rejected=named))


def name_stable(look: Look) -> Move | None:
    """Of a stable that was found again after a loss of status no more may be known than its revision. When the spec asks for that, it has
    a name.
    """
    stable, wanted = look.place.stable, look.wanted
    if stable is None or wanted is None or wanted.name != stable.revision.name or stable.revision.prompt_digest:
        return None
    return Move(replace(look.place, stable=replace(stable, revision=wanted))) if wanted != stable.revision else None


def new_canary(look: Look) -> Move | None:
    """The spec asks for a revision that is neither stable nor rejected: begin its rollout."""
    wanted, stable = look.wanted, look.place.stable
    if look.place.canary is not None or wanted is None or stable is None or wanted.name == stable.revision.name:
        return None
    if look.place.rejection_of(wanted.name) is not None or not may_begin(look, wanted):
        return None
    if look.place.incident is not None and look.place.incident.revision.name == wanted.name:
        return None
    guard = look.place.guard
    if guard is not None and guard.returning is not None and (not is_late(look, guard) or _goes_back_to(look, wanted)):
        return None  # stable is being left, and is nothing to be compared with
    if guard is not None and guard.unready_since is not None:
        return None  # it has its pods again in a moment, or is left for what could serve
    if (settled := unsuspected(look, why=superseded_words(wanted))) is not None:
        return settled
    canary = fresh_canary(look, wanted)
    message = f"canary {wanted.prompt_version} ({wanted.name}) against stable {stable.revision.prompt_version} ({stable.revision.name})"
    return told(with_canary(look.place, canary), Reason.CANARY_STARTED, message)


def _goes_back_to(look: Look, wanted: Revision) -> bool:
    """Whether it is what stable is left for: with a canary of it the way back would end, and want of pods would be held against it."""
    return look.place.previous is not None and look.place.previous.revision.name == wanted.name


def superseded_words(wanted: Revision) -> str:
    """Why a comparison ends with a rollout that begins."""
    return f"{wanted.prompt_version} ({wanted.name}) is rolled out now, and has a share of the traffic under which it was watched"


def with_canary(place: Place, canary: CanaryPlace) -> Place:
    """The place with this canary, whose pods retire no more. What stable does from now on says nothing of a revision before, whose
    verdict waits no more.
    """
    assert place.guard is None or place.guard.suspect is None
    guard = replace(place.guard, returning=None, reported=(), unready_since=None) if place.guard is not None else None
    retiring = tuple(r for r in place.retiring if r.revision != canary.revision.name)
    return replace(place, canary=canary, retiring=retiring, guard=guard, incident=None, freed=None)


def fresh_canary(look: Look, revision: Revision) -> CanaryPlace:
    """At its first step, with nothing counted."""
    return CanaryPlace(revision, started_at=look.now, step_hash=steps_hash(look.policy), unready_since=look.now, waiting_since=look.now)


def may_begin(look: Look, revision: Revision) -> bool:
    """Whether the traffic object lets a rollout of the revision begin.

    One that cannot be read may carry a verdict on stable, which status lacks where an operator died before it wrote that. It is acted on
    as long as there is no canary.
    """
    return isinstance(look.observed.route, Known) and not carries_verdict(look, revision)


def carries_verdict(look: Look, revision: Revision) -> bool:
    """Whether the traffic object still has a verdict that was withdrawn: with it in place, the canary would be taken for rejected."""
    route = look.observed.route
    return (
        isinstance(route, Known)
        and route.value is not None
        and route.value.aborted is not None
        and route.value.aborted.revision == revision.name
    )


def watch_shift(look: Look) -> Move | None:
    """The last rollout ended: note when every gateway was seen to act on it."""
    last = look.place.last
    if last is None or last.shifted_at is not None or last.generation is None:
        return None
    if look.acts_on(last.generation):
        seen = seen_everywhere(look, f"the end of {last.revision.name}")
        at = look.acting_since(last.watched_since)
        message = f"{seen}, {at - last.detected_at:.1f} s after it was decided"
        return told(replace(look.place, last=replace(last, shifted_at=at)), Reason.TRAFFIC_SHIFTED, message)
    if look.now - last.watched_since > WATCH_SHIFT_SECONDS:
        acting = look.observed.acting
        why = f"the slowest acts on generation {acting.value} of {last.generation}" if isinstance(acting, Known) else acting.why
        message = f"the end of {last.revision.name} was not seen {everywhere(look)} within {WATCH_SHIFT_SECONDS:.0f} s ({why})"
        return told(replace(look.place, last=replace(last, generation=None)), Reason.WEIGHT_NOT_VERIFIED, message)
    return None


def watch_halt(look: Look) -> Move | None:
    """The canary waits for a person without traffic: note when every gateway was seen to act on that."""
    canary = look.place.canary
    halt = canary.halted if canary is not None else None
    if canary is None or halt is None or halt.generation is None:
        return None
    if look.acts_on(halt.generation):
        at = look.acting_since(halt.watched_since)
        message = f"{seen_everywhere(look, f'the halt of {canary.revision.name}')}, {at - halt.at:.1f} s after it was decided"
        seen = replace(canary, halted=replace(halt, generation=None, shifted_at=at))
        return told(replace(look.place, canary=seen), Reason.TRAFFIC_SHIFTED, message)
    if look.now - halt.watched_since <= WATCH_SHIFT_SECONDS:
        return None
    acting = look.observed.acting
    why = f"the slowest acts on generation {acting.value} of {halt.generation}" if isinstance(acting, Known) else acting.why
    message = f"the halt of {canary.revision.name} was not seen {everywhere(look)} within {WATCH_SHIFT_SECONDS:.0f} s ({why})"
    return told(replace(look.place, canary=replace(canary, halted=replace(halt, generation=None))), Reason.WEIGHT_NOT_VERIFIED, message)


def clear_away(look: Look) -> Move | None:
    """Pods that were kept to finish or to return to, and whose time is over.

    Not what served before, while the traffic object cannot be read: callers may have been led back to it already.
    """
    previous, retiring, guard = look.place.previous, look.place.retiring, look.place.guard
    kept = (guard is not None and guard.suspect is None) or not isinstance(look.observed.route, Known)
    kept_previous = previous if previous is not None and (kept or look.now < previous.until) else None
    kept_retiring = tuple(r for r in retiring if look.now < r.until)
    if kept_previous == previous and kept_retiring == retiring:
        return None
    return Move(replace(look.place, previous=kept_previous, retiring=kept_retiring))
