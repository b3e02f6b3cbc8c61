"""Gates that move a canary forward: steps, holds, promotion. None of them runs while something they need is unknown."""

from dataclasses import replace

from backstop.api.reasons import Reason

from . import probes, replicas
from .look import Look, steps_hash
from .move import LEAST_SUSPICION_SECONDS, Move, told
from .observed import Known
from .place import CanaryPlace, Guard, Halt, LastRollout, Outcome, PreviousPlace, StablePlace
from .plan import Announcement
from .route import SWITCH_SECONDS

VERIFY_SECONDS = 30.0  # for every ready gateway to be seen acting on a new weight
PODS_AGAIN_SECONDS = 120.0  # between pods for the next weight that ended before they were ready, and new ones


def replan(look: Look, canary: CanaryPlace) -> Move | None:
    """The steps were edited: go on at the first one that is not below the weight in effect.

    To a higher weight only from one that was seen to be in effect, and of which nothing bad is seen: an edit is no evidence.
    """
    if not is_edited(look, canary) or canary.routed_at is not None:
        return None
    weights = [step.weight for step in look.policy.canary.steps]
    step = next(position for position, weight in enumerate(weights) if weight >= canary.weight)
    rises, stays = weights[step] > canary.weight > 0, weights[step] == canary.weight
    if rises and not may_be_raised(look, canary):
        return None
    if rises and _lacks_pods(look, canary, weights[step]):
        return _make_pods(look, canary, weights[step])
    replanned = replace(
        canary,
        step=step,
        step_hash=steps_hash(look.policy),
        approved=step if is_approved(canary) and stays else None,
        pods_for=canary.pods_for if stays and canary.pods_for == _next_weight(look, step) else 0,
        awaits_pods=False,
    )
    if not stays:
        replanned = replace(replanned, step_started_at=None, promoting_since=None)
    message = (
        f"`spec.canary.steps` was edited: the rollout of {canary.revision.prompt_version} ({canary.revision.name}), which is at "
        f"{canary.weight} %, goes on with step {step + 1} of {len(weights)} ({weights[step]} %)"
    )
    begun = _begun(look, replanned) if rises else None
    return (begun or Move(replace(look.place, canary=replanned))).after(Announcement(Reason.STEPS_REPLANNED, message))


def may_be_raised(look: Look, canary: CanaryPlace) -> bool:
    """Whether edited steps may give it more than it has, as soon as it has the pods for that."""
    return not look.policy.canary.paused and _bears_more(look, canary)


def is_edited(look: Look, canary: CanaryPlace) -> bool:
    """Whether the steps are others than the canary is planned by."""
    return steps_hash(look.policy) != canary.step_hash and not canary.by_hand


def _bears_more(look: Look, canary: CanaryPlace) -> bool:
    """Whether the weight in effect was seen everywhere, and what comes of it can be seen and is within every limit, as far as there are
    requests to tell. Where nothing waits for that, nobody looks.
    """
    if canary.verified_at is None:
        return canary.step_started_at is None
    within = {reading.name for reading in look.readings_in("Healthy")} | _waiting(look)
    return canary.blind_since is None and within >= {slo.name for slo in look.policy.slos}


def begin_step(look: Look, canary: CanaryPlace) -> Move | None:
    """Enough pods are ready: give the canary the weight of its step."""
    return None if canary.step_started_at is not None or canary.promoting_since is not None else _begun(look, canary)


def _begun(look: Look, canary: CanaryPlace) -> Move | None:
    if look.ready(canary) < look.pods_needed(canary):
        return None
    if is_edited(look, canary):
        return None  # there is no such step any more
    if probes.missing(look, canary):
        return None
    if replicas.others(look, canary):
        return None
    if canary.weight == 0 and canary.generation is not None and not look.acts_on(canary.generation):
        return None  # a gateway did not take up a weight before: nothing is tried again before all are seen to act on 0
    weight = look.step_of(canary).weight
    begun = replace(
        canary,
        exits_before=look.observed.arm(canary.revision.name).exits if canary.exits_before is None else canary.exits_before,
        step_started_at=look.now,
        reported=(),
        weight=weight,
        generation=None,
        verified_at=None,
        blind_since=None,
        blind_seconds=0.0,
        pods_for=0,
        awaits_pods=False,
        pods_ended_at=None,
    )
    steps, revision = len(look.policy.canary.steps), canary.revision
    share = replicas.with_share(look, canary, weight, ending=",")
    message = f"step {canary.step + 1} of {steps}: {share} to {revision.prompt_version} ({revision.name})"
    return told(replace(look.place, canary=begun), Reason.STEP_STARTED, message)


