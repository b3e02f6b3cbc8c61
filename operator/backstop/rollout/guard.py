"""Gates of the guard window: stable goes on being watched after its promotion, and the revision before it is one step away.

After the promotion nothing else serves that stable could be compared with. So a breach is a suspicion first: traffic goes back, and
the revision that it went back to is watched under the same traffic. Only if that one does better is the verdict certain.
"""

from dataclasses import replace

from backstop.api.clock import parse_time
from backstop.api.fallbackpolicy import RollbackMode
from backstop.api.reasons import Reason

from .judged import judged
from .look import Look
from .move import Move, go_back, halt, supersede, told, unsuspected
from .observed import Known
from .place import CanaryPlace, Guard, Halt, Incident, PreviousPlace, Revision, StablePlace
from .progress import all_healthy
from .rest import fresh_canary, may_begin, with_canary
from .safety import FOR_GOOD
from .wayback import is_late, late_words

# For so long a way back to pods that were gone waits for all of them: one would break under what all of stable's serve. And for so long
# stable may be without a ready pod before it is left.
RETURN_SECONDS = 30.0
COMPARE_SECONDS = 10.0  # the trailing window of the analysis: what is watched is watched for this long beyond the longest `forSeconds`


def finish_return(look: Look) -> Move | None:
    """The traffic object carries a verdict on stable that status does not know: the operator died between the two writes."""
    route, stable, previous = look.observed.route, look.place.stable, look.place.previous
    if not isinstance(route, Known) or route.value is None or stable is None or previous is None:
        return None
    aborted = look.verdict(since=stable.since)
    if aborted is None or aborted.revision != stable.revision.name or route.value.stable != previous.revision.name:
        return None
    breach = look.breach(of=aborted.reason)
    message = breach.evidence if breach else f"{aborted.reason} at {aborted.time}, as the traffic object says"
    return _return(look, previous, reason=aborted.reason, message=message, at=parse_time(aborted.time))


def breach(look: Look) -> Move | None:
    """An SLO of stable is breached in its guard window."""
    guard, stable, previous = look.place.guard, look.place.stable, look.place.previous
    breached = look.breach()
    if guard is None or stable is None or guard.suspect is not None or guard.returning is not None or breached is None:
        return None
    reason, evidence = breached.reason, breached.evidence
    if previous is None:
        why = f"nothing has served before {stable.revision.prompt_version} ({stable.revision.name}) to return to: {evidence}"
        return _only_told(look, guard, reason=reason, tell=Reason.NOTHING_TO_RETURN_TO, message=why)
    if guard.by_hand:
        why = f"{stable.revision.prompt_version} ({stable.revision.name}) stays, because a person had it promoted: {evidence}"
        return _only_told(look, guard, reason=reason, tell=Reason.WOULD_ROLL_BACK, message=why)
    if look.policy.rollback.mode is RollbackMode.DRY_RUN:
        why = f"{stable.revision.name} would be rolled back (`spec.rollback.mode` is `DryRun`): {evidence}"
        return _only_told(look, guard, reason=reason, tell=Reason.WOULD_ROLL_BACK, message=why)
    if look.observed.arm(previous.revision.name).ready > 0:
        return _return(look, previous, reason=reason, message=evidence, at=look.now)
    message = f"going back to {previous.revision.prompt_version} ({previous.revision.name}) as soon as it has its pods: {evidence}"
    returning = replace(guard, returning=Halt(look.now, reason=str(reason), message=evidence))
    return told(replace(look.place, guard=returning), Reason.RETURNING, message)


def without_pods(look: Look) -> Move | None:
    """No pod of stable is ready for long, while the revision before it could serve: without requests no SLO can be breached."""
    guard, stable, previous = look.place.guard, look.place.stable, look.place.previous
    if guard is None or stable is None or previous is None:
        return None
    arm, could = look.observed.arm(stable.revision.name), look.observed.arm(previous.revision.name).ready
    settled = guard.suspect is not None or guard.returning is not None or guard.by_hand
    if settled or arm.ready > 0 or could == 0:
        return Move(replace(look.place, guard=replace(guard, unready_since=None))) if guard.unready_since is not None else None
    if guard.unready_since is None:
        return Move(replace(look.place, guard=replace(guard, unready_since=look.now)))
    if look.now - guard.unready_since < RETURN_SECONDS:
        return None
    message = (
        f"no pod of it was ready for {RETURN_SECONDS:.0f} s{f' ({arm.trouble})' if arm.trouble else ''}, "
        f"while {previous.revision.name} has {could}"
    )
    return _return(look, previous, reason=Reason.CANARY_UNAVAILABLE, message=message, at=look.now)


