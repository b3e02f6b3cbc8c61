"""What a person asks for by hand: each token is acted on once, at the first look that sees it, and acknowledged whether or not it fits.

A token that waited for its moment would act on a rollout that its author has never seen.
"""

from dataclasses import replace

from backstop.api.reasons import Reason

from . import first
from .look import Look
from .move import Move, roll_back, told, unsuspected, without_canary
from .observed import Known, Unknown
from .place import CanaryPlace, Place, Revision
from .progress import is_approved, is_edited, past_step
from .recreation import as_first
from .replicas import begins_to_wait
from .rest import carries_verdict, fresh_canary, superseded_words, with_canary


def by_hand(look: Look) -> Move | None:
    """The first token that is new; what takes traffic away comes first."""
    asked, known = look.observed.tokens, look.place.acknowledged
    if asked.abort is not None and asked.abort != known.abort:
        move = _acknowledged(_abort(look), look=look, abort=asked.abort)
        # What was asked for beside it is not done after it.
        return replace(move, place=replace(move.place, acknowledged=asked.over(known)))
    if asked.retry is not None and asked.retry != known.retry:
        return _acknowledged(_retry(look), look=look, retry=asked.retry)
    if asked.promote is not None and asked.promote != known.promote:
        if not _cannot_begin(look) and (cleared := _clear_the_way(look) or _compared_no_more(look)) is not None:
            return cleared
        if look.wanted is None or not carries_verdict(look, look.wanted):
            return _acknowledged(_promote(look), look=look, promote=asked.promote)
    if asked.approve is not None and asked.approve != known.approve:
        return _acknowledged(_approve(look), look=look, approve=asked.approve)
    if asked.skip_step is not None and asked.skip_step != known.skip_step:
        return _acknowledged(_skip_step(look), look=look, skip_step=asked.skip_step)
    if asked.refresh is not None and asked.refresh != (known.refresh or ""):
        return _acknowledged(_refresh(look, asked.refresh), look=look, refresh=asked.refresh)
    return None


def _acknowledged(move: Move | None, *, look: Look, **token: str) -> Move:
    (name,) = token
    if move is None:
        route, said = look.observed.route, f"the annotation `backstop.dev/{name.replace('_', '-')}`"
        message = f"{said} has nothing to act on now; a new value asks again"
        if _cannot_begin(look) and isinstance(route, Unknown):
            message = f"{said} is not acted on, because no rollout begins now: {route.why}; a new value asks again"
        move = told(look.place, Reason.TOKEN_WITHOUT_EFFECT, message)
    return replace(move, place=replace(move.place, acknowledged=replace(look.place.acknowledged, **token)))


def _abort(look: Look) -> Move | None:
    canary = look.place.canary
    if canary is None or look.place.stable is None:
        return None
    halt = canary.halted
    if halt is None:
        return roll_back(look, canary, reason=Reason.ABORTED, message="aborted by hand (`backstop.dev/abort`)", at=look.now)
    # A person's word on a breach that was seen before: what it was, and when, stays.
    message = f"rejected by hand (`backstop.dev/abort`) after: {halt.message}"
    move = roll_back(look, canary, reason=halt.reason, message=message, at=halt.at)
    assert move.place.last is not None
    return replace(move, place=replace(move.place, last=replace(move.place.last, shifted_at=halt.shifted_at)))


def _retry(look: Look) -> Move | None:
    """A rejected or halted revision, from step 0 and with clean counters: `rest.new_canary` begins it when its verdict is gone."""
    wanted = look.wanted
    if wanted is not None and first.failed(look) is not None:
        message = f"the probes of {wanted.prompt_version} ({wanted.name}) run again, as asked for by hand (`backstop.dev/retry`)"
        return told(replace(look.place, first=None), Reason.RETRIED, message)
    if wanted is None or _cannot_begin(look) or not (_stands_back(look, wanted) or _shares_an_incident(look, wanted)):
        return None
    if look.place.stable is None:
        return as_first(look, wanted, reason=Reason.RETRIED, token="retry")
    message = f"{wanted.prompt_version} ({wanted.name}) is tried again from its first step, as asked for by hand (`backstop.dev/retry`)"
    return told(_without_verdict(look, wanted), Reason.RETRIED, message)


def _clear_the_way(look: Look) -> Move | None:
    """Before a promotion, the verdict goes: out of status with this move, out of the traffic object with its write. Not told yet."""
    wanted = look.wanted
    if wanted is None or look.place.stable is None or not _stands_back(look, wanted):
        return None
    return Move(_without_verdict(look, wanted))


def _compared_no_more(look: Look) -> Move | None:
    """Before another revision than stable is promoted, the verdict on one that is still compared is settled."""
    wanted, stable = look.wanted, look.place.stable
    if wanted is None or stable is None or wanted.name == stable.revision.name:
        return None
    return unsuspected(look, why=superseded_words(wanted))


