"""What status says: conditions by kstatus' rules, and the one-word summary of the columns."""

from backstop.api.condition import ConditionType
from backstop.api.policystatus import Phase
from backstop.api.reasons import WAY_BACK, Reason, reason_of

from . import first, probes, replicas
from .judged import judged
from .look import Look
from .observed import Foreign, Known, Unknown, Unresolved
from .place import CanaryPlace, Guard, Incident, PreviousPlace, StablePlace
from .plan import ConditionState
from .progress import PODS_AGAIN_SECONDS, hold_ends, is_approved, is_edited, makes_pods_later, open_slos
from .rest import is_unknown_what_serves, serves_already
from .shared import shared_breaches
from .wayback import is_late, late_words


def conditions_of(look: Look) -> tuple[ConditionState, ...]:
    """Every condition that holds at this look."""
    if look.observed.leaving:
        return _leaving(look)
    conditions = [*_input(look), _ready(look), _progressing(look)]
    wanted, canary = look.wanted, look.place.canary
    rejection = look.place.rejection_of(wanted.name) if wanted is not None else None
    if (state := _state(look)) is not None:
        conditions.append(state)
    if rejection is not None and canary is None and not _is_stable(look):
        conditions.append(ConditionState(ConditionType.ROLLED_BACK, "True", reason_of(rejection.reason), rejection.message))
    if judged(look.place, policy=look.policy) is not None or (canary is not None and canary.weight > 0):
        conditions.append(_metrics(look))
    return tuple(conditions)


def not_ready_yet(conditions: tuple[ConditionState, ...]) -> tuple[ConditionState, ...]:
    """The same where a revision was asked for (`backstop.dev/refresh`) that none of them speaks of: what is stable is not it."""
    if not any(c.type is ConditionType.READY and c.status == "True" for c in conditions):
        return conditions
    message = "another revision of the same spec is asked for (`backstop.dev/refresh`), and is rolled out next"
    said = (
        ConditionState(ConditionType.READY, "False", Reason.REFRESHED, message),
        ConditionState(ConditionType.PROGRESSING, "True", Reason.REFRESHED, message),
        ConditionState(ConditionType.RECONCILING, "True", Reason.REFRESHED, message),
    )
    return (*(c for c in conditions if c.type not in {one.type for one in said}), *said)


def _state(look: Look) -> ConditionState | None:
    """`Stalled` where only a person helps, else `Reconciling` while something is to come, never both; neither beside a ready stable."""
    wanted, canary, unresolved = look.wanted, look.place.canary, look.observed.wanted
    if (unknown := _unknown_what_serves(look)) is not None:
        return ConditionState(ConditionType.STALLED, "True", *unknown)
    if (canary is not None and canary.halted is not None) or first.failed(look) is not None or first.is_late(look):
        return ConditionState(ConditionType.STALLED, "True", *_doing(look))
    if isinstance(unresolved, Unresolved):  # a canary goes no further either, whatever its metrics say
        return ConditionState(ConditionType.STALLED, "True", unresolved.reason, unresolved.message)
    if canary is not None:
        reason, message = _doing(look)
        kind = ConditionType.STALLED if reason is Reason.PROBE_FAILED else ConditionType.RECONCILING
        return ConditionState(kind, "True", reason, message)
    if wanted is None or _is_stable(look):
        return None
    if (incident := _incident(look)) is not None:
        message = f"{incident.message}; set a new value of the annotation `backstop.dev/retry` to try it again, or change the spec"
        return ConditionState(ConditionType.STALLED, "True", Reason.SHARED_INCIDENT, message)
    if (rejection := look.place.rejection_of(wanted.name)) is None:
        return ConditionState(ConditionType.RECONCILING, "True", *_doing(look))
    suspected = "; not certain before stable is seen to do better" if rejection.suspected else ""
    message = f"{rejection.message}{suspected}; {WAY_BACK}"
    if look.place.stable is None:
        message += ", which makes it the first stable revision; until then nothing serves"
    return ConditionState(ConditionType.STALLED, "True", Reason.ROLLED_BACK, message)


