"""Whether the gateway's counters add up: each against what callers, models, the scorer, people or the Valkey have counted for themselves.

All do so exactly, but for what nobody outside can know, and then lie between two bounds:

* A caller that leaves does not know what became of its request (`ledger`): for the first third of the time nobody does.
* Nor does one that shares an answer know whether a hedged attempt of its own was cancelled, nor anybody what was tried to finish a stream
  that ended with an error.
* An attempt that was cancelled or too late may have been answered, or not have arrived; of every other one the model knows how it ended.
* Who wins a race of hedged attempts is said to callers only where nothing had failed before.
* At which level an answer was found is not said; nor that it was found in memory, where another one that asked the same had just
  put it, while a level below was asked.
* Of answers to one question that wait to be written the last one is, and what a level below has goes to the one above, which is not said.
* What a Valkey was told to keep is `written` only where its answer came in time.
* A scorer that answers too late has given a verdict, and the gateway an `error`; so do people's webhook and a ticket that it takes.
* Targets that are passed over for being slow are known to the gateway alone: no more than it handed over for being late. Answers that came
  after the budget are no more than those that took their callers as long.

Counters of traces and of an allowance of tokens are not there: the policy has neither.
"""

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backstop.api import metricnames as names
from backstop.api.metricnames import FailureMode, Outcome

from .ledger import MODELS, MOST_ATTEMPTS, MOST_HAND_OFFS, OTHER, PRIMARY, Seen, Series
from .surroundings import PASSED_BACK, SUCCESS, Surroundings

HOT_MEBIBYTES: Final = 2
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
# By name, the labels that tell its series apart here. Histograms by their counts.
_BY_CALLERS: Final = {
    names.SENT_TOTAL: (),
    names.SERVED_TOTAL: ("cache", "outcome", "first_tier"),
    names.SERVED_SECONDS: ("cache", "first_tier"),
    names.SERVED_USAGE: ("target", "type"),
    names.SERVED_TOKENS: ("target", "type"),
    names.REQUESTS_TOTAL: ("tier", "outcome"),
    names.REQUEST_SECONDS: ("tier",),
    names.FIRST_BYTE_SECONDS: ("tier",),
    names.OVERHEAD_SECONDS: (),
    names.TOKENS_TOTAL: ("tier", "type"),
    names.CONTINUED_TOTAL: ("from", "to"),
    names.RULES_TOTAL: ("result",),
    names.FEEDBACK_TOTAL: ("label",),
    # Nobody is refused, needs a key, or is sent elsewhere.
    names.REFUSED_TOTAL: ("reason",),
    names.UNAUTHORIZED_TOTAL: (),
    names.SPLIT_TOTAL: ("to", "reason"),
}
_HISTOGRAMS: Final = (names.SERVED_SECONDS, names.REQUEST_SECONDS, names.FIRST_BYTE_SECONDS, names.OVERHEAD_SECONDS)
_OTHERWISE: Final = (
    names.ATTEMPTS_TOTAL,
    names.HANDOFFS_TOTAL,
    names.HEDGES_TOTAL,
    names.PASSED_OVER_TOTAL,
    names.BUDGET_EXCEEDED_TOTAL,
    names.CACHE_LOOKUPS_TOTAL,
    names.CACHE_WRITES_TOTAL,
    names.TICKETS_TOTAL,
    names.QUALITY_SAMPLES_TOTAL,
    names.QUALITY_DROPPED_TOTAL,
    names.GROUNDED_TOTAL,
)
_KNOWN_ENDS: Final = (
    SUCCESS,
    PASSED_BACK,
    FailureMode.DEPENDENCY_FAILURE.value,
    FailureMode.RESOURCE_EXHAUSTION.value,
    FailureMode.MALFORMED_ANSWER.value,
)
_LEVELS: Final = ("hot", "warm", "cold")
_RESULTS: Final = ("hit", "miss", "stale", "bypass", "failed")
_LATE: Final = FailureMode.LATENCY_BREACH.value


@dataclass(frozen=True)
class Account:
    """What the gateway has counted, and what others have: so many at least, and at most. `part`: one series of a counter."""

    what: str
    counted: int
    least: int
    most: int
    by: str
    part: bool = False

    @property
    def adds_up(self) -> bool:
        """Whether it does."""
        return self.least <= self.counted <= self.most


