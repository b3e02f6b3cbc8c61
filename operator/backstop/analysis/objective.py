"""An objective in the terms of the analysis. Knows limits and shares; not where counts come from, nor what a breach leads to."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import assert_never

from ..api.fallbackpolicy import SLO, Analysis, EvaluationRule, FallbackPolicySpec, Indicator, NoTrafficAction, PromQL, Tier
from ..api.metricnames import GRID, LIMIT_MULTIPLES, target_label
from ..api.quality import Quality, grounding_digest
from ..api.reasons import Reason
from .sequential.latency import further_bounds


@dataclass(frozen=True)
class LatencyLimit:
    """A request is bad that has its first byte later than `seconds`; `percent` must not be, None where another limit is declared."""

    percent: int | None
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


@dataclass(frozen=True)
class OwnHistogram:
    """An SLO's own histogram, by its selector: what it observed over `over`, in its own unit, is bad. `revision_label`: as above."""

    selector: str
    over: float
    revision_label: str = ""

    @property
    def part(self) -> str:
        """As above."""
        return hashlib.sha256(repr((self.selector, self.over, self.revision_label)).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class TargetPrice:
    """What a token of requests and one of answers cost at a target, as metrics name it."""

    target: str
    input: float
    output: float


@dataclass(frozen=True)
class MeanOf:
    """What a request comes to is meant: tokens, or money where there are `prices`, of those targets alone. `unit`: of the sum, in words."""

    unit: str
    prices: tuple[TargetPrice, ...] | None = None


DEFAULT_RISK = Fraction(Analysis().falseRollbackPercent) / 100


@dataclass(frozen=True)
class SequentialTest:
    """How evidence is acted on: `risk`, above 0, is of all tests of a policy. `promotes`: whether evidence for the canary counts, too."""

    risk: Fraction
    sustained: bool
    promotes: bool = False


GATEWAYS = ""  # the part that is read from the gateways' own metrics


@dataclass(frozen=True)
class Objective:
    """One SLO: the canary's share of bad requests must not exceed `allowed` (a share, 0 to 1) for `for_seconds`.

    Where it is a `mean`, `allowed` is what a request may come to on average, in that unit.

    `indicator`: None where it is judged by `counters` of its own. `above_stable`: whether `allowed` is what its share may be above
    stable's. `sequential`: the risk of a false rollback of the whole policy (a share) and whether a breach must last; None: a threshold.
    """

    name: str
    indicator: Indicator | None
    allowed: Fraction
    for_seconds: int
    min_requests: int
    latency: LatencyLimit | None  # set for `Latency`, and only there
    counters: OwnCounters | OwnHistogram | None = None
    required: bool = True
    silent_seconds: int | None = None  # how long no answer may come before that is a breach; None: it never is one
    above_stable: bool = False
    sequential: SequentialTest | None = None
    mean: MeanOf | None = None
    scorers: str = ""  # by which answers are judged, as metrics name them; set for `HallucinationRate`, and only there
    margin: Fraction | None = None  # by how much its share may be above stable's where a step ends early; None: as the rule has it

    @property
    def part(self) -> str:
        """Which part of a policy's samples it is judged by."""
        return GATEWAYS if self.counters is None else self.counters.part

    @property
    def counts_every_request(self) -> bool:
        """Whether each answered request is one of its counts, so that what comes in tells how long it takes."""
        return self.part == GATEWAYS and self.indicator not in (Indicator.HALLUCINATION_RATE, Indicator.NEGATIVE_FEEDBACK_RATE)

    @functools.cached_property
    def bounds_beside(self) -> tuple[float, ...]:
        """The latency bounds that are compared beside the limit, in seconds, rising: those that gateways made with it have for that."""
        if self.latency is None or self.sequential is None:
            return ()
        limit = self.latency.seconds
        available = {round(limit * multiple, 6) for multiple in LIMIT_MULTIPLES} | {bound for bound in GRID if bound < limit}
        return further_bounds(limit, available=available, absolute=not self.above_stable)

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
            case Indicator.TOKENS_PER_REQUEST:
                return Reason.TOKENS_BREACH
            case Indicator.COST_PER_REQUEST:
                return Reason.COST_BREACH
            case Indicator.HALLUCINATION_RATE:
                return Reason.HALLUCINATION_RATE_BREACH
            case Indicator.NEGATIVE_FEEDBACK_RATE:
                return Reason.FEEDBACK_BREACH
            case None:
                return Reason.PROMQL_BREACH
        assert_never(self.indicator)

    @functools.cached_property
    def measure(self) -> str:
        """Changes when anything is edited by which other requests are counted, or are bad; not with what is allowed, or for how long."""
        told = (self.indicator.value if self.indicator is not None else self.counters, self.latency and self.latency.seconds)
        text = repr((*told, self.above_stable, self.mean, self.scorers))
        return hashlib.sha256(text.encode()).hexdigest()[:6]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes when anything is edited that changes the judgement: an edited objective is judged anew."""
        measure = self.indicator.value if self.indicator is not None else self.counters
        told = (self.name, measure, str(self.allowed), self.for_seconds, self.min_requests, self.latency)
        # Without what is not theirs, thresholds are known by what older versions called them. Whether a step may end early moves no test.
        text = repr(told if self.sequential is None else (*told, self.above_stable, replace(self.sequential, promotes=False)))
        if self.mean is not None:
            text += repr(self.mean)  # by another price it is judged anew
        text += self.scorers  # and by other scorers
        if self.margin is not None:
            text += f"margin {self.margin}"  # evidence against another margin says nothing of this one
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def objectives_of(spec: FallbackPolicySpec) -> tuple[Objective, ...]:
    """The objectives of a policy, in its order."""
    risk = Fraction(spec.canary.analysis.falseRollbackPercent) / 100
    promotes = spec.canary.analysis.promoteEarly
    return tuple(objective_of(slo, risk=risk, promotes=promotes, chain=spec.chain, quality=spec.quality) for slo in spec.slos)


def objective_of(
    slo: SLO, *, risk: Fraction = DEFAULT_RISK, promotes: bool = False, chain: Sequence[Tier] = (), quality: Quality | None = None
) -> Objective:
    """The declared SLO → objective. The SLO is valid: its model has checked which fields go together.

    `chain`: with the prices of its tiers; `quality`: with its scorers. The rest: see `SequentialTest`.
    """
    latency = None
    if slo.maxMilliseconds is not None:
        latency = LatencyLimit(percent=slo.quantilePercent, seconds=slo.maxMilliseconds / 1000)
    if slo.quantilePercent is not None:
        allowed = Fraction(100 - slo.quantilePercent, 100)
    elif (limit := slo.maxCostPerRequest or slo.maxTokensPerRequest) is not None:
        allowed = Fraction(limit)
    else:
        allowed = Fraction(slo.maxIncreasePercent or slo.maxPercent or "0") / 100
    sequential = None
    if slo.evaluation is EvaluationRule.SEQUENTIAL:
        sequential = SequentialTest(risk=risk, sustained=slo.forSeconds > 0 and slo.waitForSustained is not False, promotes=promotes)
    return Objective(
        name=slo.name,
        indicator=slo.indicator,
        allowed=allowed,
        for_seconds=slo.forSeconds,
        min_requests=slo.minRequests,
        latency=latency,
        counters=None if slo.promQL is None else _own(slo.promQL),
        required=slo.required,
        silent_seconds=slo.noTrafficSeconds if slo.noTrafficAction is NoTrafficAction.ROLLBACK else None,
        above_stable=slo.maxIncreasePercent is not None,
        sequential=sequential,
        mean=_mean_of(slo, chain=chain),
        scorers=grounding_digest(quality) if slo.indicator is Indicator.HALLUCINATION_RATE else "",
        margin=None if slo.marginPercent is None else Fraction(slo.marginPercent) / 100,
    )


def _own(declared: PromQL) -> OwnCounters | OwnHistogram:
    label = declared.revisionLabel or ""
    if declared.histogram is not None and declared.over is not None:
        return OwnHistogram(declared.histogram, over=float(declared.over), revision_label=label)
    assert declared.bad is not None, "its model has checked that it has either"
    assert declared.total is not None, "its model has checked that it has either"
    return OwnCounters(declared.bad, declared.total, label)


def _mean_of(slo: SLO, *, chain: Sequence[Tier]) -> MeanOf | None:
    if slo.indicator is Indicator.TOKENS_PER_REQUEST:
        return MeanOf("tokens")
    if slo.indicator is not Indicator.COST_PER_REQUEST:
        return None
    priced = [(tier.name, tier.model, tier.price) for tier in chain if tier.model is not None and tier.price is not None]
    return MeanOf(
        unit=next((price.currency for _, _, price in priced), "units of money"),
        prices=tuple(
            TargetPrice(
                target_label(name, base_url=model.baseURL, model=model.name),
                input=float(Fraction(price.inputPerMillionTokens) / 10**6),
                output=float(Fraction(price.outputPerMillionTokens) / 10**6),
            )
            for name, model, price in priced
        ),
    )
