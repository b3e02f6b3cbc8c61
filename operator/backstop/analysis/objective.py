"""An objective in the terms of the analysis. Knows limits and shares; not where counts come from, nor what a breach leads to."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from ..api.fallbackpolicy import SLO, Indicator
from ..api.reasons import Reason


@dataclass(frozen=True)
class LatencyLimit:
    """`percent` of answered requests must have their first byte within `seconds`."""

    percent: int
    seconds: float


@dataclass(frozen=True)
class Objective:
    """One SLO: the canary's share of bad requests must not exceed `allowed` (a share, 0 to 1) for `for_seconds`."""

    name: str
    indicator: Indicator
    allowed: Fraction
    for_seconds: int
    min_requests: int
    latency: LatencyLimit | None  # set for `Latency`, and only there

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
        assert_never(self.indicator)

    @property
    def fingerprint(self) -> str:
        """Changes when anything is edited that changes the judgement: an edited objective is judged anew."""
        text = repr((self.name, self.indicator.value, str(self.allowed), self.for_seconds, self.min_requests, self.latency))
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
    )
