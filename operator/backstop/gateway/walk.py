"""How far one request has come along the chain, and how long it has waited. Knows no tier, and takes no decision. PURE."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..api.metricnames import FirstTier
from .errors import Failure
from .upstream import PassedBack, Streaming, Whole

# What a tier with a model gives.
Result = Whole | Streaming | PassedBack | Failure


@dataclass
class Walk:
    """How far a request has come along the chain. Times in seconds; `budget`: from `started` to the first of an answer."""

    started: float
    budget: float
    allowed: frozenset[str] | None = None  # jurisdictions; None: all
    hurried: bool = False  # its caller gives less than the policy does: to be late for it is no failure of a target's
    attempts: int = 0
    hand_offs: int = 0
    waited: float = 0.0  # for targets
    first_tier: FirstTier = FirstTier.SKIPPED
    failures: list[Failure] = field(default_factory=list)
    outgrown: int = 0  # tokens of the largest window that was too small; 0: none was
    asked: set[str] = field(default_factory=set)  # tiers, for this very request
    hedged: bool = False  # a later tier, which began beside the one whose turn it was, answered first
    waiting: int = 0  # attempts that run now
    waiting_since: float = 0.0

    def wait(self, clock: Callable[[], float]) -> "Waiting":
        """Time inside of it is waited; of several at once, once."""
        return Waiting(self, clock)

    def waited_by(self, now: float) -> float:
        """Until now: who has lost a race may not have ended yet."""
        return self.waited + (now - self.waiting_since if self.waiting else 0.0)


class Waiting:  # entered for every request: by a generator it takes twice as long
    """A request waits for a target, from here to the end of the block."""

    __slots__ = ("_clock", "_walk")

    def __init__(self, walk: Walk, clock: Callable[[], float]) -> None:
        self._walk = walk
        self._clock = clock

    def __enter__(self) -> None:
        walk = self._walk
        if walk.waiting == 0:
            walk.waiting_since = self._clock()
        walk.waiting += 1

    def __exit__(self, *_: object) -> None:
        walk = self._walk
        walk.waiting -= 1
        if walk.waiting == 0:
            walk.waited += self._clock() - walk.waiting_since
