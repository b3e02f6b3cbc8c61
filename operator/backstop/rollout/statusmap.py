"""Status ↔ place: how a rollout's place is written for users and read back after a restart.

Over 400 lines, because the two directions of each part stand side by side: what is written and not read back is lost in a restart.
"""

from collections.abc import Mapping
from typing import Final

from backstop.analysis.reading import Counts, SLOReading, StateName, state_name
from backstop.api.clock import parse_time, render_time
from backstop.api.condition import Condition
from backstop.api.policystatus import (
    AcknowledgedStatus,
    ArmStatus,
    CanaryStatus,
    FallbackPolicyStatus,
    FirstStatus,
    GuardStatus,
    HaltedStatus,
    IncidentStatus,
    LastRolloutStatus,
    PreviousStatus,
    RejectedStatus,
    RetiringStatus,
    RevisionStatus,
    SLOStatus,
    StableStatus,
    TimelineStatus,
    TransitionStatus,
    WaitingStatus,
)

from .observed import NO_ARM, Arm
from .place import (
    NO_TOKENS,
    CanaryPlace,
    FirstPlace,
    FirstWait,
    Guard,
    Halt,
    Incident,
    LastRollout,
    Outcome,
    Place,
    PreviousPlace,
    Rejection,
    Retiring,
    Revision,
    StablePlace,
    Timeline,
    Tokens,
    Transition,
)
from .plan import ConditionState, Plan

# Which SLO is told of first.
_MOST_TELLING: Final[tuple[StateName, ...]] = ("Breached", "Breaching", "Unknown", "Waiting")


def place_of(status: FallbackPolicyStatus) -> Place:
    """The place that a status describes. Raises ValueError for a time that is not RFC 3339."""
    stable, previous = status.stable, status.previous
    return Place(
        stable=StablePlace(_revision(stable), since=parse_time(stable.since or ""), size=stable.fullSize) if stable else None,
        canary=_canary_place(status.canary) if status.canary else None,
        previous=PreviousPlace(_revision(previous), until=parse_time(previous.until)) if previous else None,
        retiring=tuple(Retiring(r.revision, until=parse_time(r.until)) for r in status.retiring),
        rejected=tuple(
            Rejection(_revision(r), reason=r.reason, message=r.message, at=parse_time(r.at), suspected=r.suspected) for r in status.rejected
        ),
        last=_last_place(status.lastRollout) if status.lastRollout else None,
        acknowledged=_tokens(status.acknowledged) if status.acknowledged else NO_TOKENS,
        guard=_guard_place(status.guard) if status.guard else None,
        incident=_incident_place(status.incident) if status.incident else None,
        timeline=_timeline_place(status.timeline) if status.timeline else None,
        first=_first_place(status.first) if status.first else None,
        generation=status.trafficGeneration or 0,
        freed=status.retried,
        waiting=_waiting_place(status.waiting) if status.waiting else None,
    )


def status_of(
    plan: Plan,
    *,
    previous: FallbackPolicyStatus,
    generation: int,
    readings: tuple[SLOReading, ...],
    analysis: str | None,
    arms: Mapping[str, Arm],
    now: float,
) -> FallbackPolicyStatus:
    """The status that a plan asks for. `generation` is that of the spec it was decided from."""
    place = plan.place
    judged = place.canary.halted is None if place.canary is not None else place.guard is not None
    slos = _slos(plan, readings=readings, previous=previous)
    return FallbackPolicyStatus(
        observedGeneration=generation,
        phase=plan.phase.value,
        reason=plan.reason,
        stable=_stable_status(place.stable, arms=arms, sized=plan.autoscaled is not None) if place.stable else None,
        canary=_canary_status(place.canary, share=plan.share) if place.canary else None,
        previous=PreviousStatus(**_identity(place.previous.revision), until=render_time(place.previous.until)) if place.previous else None,
        retiring=[RetiringStatus(revision=r.revision, until=render_time(r.until)) for r in place.retiring],
        slos=slos,
        decidingSLO=previous.decidingSLO if slos and slos is previous.slos else _deciding(readings),
        lastRollout=_last_status(place.last) if place.last else None,
        rejected=[_rejected_status(rejection) for rejection in place.rejected],
        # Not that of an earlier rollout, were it of the same two revisions.
        analysis=analysis if judged and not _is_new(plan, previous) else None,
        acknowledged=_acknowledged(place.acknowledged) if place.acknowledged != NO_TOKENS else None,
        guard=_guard_status(place.guard) if place.guard else None,
        incident=_incident_status(place.incident) if place.incident else None,
        conditions=conditions_after(previous.conditions, states=plan.conditions, generation=generation, now=now),
        timeline=_timeline_status(place.timeline, previous=previous.timeline, slos=slos) if place.timeline else None,
        first=_first_status(place.first) if place.first else None,
        router=plan.router,
        trafficGeneration=place.generation or None,
        retried=place.freed,
        waiting=_waiting_status(place.waiting) if place.waiting else None,
    )