def verify(look: Look, canary: CanaryPlace) -> Move | None:
    """Every ready gateway acts on the weight: the hold begins. Not seen in time: back to the last weight that was."""
    if canary.step_started_at is None or canary.verified_at is not None or canary.promoting_since is not None:
        return None
    if look.acts_on(canary.generation):
        step = f"step {canary.step + 1} of {len(look.policy.canary.steps)} is held for {look.step_of(canary).holdSeconds} s from now on"
        message = f"{replicas.seen_everywhere(look, replicas.with_share(look, canary, canary.weight))}: {step}"
        held = replace(canary, verified_at=look.now, held_since=None, held_seconds=0.0, held_told=False)
        return told(replace(look.place, canary=held), Reason.WEIGHT_VERIFIED, message)
    if look.now - canary.step_started_at < VERIFY_SECONDS:
        return None
    # Of the steps as they are now: they may have been edited since this weight was written.
    below = [step.weight for step in look.policy.canary.steps if step.weight < canary.weight] if canary.step else []
    weight = below[-1] if below else 0
    if weight == 0 and replicas.leads_to_nobody(look, canary):
        return None
    route = look.observed.route
    present = route.value if isinstance(route, Known) else None
    written = present.generation if present is not None else 0
    # An operator that died before it wrote the new weight has left the one to go back to: nothing is written then.
    there = present is not None and present.permille == weight * 10
    acting = look.observed.acting
    why = f"the slowest acts on generation {acting.value} of {canary.generation}" if isinstance(acting, Known) else acting.why
    back = replace(
        canary,
        step=max(0, len(below) - 1),
        step_started_at=look.now if weight else None,
        weight=weight,
        # Of the write that takes the weight back: at 0 it has to be seen before the step is tried again.
        generation=written if there else None if weight else written + 1,
        verified_at=None,
        approved=None if is_edited(look, canary) else canary.approved,
    )
    message = f"{canary.weight} % was not seen {replicas.everywhere(look)} within {VERIFY_SECONDS:.0f} s ({why}): back to {weight} %"
    return told(replace(look.place, canary=back), Reason.WEIGHT_NOT_VERIFIED, message)


def pass_step(look: Look, canary: CanaryPlace) -> Move | None:
    """The hold is over, every SLO is healthy, and there is a stable to go back to: on to the next step, or to promotion."""
    return advance(look, canary) if may_pass(look, canary) and look.now >= hold_ends(look, canary) else None


def may_pass(look: Look, canary: CanaryPlace) -> bool:
    """Whether nothing but the time of its hold, and pods that are still to be made, keeps the step from passing."""
    return canary.unready_since is None and would_pass(look, canary)


def would_pass(look: Look, canary: CanaryPlace) -> bool:
    """The same of a canary that may lack pods."""
    if canary.step_started_at is None or canary.verified_at is None or canary.promoting_since is not None or is_edited(look, canary):
        return False
    if not all_healthy(look) or canary.blind_since is not None:
        return False
    if look.step_of(canary).approval and not is_approved(canary):
        return False
    return not replicas.beside_nothing(look)


def is_approved(canary: CanaryPlace) -> bool:
    """Whether a person has let the present step pass, or a later one that it had to leave again."""
    return canary.approved is not None and canary.approved >= canary.step


def advance(look: Look, canary: CanaryPlace, *, told_before: Announcement | None = None) -> Move | None:
    """On to the next step, or to promotion, when its pods are ready: at once then, so that nothing unseen comes in between. Until then the
    step holds as before, and what is found of it counts.
    """
    weight = _next_weight(look, canary.step)
    if _lacks_pods(look, canary, weight):
        return _make_pods(look, canary, weight)
    passed = past_step(look, canary)
    if passed.promoting_since is not None:
        message = f"{canary.revision.prompt_version} ({canary.revision.name}) held every SLO at {canary.weight} %: promoting"
        move = told(replace(look.place, canary=_switched(look, passed)), Reason.PROMOTING, message)
    else:
        move = _begun(look, passed) or Move(replace(look.place, canary=passed))
    return move if told_before is None else move.after(told_before)


def past_step(look: Look, canary: CanaryPlace) -> CanaryPlace:
    """The canary at the first step above its weight, which is still to begin, or in its promotion, which is still to be routed."""
    steps = look.policy.canary.steps
    above = next((position for position, step in enumerate(steps) if step.weight > canary.weight), None)
    if above is None:
        return replace(canary, promoting_since=look.now)
    edited = canary.step_hash != steps_hash(look.policy)  # an approval was of a step that there is no more
    approved = None if edited else canary.approved
    return replace(canary, step=above, step_hash=steps_hash(look.policy), step_started_at=None, approved=approved)


def _next_weight(look: Look, step: int) -> int:
    steps = look.policy.canary.steps
    return steps[step + 1].weight if step + 1 < len(steps) else 100


