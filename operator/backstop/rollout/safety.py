"""Gates that take traffic away from the canary. They come first, and need neither a readable traffic object nor fresh metrics."""

from dataclasses import replace
from typing import assert_never

from backstop.api.clock import parse_time
from backstop.api.fallbackpolicy import RollbackMode, UnavailableAction
from backstop.api.reasons import Reason

from . import replicas
from .look import Look
from .move import Move, at_zero, halt, roll_back, supersede, told
from .place import CanaryPlace

CRASHES = 3
# What ends a canary in every mode: a person's word, and pods that cannot run.
FOR_GOOD = frozenset({Reason.ABORTED, Reason.CANARY_UNAVAILABLE})


def finish_abort(look: Look, canary: CanaryPlace) -> Move | None:
    """The traffic object carries a verdict that status does not know: the operator died between the two writes. Finish it."""
    aborted = look.verdict(since=canary.started_at)
    if aborted is None or aborted.revision != canary.revision.name or canary.halted is not None:
        return None
    if look.place.rejection_of(aborted.revision) is not None:
        return None
    breach = look.breach(of=aborted.reason)
    message = breach.evidence if breach else f"{aborted.reason} at {aborted.time}, as the traffic object says; no evidence was written"
    if look.policy.rollback.mode is RollbackMode.PAUSE and aborted.reason not in FOR_GOOD:
        return halt(look, canary, reason=aborted.reason, message=message, at=parse_time(aborted.time), suspected=aborted.suspected)
    move = roll_back(look, canary, reason=aborted.reason, message=message, at=parse_time(aborted.time), suspected=aborted.suspected)
    if aborted.reason != Reason.ABORTED:
        return move
    known = replace(look.place.acknowledged, abort=look.observed.tokens.abort or look.place.acknowledged.abort)
    return replace(move, place=replace(move.place, acknowledged=known))


def breach(look: Look, canary: CanaryPlace) -> Move | None:
    """An SLO is breached: evidence against the canary beats whatever else is going on, unknown SLOs included."""
    # A verdict that stable was compared for is certain, whatever else is only suspected.
    first = look.breach()
    if first is None or (canary.weight == 0 and canary.routed_at is None):
        return None
    if replicas.returns_later(look, canary) is not None:
        return replicas.returning(look, canary, breach=first)
    return against(look, canary, reason=first.reason, message=first.evidence, suspected=first.suspected)


def against(look: Look, canary: CanaryPlace, *, reason: Reason, message: str, suspected: bool = False) -> Move | None:
    """What evidence against the canary leads to, by the policy's mode; of one that is being deleted nobody can decide any more."""
    match look.policy.rollback.mode:
        case RollbackMode.PAUSE if not look.observed.leaving:
            return halt(look, canary, reason=reason, message=message, at=look.now, suspected=suspected)
        case RollbackMode.AUTOMATIC | RollbackMode.PAUSE:
            return roll_back(look, canary, reason=reason, message=message, at=look.now, suspected=suspected)
        case RollbackMode.DRY_RUN:
            if reason in canary.reported:
                return None
            told_of = f"{canary.revision.name} would be rolled back (`spec.rollback.mode` is `DryRun`): {message}"
            reported = replace(canary, reported=(*canary.reported, str(reason)))
            return told(replace(look.place, canary=reported), Reason.WOULD_ROLL_BACK, told_of)
    assert_never(look.policy.rollback.mode)


def other_wanted(look: Look, canary: CanaryPlace) -> Move | None:
    """The spec changed in mid-canary: the newest wish wins, nothing queues."""
    wanted, stable = look.wanted, look.place.stable
    if wanted is None or stable is None or wanted.name == canary.revision.name:
        return None
    # Stable serves nobody, and could not: the promotion comes to its end, or stable to a pod, and then what is wanted begins.
    ready = look.observed.arm(stable.revision.name).ready
    if (canary.routed_at is not None and ready < look.replicas) or (look.by_replicas and canary.weight > 0 and ready == 0):
        return None
    if wanted.name == stable.revision.name:
        return supersede(
            look,
            canary,
            reason=Reason.RETURNED_TO_STABLE,
            message=f"`spec` asks for stable {stable.revision.prompt_version} ({stable.revision.name}) again; "
            f"the canary {canary.revision.prompt_version} ({canary.revision.name}) is ended",
        )
    return supersede(
        look,
        canary,
        reason=Reason.SUPERSEDED,
        message=f"`spec` asks for {wanted.prompt_version} ({wanted.name}) now; the canary {canary.revision.prompt_version} "
        f"({canary.revision.name}) is ended",
    )