def summary_of(look: Look) -> tuple[Phase, Reason]:
    """Phase and reason for the columns."""
    wanted, canary = look.wanted, look.place.canary
    if look.observed.leaving:
        return Phase.LEAVING, Reason.POLICY_DELETED
    if (unknown := _unknown_what_serves(look)) is not None:
        return Phase.BLOCKED, unknown[0]
    if canary is not None:
        phase = Phase.PROMOTING if canary.promoting_since is not None else Phase.PROGRESSING
        return (Phase.HALTED if canary.halted is not None else phase), _doing(look)[0]
    if (back := _way_back(look)) is not None:
        return Phase.BLOCKED if isinstance(look.observed.wanted, Unresolved) else Phase.GUARDING, back[0]
    if isinstance(look.observed.wanted, Unresolved):
        return Phase.BLOCKED, look.observed.wanted.reason
    rejection = look.place.rejection_of(wanted.name) if wanted is not None else None
    if rejection is not None and not _is_stable(look):
        return Phase.ROLLED_BACK, reason_of(rejection.reason)
    if _incident(look) is not None:
        return Phase.BLOCKED, Reason.SHARED_INCIDENT
    if not _is_stable(look):
        return (Phase.BLOCKED if first.failed(look) is not None or first.is_late(look) else Phase.STARTING), _doing(look)[0]
    if look.place.guard is not None:
        return Phase.GUARDING, _guarding(look)[0]
    return Phase.IDLE, Reason.STABLE if _stable_ready(look) else Reason.STABLE_UNREADY


def _leaving(look: Look) -> tuple[ConditionState, ...]:
    where = "the Service" if look.by_replicas else "every gateway"
    message = f"the policy is deleted: it goes when {where} is seen to serve stable alone"
    return (
        *_input(look),
        ConditionState(ConditionType.READY, "False", Reason.POLICY_DELETED, message),
        ConditionState(ConditionType.PROGRESSING, "True", Reason.POLICY_DELETED, message),
        ConditionState(ConditionType.RECONCILING, "True", Reason.POLICY_DELETED, message),
    )


def _input(look: Look) -> list[ConditionState]:
    wanted = look.observed.wanted
    if not isinstance(wanted, Unresolved):
        return [
            ConditionState(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "the spec is valid"),
            ConditionState(
                ConditionType.RESOLVED_REFS,
                "True",
                Reason.RESOLVED,
                "every PromptVersion, ConfigMap and metrics source that the spec names exists; Secrets and claims are left to the pods",
            ),
        ]
    if wanted.reason in (Reason.PROMPT_VERSION_NOT_FOUND, Reason.METRICS_SOURCE_NOT_FOUND, Reason.CONFIG_MAP_NOT_FOUND):
        return [
            ConditionState(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "the spec is valid"),
            ConditionState(ConditionType.RESOLVED_REFS, "False", wanted.reason, wanted.message),
        ]
    return [ConditionState(ConditionType.ACCEPTED, "False", wanted.reason, wanted.message)]


def _ready(look: Look) -> ConditionState:
    stable = look.place.stable
    if stable is not None and _is_stable(look) and look.place.canary is None:
        if _stable_ready(look):
            return ConditionState(ConditionType.READY, "True", *_guarding(look))
        trouble = look.observed.arm(stable.revision.name).trouble
        message = f"no pod of stable {stable.revision.name} is ready" + (f" ({trouble})" if trouble else "")
        guard, previous = look.place.guard, look.place.previous
        if guard is not None and guard.unready_since is not None and previous is not None:
            message += f": when that lasts, it is left for {previous.revision.name}"
        return ConditionState(ConditionType.READY, "False", Reason.STABLE_UNREADY, message)
    if (unknown := _unknown_what_serves(look)) is not None:
        return ConditionState(ConditionType.READY, "False", *unknown)
    if isinstance(look.observed.wanted, Unresolved):
        return ConditionState(ConditionType.READY, "False", look.observed.wanted.reason, look.observed.wanted.message)
    wanted = look.wanted
    rejection = look.place.rejection_of(wanted.name) if wanted is not None else None
    if rejection is not None and look.place.canary is None:
        return ConditionState(ConditionType.READY, "False", Reason.ROLLED_BACK, rejection.message)
    if (incident := _incident(look)) is not None:
        return ConditionState(ConditionType.READY, "False", Reason.SHARED_INCIDENT, incident.message)
    return ConditionState(ConditionType.READY, "False", *_doing(look))


def _progressing(look: Look) -> ConditionState:
    if (unknown := _unknown_what_serves(look)) is not None:
        return ConditionState(ConditionType.PROGRESSING, "False", *unknown)
    waits = look.wanted is None or look.place.rejection_of(look.wanted.name) is not None or _incident(look) is not None
    waits = waits or first.failed(look) is not None
    if look.place.canary is None and (_is_stable(look) or (waits and _way_back(look) is None)):
        route = look.observed.route
        if isinstance(route, Unknown) and look.place.stable is not None:
            return ConditionState(ConditionType.PROGRESSING, "False", *_unread(look, route))
        return ConditionState(ConditionType.PROGRESSING, "False", Reason.STABLE, "no rollout is running")
    reason, message = _doing(look)
    if _way_back(look) is not None and isinstance(look.observed.route, Unknown):
        reason = _remedy(look, look.observed.route)[0]  # the way back is said by other conditions too
    return ConditionState(ConditionType.PROGRESSING, "True", reason, message)


