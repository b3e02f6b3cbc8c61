"""The result of an evaluation, as the rollout reads it. Knows states and counts; decides nothing."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, assert_never

from ..api.reasons import Reason


@dataclass(frozen=True)
class Counts:
    """Requests of one arm."""

    bad: int = 0
    total: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(bad=self.bad + other.bad, total=self.total + other.total)


@dataclass(frozen=True)
class Healthy:
    """Enough requests in this step, and within the limit."""


@dataclass(frozen=True)
class Breaching:
    """Over the limit since `since`, not yet for long enough, or not yet on enough requests.

    `shared`: stable broke the limit too and the canary is no worse, so that a rollback cannot help.
    """

    since: float
    shared: bool = False


@dataclass(frozen=True)
class Breached:
    """Over the limit for as long as the objective says, since `since`. `suspected`: stable had too few requests to compare with."""

    since: float
    suspected: bool = False


@dataclass(frozen=True)
class Waiting:
    """Within the limit so far; `more` canary requests are needed in this step."""

    more: int


@dataclass(frozen=True)
class Unknown:
    """It could not be seen: neither good nor bad."""

    why: str


ReadingState = Healthy | Breaching | Breached | Waiting | Unknown
StateName = Literal["Healthy", "Breaching", "Breached", "Waiting", "Unknown"]


def state_name(state: ReadingState) -> StateName:
    """The word of `status.slos[].state`."""
    match state:
        case Healthy():
            return "Healthy"
        case Breaching():
            return "Breaching"
        case Breached():
            return "Breached"
        case Waiting():
            return "Waiting"
        case Unknown():
            return "Unknown"
    assert_never(state)


def is_suspected(state: ReadingState) -> bool:
    """Whether it is a breach that stable had too few requests to compare with."""
    return isinstance(state, Breached) and state.suspected


class Standing(NamedTuple):
    """Of one objective, all that a decision may follow from; the rest of a reading is for people."""

    name: str
    state: StateName
    reason: Reason
    promotable: bool
    over: bool
    suspected: bool


@dataclass(frozen=True)
class SLOReading:
    """One objective after an evaluation.

    `value` and `limit` are percent of bad requests, as decimals; of a mean, what a request comes to: then no request is bad, and
    `canary_mean` and `stable_mean` are those of both arms. `value` is None while no canary request was counted.
    `canary` and `stable` count the running breach, or else the trailing window, as also where that alone decides; `stable` is None where
    stable has no such data.
    """

    name: str
    state: ReadingState
    reason: Reason
    value: str | None
    limit: str
    canary: Counts
    stable: Counts | None
    step_requests: int  # canary requests of this indicator since the start of the step
    evidence: str
    promotable: bool = False  # it is healthy, and there is evidence that the canary is good enough
    over: bool = False  # of what is watched: what is counted is over the limit, however little evidence that is
    is_mean: bool = False
    canary_mean: str | None = None
    stable_mean: str | None = None

    @property
    def standing(self) -> "Standing":
        """What a decision may follow from."""
        return Standing(
            self.name, state_name(self.state), self.reason, promotable=self.promotable, over=self.over, suspected=self.suspected
        )

    @property
    def breached_since(self) -> float | None:
        """End of the first bad block of the running breach, seconds since the epoch."""
        match self.state:
            case Breaching(since=since) | Breached(since=since):
                return since
            case Healthy() | Waiting() | Unknown():
                return None
        assert_never(self.state)

    @property
    def suspected(self) -> bool:
        """Whether it is breached, and stable had too few requests to compare with."""
        return is_suspected(self.state)
