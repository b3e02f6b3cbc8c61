"""What the gateway's counters must have come to, by what its callers have seen: headers at the start of an answer, and how it ended.

A caller that leaves does not know what became of its request: that may be in any series of a counter, once, or in none. All others are
in one that their answer names. Knows the gateway's counters and headers; neither its metrics nor who calls.
"""

from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from backstop.api import metricnames as names
from backstop.api.metricnames import CacheLookup, CacheUse, FailureMode, FirstTier, Outcome, UsageType

from .answers import RESPONSES, Heard

HEDGE_SECONDS: Final = 0.15
PROMPT_TOKENS: Final = 8  # of every answer of a model, as it says
MOST_HAND_OFFS: Final = 5
MOST_ATTEMPTS: Final = 4  # a model twice, the other one, and that again to finish what the first has begun
PRIMARY: Final = "primary"
OTHER: Final = "other"
MODELS: Final = (PRIMARY, OTHER)
ENDED_WELL: Final = (Outcome.SUCCESS, Outcome.TRUNCATED)


class Reach(StrEnum):
    """How far a request comes."""

    NOWHERE = "nowhere"  # it asks no model
    DOOR = "door"  # it is refused before its body is read
    CHAIN = "chain"


@dataclass(frozen=True)
class Ask:
    """A request. `says`: what a model says to it, in words; empty: nothing that has tokens.

    `judged`: it counts for the analysis; `shared`: another caller may ask the same, and both get one answer; `kept`: so may later ones.
    """

    path: str
    says: str = ""
    stream: bool = False
    reach: Reach = Reach.CHAIN
    judged: bool = True
    shared: bool = False
    kept: bool = True


class Series(NamedTuple):
    """One series of a counter: its labels' values, those that differ, with spaces between."""

    name: str
    labels: str = ""


