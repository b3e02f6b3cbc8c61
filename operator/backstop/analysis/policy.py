"""What the analysis needs to know of a policy under judgement, and what it gives back. Everything else of a policy is not its business."""

from dataclasses import dataclass

from .objective import Objective
from .reading import SLOReading, Standing
from .state import AnalysisState


@dataclass(frozen=True)
class LivePolicy:
    """A policy whose canary is judged, or whose stable is `watched`: then `canary` is stable, and `stable` what it is compared with.

    `from_zero`: the canary had no traffic before this step, and nothing of the step is warm-up.
    `source`: name of its metric source. `since`: when the weight was verified and the warm-up over, seconds since the epoch;
    None: not yet, so that nothing new is judged. `state`: as the evaluation before gave it, or `AnalysisState()`.
    """

    namespace: str
    name: str
    source: str
    canary: str
    stable: str
    objectives: tuple[Objective, ...]
    since: float | None
    state: AnalysisState
    from_zero: bool = False
    watched: bool = False
    share: float | None = None  # of all requests, that the canary is to get; None: that is no question
    planned_seconds: float = 0.0  # for how long it is expected to be judged

    @property
    def wants_history(self) -> bool:
        """Whether the next question is also for what stable did before: of any objective, before its first block is counted."""
        return any(self.wants_history_of(one) for one in self.objectives)

    def wants_history_of(self, objective: Objective) -> bool:
        """Whether the next question is also for the history of this objective, which is new, or which could not be read before."""
        if not self.compares(objective):
            return False
        if (self.state.canary, self.state.stable) != (self.canary, self.stable) or self.state.source not in ("", self.source):
            return True
        kept = self.state.objectives.get(objective.fingerprint)
        if kept is None:
            return True
        return kept.history is not None and kept.history.again is None and not kept.history.is_given_up

    def compares(self, objective: Objective) -> bool:
        """Whether what stable did before says anything of this objective."""
        return not self.watched and self.stable != "" and objective.sequential is not None and objective.mean is None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its samples that are needed, the gateways' own first."""
        return tuple(sorted({objective.part for objective in self.objectives}))


@dataclass(frozen=True)
class Told:
    """How a policy's objectives stood when that was told last. Until then (seconds since the epoch) mere counts are no news."""

    standings: tuple[Standing, ...]
    until: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one policy. Without readings where there is no news in them.

    `state` is kept in status; it differs from the one before only when `closed_block`, or when a step or revision changed.
    `canary_requests`, `canary_sent`: judged, and sent by the entry pods, since the start of the step.
    """

    readings: tuple[SLOReading, ...]
    state: AnalysisState
    closed_block: bool
    canary_requests: int
    canary_sent: int
