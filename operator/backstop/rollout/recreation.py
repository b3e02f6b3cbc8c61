"""Another policy of a name that was used before: what was rolled back under that name is not its first revision.

What is left of the former policy (the record of its last accepted revision, and the rejections on it and on PromptVersions) is looked
at while nothing is stable, and is part of the place from then on. Beside a stable the prompt version of what is wanted is asked, which
remembers a rejection for longer than status does.
"""

from dataclasses import replace

from backstop.api.reasons import Reason

from .first import missing
from .look import Look
from .move import Move, told, with_remembered
from .place import Revision, StablePlace
from .plan import Announcement
from .rest import first_guard, is_unknown_what_serves, serves_already


def recall(look: Look) -> Move | None:
    """What the spec asks for was rolled back before: it counts as rejected here, too, and the last accepted revision serves, if known.

    Tokens that are there already were meant for the former policy, and ask for nothing.
    """
    place, wanted = look.place, look.wanted
    if place.stable is not None or wanted is None:
        return None
    announcements: list[Announcement] = []
    if place.rejection_of(wanted.name) is None:
        place = replace(place, rejected=with_remembered(look), acknowledged=look.observed.tokens.over(place.acknowledged))
        if (rejection := place.rejection_of(wanted.name)) is None:
            return None
        message = f"{wanted.prompt_version} ({wanted.name}) was rejected under a former policy of this name: {rejection.message}"
        announcements.append(Announcement(Reason.REJECTED_BEFORE, message))
    accepted = look.observed.accepted
    if accepted is not None and accepted.name != wanted.name and serves_already(look) is None and not is_unknown_what_serves(look):
        place = replace(place, stable=StablePlace(accepted, since=look.now), guard=first_guard(look), first=None)
        message = f"{accepted.prompt_version} ({accepted.name}), which a former policy of this name accepted last, serves as stable"
        announcements.append(Announcement(Reason.LAST_ACCEPTED, message))
    return Move(place, tuple(announcements)) if announcements else None


def recall_older(look: Look) -> Move | None:
    """What the spec asks for stands rejected on its prompt version, and so many others were rejected since that status kept it no more.

    Not what a person has just freed: that is taken off the prompt version when it runs.
    """
    place, wanted = look.place, look.wanted
    if place.stable is None or place.canary is not None or wanted is None or wanted.name in (place.stable.revision.name, place.freed):
        return None
    if place.rejection_of(wanted.name) is not None:
        return None
    place = replace(place, rejected=with_remembered(look))
    if (rejection := place.rejection_of(wanted.name)) is None:
        return None
    message = f"{wanted.prompt_version} ({wanted.name}) was rejected before, as its PromptVersion says: {rejection.message}"
    return told(place, Reason.REJECTED_BEFORE, message)


def as_first(look: Look, wanted: Revision, *, reason: Reason, token: str) -> Move | None:
    """A person's word: what was rolled back under a former policy becomes the first stable revision nevertheless."""
    place = look.place
    if place.stable is not None or serves_already(look) not in (None, wanted.name) or is_unknown_what_serves(look):
        return None
    if place.rejection_of(wanted.name) is None:
        return _without_probes(look, wanted) if reason is Reason.PROMOTED_BY_HAND else None
    left = tuple(r for r in place.rejected if r.revision.name != wanted.name)
    message = (
        f"{wanted.prompt_version} ({wanted.name}) serves as the first revision although it was rejected before, as asked for by hand "
        f"(`backstop.dev/{token}`)"
    )
    stable = StablePlace(wanted, since=look.now)
    return told(replace(place, stable=stable, rejected=left, guard=first_guard(look), first=None), reason, message)


def _without_probes(look: Look, wanted: Revision) -> Move | None:
    """A first revision that has not passed its probes, and serves nevertheless."""
    if not missing(look, wanted) or look.observed.arm(wanted.name).ready == 0:
        return None
    message = f"{wanted.prompt_version} ({wanted.name}) serves as the first revision whatever its probes say, as asked for by hand "
    message += "(`backstop.dev/promote`)"
    stable = StablePlace(wanted, since=look.now)
    return told(replace(look.place, stable=stable, guard=first_guard(look), first=None), Reason.PROMOTED_BY_HAND, message)
