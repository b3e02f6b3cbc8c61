"""Which changes of conditions are told: of a policy, beside the transitions of its rollout, and of a prompt version. Pure.

What status said before is what has been told: so a change is told once, by whichever operator writes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..api.condition import Condition, ConditionType
from ..api.promptversion import PromptVersionStatus
from ..api.reasons import WARNINGS, Reason, reason_of
from ..rollout.plan import Announcement, ConditionState
from .prompts import read_status
from .subject import Problem

# What no move of a rollout tells: told when it comes, and when its condition is true again. Moves say nothing of the input.
TOLD: Final = {
    ConditionType.ACCEPTED: WARNINGS,
    ConditionType.RESOLVED_REFS: WARNINGS,
    ConditionType.READY: {Reason.STABLE_UNREADY},
    ConditionType.PROGRESSING: {Reason.TRAFFIC_UNREADABLE, Reason.STATUS_LOST, Reason.PAUSED, Reason.WAITING_FOR_APPROVAL},
}
# A move tells that a person has approved, or that the step is passed.
ENDS_TOLD_BY_MOVES: Final = {Reason.WAITING_FOR_APPROVAL}


def changes_told(
    before: list[Condition], *, after: Sequence[ConditionState], problem: Problem | None, moves: Sequence[Announcement] = ()
) -> tuple[Announcement, ...]:
    """What is to be told when the conditions become these. `problem`: said in `Accepted`, and told by whoever met it.

    `moves`: what the same pass tells besides. No reason is told twice in a pass: where several conditions change for one, the first does.
    """
    was, now = {condition.type: condition for condition in before}, {state.type: state for state in after}
    if problem is not None:
        now.pop(ConditionType.ACCEPTED, None)
    told, reasons_told = [], {move.reason for move in moves}
    for kind, reasons in TOLD.items():
        old, new = was.get(kind), now.get(kind)
        if new is None or (old is not None and old.reason == new.reason):
            continue
        over = old is not None and old.reason in reasons - ENDS_TOLD_BY_MOVES and new.status == "True"
        if (new.reason in reasons or over) and new.reason not in reasons_told:
            reasons_told.add(new.reason)
            told.append(Announcement(new.reason, new.message))
    return tuple(told)


def prompt_changes_told(before: Mapping[str, Any], *, after: Mapping[str, Any]) -> tuple[Announcement, ...]:
    """What is to be told when a prompt version's status becomes this: whether it can be used, who rejects it, and who no longer does."""
    was, now = read_status(before), read_status(after)
    told = []
    old, new = _accepted(was), _accepted(now)
    if new is not None and (old is None or old.reason != new.reason):
        told.append(Announcement(reason_of(new.reason), new.message))
    rejected = {(r.policy, r.revision) for r in was.rejections}
    come = [r for r in now.rejections if (r.policy, r.revision) not in rejected]
    told += [Announcement(Reason.ROLLED_BACK, f"policy `{r.policy}`: {r.message}") for r in come]
    if not come:  # else the oldest was pushed out, as many as are kept
        still = {(r.policy, r.revision) for r in now.rejections}
        gone = [r for r in was.rejections if (r.policy, r.revision) not in still]
        told += [Announcement(Reason.RETRIED, f"policy `{r.policy}` no longer rejects it: revision {r.revision} runs again") for r in gone]
    return tuple(told)


def _accepted(status: PromptVersionStatus) -> Condition | None:
    return next((c for c in status.conditions if c.type == ConditionType.ACCEPTED), None)