class Counted:
    """The gateway's metrics."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def of(self, name: str, **labels: str) -> int:
        """The sum of the series whose labels include these."""
        return sum(int(value) for found, value in self._samples.get(name, ()) if labels.items() <= found.items())

    def series(self, name: str, labels: Sequence[str]) -> Tally[Series]:
        """By these labels' values; of a target its tier's name alone."""
        found: Tally[Series] = Tally()
        for having, value in self._samples.get(f"{name}_count" if name in _HISTOGRAMS else name, ()):
            found[Series(name, " ".join(having[label].partition("@")[0] for label in labels))] += int(value)
        return found

    def unknown(self) -> list[str]:
        """Counters that nobody holds against anything."""
        known = {*_BY_CALLERS, *_OTHERWISE}
        return sorted(name for name in self._samples if name.startswith("backstop_") and name.endswith("_total") and name not in known)


def accounts(counted: Counted, *, seen: Seen, around: Surroundings, kept: int, opened: Mapping[str, int]) -> list[Account]:
    """All of them. `kept`: how often the Valkey was told to keep something; `opened`: how often each model's breaker was seen to open."""
    return [
        Account(names.INFLIGHT, counted.of(names.INFLIGHT), 0, 0, "callers"),
        *(account for name, labels in _BY_CALLERS.items() for account in _by_callers(counted, seen=seen, name=name, labels=labels)),
        *_attempts(counted, seen=seen, around=around),
        *_hand_offs(counted, seen=seen),
        *_cache(counted, seen=seen, kept=kept),
        *_tickets(counted, seen=seen, around=around),
        *_quality(counted, seen=seen, around=around),
        *_breakers(counted, opened=opened, around=around),
    ]


def _by_callers(counted: Counted, *, seen: Seen, name: str, labels: Sequence[str]) -> Iterator[Account]:
    sure, unsure = seen.ledger.sure, seen.ledger.unsure[name]
    found = counted.series(name, labels)
    saw = Tally({series: count for series, count in sure.items() if series.name == name})
    for series in sorted(found | saw) if labels else ():
        yield Account(" ".join(series), found[series], saw[series], saw[series] + unsure, "callers", part=True)
    yield Account(name, found.total(), saw.total(), saw.total() + unsure, "callers")


def _attempts(counted: Counted, *, seen: Seen, around: Surroundings) -> Iterator[Account]:
    name, ledger, total = names.ATTEMPTS_TOTAL, seen.ledger, 0
    left, truncated = ledger.unsure[names.REQUESTS_TOTAL], seen.outcomes[Outcome.TRUNCATED]
    won, hedges = counted.of(names.HEDGES_TOTAL, result="won"), counted.of(names.HEDGES_TOTAL)
    for target, model in zip(MODELS, (around.primary, around.other), strict=True):
        whole = counted.of(name, target=target)
        unclear = sum(counted.of(name, target=target, outcome=end) for end in (_LATE, "cancelled"))
        for end in _KNOWN_ENDS:
            yield Account(
                f"{name} {target} {end}", counted.of(name, target=target, outcome=end), model.did[end] - unclear, model.did[end], "models"
            )
        most = (
            counted.of(names.HANDOFFS_TOTAL, **{"from": target}, failure_mode=_LATE)
            + hedges
            + left
            + truncated
            + seen.outcomes[Outcome.ERROR]
        )
        yield Account(f"{name} {target} late or cancelled", unclear, model.did[_LATE], most, "models")
        yield Account(f"{name} {target}", whole, model.did.total(), model.did.total() + unclear, "models")
        total += whole
    told = ledger.attempts + ledger.total(names.CONTINUED_TOTAL)
    yield Account(name, total, told, told + left * MOST_ATTEMPTS + truncated, "callers")
    yield Account(f"{names.HEDGES_TOTAL} won", won, ledger.reasons["Hedge"], counted.of(names.REQUESTS_TOTAL, tier=OTHER), "callers")
    yield Account(names.HEDGES_TOTAL, hedges, won, around.other.did.total(), "models")


def _hand_offs(counted: Counted, *, seen: Seen) -> Iterator[Account]:
    name, ledger = names.HANDOFFS_TOTAL, seen.ledger
    left = ledger.unsure[name]
    for mode in FailureMode:
        saw = ledger.sure[Series(name, f"{PRIMARY} {mode}")]
        yield Account(f"{name} {PRIMARY} {mode}", counted.of(name, **{"from": PRIMARY}, failure_mode=mode), saw, saw + left, "callers")
    yield Account(name, counted.of(name), ledger.hand_offs, ledger.hand_offs + left * MOST_HAND_OFFS, "callers")
    for target in MODELS:
        late = counted.of(name, **{"from": target}, failure_mode=_LATE)
        yield Account(f"{names.PASSED_OVER_TOTAL} {target}", counted.of(names.PASSED_OVER_TOTAL, target=target), 0, late + left, "itself")
    yield Account(names.BUDGET_EXCEEDED_TOTAL, counted.of(names.BUDGET_EXCEEDED_TOTAL), 0, ledger.late, "callers")


