"""Weights that numbers of pods make: what share they really are, and that no third revision's pods are in it.

While stable and canary share connections, every ready pod of the policy is reached. So the pods of former revisions go before.
"""

from dataclasses import replace

from backstop.analysis.reading import SLOReading
from backstop.api.fallbackpolicy import RollbackMode
from backstop.api.reasons import Reason

from .look import Look
from .move import RETIRE_SECONDS, Move, at_zero, short_of_pods, told
from .place import CanaryPlace


def others(look: Look, canary: CanaryPlace) -> tuple[str, ...]:
    """Revisions, neither stable nor canary, that have pods or may get some; none where weights are not made of pods."""
    if not look.by_replicas:
        return ()
    mine = {canary.revision.name, look.place.stable.revision.name if look.place.stable is not None else ""}
    growing = {name for name, arm in look.observed.arms.items() if arm.desired > 0}
    return tuple(sorted((growing | look.observed.with_pods) - mine))


def in_the_way(look: Look, canary: CanaryPlace) -> tuple[str, ...]:
    """Those of the others that keep the canary from its first weight, and were not given time to finish: nothing says that they go."""
    if canary.weight > 0 or canary.promoting_since is not None:
        return ()
    finishing = {retiring.revision for retiring in look.place.retiring}
    return tuple(name for name in others(look, canary) if name not in finishing)


def shared_with_others(look: Look, canary: CanaryPlace) -> Move | None:
    """Pods of a third revision have come to be among those that callers reach: the share is taken back until they are gone."""
    if not 0 < canary.weight < 100 or canary.routed_at is not None or not (third := others(look, canary)) or leads_to_nobody(look, canary):
        return None
    message = (
        f"pods of {third[0]}, which is neither stable nor canary, would get a share of the connections: the weight of "
        f"{canary.revision.name} is 0 until they are gone"
    )
    return told(replace(look.place, canary=at_zero(look, canary)), Reason.CANARY_UNREADY, message)


def share_of(look: Look, canary: CanaryPlace) -> str | None:
    """Percent of new connections that the canary's ready pods get at its weight, with one decimal; None where weights are exact."""
    if not look.by_replicas or look.place.stable is None:
        return None
    ready, beside = look.ready(canary), look.observed.arm(look.place.stable.revision.name).ready
    if canary.routed_at is not None or canary.weight == 100:
        return "100"
    return f"{100 * ready / (ready + beside):.1f}" if canary.weight > 0 and ready > 0 else "0"


def is_alone(look: Look, canary: CanaryPlace) -> bool:
    """Whether no pod but the canary's is reached: with gateways callers enter through stable's pods at any weight."""
    return look.by_replicas and canary.weight == 100


def pods_end_at(look: Look, canary: CanaryPlace) -> float | None:
    """When the pods of a halted canary end: connections that are kept alive go on calling them, and no gateway closes those."""
    if not look.by_replicas or canary.halted is None:
        return None
    return canary.halted.watched_since + RETIRE_SECONDS


def with_share(look: Look, canary: CanaryPlace, weight: int, *, ending: str = "") -> str:
    """A weight in words; with what it really is, where pods make it, and `ending` after that."""
    share = share_of(look, replace(canary, weight=weight))
    return f"{weight} %" if share is None or weight in (0, 100) else f"{weight} %, which pods make {share} % of new connections{ending}"


def beside_nothing(look: Look) -> bool:
    """Whether stable has no ready pod: nothing is there to be compared with, and nothing could take the canary's share back."""
    stable = look.place.stable
    return stable is not None and look.observed.arm(stable.revision.name).ready == 0


def returns_later(look: Look, canary: CanaryPlace) -> SLOReading | None:
    """The breach for which it is left as soon as stable has a ready pod."""
    dry = look.policy.rollback.mode is RollbackMode.DRY_RUN
    return look.breach() if not dry and leads_to_nobody(look, canary) else None


def leads_to_nobody(look: Look, canary: CanaryPlace) -> bool:
    """Whether leaving it waits for a ready pod of stable: whatever its weight, no other pod is reached, and callers would be led to nobody.

    Not of a policy that is being deleted. A promotion that is switched comes to its end meanwhile, and its guard window waits.
    """
    return not look.observed.leaving and look.by_replicas and canary.weight > 0 and beside_nothing(look)


def returning(look: Look, canary: CanaryPlace, *, breach: SLOReading) -> Move | None:
    """That is told once in a step."""
    stable = look.place.stable
    if stable is None or Reason.RETURNING in canary.reported:
        return None
    message = (
        f"{canary.revision.prompt_version} ({canary.revision.name}) serves alone: back to {stable.revision.prompt_version} "
        f"({stable.revision.name}) as soon as a pod of it is ready: {breach.evidence}"
    )
    reported = replace(canary, reported=(*canary.reported, str(Reason.RETURNING)))
    return told(replace(look.place, canary=reported), Reason.RETURNING, message)


