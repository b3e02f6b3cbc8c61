"""The place of a rollout: all that must survive a restart. Frozen values; `statusmap` turns them into status and back.

Times are seconds since the epoch, weights are percent.
"""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class Revision:
    """Which revision: the hash that names it, and the prompt it carries."""

    name: str
    prompt_version: str
    prompt_digest: str


@dataclass(frozen=True)
class StablePlace:
    """The revision that serves, and since when. `size`: its pods when all of them were last ready, where an autoscaler says how many."""

    revision: Revision
    since: float
    size: int | None = None


@dataclass(frozen=True)
class Halt:
    """A breach after which a person decides, or after which stable is to be left.

    Where traffic was taken away: `taken_at`, where that was later than `at`; `generation` of the write, until every gateway was seen to
    act on it, at `shifted_at`, or was watched for long enough.
    """

    at: float
    reason: str
    message: str
    taken_at: float | None = None
    generation: int | None = None
    shifted_at: float | None = None

    @property
    def watched_since(self) -> float:
        """From when on gateways are watched for it."""
        return self.at if self.taken_at is None else self.taken_at


@dataclass(frozen=True)
class CanaryPlace:
    """The revision under judgement.

    `weight` is what the gateways are told; `step` is the step that is in effect (`step_started_at` set) or being prepared
    (unset: its pods are not ready yet, and the weight is still the one before). `blind_since` and `blind_seconds` are the time in
    which metrics could not be seen; it does not count towards a step's hold. `exits_before` counts the failed exits of its containers
    before callers first could reach it; None: they never could. `pods_for`: the weight that its pods are made for already while a smaller
    one holds, 0: none; `awaits_pods`: nothing but these keeps the step from passing; `pods_ended_at`: when those of them that were not
    ready ended, where they are made again later. `waiting_since`: when it began to wait for pods, its own or others' that are to go, and
    has not been without either wait since, nor as short of pods as stable. `approved`: the last step that a person has let pass;
    `by_hand`: it is promoted without steps, because a person asked for it, or because it was stable a moment ago. `reported`: why it would
    have been rolled back in this step, where that has no consequence, and whether `unready_since` counts for others' pods; `halted`: the
    breach after which it waits for a person. `probes_at`: when its probes were begun; `passed`: the marks of those that it has passed,
    `failed`: of those that failed where that is only told.
    `held_since` and `held_seconds`: time in which the step would have ended and did not pass; `held_told`: that it was for long.
    `silent`: marks of the probes that were to send requests beside callers' and have ended. `blind_told` and `seeing_since`: as of `Guard`.
    """

    revision: Revision
    started_at: float
    step_hash: str
    unready_since: float | None
    exits_before: int | None = None
    step: int = 0
    step_started_at: float | None = None
    weight: int = 0
    generation: int | None = None
    verified_at: float | None = None
    blind_since: float | None = None
    blind_seconds: float = 0.0
    pods_for: int = 0
    awaits_pods: bool = False
    pods_ended_at: float | None = None
    waiting_since: float | None = None
    approved: int | None = None
    by_hand: bool = False
    reported: tuple[str, ...] = ()
    halted: Halt | None = None
    promoting_since: float | None = None
    routed_at: float | None = None
    probes_at: float | None = None
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    held_since: float | None = None
    held_seconds: float = 0.0
    held_told: bool = False
    silent: tuple[str, ...] = ()
    blind_told: bool = False
    seeing_since: float | None = None

    @property
    def given(self) -> int:
        """Percent of requests that really go to it: from the switch of a promotion on all of them, whatever its weight was before."""
        return 100 if self.routed_at is not None else self.weight


@dataclass(frozen=True)
class FirstPlace:
    """A first revision whose probes run, before it is stable. `passed`: marks of those that it has passed.

    `failed`: why it does not become stable; `failed_on`: the mark of the probe that said so.
    """

    revision: Revision
    started_at: float
    passed: tuple[str, ...] = ()
    failed: Halt | None = None
    failed_on: str = ""

    @property
    def probes_at(self) -> float | None:
        """When its probes were begun."""
        return self.started_at


@dataclass(frozen=True)
class FirstWait:
    """A first revision without a ready pod, since when. `told`: that this is longer than it may be."""

    revision: str
    since: float
    told: bool = False


@dataclass(frozen=True)
class PreviousPlace:
    """The stable revision before this one; its pods are kept until `until`."""

    revision: Revision
    until: float


@dataclass(frozen=True)
class Retiring:
    """A former canary whose pods are kept until `until`, to finish what they have."""

    revision: str
    until: float


@dataclass(frozen=True)
class Rejection:
    """A revision that was rolled back and will not run again.

    `suspected`: nothing served beside it to compare with, and the revision that traffic went back to was not seen to do better.
    """

    revision: Revision
    reason: str
    message: str
    at: float
    suspected: bool = False


@dataclass(frozen=True)
class Guard:
    """The watch over stable, until `until`: after it began to serve, or after traffic went back to it.

    `suspect`: the revision whose verdict waits for what stable does under the same traffic. `returning`: the breach after which
    traffic goes back to the revision before as soon as that has its pods. `by_hand`: a person had it promoted, so that a breach
    is only told. `reported`: why it would have gone back, where it was only told, oldest first. `blind_told`: it was told that metrics
    cannot be seen, and not yet that they can again, which they can since `seeing_since`. `judged`: every SLO could be judged at least once.
    `unready_since`: no pod of stable is ready, while one of the revision before it is.
    """

    until: float
    suspect: str | None = None
    returning: Halt | None = None
    by_hand: bool = False
    reported: tuple[str, ...] = ()
    blind_told: bool = False
    seeing_since: float | None = None
    judged: bool = False
    unready_since: float | None = None


