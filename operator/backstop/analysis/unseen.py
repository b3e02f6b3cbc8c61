"""The readings of objectives of which nothing can be said, because what evaluates them failed or is not there. Counts nothing."""

from collections.abc import Sequence

from ..api.reasons import Reason
from .evidence import limit_of
from .objective import Objective
from .reading import Counts, SLOReading, Unknown


def unseen(objectives: Sequence[Objective], *, why: str, reason: Reason = Reason.METRICS_UNAVAILABLE) -> tuple[SLOReading, ...]:
    """One reading for each, as where a source does not answer. `why`: one sentence."""
    return tuple(
        SLOReading(
            name=objective.name,
            state=Unknown(why),
            reason=reason,
            value=None,
            limit=limit_of(objective),
            canary=Counts(),
            stable=None,
            step_requests=0,
            evidence=why,
        )
        for objective in objectives
    )
