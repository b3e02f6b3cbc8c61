"""What has happened in a rollout, kept in the place until the rollout's report is written, and when that is due. Pure.

A timeline begins with a canary, takes up what each pass tells, and goes when the report is known to be written. So the report
follows from the place alone, and an operator that dies before writing it writes it after.
"""

from dataclasses import replace
from typing import Final

from .look import Look
from .move import Move
from .observed import NotTried, Written
from .place import Place, Timeline, Transition, is_another_end
from .plan import Announcement

TRANSITIONS_KEPT: Final = 64
LONGEST_MESSAGE: Final = 256


def report_is_due(look: Look, *, move: Move | None) -> bool:
    """Whether the report of the rollout that has ended is to be written: when its end is seen on every gateway, or is watched no more.

    A verdict that is only suspected is waited for. Nothing is once another rollout begins or ends, whose timeline takes the place of this
    one's.
    """
    timeline, last, guard = look.place.timeline, look.place.last, look.place.guard
    if last is None or timeline is None or timeline.ended_at is None or look.place.canary is not None:
        return False
    if look.policy.rollback.reportHistoryLimit == 0 or isinstance(look.observed.reporting, Written):
        return False
    suspected = guard is not None and guard.suspect == last.revision.name
    settled = not suspected and (last.shifted_at is not None or last.generation is None)
    return settled or _begins_another(look, move=move) or (move is not None and is_another_end(move.place.last, before=last))


def waits_for_report(look: Look, *, move: Move | None) -> bool:
    """Whether `move` begins a rollout while the report of the one before has not been tried to be written. One try is enough."""
    return _begins_another(look, move=move) and report_is_due(look, move=move) and isinstance(look.observed.reporting, NotTried)


def followed(place: Place, *, look: Look, announcements: tuple[Announcement, ...]) -> Place:
    """`place`, which comes after `look`, with its timeline."""
    place = _acknowledged(place, look=look)
    timeline = _begun(place, look=look, told=bool(announcements))
    if timeline is None or look.policy.rollback.reportHistoryLimit == 0:
        return replace(place, timeline=None)
    if look.place.canary is not None and look.observed.requests is not None:
        timeline = replace(timeline, requests=look.observed.requests)
    if place.canary is None and is_another_end(place.last, before=look.place.last):
        timeline = replace(timeline, ended_at=look.now)
    weight = _weight(place, timeline.revision)
    told = tuple(Transition(look.now, reason=a.reason.value, message=_short(a.message), weight=weight) for a in announcements)
    return replace(place, timeline=_longer(replace(timeline, peak=max(timeline.peak, weight)), told=told))


def _begins_another(look: Look, *, move: Move | None) -> bool:
    if move is None or look.place.canary is not None or move.place.canary is None:
        return False
    return move.place.canary.halted is None  # a halt takes traffic away, which waits for nothing


def _acknowledged(place: Place, *, look: Look) -> Place:
    """The place, in which a report that is written is named; its timeline has been of use."""
    last, reporting = place.last, look.observed.reporting
    # What was written was the report of the rollout that had ended when this look was made.
    if not isinstance(reporting, Written) or last is None or last.report is not None or is_another_end(last, before=look.place.last):
        return place
    ended = place.timeline is not None and place.timeline.ended_at is not None
    return replace(place, last=replace(last, report=reporting.name), timeline=None if ended else place.timeline)


def _begun(place: Place, *, look: Look, told: bool) -> Timeline | None:
    """The timeline that goes on, or that begins with this move."""
    canary, stable, last, timeline = place.canary, place.stable, place.last, place.timeline
    if canary is not None:
        if not told:
            return timeline
        if timeline is not None and timeline.revision == canary.revision.name and timeline.ended_at is None:
            return timeline  # also where it was halted and is tried again: the same rollout
        against, before = stable.revision if stable else None, look.place.stable
        if before is not None and before.revision == canary.revision:  # left in its guard window, to wait for a person
            return Timeline(canary.revision.name, started_at=before.since, against=against, peak=100)
        return Timeline(canary.revision.name, started_at=canary.started_at, against=against)
    if last is None or not is_another_end(last, before=look.place.last) or (timeline is not None and timeline.ended_at is None):
        return timeline
    # What was stable is taken back, and its own rollout has been reported; or a canary ends of which nothing was told so far.
    before, ended = look.place.stable, look.place.canary
    since = before.since if before is not None and before.revision == last.revision else look.now
    since = ended.started_at if ended is not None else since
    others = [s.revision for s in (stable, before) if s is not None and s.revision != last.revision]
    peak = _weight(look.place, last.revision.name)
    return Timeline(last.revision.name, started_at=since, against=others[0] if others else None, peak=peak)


def _weight(place: Place, revision: str) -> int:
    canary, stable = place.canary, place.stable
    if canary is not None and canary.revision.name == revision:
        return canary.given
    return 100 if stable is not None and stable.revision.name == revision else 0


def _longer(timeline: Timeline, *, told: tuple[Transition, ...]) -> Timeline:
    """The first transition says how it began, the newest how it ended; what is left out is counted."""
    whole = (*timeline.transitions, *told)
    if len(whole) <= TRANSITIONS_KEPT:
        return replace(timeline, transitions=whole)
    kept = (whole[0], *whole[len(whole) - TRANSITIONS_KEPT + 1 :])
    return replace(timeline, transitions=kept, omitted=timeline.omitted + len(whole) - TRANSITIONS_KEPT)


def _short(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