def _metrics(look: Look) -> ConditionState:
    unknown = look.readings_in("Unknown")
    if unknown:
        reason = unknown[0].reason
        return ConditionState(ConditionType.METRICS_AVAILABLE, "False", reason, f"{unknown[0].name}: {unknown[0].evidence}")
    if not look.observed.readings and look.policy.slos:
        message = "nothing was evaluated yet; the first evaluation follows the warm-up after the step's weight is verified"
        return ConditionState(ConditionType.METRICS_AVAILABLE, "Unknown", Reason.WAITING_FOR_SAMPLES, message)
    return ConditionState(ConditionType.METRICS_AVAILABLE, "True", Reason.METRICS_AVAILABLE, "every SLO can be evaluated")


def _doing(look: Look) -> tuple[Reason, str]:
    """What the rollout is doing or waiting for, in words that do not change from second to second."""
    canary = look.place.canary
    if canary is not None and canary.halted is not None:
        return Reason.HALTED, f"waiting for a person (annotation `backstop.dev/retry` or `backstop.dev/abort`): {canary.halted.message}"
    if (back := _way_back(look)) is not None:
        return back
    if canary is None:
        return _without_canary(look)
    if isinstance(look.observed.route, Unknown):
        return _unread(look, look.observed.route)
    if isinstance(look.observed.wanted, Unresolved):
        where = f"step {min(canary.step + 1, len(look.policy.canary.steps))} of {len(look.policy.canary.steps)}, {canary.weight} %"
        return look.observed.wanted.reason, f"{where}: goes no further, because the spec cannot be followed: {look.observed.wanted.message}"
    short = look.ready(canary) < look.pods_needed(canary)
    if look.policy.canary.paused and not canary.by_hand:
        # Whatever becomes of pods meanwhile: it is paused until the spec says otherwise.
        steps = len(look.policy.canary.steps)
        where = f"step {min(canary.step + 1, steps)} of {steps}, {canary.weight} %: `spec.canary.paused`"
        return Reason.PAUSED, f"{where}; {_short(look, canary)[1]}" if short else where
    if short:
        return _short(look, canary)
    if canary.promoting_since is not None:
        return Reason.PROMOTING, f"promoting {canary.revision.prompt_version} ({canary.revision.name})"
    if probes.missing(look, canary):
        return Reason.PROBE_FAILED if probes.failed(look, canary) else Reason.WAITING_FOR_PROBES, probes.said(look, canary)
    return _holding(look, canary)


def _short(look: Look, canary: CanaryPlace) -> tuple[Reason, str]:
    """The canary waits for pods."""
    trouble = look.observed.arm(canary.revision.name).trouble
    message = f"waiting for {look.pods_needed(canary)} ready pods of {canary.revision.name}"
    message += f" to go on from {canary.weight} % to {canary.pods_for} %" if canary.awaits_pods else ""
    message += f" ({trouble})" if trouble else ""
    if Reason.STABLE_UNREADY in canary.reported:
        message += ", and stable for pods of its own: what both lack says nothing of the revision"
    return (Reason.CANARY_UNREADY if look.ready(canary) == 0 and canary.exits_before is not None else Reason.WAITING_FOR_READY), message


def _without_canary(look: Look) -> tuple[Reason, str]:
    """A stable without pods, or a first revision."""
    wanted, stable, guard, previous = look.wanted, look.place.stable, look.place.guard, look.place.previous
    if stable is not None and guard is not None and guard.unready_since is not None and previous is not None:
        back = f"is left for {previous.revision.name} when that lasts, before anything else begins"
        return Reason.STABLE_UNREADY, f"no pod of stable {stable.revision.name} is ready: it {back}"
    if stable is not None and isinstance(look.observed.route, Unknown):
        return _unread(look, look.observed.route)
    name = wanted.name if wanted is not None else "the wanted revision"
    if look.place.stable is None and (serving := serves_already(look)) is not None:
        return Reason.STATUS_LOST, _lost(look, name, serving=serving)
    if (failed := first.failed(look)) is not None:
        return Reason.PROBE_FAILED, f"{failed.message}; {WAY_BACK}; nothing serves before"
    if wanted is not None and look.observed.arm(name).ready > 0 and first.missing(look, wanted):
        return Reason.WAITING_FOR_PROBES, first.said(look, wanted)
    if wanted is not None and first.is_late(look):
        return Reason.FIRST_UNAVAILABLE, first.late_words(look, wanted)
    trouble = look.observed.arm(name).trouble
    return Reason.WAITING_FOR_READY, f"waiting for a ready pod of {name}" + (f" ({trouble})" if trouble else "")


