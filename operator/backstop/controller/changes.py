"""Which changes of a policy's conditions are told, beside the transitions of its rollout. Pure.

What status said before is what has been told: so a change is told once, by whichever operator writes it.
"""

from collections.abc import Sequence
from typing import Final

from ..api.condition import Condition, ConditionType
from ..api.reasons import Reason
from ..rollout.plan import Announcement, ConditionState
from .blocked import PROBLEMS
from .subject import Problem

# What no move of a rollout tells: told when it comes, and when its condition is true again.
TOLD: Final = {
    ConditionType.ACCEPTED: {
        Reason.INVALID,
        Reason.TEMPLATE_INVALID,
        Reason.REVISION_TOO_LARGE,
        Reason.PROMPT_VERSION_INVALID,
        Reason.KNOWLEDGE_BASE_INVALID,
        *PROBLEMS,
    },
    ConditionType.RESOLVED_REFS: {Reason.PROMPT_VERSION_NOT_FOUND, Reason.METRICS_SOURCE_NOT_FOUND, Reason.CONFIG_MAP_NOT_FOUND},
    ConditionType.READY: {Reason.STABLE_UNREADY},
    ConditionType.PROGRESSING: {Reason.TRAFFIC_UNREADABLE, Reason.STATUS_LOST},
}


def changes_told(before: list[Condition], *, after: Sequence[ConditionState], problem: Problem | None) -> tuple[Announcement, ...]:
    """What is to be told when the conditions become these. `problem`: said in `Accepted`, and told by whoever met it."""
    was, now = {condition.type: condition for condition in before}, {state.type: state for state in after}
    if problem is not None:
        now.pop(ConditionType.ACCEPTED, None)
    told = []
    for kind, reasons in TOLD.items():
        old, new = was.get(kind), now.get(kind)
        if new is None or (old is not None and old.reason == new.reason):
            continue
        over = old is not None and old.reason in reasons and new.status == "True"
        if new.reason in reasons or over:
            told.append(Announcement(new.reason, new.message))
    return tuple(told)
