"""The policy that a pass is about, with all that was read of it; made once, changed by nobody."""

from dataclasses import dataclass

from ..api.policystatus import FallbackPolicyStatus
from ..api.reasons import Reason
from ..rollout.observed import Observed
from ..rollout.plan import Plan
from .keys import PolicyKey
from .seen import Declared
from .wanted import Wish


@dataclass(frozen=True)
class Problem:
    """Something that could not be written; one sentence for the policy's author."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Subject:
    """One look, and what was decided from it. `status`: as it was read."""

    key: PolicyKey
    policy: Declared
    wish: Wish
    status: FallbackPolicyStatus
    observed: Observed
    plan: Plan
    now: float
