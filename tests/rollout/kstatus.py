"""Whether what is said of a policy is understood: `Ready`, `Reconciling` and `Stalled`, as `kubectl wait` and kstatus read them."""

from collections.abc import Iterable

from backstop.api.condition import ConditionType
from backstop.api.reasons import Reason
from backstop.controller.blocked import with_problem
from backstop.controller.subject import Problem
from backstop.rollout.plan import Plan
from backstop.rollout.statusmap import conditions_after

REFUSED = Problem(Reason.OBJECT_REFUSED, "PodDisruptionBudget `support-r1` was refused by the API server: over quota")


def agree_with_kstatus(plan: Plan) -> None:
    """Never both of `Reconciling` and `Stalled`; `Ready` when and only when kstatus says `Current`. Also where a write is refused."""
    said = conditions_after([], states=plan.conditions, generation=1, now=0.0)
    for served in (False, True):
        refused = with_problem(said, problem=REFUSED, previous=[], generation=1, now=0.0, served=served)
        _agree({c.type: c.status for c in refused})
        assert [c.type for c in refused].count(ConditionType.ACCEPTED) == 1
    _agree({c.type: c.status for c in said})


def _agree(said: dict[str, str]) -> None:
    reconciling, stalled = (said.get(kind) == "True" for kind in (ConditionType.RECONCILING, ConditionType.STALLED))
    assert not (reconciling and stalled), said
    assert (said[ConditionType.READY] == "True") == _is_current(said.items()), said


def _is_current(said: Iterable[tuple[str, str]]) -> bool:
    """As kstatus goes about it: an abnormal condition that is true comes before `Ready`."""
    conditions = dict(said)
    if conditions.get("Reconciling") == "True" or conditions.get("Stalled") == "True":
        return False
    return conditions.get("Ready", "True") == "True"