def without_pods_beside(look: Look, canary: CanaryPlace) -> Move | None:
    """The same beside a canary, which has no callers while nobody enters: it ends first, and what is wanted begins anew after the way back.

    Not one that serves already, or that a person has promoted.
    """
    stable, previous = look.place.stable, look.place.previous
    if canary.routed_at is not None or canary.by_hand or stable is None or previous is None:
        return None
    move = without_pods(look)
    if move is None or move.aborted is None:
        return move
    message = (
        f"no pod of stable {stable.revision.prompt_version} ({stable.revision.name}) was ready for {RETURN_SECONDS:.0f} s in its guard "
        f"window: the canary {canary.revision.prompt_version} ({canary.revision.name}) is ended, and {previous.revision.name} serves next"
    )
    return supersede(look, canary, reason=Reason.STABLE_UNREADY, message=message)


def go_back_when_ready(look: Look) -> Move | None:
    """Stable is to be left, and the revision before it can serve again: at full size, or for long with what there is.

    An edit to `DryRun` meanwhile ends the wait: stable stays, and what it does is only told from now on.
    """
    guard, previous, stable = look.place.guard, look.place.previous, look.place.stable
    if guard is None or guard.returning is None or previous is None or stable is None:
        return None
    if look.policy.rollback.mode is RollbackMode.DRY_RUN:
        message = (
            f"{stable.revision.prompt_version} ({stable.revision.name}) stays, because `spec.rollback.mode` is `DryRun` now: "
            f"{guard.returning.message}"
        )
        # A later way back may be late again.
        before = replace(guard, returning=None, reported=tuple(r for r in guard.reported if r != Reason.RETURN_UNAVAILABLE))
        kept = before if guard.returning.reason in before.reported else _reported(before, guard.returning.reason)
        return told(replace(look.place, guard=kept), Reason.WOULD_ROLL_BACK, message)
    ready = look.observed.arm(previous.revision.name).ready
    if ready == 0 or (ready < look.replicas and look.now < guard.returning.at + RETURN_SECONDS):
        return None
    return _return(look, previous, reason=guard.returning.reason, message=guard.returning.message, at=guard.returning.at)


def way_back_is_late(look: Look) -> Move | None:
    """What stable is to be left for has had its time to get ready: told once. Traffic still follows when it does."""
    guard, previous, stable = look.place.guard, look.place.previous, look.place.stable
    if guard is None or guard.returning is None or previous is None or stable is None or not is_late(look, guard):
        return None
    if Reason.RETURN_UNAVAILABLE in guard.reported:
        return None
    message = late_words(look, stable=stable, previous=previous, breach=guard.returning.message)
    return told(replace(look.place, guard=_reported(guard, Reason.RETURN_UNAVAILABLE)), Reason.RETURN_UNAVAILABLE, message)


def compare(look: Look) -> Move | None:
    """Traffic went back to stable: does it do better than what it replaced?"""
    guard = look.place.guard
    rejection = look.place.rejection_of(guard.suspect) if guard is not None and guard.suspect is not None else None
    stable, ends = look.place.stable, compared_at(look)
    if rejection is None or stable is None or ends is None:
        return None
    suspect, serving = rejection.revision, stable.revision
    if (breached := look.breach()) is not None:
        message = (
            f"{serving.prompt_version} ({serving.name}) breaches as {suspect.prompt_version} ({suspect.name}) did, so that a rollback "
            f"does not help: {breached.evidence}"
        )
        withdrawn = tuple(r for r in look.place.rejected if r is not rejection)
        incident = Incident(suspect, at=look.now, message=message)
        last = replace(look.place.last, reason=str(Reason.SHARED_INCIDENT), message=message) if look.place.last is not None else None
        place = replace(look.place, rejected=withdrawn, guard=None, incident=incident, last=last)
        return told(place, Reason.SHARED_INCIDENT, message)
    if look.now < ends or not all_healthy(look) or any(reading.over for reading in look.observed.readings):
        return None  # where evidence is slow to come, what is over the limit is not yet seen to do better
    certain = tuple(replace(r, suspected=False) if r is rejection else r for r in look.place.rejected)
    message = f"{serving.prompt_version} ({serving.name}) holds every SLO where {suspect.prompt_version} ({suspect.name}) did not"
    return told(replace(look.place, rejected=certain, guard=None), Reason.REJECTION_CONFIRMED, message)