def nobody_serves(look: Look, canary: CanaryPlace) -> Move | None:
    """That is told once in a step."""
    stable = look.place.stable
    if stable is None or Reason.CANARY_UNREADY in canary.reported:
        return None
    message = f"no pod of the canary {canary.revision.name} is ready, nor one of stable {stable.revision.name}: nobody serves until one is"
    reported = replace(canary, reported=(*canary.reported, str(Reason.CANARY_UNREADY)))
    return told(replace(look.place, canary=reported), Reason.CANARY_UNREADY, message)


def is_short_as_stable(look: Look, canary: CanaryPlace) -> bool:
    """Whether stable lacks as great a part of its pods, give or take one of the canary's, of which some run: what both lack, such as room
    for more, says nothing of the revision.
    """
    stable, ready, needed = look.place.stable, look.ready(canary), look.pods_needed(canary)
    if stable is None or not 0 < ready < needed:
        return False
    beside = look.observed.arm(stable.revision.name).ready
    return beside < look.replicas and (ready + 1) * look.replicas > beside * needed


def shortage(look: Look, canary: CanaryPlace, *, since: float) -> Move | None:
    """The deadline is over for pods that stable lacks too: told once. The canary has all of its time again when stable has its own."""
    short, known = is_short_as_stable(look, canary), Reason.STABLE_UNREADY in canary.reported
    if known and not short:
        return Move(replace(look.place, canary=begins_to_wait(look, without_shortage(canary))))
    seconds = look.policy.canary.progressDeadlineSeconds
    if known or not short or look.now - since < seconds or look.place.stable is None:
        return None
    stable = look.place.stable.revision
    name = f"{canary.revision.prompt_version} ({canary.revision.name})"
    message = (
        f"{look.ready(canary)} of {look.pods_needed(canary)} pods of {name} are ready after {seconds} s "
        f"(`spec.canary.progressDeadlineSeconds`), and {look.observed.arm(stable.name).ready} of {look.replicas} of stable "
        f"{stable.prompt_version} ({stable.name}): what both lack says nothing of the revision, and the rollout holds at {canary.weight} %"
    )
    reported = replace(canary, reported=(*canary.reported, str(Reason.STABLE_UNREADY)))
    return told(replace(look.place, canary=reported), Reason.STABLE_UNREADY, message)


def without_shortage(canary: CanaryPlace) -> CanaryPlace:
    """The canary, of which it is not told any more that it lacks what stable lacks."""
    return _without(canary, Reason.STABLE_UNREADY)


def settled(canary: CanaryPlace) -> CanaryPlace:
    """The canary that waits for no pods, neither for its own nor for others' to go."""
    return replace(_without(canary, Reason.STABLE_UNREADY, Reason.WAITING_FOR_READY), unready_since=None, waiting_since=None)


def begins_to_wait(look: Look, canary: CanaryPlace) -> CanaryPlace:
    """The canary that has all of its time for pods from now on."""
    return replace(canary, unready_since=look.now, waiting_since=look.now)


def _without(canary: CanaryPlace, *reasons: Reason) -> CanaryPlace:
    return replace(canary, reported=tuple(reason for reason in canary.reported if reason not in reasons))


def waits_for_others(look: Look, canary: CanaryPlace) -> bool:
    """Whether its time counts for others' pods that are to go: from when its own were first there, whatever becomes of these since."""
    there = look.ready(canary) >= look.pods_needed(canary) or Reason.WAITING_FOR_READY in canary.reported
    return there and bool(in_the_way(look, canary))


def waits_apart(look: Look, canary: CanaryPlace) -> Move | None:
    """Its own pods that are to come and others' that are to go have a deadline each, which counts from the end of the other wait."""
    mark, for_others = Reason.WAITING_FOR_READY, waits_for_others(look, canary)
    if for_others == (mark in canary.reported):
        return None
    waiting = replace(canary, reported=(*canary.reported, str(mark))) if for_others else _without(canary, mark)
    return Move(replace(look.place, canary=replace(waiting, unready_since=look.now)))


def counts_together(look: Look, canary: CanaryPlace) -> Move | None:
    """The time of both waits counts from when the canary is not as short of pods as stable, which says nothing of it."""
    if is_short_as_stable(look, canary) == (canary.waiting_since is None):
        return None
    since = look.now if canary.waiting_since is None else None
    return Move(replace(look.place, canary=replace(canary, waiting_since=since)))


def beside_words(look: Look, canary: CanaryPlace) -> str:
    """That stable is short of pods, which makes the canary's share greater than its step's; empty where it is not."""
    stable = look.place.stable
    if not look.by_replicas or stable is None or canary.weight == 0:
        return ""
    return short_of_pods(look, stable.revision)


def seen_everywhere(look: Look, what: str) -> str:
    """That all that serves callers was seen to follow, in words."""
    return f"the endpoints of the Service are those of {what}" if look.by_replicas else f"every gateway acts on {what}"


def route_words(look: Look) -> str:
    """That it stands in the route, in words."""
    return "the Service says" if look.by_replicas else "the traffic object says"


def everywhere(look: Look) -> str:
    """Where it has to be seen."""
    return "at the endpoints of the Service" if look.by_replicas else "on every gateway"
