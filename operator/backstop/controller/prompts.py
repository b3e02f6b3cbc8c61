"""The status of a PromptVersion: its digest, whether it can be used, and which policies rolled it back. Pure."""

from collections.abc import Mapping
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
from .seen import Declared
from .wanted import accepted_prompt

REJECTIONS_KEPT: Final = 20
LONGEST_MESSAGE: Final = 2048


def judged_status(prompt: Declared, *, now: float) -> dict[str, Any]:
    """The status with digest and `Accepted` as they are now; everything else as it was."""
    before = read_status(prompt.status)
    spec = accepted_prompt(prompt)
    if isinstance(spec, Unresolved):
        accepted = ConditionState(ConditionType.ACCEPTED, "False", spec.reason, spec.message)
        digest = None
    else:
        accepted = ConditionState(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "the template compiles and its variables are declared")
        digest = prompt_digest(spec)
    after = before.model_copy(
        update={
            "observedGeneration": prompt.generation,
            "digest": digest,
            "conditions": _with(before.conditions, state=accepted, generation=prompt.generation, now=now),
        }
    )
    return after.model_dump(mode="json", exclude_none=True)


def rejected_status(prompt: Declared, *, policy: str, verdict: Verdict, now: float) -> dict[str, Any]:
    """The status with this policy's rejection in it; as before when it has it already, or when it holds as many newer ones as are kept."""
    before = read_status(prompt.status)
    known = any(r.policy == policy and r.revision == verdict.revision.name for r in before.rejections)
    full = len(before.rejections) >= REJECTIONS_KEPT and all(parse_time(r.at) > verdict.at for r in before.rejections)
    if known or full:
        return dict(prompt.status)
    message = verdict.message[:LONGEST_MESSAGE]
    rejection = PromptRejection(
        policy=policy, revision=verdict.revision.name, at=render_time(verdict.at), reason=verdict.reason, message=message
    )
    rejected = ConditionState(ConditionType.REJECTED, "True", Reason.ROLLED_BACK, f"policy `{policy}`: {message}")
    newest = sorted([*before.rejections, rejection], key=lambda r: parse_time(r.at))[-REJECTIONS_KEPT:]
    conditions = _with(before.conditions, state=rejected, generation=prompt.generation, now=now)
    return before.model_copy(update={"rejections": newest, "conditions": conditions}).model_dump(mode="json", exclude_none=True)


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
