"""The verdict on a prompt. It follows from the place alone, so that an operator that dies before writing it writes it after."""

from dataclasses import dataclass

from .place import Outcome, Place, Revision


@dataclass(frozen=True)
class Verdict:
    """A rejection to be written on the PromptVersion too. `at` in seconds since the epoch."""

    revision: Revision
    reason: str
    message: str
    at: float


def verdict_on_prompt(place: Place) -> Verdict | None:
    """The rejection that the last rollout left for its prompt version.

    None for a prompt that stable runs too: a chain that fails is not the prompt's fault.
    """
    last, stable = place.last, place.stable
    if last is None or stable is None or last.outcome is not Outcome.ROLLED_BACK:
        return None
    if last.revision.prompt_digest == stable.revision.prompt_digest:
        return None
    rejection = place.rejection_of(last.revision.name)
    if rejection is None or rejection.suspected:
        return None  # withdrawn, or not yet certain that it is this revision's fault
    return Verdict(last.revision, reason=last.reason, message=last.message, at=last.detected_at)
