"""The traffic object that a place asks for, and what a change of it means for the place."""

from dataclasses import replace

from backstop.api.clock import render_time
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.traffic import Abort, Steering, TrafficState

from .move import Move
from .observed import Known, Unknown
from .place import CanaryPlace, Outcome, Place, awaited_generation, is_another_end
from .plan import RouteWrite

# How long gateways are waited for in a promotion; connections between gateways live no longer.
SWITCH_SECONDS = 10.0


def route_for(
    move: Move,
    *,
    before: Place,
    route: Known[TrafficState | None] | Unknown,
    policy: FallbackPolicySpec,
    now: float,
    strays: bool = False,
    newest: int | None = None,
) -> RouteWrite | None:
    """The write that makes the traffic object match the place after `move`; None when it does already, or must not be touched.

    `strays`: it does something else than it says, and is written again with the same words. `newest`: the highest generation that a
    gateway acts on, which takes no older one for news, also where the object has an older one, or cannot be read.

    An unreadable object is left to its author while nothing is wrong, and replaced when traffic has to leave the canary. One that strays is
    wrong: a canary under way holds, so that its author is told; without one all it can say is that stable serves, unless callers may
    have been led back to what served before.
    """
    if move.place.stable is None:
        return None
    present = route.value if isinstance(route, Known) else None
    if isinstance(route, Unknown) and not _leaves(before, after=move.place) and not (strays and _can_only_say_stable(move.place)):
        return None
    known = before.canary.generation if before.canary is not None else None
    newer_than = max(known or 0, before.generation)
    wanted = _wanted(move, present=present, steering=steering_of(policy), now=now, newer_than=newer_than)
    # While a generation is waited for, the operator may have died before its write.
    unwritten = 1 if awaited_generation(before) is not None else 0
    if present is not None:
        awaited = awaited_generation(move.place) or 0
        missing = wanted == present and present.generation < awaited
        if missing or present.generation < before.generation - unwritten:
            # An older object that somebody put back: gateways would not act on it, whatever it says.
            wanted = replace(wanted, generation=max(before.generation + 1, awaited))
    if newest is not None and (present is None or newest > present.generation):
        wanted = replace(wanted, generation=max(wanted.generation, newest + 1))
    if present is not None and wanted == present:
        return RouteWrite(wanted, falling=False) if strays else None
    # Where status was lost nobody knows the canary: what it has is taken away as from one that is known.
    judged = _judged(before) if before.stable is not None or present is None else present.canary
    if present is None:
        # What gateways act on cannot be seen: any way out of the canary goes first.
        falling = _leaves(before, after=move.place)
    else:
        falling = judged is not None and share_of(judged, state=wanted) < share_of(judged, state=present)
    return RouteWrite(wanted, falling=falling)


def says_another(write: RouteWrite | None, *, than: Known[TrafficState | None] | Unknown) -> bool:
    """Whether it writes another state than there is; one that only repairs what the object does says the same."""
    return write is not None and not (isinstance(than, Known) and than.value == write.state)


def share_of(revision: str, *, state: TrafficState) -> int:
    """Thousandths of the requests that this revision gets."""
    if state.stable == revision:
        return 1000 - state.permille
    return state.permille if state.canary == revision else 0


def steering_of(policy: FallbackPolicySpec) -> Steering:
    """The headers that the policy tells callers apart by, as gateways compare them."""
    declared = policy.canary.traffic
    return Steering(
        sticky=declared.stickyHeader.lower() if declared.stickyHeader else None,
        pin=declared.pinHeader.lower() if declared.pinHeader else None,
    )


def _wanted(move: Move, *, present: TrafficState | None, steering: Steering, now: float, newer_than: int) -> TrafficState:
    place = move.place
    assert place.stable is not None
    stable, canary, permille = place.stable.revision.name, None, 0
    if place.canary is not None and place.canary.routed_at is not None:
        stable = place.canary.revision.name
    elif place.canary is not None and place.canary.halted is None:
        # Pods of one that waits for a person pass on what still reaches them: they may have been the entry.
        canary, permille = place.canary.revision.name, place.canary.weight * 10
    if present is None:
        # Gateways never act on an older generation than they know. Milliseconds since the epoch are ahead of any count that was lost,
        # and of what an operator wrote anew a moment ago, before it died and somebody deleted it.
        generation = max(int(now * 1000), newer_than + 1)
        aborted = _aborted(move, present=None)
        return TrafficState(generation=generation, stable=stable, canary=canary, permille=permille, aborted=aborted, steering=steering)
    aborted = _aborted(move, present=present)
    return present.changed(stable=stable, canary=canary, permille=permille, aborted=aborted, steering=steering)


def _aborted(move: Move, *, present: TrafficState | None) -> Abort | None:
    """The newest verdict; an older one stays on record, also for a status that was lost, until it is withdrawn."""
    if move.aborted is not None or present is None:
        return move.aborted
    lost = _lost(move.place, present=present)
    if lost is not None or present.aborted is None:
        return lost
    canary, revision = move.place.canary, present.aborted.revision
    halted = canary is not None and canary.halted is not None and canary.revision.name == revision
    return present.aborted if halted or move.place.rejection_of(revision) is not None else None


