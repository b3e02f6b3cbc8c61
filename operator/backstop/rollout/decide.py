"""decide(): the one place where a rollout's next move is chosen. Pure: no I/O, no clock, no randomness.

A decision is a chain of gates, each a question with one answer; the first gate that moves ends the pass, and the next pass looks
again. Gates that take traffic away come before gates that give it. What the cluster must look like follows from the place alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.policystatus import Router

from . import (
    blindness,
    early,
    first,
    growing,
    guard,
    holding,
    intent,
    leaving,
    probes,
    progress,
    recovery,
    recreation,
    replicas,
    rest,
    safety,
    setback,
    shared,
)
from .conditions import conditions_of, not_ready_yet, summary_of
from .judged import same_subject
from .look import Look
from .move import Move
from .observed import Known, Observed
from .place import CanaryPlace, Place, PreviousPlace
from .plan import ConditionState, Plan
from .route import route_for, says_another, with_generation
from .timeline import followed, report_is_due, waits_for_report
from .wake import wake_at

CanaryGate = Callable[[Look, CanaryPlace], Move | None]
Gate = Callable[[Look], Move | None]

SAFETY: tuple[CanaryGate, ...] = (
    safety.finish_abort,
    safety.breach,
    leaving.leave,
    safety.other_wanted,
    safety.blind,
    safety.crashes,
    safety.unready,
    guard.without_pods_beside,
    # What only corrects what is known comes behind what takes traffic away.
    setback.of_canary,
    growing.held_up,
    safety.pods,
    safety.recount,
    replicas.shared_with_others,
    probes.ended,
    blindness.of_canary,
    shared.incident,
    probes.fell_silent,
    holding.held,
)
PROGRESS: tuple[CanaryGate, ...] = (
    progress.replan,
    progress.promote,
    progress.verify,
    probes.begin,
    progress.begin_step,
    progress.switch,
    early.pass_step,
    progress.pass_step,
)
# Without a canary: what takes traffic away from stable, or finds out whether that was right.
GUARD: tuple[Gate, ...] = (
    recovery.recover,
    recreation.recall,
    recreation.recall_older,
    guard.finish_return,
    guard.breach,
    guard.without_pods,
    guard.go_back_when_ready,
    guard.way_back_is_late,
    setback.of_guard,
    guard.compare,
    blindness.of_guard,
    blindness.never_judged,
    guard.end,
)
# The same, of a policy that is being deleted.
LEAVING: tuple[Gate, ...] = (recovery.recover, guard.finish_return, guard.leave)
# What does not wait while a rollout is paused: no gate that raises the canary's weight.
WHILE_PAUSED: tuple[CanaryGate, ...] = (progress.replan, progress.promote, progress.verify)
REST: tuple[Gate, ...] = (
    first.wait,
    first.probe_ended,
    first.begin_probes,
    first.first_revision,
    rest.watch_shift,
    rest.watch_halt,
    rest.clear_away,
    rest.recall_rejection,
    rest.name_rejection,
    rest.name_stable,
    guard.return_to_previous,
    rest.new_canary,
)


def decide(observed: Observed, *, policy: FallbackPolicySpec, now: float) -> Plan:
    """The plan for one look at a policy; `now` in seconds since the epoch."""
    look = Look(observed, policy, now)
    move = _first_move(look)
    report = report_is_due(look, move=move)
    if waits_for_report(look, move=move):
        move = None
    moved = move is not None
    move = move or Move(look.place)
    route = route_for(move, before=look.place, route=observed.route, policy=policy, now=now, strays=observed.strays, newest=observed.newest)
    place = with_generation(move, write=route, before=look.place, present=observed.route, now=now, ahead=look.ahead)
    place = followed(place, look=look, announcements=move.announcements)
    place = replace(place, waiting=None if place.stable is not None else place.waiting)
    after = Look(_at(look, place=place), policy, now)
    phase, reason = summary_of(after)
    return Plan(
        place=place,
        route=route,
        sizes=_sizes(after),
        serving=_serving(after),
        canary=place.canary.revision.name if place.canary and place.canary.routed_at is None else None,
        announcements=move.announcements,
        conditions=_conditions(after, before=look.place),
        phase=phase,
        reason=reason,
        # What was written may be what the next gate waits for, and our own writes are no news. No gate waits for a repair.
        wake_at=now if moved or says_another(route, than=observed.route) else wake_at(after),
        probes=first.to_run(after) or probes.to_run(after),
        autoscaled=_autoscaled(after),
        may_shrink=not _shares(place),
        finalizer=leaving.needs_finalizer(after),
        report=report,
        router=Router.REPLICAS if after.by_replicas else Router.BUILTIN,
        share=replicas.share_of(after, place.canary) if place.canary is not None else None,
    )


def _conditions(look: Look, *, before: Place) -> tuple[ConditionState, ...]:
    """What status says. A refresh that is acknowledged with it asks for another revision, which only the next look knows."""
    conditions = conditions_of(look)
    return conditions if look.place.acknowledged.refresh == before.acknowledged.refresh else not_ready_yet(conditions)


def _first_move(look: Look) -> Move | None:
    canary, move = look.place.canary, _safe_move(look)
    if move is not None or look.observed.leaving:
        return move or rest.watch_shift(look)
    if (move := intent.by_hand(look)) is not None:
        return move
    for gate in _progress(look):
        if canary is not None and (move := gate(look, canary)) is not None:
            return move
    for question in REST:
        if (move := question(look)) is not None:
            return move
    return None


def _safe_move(look: Look) -> Move | None:
    """The first of the gates that take traffic away, or keep it from what was rejected."""
    canary = look.place.canary
    if canary is None or look.place.stable is None:
        for question in LEAVING if look.observed.leaving else GUARD:
            if (move := question(look)) is not None:
                return move
    else:
        for gate in SAFETY:
            if (move := gate(look, canary)) is not None:
                return move
    return None


def _progress(look: Look) -> tuple[CanaryGate, ...]:
    """The gates that may move a canary forward now."""
    canary = look.place.canary
    if canary is None or look.place.stable is None or canary.halted is not None:
        return ()
    # Unknown never advances: neither an unreadable traffic object nor a spec that asks for nothing that can be run.
    if not isinstance(look.observed.route, Known) or look.wanted is None:
        return ()
    return WHILE_PAUSED if look.policy.canary.paused and not canary.by_hand else PROGRESS


def _at(look: Look, *, place: Place) -> Observed:
    return replace(look.observed, place=place, readings=look.observed.readings if same_subject(look.place, place) else ())


def _sizes(look: Look) -> Mapping[str, int]:
    """Replicas per live revision; in an overlap of roles what serves counts before what served, and that before what is judged."""
    place = look.place
    sizes = {retiring.revision: look.observed.arm(retiring.revision).desired for retiring in place.retiring}
    if place.canary is not None:
        sizes[place.canary.revision.name] = _canary_size(look, place.canary)
    if place.previous is not None and not _would_share(look):
        sizes |= _kept(look, place.previous)
    if place.stable is not None:
        sizes[place.stable.revision.name] = _stable_size(look)
    elif (starting := _first(look)) is not None:
        sizes[starting] = look.replicas
    return sizes


def _stable_size(look: Look) -> int:
    """Full size. Beside a canary that serves alone and is scaled by its load: enough to take everything back."""
    canary = look.place.canary
    if look.policy.serving.autoscaling is None or canary is None or not replicas.is_alone(look, canary):
        return look.replicas
    return max(look.replicas, look.observed.arm(canary.revision.name).desired)


def _canary_size(look: Look, canary: CanaryPlace) -> int:
    """What its weight needs. A share that it carries is not cut with a stable that shrinks beside an autoscaler; pods that make the
    share go with stable's.
    """
    ends = replicas.pods_end_at(look, canary)
    # Those that have ended are made anew by no clock that is set back.
    if ends is not None and (look.now >= ends or look.observed.arm(canary.revision.name).desired == 0):
        return 0
    if look.policy.serving.autoscaling is None or look.by_replicas or not _shares(look.place):
        return look.pods_made(canary)
    return max(look.pods_made(canary), look.observed.arm(canary.revision.name).desired)


def _kept(look: Look, previous: PreviousPlace) -> Mapping[str, int]:
    """The pods of what served before: enough to take everything back. With an autoscaler they grow with stable, and never shrink.

    After their time they go, but not while the traffic object cannot be read: callers may have been led back to them already.
    """
    guard, name = look.place.guard, previous.revision.name
    present = look.observed.arm(name).desired
    way_back = guard is not None and (guard.returning is not None or guard.unready_since is not None)
    if look.now < previous.until or way_back:
        return {name: look.replicas if look.policy.serving.autoscaling is None else max(present, look.replicas)}
    return {name: present} if present > 0 and not isinstance(look.observed.route, Known) else {}


def _would_share(look: Look) -> bool:
    """Whether pods that are kept to return to could be reached beside a canary's. Then they go: a way back waits for new ones."""
    canary = look.place.canary
    return look.by_replicas and canary is not None and canary.halted is None


