"""How far one request has come along the chain, and how long it has waited. Knows no tier, and takes no decision. PURE."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    @contextmanager
    def wait(self, clock: Callable[[], float]) -> Iterator[None]:
        """Time inside of it is waited; of several at once, once."""
        if self.waiting == 0:
            self.waiting_since = clock()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            if self.waiting == 0:
                self.waited += clock() - self.waiting_since

    def waited_by(self, now: float) -> float:
        """Until now: who has lost a race may not have ended yet."""
        return self.waited + (now - self.waiting_since if self.waiting else 0.0)