def _cache(counted: Counted, *, seen: Seen, kept: int) -> Iterator[Account]:
    name, found, left = names.CACHE_LOOKUPS_TOTAL, seen.ledger.found, seen.ledger.unsure[names.CACHE_LOOKUPS_TOTAL]
    looked = {(level, result): counted.of(name, level=level, result=result) for level in _LEVELS for result in _RESULTS}
    first = sum(looked["hot", result] for result in ("hit", "miss", "bypass"))
    saw = sum(found[result] for result in ("hit", "miss", "stale", "bypass"))
    yield Account(name, first, saw, saw + left, "callers")
    yield Account(f"{name} hot bypass", looked["hot", "bypass"], found["bypass"], found["bypass"] + left, "callers")
    stale = sum(looked[level, "stale"] for level in _LEVELS)
    yield Account(f"{name} stale", stale, found["stale"], found["stale"] + left, "callers")
    hits, meanwhile = sum(looked[level, "hit"] for level in _LEVELS), found["hit in a crowd"]
    yield Account(f"{name} hit", hits, found["hit"] - meanwhile, found["hit"] + left, "callers")
    for above, level in (("hot", "warm"), ("warm", "cold")):
        asked = sum(looked[level, result] for result in ("hit", "miss", "failed"))
        misses = looked["hot", "miss"] if above == "hot" else looked["warm", "miss"] + looked["warm", "failed"]
        yield Account(f"{name} {level}", asked, misses - left - (meanwhile if level == "cold" else 0), misses, "itself, one level above")
    name = names.CACHE_WRITES_TOTAL
    own, shared = (seen.ledger.sure[Series(name, whose)] for whose in ("own", "shared"))
    most = own + shared + seen.ledger.unsure[name]
    for level, promoted in (("warm", seen.kinds["known_question"]), ("cold", 0)):
        yield Account(f"{name} {level}", counted.of(name, level=level), own, most + promoted, "callers")
    yield Account(f"{names.CACHE_BYTES} hot", counted.of(names.CACHE_BYTES, level="hot"), 1, HOT_MEBIBYTES << 20, "its limit")
    written, failed = (counted.of(name, level="warm", result=result) for result in ("written", "failed"))
    yield Account(f"{name} warm written", written, kept - failed, kept, "the Valkey")


def _tickets(counted: Counted, *, seen: Seen, around: Surroundings) -> Iterator[Account]:
    name, ledger = names.TICKETS_TOTAL, seen.ledger
    for result in ("queued", "refused"):
        saw = ledger.sure[Series(name, result)]
        yield Account(f"{name} {result}", counted.of(name, result=result), saw, saw + ledger.unsure[name], "callers")
    took, tried = around.helpers.tickets, ("delivered", "failed")
    failed, whole = counted.of(name, result="failed"), sum(counted.of(name, result=result) for result in tried)
    yield Account(f"{name} {' or '.join(tried)}", whole, took.total(), took.total(), "people's webhook")
    delivered = took["delivered"]
    yield Account(f"{name} delivered", counted.of(name, result="delivered"), delivered - failed, delivered, "people's webhook")
    # A ticket whose caller leaves while it is opened is thrown away and was never queued, though the webhook may have it already.
    waiting = counted.of(name, result="queued") - counted.of(name, result="delivered")
    yield Account(names.TICKETS_WAITING, counted.of(names.TICKETS_WAITING), max(0, waiting), waiting + ledger.unsure[name], "itself")


def _quality(counted: Counted, *, seen: Seen, around: Surroundings) -> Iterator[Account]:
    ledger, dropped = seen.ledger, counted.of(names.QUALITY_DROPPED_TOTAL)
    saw, unsure = ledger.sure[Series(names.GROUNDED_TOTAL)], ledger.unsure[names.GROUNDED_TOTAL]
    for scorer in ("figures", "judge"):
        judged = counted.of(names.QUALITY_SAMPLES_TOTAL, scorer=scorer)
        yield Account(f"{names.QUALITY_SAMPLES_TOTAL} {scorer}", judged, saw - dropped, saw + unsure, "callers")
    yield Account(names.GROUNDED_TOTAL, counted.of(names.GROUNDED_TOTAL), saw - dropped, saw + unsure, "callers")
    broken = counted.of(names.QUALITY_SAMPLES_TOTAL, scorer="judge", label="error")
    for label in ("pass", "fail"):
        gave = around.helpers.labels[label]
        found = counted.of(names.QUALITY_SAMPLES_TOTAL, scorer="judge", label=label)
        yield Account(f"{names.QUALITY_SAMPLES_TOTAL} judge {label}", found, gave - broken, gave, "scorer")


def _breakers(counted: Counted, *, opened: Mapping[str, int], around: Surroundings) -> Iterator[Account]:
    """Each opens after a failure, of which being late is one that the model does not know of."""
    for target, model in zip(MODELS, (around.primary, around.other), strict=True):
        failed = model.did.total() - model.did[SUCCESS] - model.did[PASSED_BACK]
        late = counted.of(names.ATTEMPTS_TOTAL, target=target, outcome=_LATE)
        yield Account(f"breaker of `{target}` opened", opened.get(target, 0), 0, failed + late, "models")
