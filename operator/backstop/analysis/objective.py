"""An objective in the terms of the analysis. Knows limits and shares; not where counts come from, nor what a breach leads to."""

import functools
import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from ..api.fallbackpolicy import SLO, Indicator, NoTrafficAction
from ..api.reasons import Reason


@dataclass(frozen=True)
class LatencyLimit:
    """`percent` of answered requests must have their first byte within `seconds`."""

    percent: int
    seconds: float


@dataclass(frozen=True)
class OwnCounters:
    """Selectors of an SLO's own counters. `revision_label`: which label holds the revision; empty: the name of the pod does."""

    bad: str
    total: str
    revision_label: str = ""

    @property
    def part(self) -> str:
        """A short name for what is read by these selectors; objectives with the same ones share it."""
        return hashlib.sha256(repr((self.bad, self.total, self.revision_label)).encode()).hexdigest()[:10]


GATEWAYS = ""  # the part that is read from the gateways' own metrics


@dataclass(frozen=True)
class Objective:
    """One SLO: the canary's share of bad requests must not exceed `allowed` (a share, 0 to 1) for `for_seconds`.

    `indicator`: None where it is judged by `counters` of its own.
    """

    name: str
    indicator: Indicator | None
    allowed: Fraction
    for_seconds: int
    min_requests: int
    latency: LatencyLimit | None  # set for `Latency`, and only there
    counters: OwnCounters | None = None
    required: bool = True
    silent_seconds: int | None = None  # how long no answer may come before that is a breach; None: it never is one

    @property
    def part(self) -> str:
        """Which part of a policy's samples it is judged by."""
        return GATEWAYS if self.counters is None else self.counters.part

    @property
    def breach(self) -> Reason:
        """The reason that a breach of it gives."""
        match self.indicator:
            case Indicator.LATENCY:
                return Reason.LATENCY_BREACH
            case Indicator.ERROR_RATE:
                return Reason.ERROR_RATE_BREACH
            case Indicator.FALLBACK_RATE:
                return Reason.FALLBACK_RATE_BREACH
            case None:
                return Reason.PROMQL_BREACH
        assert_never(self.indicator)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes when anything is edited that changes the judgement: an edited objective is judged anew."""
        measure = self.indicator.value if self.indicator is not None else self.counters
        text = repr((self.name, measure, str(self.allowed), self.for_seconds, self.min_requests, self.latency))
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def objective_of(slo: SLO) -> Objective:
    """The declared SLO → objective. The SLO is valid: its model has checked which fields go together."""
    latency = None
    if slo.maxMilliseconds is not None and slo.quantilePercent is not None:
        latency = LatencyLimit(percent=slo.quantilePercent, seconds=slo.maxMilliseconds / 1000)
        allowed = Fraction(100 - slo.quantilePercent, 100)
    else:
        allowed = Fraction(slo.maxPercent or "0") / 100
    return Objective(
        name=slo.name,
        indicator=slo.indicator,
        allowed=allowed,
        for_seconds=slo.forSeconds,
        min_requests=slo.minRequests,
        latency=latency,
        counters=OwnCounters(slo.promQL.bad, slo.promQL.total, slo.promQL.revisionLabel or "") if slo.promQL is not None else None,
        required=slo.required,
        silent_seconds=slo.noTrafficSeconds if slo.noTrafficAction is NoTrafficAction.ROLLBACK else None,
    )