def _slos(plan: Plan, *, readings: tuple[SLOReading, ...], previous: FallbackPolicyStatus) -> list[SLOStatus]:
    """The evidence of the last evaluation stays readable after the rollout has ended, until the next one begins.

    After a rollback what it was decided from is told on, whatever is found of the stable that is watched.
    """
    place = plan.place
    if place.canary is None and place.last is not None and place.last.outcome is Outcome.ROLLED_BACK and previous.slos:
        told = previous.lastRollout
        if told is not None and (told.revision, told.detectedAt) == (place.last.revision.name, render_time(place.last.detected_at)):
            return previous.slos
    if readings:
        return [_slo_status(reading) for reading in readings]
    judged = place.canary is not None and place.canary.halted is None
    return [] if judged and _is_new(plan, previous) else previous.slos


def _deciding(readings: tuple[SLOReading, ...]) -> str | None:
    """As a rollback chooses: a verdict that stable was compared for comes first."""
    telling = [reading for reading in readings if state_name(reading.state) in _MOST_TELLING]
    return min(telling, key=lambda r: (_MOST_TELLING.index(state_name(r.state)), r.suspected)).name if telling else None


def conditions_after(previous: list[Condition], *, states: tuple[ConditionState, ...], generation: int, now: float) -> list[Condition]:
    """The conditions with their times: `lastTransitionTime` moves when, and only when, `status` does."""
    before = {condition.type: condition for condition in previous}
    conditions = []
    for state in states:
        old = before.get(state.type)
        since = old.lastTransitionTime if old is not None and old.status == state.status else render_time(now)
        conditions.append(
            Condition(
                type=state.type,
                status=state.status,
                reason=state.reason,
                message=state.message[:8192],
                observedGeneration=generation,
                lastTransitionTime=since,
            )
        )
    return conditions


def _is_new(plan: Plan, previous: FallbackPolicyStatus) -> bool:
    canary = plan.place.canary
    return canary is not None and (previous.canary is None or previous.canary.revision != canary.revision.name)


def _revision(
    status: StableStatus
    | CanaryStatus
    | PreviousStatus
    | RejectedStatus
    | LastRolloutStatus
    | IncidentStatus
    | RevisionStatus
    | FirstStatus,
) -> Revision:
    return Revision(status.revision, prompt_version=status.promptVersion, prompt_digest=status.promptDigest or "")


def _identity(revision: Revision) -> dict[str, str]:
    return {"revision": revision.name, "promptVersion": revision.prompt_version, "promptDigest": revision.prompt_digest}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else render_time(seconds)


def _seconds(time: str | None) -> float | None:
    return None if time is None else parse_time(time)


def _stable_status(stable: StablePlace, *, arms: Mapping[str, Arm], sized: bool) -> StableStatus:
    """Its size is noted when all its pods are ready: in the write that says so, and in none of its own."""
    arm = arms.get(stable.revision.name, NO_ARM)
    size = arm.desired if arm.desired == arm.ready > 0 else stable.size
    return StableStatus(
        **_identity(stable.revision), since=render_time(stable.since), readyReplicas=arm.ready, fullSize=size if sized else None
    )


def _canary_place(status: CanaryStatus) -> CanaryPlace:
    return CanaryPlace(
        _revision(status),
        started_at=parse_time(status.startedAt or ""),
        step_hash=status.stepHash,
        unready_since=_seconds(status.unreadySince),
        exits_before=status.exitsBefore,
        step=status.step,
        step_started_at=_seconds(status.stepStartedAt),
        weight=status.weight if status.weightBefore is None else status.weightBefore,
        generation=status.trafficGeneration,
        verified_at=_seconds(status.weightVerifiedAt),
        blind_since=_seconds(status.blindSince),
        blind_seconds=status.blindMilliseconds / 1000,
        pods_for=status.podsForWeight,
        awaits_pods=status.awaitsPods,
        pods_ended_at=_seconds(status.podsEndedAt),
        waiting_since=_seconds(status.waitingSince),
        approved=status.approvedStep,
        by_hand=status.byHand,
        reported=tuple(status.reported),
        halted=_halt(status.halted),
        promoting_since=_seconds(status.promotingSince),
        routed_at=_seconds(status.routedAt),
        probes_at=_seconds(status.probesAt),
        passed=tuple(status.probesPassed),
        failed=tuple(status.probesFailed),
        held_since=_seconds(status.heldSince),
        held_seconds=status.heldMilliseconds / 1000,
        held_told=status.heldTold,
        silent=tuple(status.probesSilent),
        blind_told=status.blindTold,
        seeing_since=_seconds(status.seeingSince),
    )