def _lacks_pods(look: Look, canary: CanaryPlace, weight: int) -> bool:
    """Whether pods have to be made before its weight may rise to this."""
    return look.ready(canary) < look.pods_for(weight)


def makes_pods_later(look: Look, canary: CanaryPlace) -> bool:
    """Whether pods for the next weight have ended a moment ago, before they were ready."""
    return canary.pods_ended_at is not None and look.now - canary.pods_ended_at < PODS_AGAIN_SECONDS


def _make_pods(look: Look, canary: CanaryPlace, weight: int) -> Move | None:
    if makes_pods_later(look, canary):
        return None
    made = replace(canary, pods_for=weight, awaits_pods=True)
    return None if made == canary else Move(replace(look.place, canary=made))


def hold_ends(look: Look, canary: CanaryPlace) -> float:
    """When the step's hold is over: blind time does not count."""
    assert canary.verified_at is not None
    return canary.verified_at + look.step_of(canary).holdSeconds + canary.blind_seconds


def all_healthy(look: Look) -> bool:
    """No SLO is open: unknown never advances a rollout, and waiting does where the SLO is not required."""
    return not open_slos(look)


def open_slos(look: Look) -> tuple[str, ...]:
    """The declared SLOs for which a rollout holds: without a reading, or with one that is not healthy.

    One that is not required may wait for requests.
    """
    healthy = {reading.name for reading in look.readings_in("Healthy")}
    waiting = _waiting(look)
    return tuple(slo.name for slo in look.policy.slos if slo.name not in healthy and (slo.required or slo.name not in waiting))


def _waiting(look: Look) -> set[str]:
    """The SLOs that wait for requests, and not for answers."""
    return {reading.name for reading in look.readings_in("Waiting") if reading.reason != Reason.NO_TRAFFIC}


def switch(look: Look, canary: CanaryPlace) -> Move | None:
    """Promotion, the route: the new revision is at full size, so it becomes the stable of the traffic object."""
    if canary.promoting_since is None or canary.routed_at is not None:
        return None
    switched = _switched(look, canary)
    return Move(replace(look.place, canary=switched)) if switched.routed_at is not None else None


def _switched(look: Look, canary: CanaryPlace) -> CanaryPlace:
    return canary if look.ready(canary) < look.replicas else replace(canary, routed_at=look.now, generation=None)


def promote(look: Look, canary: CanaryPlace) -> Move | None:
    """Promotion, the end: every gateway acts on the switch (or had its time), so the new revision is stable."""
    stable = look.place.stable
    if stable is None or canary.routed_at is None or look.ready(canary) == 0:
        return None
    seen, seconds = look.acts_on(canary.generation), look.policy.rollback.guardSeconds
    route = look.observed.route
    # An operator may have died before it wrote the switch.
    written = isinstance(route, Known) and route.value is not None and route.value.stable == canary.revision.name
    if not seen and (not written or look.now - canary.routed_at < SWITCH_SECONDS):
        return None
    message = f"{canary.revision.prompt_version} ({canary.revision.name}) is stable"
    reason = Reason.PROMOTED_BY_HAND if canary.by_hand else Reason.PROMOTED
    guard = Guard(until=look.now + seconds, by_hand=canary.by_hand) if seconds else None
    if not canary.by_hand and (breach := replicas.returns_later(look, canary)) is not None:
        # The wait for a ready pod of what it is to be left for goes on, also where nothing would be watched.
        returning = Halt(look.now, reason=str(breach.reason), message=breach.evidence)
        guard = Guard(until=look.now + seconds, returning=returning, judged=True)
    elif not canary.by_hand and Reason.RETURNING in canary.reported and not all_healthy(look):
        # It was told that it is left, and what for cannot be seen now, as after a restart: that is looked for again.
        guard = Guard(until=look.now + max(seconds, LEAST_SUSPICION_SECONDS))
    without_steps = canary.by_hand and canary.exits_before is None
    if without_steps and look.place.previous is not None and look.place.previous.revision == canary.revision:
        reason, guard = Reason.RETURNED_TO_PREVIOUS, None  # it was watched when it was new
    place = replace(
        look.place,
        stable=StablePlace(canary.revision, since=look.now),
        previous=PreviousPlace(stable.revision, until=look.now + look.policy.rollback.keepPreviousSeconds),
        canary=None,
        last=LastRollout(
            Outcome.PROMOTED,
            canary.revision,
            reason=reason,
            message=message,
            detected_at=canary.promoting_since or canary.routed_at,
            generation=canary.generation,
            shifted_at=look.now if seen else None,
            ended_at=look.now,
        ),
        guard=guard,
        incident=None,
    )
    return told(place, Reason.PROMOTED, message)
