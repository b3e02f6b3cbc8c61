"""What a policy's models may take of tokens in a period, and what they have taken as far as this pod knows. PURE.

What all gateways have told a shared counter, and what this one has not told it yet. A counter that says less than before has lost
something: the more is believed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .usage import Usage


@dataclass(frozen=True)
class AllowanceSettings:
    """`tokens` in `period` seconds, of the `tiers`. `refuses`: rather than hand over."""

    tokens: int
    period: float
    tiers: frozenset[str]
    refuses: bool


@dataclass(frozen=True)
class Untold:
    """Tokens that the counter of a period is to be told."""

    period: int
    tokens: int


class Allowance:
    """One policy's. `now` is the wall clock, in seconds: all gateways change periods at the same moment."""

    def __init__(self, settings: AllowanceSettings, *, now: Callable[[], float]) -> None:
        self.settings = settings
        self._now = now
        self._period = self._number()
        self._told = self._untold = 0

    @property
    def used(self) -> int:
        """Tokens of this period that this pod knows of."""
        self._turn()
        return self._told + self._untold

    @property
    def period_ends(self) -> float:
        """When, on the wall clock."""
        return (self._number() + 1) * self.settings.period

    def bars(self, tier: str) -> bool:
        """Whether the tier may not be asked any more."""
        return tier in self.settings.tiers and self.used >= self.settings.tokens

    def took(self, tier: str, *, usage: Usage) -> None:
        """An answer of the tier was given."""
        if tier in self.settings.tiers:
            self._turn()
            self._untold += usage.input + usage.output

    def untold(self) -> Untold:
        """What to tell the counter; 0 asks it."""
        self._turn()
        return Untold(self._period, self._untold)

    def heard(self, told: Untold, *, total: int) -> None:
        """The counter was told, and says what all have taken."""
        if told.period == self._period:
            self._untold -= told.tokens
            self._told = max(self._told + told.tokens, total)

    def _turn(self) -> None:
        if (number := self._number()) != self._period:
            self._period = number
            self._told = self._untold = 0

    def _number(self) -> int:
        return int(self._now() // self.settings.period)