def compared_at(look: Look) -> float | None:
    """When the revision that traffic went back to has been watched for long enough; None where nothing is compared."""
    guard, subject = look.place.guard, judged(look.place, policy=look.policy)
    if guard is None or guard.suspect is None or subject is None or subject.since is None or not subject.watched:
        return None
    return subject.since + max(slo.forSeconds for slo in look.policy.slos) + COMPARE_SECONDS


def end(look: Look) -> Move | None:
    """The watch is over; or an incident, because the spec asks for something else now."""
    guard, incident, wanted = look.place.guard, look.place.incident, look.wanted
    if guard is not None and guard.returning is None and look.now >= guard.until:
        stable = look.place.stable
        serving = f"{stable.revision.prompt_version} ({stable.revision.name})" if stable is not None else "stable"
        why = f"{serving} could not be seen to do better in the time for that, nor to breach as it did"
        if (settled := unsuspected(look, why=why)) is not None:
            return settled
        return Move(replace(look.place, guard=None))
    if incident is not None and wanted is not None and wanted.name != incident.revision.name:
        return Move(replace(look.place, incident=None))
    return None


def leave(look: Look) -> Move | None:
    """The policy is being deleted: nobody compares any more."""
    return unsuspected(look, why="the policy is deleted")


def return_to_previous(look: Look) -> Move | None:
    """The spec asks for the former stable again, in the guard window: it has served a moment ago, and needs no judgement."""
    guard, previous, wanted = look.place.guard, look.place.previous, look.wanted
    if guard is None or guard.suspect is not None or previous is None or wanted is None or wanted.name != previous.revision.name:
        return None
    if guard.returning is not None:
        return None  # on its way there already, with a verdict on what it leaves
    if guard.unready_since is not None and look.observed.arm(previous.revision.name).ready < look.replicas:
        return None  # the other way back to it does not wait for all of its pods, while nobody serves
    if look.place.canary is not None or look.place.rejection_of(wanted.name) is not None or not may_begin(look, wanted):
        return None
    message = (
        f"`spec` asks for {wanted.prompt_version} ({wanted.name}) again, in the guard window of what replaced it: back to it without steps"
    )
    returning = replace(fresh_canary(look, previous.revision), by_hand=True, promoting_since=look.now)
    return told(with_canary(look.place, returning), Reason.RETURNING_TO_PREVIOUS, message)


def _only_told(look: Look, guard: Guard, *, reason: Reason, tell: Reason, message: str) -> Move | None:
    """Each reason once in a watch, however many take turns."""
    if reason in guard.reported:
        return None
    return told(replace(look.place, guard=_reported(guard, reason)), tell, message)


def _reported(guard: Guard, reason: Reason | str) -> Guard:
    return replace(guard, reported=(*guard.reported, str(reason)))


def _return(look: Look, previous: PreviousPlace, *, reason: Reason | str, message: str, at: float) -> Move:
    """All traffic to the revision before; what it leaves is rejected, or waits for a person."""
    stable = look.place.stable
    assert stable is not None
    if look.policy.rollback.mode is not RollbackMode.PAUSE or reason in FOR_GOOD:
        return go_back(look, previous.revision, reason=reason, message=message, at=at)
    return _halted(look, stable.revision, previous=previous, reason=reason, message=message, at=at)


def _halted(look: Look, revision: Revision, *, previous: PreviousPlace, reason: Reason | str, message: str, at: float) -> Move:
    back = replace(look.place, stable=StablePlace(previous.revision, since=look.now), previous=None, guard=None)
    # At full size, and with all of the traffic until now.
    canary = replace(
        fresh_canary(look, revision), unready_since=None, waiting_since=None, step=len(look.policy.canary.steps) - 1, weight=100
    )
    return halt(replace(look, observed=replace(look.observed, place=back)), canary, reason=reason, message=message, at=at)
