"""What a metric source says about one policy: raw counter samples, or why there are none. Never a bare float.

Times are seconds since the epoch, as Prometheus stamped the scrape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple


class Counter(NamedTuple):
    """Which counter of a scrape target; everything that tells it from its neighbours there. Unused labels are empty.

    A tuple, as it is the key of every sample that is read: a dataclass takes four times as long to hash.
    `part`: of an SLO's own counters, which they are (`OwnCounters.part`), and `series` which one on its target; else a gateway's.
    """

    metric: str
    revision: str
    cache: str = ""
    outcome: str = ""
    first_tier: str = ""
    le: float | None = None  # upper bound in seconds, for histogram buckets
    part: str = ""
    series: int = 0
    target: str = ""  # of tokens: which model answered
    type: str = ""
    label: str = ""  # of answers that were judged, and of feedback
    scorers: str = ""  # by which answers were judged


@dataclass(frozen=True)
class Series:
    """Samples (time, value) of one counter on one scrape target, in any order, possibly repeated."""

    target: str
    counter: Counter
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Sample:
    """Raw samples of the policy's live revisions. `unread`: by part, why nothing of it is here."""

    series: tuple[Series, ...]
    unread: Mapping[str, "Unread"] = field(default_factory=dict, hash=False)

    @cached_property
    def newest(self) -> frozenset[tuple[str, str, float]]:
        """Part, target and time of every series' newest sample: few, as those of a target come from the same scrapes."""
        return frozenset([(one.counter.part, one.target, one.points[-1][0]) for one in self.series])


@dataclass(frozen=True)
class NoData:
    """The source answered, and has no sample of the policy."""

    sentence: str


@dataclass(frozen=True)
class NotANumber:
    """The newest samples cannot be counted with: NaN, infinite, negative, or buckets above their count."""

    sentence: str


@dataclass(frozen=True)
class Partial:
    """The source answered with warnings: something may be missing, so nothing is used."""

    sentence: str


@dataclass(frozen=True)
class ProviderError:
    """The source did not answer, or not with an answer."""

    sentence: str


@dataclass(frozen=True)
class BoundMissing:
    """No bucket of a histogram ends at the bound over which observations are bad."""

    sentence: str


Unread = NoData | NotANumber | Partial | ProviderError | BoundMissing
Fetched = Sample | Unread