@dataclass
class Ledger:
    """`sure`: counted so often at least; `unsure`: of one counter, so many more may be in any of its series."""

    sure: Tally[Series] = field(default_factory=Tally)
    unsure: Tally[str] = field(default_factory=Tally)
    attempts: int = 0
    hand_offs: int = 0
    found: Tally[str] = field(default_factory=Tally)  # in the cache, as answers say it
    reasons: Tally[str] = field(default_factory=Tally)  # why another tier than the first one answered
    late: int = 0  # answers whose first byte may have come after the budget

    def began(self, ask: Ask, *, said: Mapping[str, str]) -> None:
        """The head of an answer came."""
        if ask.reach is Reach.CHAIN and ask.judged:
            self._count(names.SENT_TOTAL)
        if "x-backstop-attempts" not in said:  # it came to no tier
            return
        tier, reason, hand_offs = said.get("x-backstop-tier", "none"), said.get("x-backstop-reason", ""), int(said["x-backstop-hand-offs"])
        self.attempts += int(said["x-backstop-attempts"])
        self.hand_offs += hand_offs
        self.reasons[reason] += 1
        self.found[said.get("x-backstop-cache", "")] += 1
        self._count(names.OVERHEAD_SECONDS)
        if hand_offs and reason in list(FailureMode):
            self._count(names.HANDOFFS_TOTAL, PRIMARY, reason)
        if said.get("x-backstop-cache") in (CacheLookup.BYPASS, CacheLookup.STALE):
            self._count(names.CACHE_LOOKUPS_TOTAL, said["x-backstop-cache"])
        if tier in ("rules", "people", "static"):
            self._count(names.RULES_TOTAL, "answered" if tier == "rules" else "missed")
            self._count(names.RULES_TOTAL, "failed")  # the first of the conditions, each time
        if tier in ("people", "static"):
            self._count(names.TICKETS_TOTAL, "queued" if tier == "people" else "refused")

    def ended(self, ask: Ask, *, said: Mapping[str, str], heard: Heard, seconds: float) -> None:
        """The answer is over. `seconds`: since it was asked."""
        tier, walked = said.get("x-backstop-tier", "none"), "x-backstop-attempts" in said
        if ask.reach is Reach.CHAIN:
            self._count(names.REQUESTS_TOTAL, tier, heard.outcome)
            self._count(names.REQUEST_SECONDS, tier)
            if heard.outcome in ENDED_WELL:
                self._count(names.FIRST_BYTE_SECONDS, tier)
        if ask.reach is not Reach.NOWHERE and ask.judged:
            first = FirstTier.FAILED if heard.first_failed else said.get("x-backstop-first-tier", FirstTier.SKIPPED)
            cache = said.get("x-backstop-cache", "")
            cache = cache if cache in (CacheUse.HIT, CacheUse.STALE) else CacheUse.MISS
            self._count(names.SERVED_TOTAL, cache, heard.outcome, first)
            if heard.outcome in ENDED_WELL:
                self._count(names.SERVED_SECONDS, cache, first)
        if heard.continued_by:
            self._count(names.CONTINUED_TOTAL, tier, heard.continued_by)
        if walked and tier in MODELS and heard.outcome is Outcome.SUCCESS:
            self._a_model_answered(ask, tier=tier, said=said, heard=heard, seconds=seconds)

    def left(self, ask: Ask, *, begun: bool) -> None:
        """The caller has left; `begun`: after the head of an answer."""
        self.unsure.update((names.REQUESTS_TOTAL, names.REQUEST_SECONDS, names.FIRST_BYTE_SECONDS, names.SERVED_TOTAL))
        self.unsure.update((names.SERVED_SECONDS, names.CONTINUED_TOTAL, names.CACHE_WRITES_TOTAL))
        self._unsure_use(ask)
        self.late += 1
        if not begun:
            self.unsure.update(
                (names.SENT_TOTAL, names.OVERHEAD_SECONDS, names.CACHE_LOOKUPS_TOTAL, names.TICKETS_TOTAL, names.HANDOFFS_TOTAL)
            )
            self.unsure[names.RULES_TOTAL] += 2

    def total(self, name: str) -> int:
        """Of all series of a counter, at least."""
        return sum(count for series, count in self.sure.items() if series.name == name)

    def _a_model_answered(self, ask: Ask, *, tier: str, said: Mapping[str, str], heard: Heard, seconds: float) -> None:
        """Who was given the answer to another's question has asked no model: then there were no attempts, but for one beside it."""
        attempts = int(said["x-backstop-attempts"])
        if ask.kept and tier == PRIMARY and not heard.continued_by:
            self._count(names.CACHE_WRITES_TOTAL, "shared" if ask.shared else "own")
        if ask.shared and tier == PRIMARY and not ask.stream:
            if attempts == 0:
                return
            if seconds >= HEDGE_SECONDS:
                self._unsure_use(ask)
                return
        last = heard.continued_by or tier
        # Of streams, the policy asks the first model alone for it, and who spells them as responses asks each.
        known = bool(ask.says) and not heard.continued_by and (tier == PRIMARY or not ask.stream or ask.path == RESPONSES)
        tokens = (("input", PROMPT_TOKENS), ("output", len(ask.says.split(" "))))
        for kind, count in tokens if known else ():
            self._count(names.TOKENS_TOTAL, tier, kind, by=count)
        if ask.judged:
            self._count(names.SERVED_USAGE, last, UsageType.KNOWN if known else UsageType.UNKNOWN)
            for kind, count in tokens if known else ():
                self._count(names.SERVED_TOKENS, tier, kind, by=count)
            if not heard.continued_by:
                self._count(names.GROUNDED_TOTAL)

    def _unsure_use(self, ask: Ask) -> None:
        for name in (names.TOKENS_TOTAL, names.SERVED_TOKENS):
            self.unsure[name] += PROMPT_TOKENS + len(ask.says.split(" "))
        self.unsure.update((names.SERVED_USAGE, names.GROUNDED_TOTAL))

    def _count(self, name: str, *labels: str, by: int = 1) -> None:
        self.sure[Series(name, " ".join(labels))] += by


@dataclass
class Seen:
    """What all callers have seen."""

    ledger: Ledger = field(default_factory=Ledger)
    outcomes: Tally[str] = field(default_factory=Tally)
    kinds: Tally[str] = field(default_factory=Tally)
    tiers: Tally[str] = field(default_factory=Tally)
    problems: list[str] = field(default_factory=list)
