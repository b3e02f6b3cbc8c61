"""The status of a PromptVersion: its digest, whether it can be used, who uses it, and which policies rolled it back. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from ..api.clock import parse_time, render_time
from ..api.condition import Condition, ConditionType
from ..api.promptversion import PromptRejection, PromptVersionStatus
from ..api.reasons import Reason
from ..api.record import prompt_digest
from ..rollout.observed import Unresolved
from ..rollout.place import Rejection, Revision
from ..rollout.plan import ConditionState
from ..rollout.statusmap import conditions_after
from ..rollout.verdict import Verdict
from .keys import PromptKey
from .seen import Declared
from .uses import users_of
from .wanted import accepted_prompt, conflict_of

REJECTIONS_KEPT: Final = 20
USES_SHOWN: Final = 32
LONGEST_MESSAGE: Final = 2048


def digest_of(prompt: Declared) -> str | None:
    """The digest of what it says, also before its status has one; None where that is not valid or does not compile."""
    if isinstance(told := prompt.status.get("digest"), str):
        return told
    spec = accepted_prompt(prompt)
    return None if isinstance(spec, Unresolved) else prompt_digest(spec)


def judged_status(prompt: Declared, *, older: Iterable[Declared], users: Iterable[Declared], now: float) -> dict[str, Any]:
    """The status with digest, `Accepted` and users as they are now; everything else as it was.

    `older`: other objects of the same prompt and version, oldest first. `users`: policies that name it.
    """
    before = read_status(prompt.status)
    spec = accepted_prompt(prompt)
    why = spec if isinstance(spec, Unresolved) else conflict_of(prompt, older=older)
    digest = None if isinstance(spec, Unresolved) else prompt_digest(spec)
    states: tuple[ConditionState, ...]
    if why is None:
        told = "the template compiles and its variables are declared"
        states = (ConditionState(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, told),)
    else:
        states = (
            ConditionState(ConditionType.ACCEPTED, "False", why.reason, why.message),
            ConditionState(ConditionType.STALLED, "True", why.reason, why.message),
        )
    conditions = [c for c in before.conditions if why is not None or c.type != ConditionType.STALLED]
    for state in states:
        conditions = _with(conditions, state=state, generation=prompt.generation, now=now)
    uses = users_of(PromptKey(prompt.namespace, prompt.name), digest=digest, policies=users)
    after = before.model_copy(
        update={
            "observedGeneration": prompt.generation,
            "digest": digest,
            "conditions": conditions,
            "usedBy": uses[:USES_SHOWN],
            "users": len({use.policy for use in uses}),
        }
    )
    return after.model_dump(mode="json", exclude_none=True)


def is_unreadable(status: Mapping[str, Any]) -> bool:
    """Whether the status says of its spec that it is not valid, although the API server has taken it."""
    return any(c.type == ConditionType.ACCEPTED and c.reason == Reason.INVALID for c in read_status(status).conditions)


def rejected_status(prompt: Declared, *, policy: str, verdict: Verdict, now: float) -> dict[str, Any]:
    """The status with this policy's rejection in it; as before when it has it already, or when it holds as many newer ones as are kept."""
    before = read_status(prompt.status)
    known = any(r.policy == policy and r.revision == verdict.revision.name for r in before.rejections)
    message = verdict.message[:LONGEST_MESSAGE]
    rejection = PromptRejection(
        policy=policy, revision=verdict.revision.name, at=render_time(verdict.at), reason=verdict.reason, message=message
    )
    newest = sorted([*before.rejections, rejection], key=_newer)[-REJECTIONS_KEPT:]
    if known or rejection not in newest:
        return dict(prompt.status)
    rejected = ConditionState(ConditionType.REJECTED, "True", Reason.ROLLED_BACK, f"policy `{policy}`: {message}")
    conditions = _with(before.conditions, state=rejected, generation=prompt.generation, now=now)
    return before.model_copy(update={"rejections": newest, "conditions": conditions}).model_dump(mode="json", exclude_none=True)


def _newer(rejection: PromptRejection) -> tuple[str, str, str]:
    """One order for everybody, also among rejections of one moment: else two policies would push each other out for ever."""
    return rejection.at, rejection.policy, rejection.revision


def withdrawn_status(prompt: Declared, *, policy: str, revision: str, now: float) -> dict[str, Any]:
    """The status without this policy's rejection of the revision; as before when it has none."""
    before = read_status(prompt.status)
    left = [r for r in before.rejections if (r.policy, r.revision) != (policy, revision)]
    if len(left) == len(before.rejections):
        return dict(prompt.status)
    conditions = [c for c in before.conditions if c.type != ConditionType.REJECTED]
    if left:
        newest = left[-1]
        state = ConditionState(ConditionType.REJECTED, "True", Reason.ROLLED_BACK, f"policy `{newest.policy}`: {newest.message}")
        conditions = _with(before.conditions, state=state, generation=prompt.generation, now=now)
    return before.model_copy(update={"rejections": left, "conditions": conditions}).model_dump(mode="json", exclude_none=True)


def rejections_by(policy: str, *, prompt: Declared) -> list[Rejection]:
    """What a policy of this name rolled back of this prompt version. Entries whose time cannot be read are not the operator's."""
    status, found = read_status(prompt.status), []
    for rejection in status.rejections:
        if rejection.policy == policy and (at := _seconds(rejection.at)) is not None:
            revision = Revision(rejection.revision, prompt_version=prompt.name, prompt_digest=status.digest or "")
            found.append(Rejection(revision, reason=rejection.reason, message=rejection.message, at=at))
    return found


def read_status(status: Mapping[str, Any]) -> PromptVersionStatus:
    """The status as it was written; an empty one where it cannot be read, for it can all be found out again but for old rejections."""
    try:
        return PromptVersionStatus.model_validate(status)
    except ValidationError:
        return PromptVersionStatus()


def _seconds(time: str) -> float | None:
    try:
        return parse_time(time)
    except ValueError:
        return None


def _with(conditions: list[Condition], *, state: ConditionState, generation: int, now: float) -> list[Condition]:
    """The conditions with this one among them, each where it was: another order would be another status."""
    (after,) = conditions_after(conditions, states=(state,), generation=generation, now=now)
    known = any(condition.type == state.type for condition in conditions)
    return [after if condition.type == state.type else condition for condition in conditions] + ([] if known else [after])