def _promote(look: Look) -> Move | None:
    """A person's override: at full size it becomes stable, whatever steps are left, also after it was rejected."""
    wanted, stable, canary = look.wanted, look.place.stable, look.place.canary
    if wanted is not None and stable is None:
        return as_first(look, wanted, reason=Reason.PROMOTED_BY_HAND, token="promote")
    if wanted is None or stable is None:
        return None
    if wanted.name == stable.revision.name:
        return _keep(look, stable.revision)
    if _cannot_begin(look) or (canary is not None and canary.revision.name != wanted.name):
        return None
    if canary is not None and canary.routed_at is not None:
        return _stays(look, canary)
    message = (
        f"{wanted.prompt_version} ({wanted.name}) is promoted without its remaining steps, as asked for by hand (`backstop.dev/promote`)"
    )
    promoting = replace(canary or fresh_canary(look, wanted), by_hand=True, promoting_since=look.now, pods_for=0, awaits_pods=False)
    return told(with_canary(look.place, begins_to_wait(look, promoting)), Reason.PROMOTED_BY_HAND, message)


def _stays(look: Look, canary: CanaryPlace) -> Move | None:
    """Its promotion is switched already, and without a person: what comes after it is by a person's word now."""
    if canary.by_hand:
        return None
    name = f"{canary.revision.prompt_version} ({canary.revision.name})"
    message = (
        f"{name} is being promoted already; as asked for by hand (`backstop.dev/promote`), no breach in its guard window takes it back; "
        "until every connection is led to it, a breach still beats that"
    )
    return told(replace(look.place, canary=replace(canary, by_hand=True)), Reason.PROMOTED_BY_HAND, message)


def _cannot_begin(look: Look) -> bool:
    """Whether a rollout would have to begin, and none may: see `rest.may_begin`."""
    return look.place.canary is None and look.place.stable is not None and not isinstance(look.observed.route, Known)


def _keep(look: Look, stable: Revision) -> Move | None:
    """Stable was to be left, and a person has it stay: what it does is told from now on, and no more."""
    guard = look.place.guard
    if guard is None or (guard.returning is None and guard.unready_since is None):
        return None
    why = guard.returning.message if guard.returning is not None else "no pod of it is ready"
    message = f"{stable.prompt_version} ({stable.name}) stays, as asked for by hand (`backstop.dev/promote`): {why}"
    kept = replace(guard, returning=None, unready_since=None, reported=(), by_hand=True)
    return told(replace(look.place, guard=kept), Reason.PROMOTED_BY_HAND, message)


def _stands_back(look: Look, wanted: Revision) -> bool:
    """Whether the wanted revision is rejected, or halted, or goes no further because a probe failed."""
    canary = look.place.canary
    if canary is not None:
        stands = canary.halted is not None or Reason.PROBE_FAILED in canary.reported
        return stands and canary.revision.name == wanted.name
    return look.place.rejection_of(wanted.name) is not None


def _shares_an_incident(look: Look, wanted: Revision) -> bool:
    incident = look.place.incident
    return incident is not None and incident.revision.name == wanted.name


def _without_verdict(look: Look, wanted: Revision) -> Place:
    canary = look.place.canary
    place = without_canary(look, canary) if canary is not None else look.place
    guard = place.guard if place.guard is not None and place.guard.suspect != wanted.name else None
    rejected = tuple(r for r in place.rejected if r.revision.name != wanted.name)
    # Nothing goes back to what stands back: a breach has halted it, or a probe of it failed, whatever it was before.
    former = canary is not None and place.previous is not None and place.previous.revision == canary.revision
    previous = None if former else place.previous
    return replace(place, rejected=rejected, guard=guard, incident=None, freed=wanted.name, previous=previous)


def _approve(look: Look) -> Move | None:
    canary = look.place.canary
    if canary is None or is_approved(canary) or canary.step_started_at is None or is_edited(look, canary):
        return None
    if not look.step_of(canary).approval:
        return None
    message = f"step {canary.step + 1} of {canary.revision.name} may be passed (`backstop.dev/approve`)"
    return told(replace(look.place, canary=replace(canary, approved=canary.step)), Reason.APPROVED, message)


def _refresh(look: Look, token: str) -> Move | None:
    """The same spec as another revision, made anew, of the gateways' present image: what is wanted follows from the acknowledged token."""
    how = "with new pods" if look.by_replicas else "on the gateways' present image"
    if look.wanted is None:
        message = "what `spec` asks for cannot be told now (see `ResolvedRefs`): as soon as it can, it is rolled out anew"
        return told(look.place, Reason.REFRESHED, message)
    name = look.wanted.prompt_version
    message = f"{name} is rolled out anew {how}, as asked for by hand (`backstop.dev/refresh`)"
    if not token:
        message = f"{name} is wanted as it was before any `backstop.dev/refresh`, as asked for by hand"
    return told(look.place, Reason.REFRESHED, message)


def _skip_step(look: Look) -> Move | None:
    canary, wanted = look.place.canary, look.wanted
    if canary is None or canary.step_started_at is None or canary.verified_at is None or canary.promoting_since is not None:
        return None
    if wanted is not None and wanted.name != canary.revision.name:
        return None  # it stays only until stable has a pod
    message = f"step {canary.step + 1} of {canary.revision.name} is skipped, as asked for by hand (`backstop.dev/skip-step`)"
    return told(replace(look.place, canary=past_step(look, replace(canary, approved=canary.step))), Reason.STEP_SKIPPED, message)