def _canary_status(canary: CanaryPlace, *, share: str | None) -> CanaryStatus:
    return CanaryStatus(
        **_identity(canary.revision),
        startedAt=render_time(canary.started_at),
        unreadySince=_time(canary.unready_since),
        exitsBefore=canary.exits_before,
        step=canary.step,
        stepHash=canary.step_hash,
        stepStartedAt=_time(canary.step_started_at),
        weight=canary.given,
        weightBefore=canary.weight if canary.weight != canary.given else None,
        trafficGeneration=canary.generation,
        weightVerifiedAt=_time(canary.verified_at),
        blindSince=_time(canary.blind_since),
        blindMilliseconds=round(canary.blind_seconds * 1000),
        podsForWeight=canary.pods_for,
        awaitsPods=canary.awaits_pods,
        podsEndedAt=_time(canary.pods_ended_at),
        waitingSince=_time(canary.waiting_since),
        approvedStep=canary.approved,
        byHand=canary.by_hand,
        reported=list(canary.reported),
        halted=_halted_status(canary.halted) if canary.halted else None,
        promotingSince=_time(canary.promoting_since),
        routedAt=_time(canary.routed_at),
        probesAt=_time(canary.probes_at),
        probesPassed=list(canary.passed),
        probesFailed=list(canary.failed),
        heldSince=_time(canary.held_since),
        heldMilliseconds=round(canary.held_seconds * 1000),
        heldTold=canary.held_told,
        probesSilent=list(canary.silent),
        sharePercent=share,
        blindTold=canary.blind_told,
        seeingSince=_time(canary.seeing_since),
    )


def _halt(status: HaltedStatus | None) -> Halt | None:
    if status is None:
        return None
    return Halt(
        parse_time(status.at),
        reason=status.reason,
        message=status.message,
        taken_at=_seconds(status.takenAt),
        generation=status.trafficGeneration,
        shifted_at=_seconds(status.shiftedAt),
    )


def _halted_status(halt: Halt) -> HaltedStatus:
    return HaltedStatus(
        at=render_time(halt.at),
        reason=halt.reason,
        message=halt.message[:2048],
        takenAt=_time(halt.taken_at),
        trafficGeneration=halt.generation,
        shiftedAt=_time(halt.shifted_at),
    )


def _tokens(status: AcknowledgedStatus) -> Tokens:
    return Tokens(
        abort=status.abort,
        retry=status.retry,
        promote=status.promote,
        approve=status.approve,
        skip_step=status.skipStep,
        refresh=status.refresh,
    )


def _acknowledged(tokens: Tokens) -> AcknowledgedStatus:
    return AcknowledgedStatus(
        abort=tokens.abort,
        retry=tokens.retry,
        promote=tokens.promote,
        approve=tokens.approve,
        skipStep=tokens.skip_step,
        refresh=tokens.refresh,
    )


def _slo_status(reading: SLOReading) -> SLOStatus:
    return SLOStatus(
        name=reading.name,
        state=state_name(reading.state),
        value=reading.value,
        limit=reading.limit,
        canary=_arm(reading.canary, mean=reading.canary_mean, is_mean=reading.is_mean),
        stable=_arm(reading.stable, mean=reading.stable_mean, is_mean=reading.is_mean) if reading.stable else None,
        breachedSince=_time(reading.breached_since),
        evidence=reading.evidence[:2048],
    )


def _arm(counts: Counts, *, mean: str | None, is_mean: bool) -> ArmStatus:
    return ArmStatus(bad=None if is_mean else counts.bad, total=counts.total, mean=mean)


def _last_place(status: LastRolloutStatus) -> LastRollout:
    return LastRollout(
        Outcome(status.outcome),
        _revision(status),
        reason=status.reason,
        message=status.message,
        detected_at=parse_time(status.detectedAt or ""),
        generation=status.trafficGeneration,
        shifted_at=_seconds(status.shiftedAt),
        report=status.report,
        ended_at=_seconds(status.endedAt),
    )