def _lost(place: Place, *, present: TrafficState) -> Abort | None:
    """The verdict of the last end where the traffic object does not have it: one that took no traffic away is written after status,
    and an operator that dies or is overtaken in between leaves status waiting for that write.
    """
    last = place.last
    if last is None or last.outcome is not Outcome.ROLLED_BACK or place.canary is not None:
        return None
    rejection = place.rejection_of(last.revision.name)
    if rejection is None:
        return None
    if present.aborted is not None and present.aborted.revision == last.revision.name:
        return None
    return Abort(revision=last.revision.name, reason=last.reason, time=render_time(last.detected_at), suspected=rejection.suspected)


def _judged(place: Place) -> str | None:
    """The revision under judgement: the canary, or stable in its guard window."""
    if place.canary is not None:
        return place.canary.revision.name
    return place.stable.revision.name if place.stable is not None and place.guard is not None else None


def _can_only_say_stable(place: Place) -> bool:
    return place.previous is None and (place.canary is None or place.canary.halted is not None)


def _leaves(before: Place, *, after: Place) -> bool:
    if before.canary is None:
        return (
            before.guard is not None
            and before.stable is not None
            and after.stable is not None
            and (after.stable.revision != before.stable.revision)
        )
    return after.canary is None or after.canary.revision != before.canary.revision or after.canary.weight < before.canary.weight


def with_generation(
    move: Move,
    *,
    write: RouteWrite | None,
    before: Place,
    present: Known[TrafficState | None] | Unknown,
    now: float,
    ahead: int | None = None,
) -> Place:
    """The place, with the traffic generation that it waits for. A weight that is written anew has to be verified anew, and has its time
    for that from now on.
    """
    place = _anew(move.place, generation=write.state.generation) if write is not None and ahead is not None else move.place
    canary, last = place.canary, place.last
    halt = before.canary.halted if before.canary is not None else None
    # What was halted has lost its traffic before; whether gateways were seen to act on that is known.
    open_end = last is not None and last.shifted_at is None and (halt is None or halt.generation is not None)
    ended = last if last is not None and open_end and is_another_end(last, before=before.last) else None
    if canary is not None and canary.halted is not None and halt is None:
        # Its write may be there already, as that of an end may.
        generation = write.state.generation if write is not None else _generation_of(present)
        halted = replace(canary, halted=replace(canary.halted, generation=generation))
        return replace(place, canary=halted, generation=max(place.generation, generation or 0))
    if write is None:
        # The end of a rollout may be in the traffic object already: written by an operator that died before it wrote status.
        if ended is not None and isinstance(present, Known) and present.value is not None:
            place = replace(place, last=replace(ended, generation=present.value.generation))
        if canary is not None and canary.generation is None and _is_to_be_seen(canary):
            # The weight is there already: that of a step which begins anew, because the steps were edited.
            place = replace(place, canary=replace(canary, generation=_generation_of(present)))
        return place
    generation = write.state.generation
    place = replace(place, generation=max(place.generation, generation))
    if canary is not None and canary.generation is not None and ahead is None and _same_shares(write.state, present=present):
        pass  # only what callers are told apart by, or the verdict on another revision: the weight is what it was seen to be
    elif canary is not None and _is_to_be_seen(canary):
        anew = canary.generation is not None and canary.generation != generation
        started = now if anew and canary.step_started_at is not None else canary.step_started_at
        verified = None if anew else canary.verified_at
        # A switch that is written anew, or late, has its time from now on. Not each time that its write is refused.
        late = canary.routed_at is not None and (anew or now - canary.routed_at >= SWITCH_SECONDS)
        routed = now if late else canary.routed_at
        place = replace(
            place, canary=replace(canary, generation=generation, verified_at=verified, step_started_at=started, routed_at=routed)
        )
    if ended is not None:
        place = replace(place, last=replace(ended, generation=generation))
    return place


def _anew(place: Place, *, generation: int) -> Place:
    """What is still waited for is seen when gateways act on this generation: one of them has been ahead of the one before."""
    canary, last = place.canary, place.last
    if last is not None and last.generation is not None and last.shifted_at is None:
        place = replace(place, last=replace(last, generation=generation))
    if canary is not None and canary.halted is not None and canary.halted.generation is not None and canary.halted.shifted_at is None:
        place = replace(place, canary=replace(canary, halted=replace(canary.halted, generation=generation)))
    elif canary is not None and canary.weight == 0 and canary.generation is not None:
        place = replace(place, canary=replace(canary, generation=generation))
    return place


def _is_to_be_seen(canary: CanaryPlace) -> bool:
    return canary.routed_at is not None or (canary.step_started_at is not None and canary.weight > 0)


def _generation_of(present: Known[TrafficState | None] | Unknown) -> int | None:
    return present.value.generation if isinstance(present, Known) and present.value is not None else None


def _same_shares(state: TrafficState, *, present: Known[TrafficState | None] | Unknown) -> bool:
    if not isinstance(present, Known) or present.value is None:
        return False
    before = present.value
    return (before.stable, before.canary, before.permille) == (state.stable, state.canary, state.permille)