def blind(look: Look, canary: CanaryPlace) -> Move | None:
    """Metrics have not been seen for as long as the policy allows, and it asks for the canary to be taken back then."""
    declared = look.policy.rollback.onMetricsUnavailable
    if declared.action is not UnavailableAction.ROLLBACK or canary.blind_since is None or not look.readings_in("Unknown"):
        return None
    if look.now - canary.blind_since < declared.afterSeconds:
        return None
    if look.policy.rollback.mode is not RollbackMode.DRY_RUN and replicas.leads_to_nobody(look, canary):
        return None
    message = f"metrics could not be seen for {declared.afterSeconds} s (`spec.rollback.onMetricsUnavailable`)"
    return against(look, canary, reason=Reason.METRICS_UNAVAILABLE, message=message)


def crashes(look: Look, canary: CanaryPlace) -> Move | None:
    """Containers that keep ending under callers' requests: ready in between is no reason to go on.

    Before that a canary has until its deadline: what it waits for may still come.
    """
    if canary.halted is not None:
        return None
    exits, before = look.observed.arm(canary.revision.name).exits, canary.exits_before
    if before is None:
        return None
    if exits - before < CRASHES:
        return None
    if look.ready(canary) > 0 and replicas.leads_to_nobody(look, canary):
        return None
    message = f"its containers exited {exits - before} times with a code other than 0 since callers reach it (limit: {CRASHES - 1})"
    message += _trouble(look, canary)
    return roll_back(look, canary, reason=Reason.CANARY_UNAVAILABLE, message=message, at=look.now)


def recount(look: Look, canary: CanaryPlace) -> Move | None:
    """Pods that had failed are gone: exits are counted from what is left."""
    exits, before = look.observed.arm(canary.revision.name).exits, canary.exits_before
    if canary.halted is not None or before is None or exits >= before:
        return None
    return Move(replace(look.place, canary=replace(canary, exits_before=exits)))


def unready(look: Look, canary: CanaryPlace) -> Move | None:
    """No ready pod at any weight: the weight goes to 0 at once. Not where stable has none either, and pods are reached without gateways:
    whichever has one first serves then.
    """
    if canary.halted is not None or look.ready(canary) > 0 or (canary.weight == 0 and canary.routed_at is None):
        return None
    if replicas.leads_to_nobody(look, canary):
        return replicas.nobody_serves(look, canary)
    # What it waited for before were the pods of a greater share.
    paused = replicas.begins_to_wait(look, at_zero(look, canary))
    message = f"no pod of the canary {canary.revision.name} is ready{_trouble(look, canary)}: its weight is 0 until enough are"
    return told(replace(look.place, canary=paused), Reason.CANARY_UNREADY, message)


def pods(look: Look, canary: CanaryPlace) -> Move | None:
    """Short of pods for the deadline, or kept waiting by others': rolled back."""
    if canary.halted is not None:
        return None
    ready, needed = look.ready(canary), look.pods_needed(canary)
    since = canary.unready_since
    third = replicas.in_the_way(look, canary)
    if ready >= needed and not third:
        return Move(replace(look.place, canary=replicas.settled(canary))) if since is not None else None
    if since is None:
        return Move(replace(look.place, canary=replicas.begins_to_wait(look, canary)))
    if (apart := replicas.waits_apart(look, canary) or replicas.counts_together(look, canary)) is not None:
        return apart
    deadline, for_others = look.policy.canary.progressDeadlineSeconds, replicas.waits_for_others(look, canary)
    if not for_others and (shortage := replicas.shortage(look, canary, since=since)) is not None:
        return shortage
    if look.now - since >= deadline and (for_others or not replicas.is_short_as_stable(look, canary)):
        message = f"{ready} of {needed} pods ready after {deadline} s (`spec.canary.progressDeadlineSeconds`){_trouble(look, canary)}"
        if for_others:
            message = (
                f"pods of {third[0]}, which is neither stable nor canary, are still there after {deadline} s "
                "(`spec.canary.progressDeadlineSeconds`), and would be reached as the canary is: delete them"
            )
        return roll_back(look, canary, reason=Reason.CANARY_UNAVAILABLE, message=message, at=look.now)
    return _waited_by_turns(look, canary)


def _waited_by_turns(look: Look, canary: CanaryPlace) -> Move | None:
    """Its own pods and others' have come and gone by turns, so that neither wait has lasted for the deadline: there is one for both."""
    deadline, third = 3 * look.policy.canary.progressDeadlineSeconds, replicas.in_the_way(look, canary)
    if canary.waiting_since is None or look.now - canary.waiting_since < deadline:
        return None
    beside = f", and pods of {third[0]}, which is neither stable nor canary, are there" if third else ""
    message = (
        f"{look.ready(canary)} of {look.pods_needed(canary)} pods ready{beside}: it has waited for the one or the other for {deadline} s "
        f"(three times `spec.canary.progressDeadlineSeconds`){_trouble(look, canary)}"
    )
    return roll_back(look, canary, reason=Reason.CANARY_UNAVAILABLE, message=message, at=look.now)


def _trouble(look: Look, canary: CanaryPlace) -> str:
    trouble = look.observed.arm(canary.revision.name).trouble
    return f" ({trouble})" if trouble else ""