def _unread(look: Look, route: Unknown) -> tuple[Reason, str]:
    """The canary holds, or does not begin, because nobody knows what callers are told."""
    place = look.place
    said = f"{'holding' if place.canary is not None else 'no rollout begins'}: {route.why}"
    if place.canary is None and place.previous is not None and look.observed.arm(place.previous.revision.name).desired > 0:
        said += f", and the pods of {place.previous.revision.name}, which served before, are kept"
    reason, remedy = _remedy(look, route)
    return reason, f"{said}; {remedy}"


def _remedy(look: Look, route: Unknown) -> tuple[Reason, str]:
    """What to do about a route that cannot be read."""
    place, newest = look.place, look.observed.newest
    if isinstance(route, Foreign):
        return Reason.OBJECT_NOT_OURS, "rename the policy or take that object away"
    if newest is not None and newest > place.generation and place.stable is not None:
        # An operator died before it wrote status, perhaps over a verdict on stable.
        later = "gateways act on a later state than `.status` knows of"
        return Reason.TRAFFIC_UNREADABLE, f"put it right: {later}, and if it is deleted, {place.stable.revision.name} serves as stable"
    if not look.by_replicas:
        return Reason.TRAFFIC_UNREADABLE, "delete the traffic object to have it written anew"
    # The Service is what callers reach: nobody is told to delete it, nor to end what serves alone.
    ends = place.canary is not None and not replicas.leads_to_nobody(look, place.canary)
    return Reason.TRAFFIC_UNREADABLE, "put it right" + (
        ", or end the canary (`backstop.dev/abort`) to have it written anew" if ends else ""
    )


def _unknown_what_serves(look: Look) -> tuple[Reason, str] | None:
    """Status and route are gone both; None where one of them says what serves."""
    route = look.observed.route
    if not is_unknown_what_serves(look) or not isinstance(route, Unknown):
        return None
    if isinstance(route, Foreign):
        reason, what = Reason.OBJECT_NOT_OURS, "take that object away, or give it its labels back"
    else:  # the Service is what callers reach: nobody is told to delete it
        reason = Reason.TRAFFIC_UNREADABLE
        what = "put it right" if look.by_replicas else "put it right, or delete the traffic object to go on with what was accepted last"
    return reason, f"status was lost, and {route.why}: nobody knows which revision serves, and nothing is changed; {what}"


def _lost(look: Look, name: str, *, serving: str) -> str:
    """Status is gone, and what serves has no pod that could."""
    trouble = look.observed.arm(serving).trouble
    routed = isinstance(look.observed.route, Known) and look.observed.route.value is not None
    says = f"{replicas.route_words(look)} that {serving} serves" if routed else f"{serving} was accepted last"
    message = f"status was lost, and {says}: waiting for a ready pod of it" + (f" ({trouble})" if trouble else "")
    if look.by_replicas or serving == name:  # the Service is what callers reach: nobody is told to delete it
        return message
    what = f"the Deployment of {serving}"
    return f"{message}; delete {f'the traffic object and then {what}' if routed else what} to make {name} stable without a canary"