def _shares(place: Place) -> bool:
    """Whether a canary has a part of the load. An autoscaler would take that part's pods from stable, which could not take it back then."""
    return place.canary is not None and (place.canary.weight > 0 or place.canary.routed_at is not None)


def _autoscaled(look: Look) -> str | None:
    """The revision that an autoscaler sizes: the one that has all the load, and without gateways that may be the canary."""
    canary = look.place.canary
    if look.policy.serving.autoscaling is None:
        return None
    return canary.revision.name if canary is not None and replicas.is_alone(look, canary) else _serving(look)


def _serving(look: Look) -> str | None:
    """The revision that callers' connections reach: stable, or from the switch of a promotion on the new one."""
    place = look.place
    if place.canary is not None and place.canary.routed_at is not None:
        return place.canary.revision.name
    if place.stable is not None:
        return place.stable.revision.name
    wanted = look.wanted
    return None if wanted is not None and first.missing(look, wanted) else _first(look)


def _first(look: Look) -> str | None:
    """What serves while nothing is stable: what the traffic object says has served, where status was lost; else the wanted revision.

    Not one that was rejected under a former policy of this name.
    """
    wanted = look.wanted
    if rest.is_unknown_what_serves(look):
        return None
    return rest.serves_already(look) or (wanted.name if wanted is not None and look.place.rejection_of(wanted.name) is None else None)