def _last_status(last: LastRollout) -> LastRolloutStatus:
    return LastRolloutStatus(
        **_identity(last.revision),
        outcome=last.outcome.value,
        reason=last.reason,
        message=last.message[:2048],
        detectedAt=render_time(last.detected_at),
        shiftedAt=_time(last.shifted_at),
        trafficGeneration=last.generation,
        report=last.report,
        endedAt=_time(last.ended_at),
    )


def _timeline_place(status: TimelineStatus) -> Timeline:
    return Timeline(
        status.revision,
        started_at=parse_time(status.startedAt),
        against=_revision(status.against) if status.against else None,
        ended_at=_seconds(status.endedAt),
        peak=status.peakWeight,
        requests=status.canaryRequests,
        transitions=tuple(Transition(parse_time(t.time), reason=t.reason, message=t.message, weight=t.weight) for t in status.transitions),
        omitted=status.omitted,
    )


def _timeline_status(timeline: Timeline, *, previous: TimelineStatus | None, slos: list[SLOStatus]) -> TimelineStatus:
    """`slos`: the present evaluations; those at the end of the rollout stay, whatever is watched after it."""
    ended = _time(timeline.ended_at)
    if previous is not None and previous.endedAt == ended:
        slos = previous.slos
    return TimelineStatus(
        revision=timeline.revision,
        startedAt=render_time(timeline.started_at),
        against=RevisionStatus(**_identity(timeline.against)) if timeline.against else None,
        endedAt=ended,
        peakWeight=timeline.peak,
        canaryRequests=timeline.requests,
        transitions=[
            TransitionStatus(time=render_time(t.at), reason=t.reason, message=t.message, weight=t.weight) for t in timeline.transitions
        ],
        omitted=timeline.omitted,
        slos=slos if ended is not None else [],
    )


def _rejected_status(rejection: Rejection) -> RejectedStatus:
    return RejectedStatus(
        **_identity(rejection.revision),
        reason=rejection.reason,
        message=rejection.message[:2048],
        at=render_time(rejection.at),
        suspected=rejection.suspected,
    )


def _guard_place(status: GuardStatus) -> Guard:
    return Guard(
        until=parse_time(status.until),
        suspect=status.suspect,
        returning=_halt(status.returning),
        by_hand=status.byHand,
        reported=(*status.reportedBefore, *([status.reported] if status.reported is not None else [])),
        blind_told=status.blindTold,
        seeing_since=_seconds(status.seeingSince),
        judged=status.judged,
        unready_since=_seconds(status.unreadySince),
    )


def _guard_status(guard: Guard) -> GuardStatus:
    return GuardStatus(
        until=render_time(guard.until),
        suspect=guard.suspect,
        returning=_halted_status(guard.returning) if guard.returning else None,
        byHand=guard.by_hand,
        reported=guard.reported[-1] if guard.reported else None,
        reportedBefore=list(guard.reported[:-1]),
        blindTold=guard.blind_told,
        seeingSince=_time(guard.seeing_since),
        judged=guard.judged,
        unreadySince=_time(guard.unready_since),
    )


def _incident_place(status: IncidentStatus) -> Incident:
    return Incident(_revision(status), at=parse_time(status.at), message=status.message)


def _incident_status(incident: Incident) -> IncidentStatus:
    return IncidentStatus(**_identity(incident.revision), at=render_time(incident.at), message=incident.message[:2048])


def _waiting_place(status: WaitingStatus) -> FirstWait:
    return FirstWait(status.revision, since=parse_time(status.since), told=status.told)


def _waiting_status(waiting: FirstWait) -> WaitingStatus:
    return WaitingStatus(revision=waiting.revision, since=render_time(waiting.since), told=waiting.told)


def _first_place(status: FirstStatus) -> FirstPlace:
    return FirstPlace(
        _revision(status),
        started_at=parse_time(status.startedAt),
        passed=tuple(status.probesPassed),
        failed=_halt(status.failed),
        failed_on=status.failedOn,
    )


def _first_status(first: FirstPlace) -> FirstStatus:
    return FirstStatus(
        **_identity(first.revision),
        startedAt=render_time(first.started_at),
        probesPassed=list(first.passed),
        failed=_halted_status(first.failed) if first.failed else None,
        failedOn=first.failed_on,
    )
