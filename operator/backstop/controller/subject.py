"""The policy that a pass is about, with all that was read of it; made once, changed by nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..api.names import revision_object
from ..api.policystatus import FallbackPolicyStatus
from ..api.reasons import Reason
from ..kube.errors import Rejected
from ..kube.resources import CONFIG_MAPS, DEPLOYMENTS, Resource
from ..rollout.observed import Observed
from ..rollout.plan import Plan
from .keys import PolicyKey
from .seen import Child, Declared
from .wanted import Wish


@dataclass(frozen=True)
class Problem:
    """Something that could not be written; one sentence for the policy's author.

    One is told from another by its reason and by what the sentence begins with: which object, and how it was refused. What the API
    server says of it may differ with each attempt (a webhook's request id, a time): that is the same problem, in newer words.
    """

    reason: Reason
    message: str = field(compare=False)
    what: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "what", self.message.partition(": ")[0])


def refusal(resource: Resource, *, name: str, why: Rejected) -> Problem:
    """The API server understood, and would not have it: the policy's author may be able to do something about it."""
    how = f" ({why.answer})" if why.answer else ""
    return Problem(Reason.OBJECT_REFUSED, f"{_refused(resource, name)}{how}: {why}")


def refused_deployments(problem: Problem | None, *, policy: str, revisions: Iterable[str]) -> Mapping[str, str]:
    """Why these revisions have no Deployment, where that is the problem: the API server would not have it, or the record before it."""
    if problem is None or problem.reason is not Reason.OBJECT_REFUSED:
        return {}
    names = {revision: revision_object(policy, revision=revision) for revision in revisions}
    beginnings = {revision: tuple(_refused(kind, name) for kind in (DEPLOYMENTS, CONFIG_MAPS)) for revision, name in names.items()}
    return {revision: problem.message for revision, beginning in beginnings.items() if problem.message.startswith(beginning)}


def _refused(resource: Resource, name: str) -> str:
    return f"{resource.kind} `{name}` was refused by the API server"


def not_ours(resource: Resource, *, name: str) -> Problem:
    """Something else has the name of one of the policy's objects."""
    message = f"{resource.kind} `{name}` exists and belongs to something else; rename the policy or take that object away"
    return Problem(Reason.OBJECT_NOT_OURS, message)


@dataclass(frozen=True)
class Subject:
    """One look, and what was decided from it. `status`: as it was read; `traffic`: the object that it saw, and may be written over."""

    key: PolicyKey
    policy: Declared
    wish: Wish
    status: FallbackPolicyStatus
    observed: Observed
    plan: Plan
    now: float
    traffic: Child | None