def _holding(look: Look, canary: CanaryPlace) -> tuple[Reason, str]:
    steps = len(look.policy.canary.steps)
    weight = replicas.with_share(look, canary, canary.weight) + replicas.beside_words(look, canary)
    where = f"step {min(canary.step + 1, steps)} of {steps}, {weight}"
    if canary.weight == 0 and (third := replicas.others(look, canary)):
        return Reason.WAITING_FOR_READY, f"waiting for the pods of {third[0]} to go: beside stable they would be reached as the canary is"
    if canary.weight == 0 and canary.generation is not None:
        return Reason.WEIGHT_NOT_VERIFIED, f"{where}: no weight is tried before 0 % is seen {replicas.everywhere(look)}"
    if canary.step_started_at is None or canary.verified_at is None:
        return Reason.STEP_STARTED, f"{where}: waiting for it to be seen {replicas.everywhere(look)}"
    if canary.blind_since is not None:
        return Reason.METRICS_UNAVAILABLE, f"{where}: holding, because metrics cannot be seen"
    if replicas.beside_nothing(look):
        return Reason.STABLE_UNREADY, f"{where}: no step is passed before stable has a ready pod"
    if silent := [r for r in look.readings_in("Waiting") if r.reason == Reason.NO_TRAFFIC]:
        return Reason.NO_TRAFFIC, f"{where}: {silent[0].evidence}"
    if broken := shared_breaches(look):
        names = ", ".join(reading.name for reading in broken)
        return Reason.SHARED_BREACH, f"{where}: holding, because stable breaks the limit of {names} too and the canary is no worse"
    if look.now >= hold_ends(look, canary) and (waited_for := open_slos(look)):
        unhealthy = f"not yet healthy: {', '.join(waited_for)} (`.status.slos` says why){probes.silent_words(look, canary)}"
        if canary.held_told:
            return Reason.HOLDING_LONG, f"{where}: for more than an hour after its hold {unhealthy}"
        return Reason.WAITING_FOR_SAMPLES, f"{where}: the hold is over; {unhealthy}"
    if look.now >= hold_ends(look, canary) and look.step_of(canary).approval and not is_approved(canary):
        return Reason.WAITING_FOR_APPROVAL, f"{where}: passed, and waits for a new value of the annotation `backstop.dev/approve`"
    if makes_pods_later(look, canary) and (look.now >= hold_ends(look, canary) or is_edited(look, canary)):
        ended = "pods for the next one, which ended before they were ready because something else kept this one from passing"
        return Reason.WAITING_FOR_READY, f"{where}: {ended}, are made again {PODS_AGAIN_SECONDS:.0f} s after that"
    return Reason.HOLDING, f"{where}: holding for {look.step_of(canary).holdSeconds} s"


def _guarding(look: Look) -> tuple[Reason, str]:
    """How it goes for a stable that serves: a breach is told here too where nothing can be done about it."""
    stable, guard = look.place.stable, look.place.guard
    assert stable is not None
    name = f"{stable.revision.prompt_version} ({stable.revision.name})"
    if not _stable_ready(look):
        return Reason.STABLE_UNREADY, f"no pod of stable {stable.revision.name} is ready"
    if (back := _way_back(look)) is not None:
        return back
    breached = look.breach()
    if guard is not None and breached is not None:
        return breached.reason, f"{name} is stable, and nothing moves although it breaches: {breached.evidence}"
    return Reason.STABLE, f"{name} is stable and serves"


def _way_back(look: Look) -> tuple[Reason, str] | None:
    """What serves is to be left as soon as something else can serve. A spec that cannot be followed and a route that cannot be read are
    said beside it, and do not hide it.
    """
    canary, stable, guard, previous = look.place.canary, look.place.stable, look.place.guard, look.place.previous
    if canary is not None:
        if (breach := replicas.returns_later(look, canary)) is None or look.ready(canary) == 0:
            return None
        alone = f"{canary.revision.name} serves alone and breaches {breach.name}"
        reason, message = Reason.RETURNING, f"{alone}: left as soon as stable has a ready pod"
    elif stable is not None and guard is not None and guard.returning is not None and previous is not None:
        reason, message = _returning(look, guard, breach=guard.returning.message, stable=stable, previous=previous)
    else:
        return None
    route = look.observed.route
    return reason, f"{message}; {route.why}; {_remedy(look, route)[1]}" if isinstance(route, Unknown) else message


def _returning(look: Look, guard: Guard, *, breach: str, stable: StablePlace, previous: PreviousPlace) -> tuple[Reason, str]:
    """Stable is to be left for what had served before it. That nobody serves meanwhile is the graver news."""
    if not _stable_ready(look):
        left = f"it is left for {previous.revision.name} as soon as that has its pods"
        return Reason.STABLE_UNREADY, f"no pod of stable {stable.revision.name} is ready: {left}: {breach}"
    if is_late(look, guard):
        return Reason.RETURN_UNAVAILABLE, late_words(look, stable=stable, previous=previous, breach=breach)
    name = f"{stable.revision.prompt_version} ({stable.revision.name})"
    back = f"{previous.revision.prompt_version} ({previous.revision.name})"
    return Reason.RETURNING, f"{name} is left for {back} as soon as that has its pods: {breach}"


def _incident(look: Look) -> Incident | None:
    """The incident that keeps the wanted revision from being rolled out."""
    incident, wanted = look.place.incident, look.wanted
    return incident if incident is not None and wanted is not None and incident.revision.name == wanted.name else None


def _is_stable(look: Look) -> bool:
    wanted, stable = look.wanted, look.place.stable
    return wanted is not None and stable is not None and wanted.name == stable.revision.name


def _stable_ready(look: Look) -> bool:
    stable = look.place.stable
    return stable is not None and look.observed.arm(stable.revision.name).ready > 0