@dataclass(frozen=True)
class Incident:
    """A breach of `revision` that the revision before it shares. Nothing is rolled out before a person asks, or the spec changes."""

    revision: Revision
    at: float
    message: str


class Outcome(StrEnum):
    """How a rollout ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"


@dataclass(frozen=True)
class LastRollout:
    """How the latest rollout ended. `shifted_at`: when every ready gateway was seen to act on it; `report`: written, of this name.

    `ended_at`: when traffic was told so, where that had to wait after it was detected: for pods, or for a person.
    """

    outcome: Outcome
    revision: Revision
    reason: str
    message: str
    detected_at: float
    generation: int | None
    shifted_at: float | None = None
    report: str | None = None
    ended_at: float | None = None

    @property
    def watched_since(self) -> float:
        """From when on gateways are watched for the end."""
        return self.detected_at if self.ended_at is None else self.ended_at


def is_another_end(last: LastRollout | None, *, before: LastRollout | None) -> bool:
    """Whether a rollout has ended between the two; what is found out about an end later makes it no other one."""
    return last is not None and (before is None or (last.detected_at, last.revision) != (before.detected_at, before.revision))


@dataclass(frozen=True)
class Transition:
    """One transition, as it was told. `weight`: percent of the requests that the revision has from then on."""

    at: float
    reason: str
    message: str
    weight: int


@dataclass(frozen=True)
class Timeline:
    """What has happened in a rollout, from its begin until its report is written.

    `against`: the stable revision beside it. `peak`: the highest weight. `requests`: judged requests of the canary, None where nothing
    was evaluated. `omitted`: transitions after the first that are not kept.
    """

    revision: str
    started_at: float
    against: Revision | None
    ended_at: float | None = None
    peak: int = 0
    requests: int | None = None
    transitions: tuple[Transition, ...] = ()
    omitted: int = 0


@dataclass(frozen=True)
class Tokens:
    """What a person asks for by hand: one value each, acted on once. As annotations on the policy, and as they were acted on."""

    abort: str | None = None
    retry: str | None = None
    promote: str | None = None
    approve: str | None = None
    skip_step: str | None = None
    refresh: str | None = None  # empty: the revision that the spec alone names

    def over(self, known: "Tokens") -> "Tokens":
        """Everything that is asked for, and what was acted on before it: an annotation that comes back asks for nothing.

        But `refresh`: it names what is wanted from now on, and what is not acknowledged has not been refreshed.
        """
        return replace(Tokens(**{name: value or getattr(known, name) for name, value in asdict(self).items()}), refresh=known.refresh)


NO_TOKENS = Tokens()


@dataclass(frozen=True)
class Place:
    """Where a policy's rollout is. An empty place is a policy that has never run."""

    stable: StablePlace | None = None
    canary: CanaryPlace | None = None
    previous: PreviousPlace | None = None
    retiring: tuple[Retiring, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    last: LastRollout | None = None
    acknowledged: Tokens = NO_TOKENS
    timeline: Timeline | None = None
    guard: Guard | None = None
    incident: Incident | None = None
    first: FirstPlace | None = None
    generation: int = 0  # the latest of the traffic object that was decided; the write of it may be missing
    waiting: FirstWait | None = None  # while nothing is stable
    freed: str | None = None  # by a person, from a rejection that may still stand on its prompt version; until it runs

    @property
    def probed(self) -> CanaryPlace | FirstPlace | None:
        """Whose probes may run: the canary's, or those of what is to be the first stable revision."""
        return self.canary if self.stable is not None else self.first

    def rejection_of(self, revision: str) -> Rejection | None:
        """The rejection of this revision, if it was rolled back."""
        return next((rejection for rejection in reversed(self.rejected) if rejection.revision.name == revision), None)


def awaited_generation(place: Place) -> int | None:
    """The traffic generation that gateways still have to be seen acting on; None when nothing waits for it.

    The controller polls the gateways while this is set.
    """
    own = _awaited_of(place.canary) if place.canary is not None else None
    if own is not None:
        return own
    # A rollout that follows at once on another is no reason not to see the end of that one.
    return place.last.generation if place.last is not None and place.last.shifted_at is None else None


def _awaited_of(canary: CanaryPlace) -> int | None:
    if canary.halted is not None:
        return canary.halted.generation
    if canary.routed_at is not None or (canary.step_started_at is not None and canary.verified_at is None):
        return canary.generation
    # After a weight that was not seen everywhere: the generation that took it back.
    return canary.generation if canary.weight == 0 else None


def is_losing(place: Place) -> bool:
    """Whether what is waited for ends a canary's traffic, also where it may come back: one that callers could reach, and has no weight."""
    canary, last = place.canary, place.last
    if canary is None or canary.halted is not None or (canary.weight == 0 and canary.exits_before is not None):
        return True
    return _awaited_of(canary) is None and last is not None and last.shifted_at is None
