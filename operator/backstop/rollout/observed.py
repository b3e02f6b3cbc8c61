"""What a decision is made from. Everything that may not have been seen is `Known` or `Unknown`, never a default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from backstop.analysis.reading import SLOReading
from backstop.api.reasons import Reason
from backstop.api.traffic import TrafficState

from .place import NO_TOKENS, Place, Rejection, Revision, Tokens

T = TypeVar("T")


@dataclass(frozen=True)
class Known(Generic[T]):
    """It was seen."""

    value: T


@dataclass(frozen=True)
class Unknown:
    """It could not be seen; `why` is a sentence for people."""

    why: str


@dataclass(frozen=True)
class Foreign(Unknown):
    """What has its name belongs to something else: nobody reads it, and nobody writes over it."""


@dataclass(frozen=True)
class Unresolved:
    """The spec asks for something that cannot be run; reason and one sentence for its author."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Arm:
    """The pods of one revision. `trouble` says in words why they are not ready, when the cluster says so.

    `exits`: how often their containers have ended with a code other than 0.
    """

    desired: int
    ready: int
    trouble: str | None = None
    exits: int = 0


@dataclass(frozen=True)
class NotTried:
    """This process has not tried to write the report of the last rollout."""


@dataclass(frozen=True)
class Written:
    """The report of the last rollout exists, under this name."""

    name: str


@dataclass(frozen=True)
class Failed:
    """The report of the last rollout could not be written; it goes on being tried."""


Reporting = NotTried | Written | Failed

NO_ARM = Arm(desired=0, ready=0)


class ProbeState(StrEnum):
    """What became of a probe."""

    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"


@dataclass(frozen=True)
class ProbeSeen:
    """A probe of the present rollout. `how`: in words, how it failed; `mark`: of the probe as it was when it was begun."""

    state: ProbeState
    how: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Observed:
    """One look at a policy and all that belongs to it.

    `route`: None means that the traffic object does not exist. `acting`: the lowest traffic generation that any ready gateway acts
    on, first said at `acting_since`; `newest`: the highest, of those that say it. `readings`: the latest evaluation of each SLO of the
    canary, empty while nothing is judged. `tokens`: what is asked by hand. `probes`: by name, those of the present rollout that there
    are; one that is not named does not run.
    `leaving`: the policy is being deleted. What is left of a former policy of this name, looked for while nothing is stable:
    `accepted`, the last revision that was, and `remembered`, what was rolled back. Beside a stable `remembered` is what the prompt version
    of the wanted revision says of it.
    `requests`: judged requests of the canary in the running rollout; None where nothing was evaluated. `reporting`: of the last
    rollout's report. `strays`: the route, which is the policy's own, does something else than its state says, or may, because that
    cannot be read. `with_pods`: revisions that have pods which are not going away, with or without a Deployment.
    """

    place: Place
    wanted: Known[Revision] | Unresolved
    route: Known[TrafficState | None] | Unknown
    arms: Mapping[str, Arm] = field(default_factory=dict)
    acting: Known[int] | Unknown = Unknown("no gateway was asked")
    acting_since: float | None = None
    newest: int | None = None
    readings: tuple[SLOReading, ...] = ()
    tokens: Tokens = NO_TOKENS
    probes: Mapping[str, Known[ProbeSeen] | Unknown] = field(default_factory=dict)
    leaving: bool = False
    accepted: Revision | None = None
    remembered: tuple[Rejection, ...] = ()
    requests: int | None = None
    reporting: Reporting = NotTried()
    strays: bool = False
    with_pods: frozenset[str] = frozenset()

    def arm(self, revision: str) -> Arm:
        """The pods of this revision; none if it has no Deployment."""
        return self.arms.get(revision, NO_ARM)
