"""What stands in a policy's status, where somebody else may have written too. Pure."""

from pydantic import ValidationError

from ..api.condition import Condition
from ..api.policystatus import FallbackPolicyStatus
from ..api.reasons import Reason
from ..rollout.observed import Unresolved
from ..rollout.place import Place
from ..rollout.statusmap import place_of
from .seen import Declared


def conditions_in(policy: Declared) -> list[Condition]:
    """The conditions, also of a status that cannot be read otherwise; none where they cannot either."""
    try:
        return FallbackPolicyStatus.model_validate({"conditions": policy.status.get("conditions", [])}).conditions
    except ValidationError:
        return []


def read_policy(policy: Declared) -> tuple[FallbackPolicyStatus, Place] | Unresolved:
    """Status and place as they were written; Unresolved where somebody else has written there."""
    try:
        status = FallbackPolicyStatus.model_validate(policy.status)
        return status, place_of(status)
    except (ValidationError, ValueError) as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) if isinstance(error, ValidationError) else str(error)
        return Unresolved(Reason.INVALID, f"`status` cannot be read ({where}); restore it, or delete it to begin anew")
