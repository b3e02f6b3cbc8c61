"""The sentences of an evaluation: what was counted, of what, on both arms, against which limit, and where to look it up."""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import assert_never

from ..api.clock import render_time
from ..api.fallbackpolicy import Indicator
from ..api.metricnames import (
    FEEDBACK_TOTAL,
    GROUNDED_TOTAL,
    NAMESPACE,
    POLICY,
    REVISION,
    SENT_TOTAL,
    SERVED_TOKENS,
    SERVED_TOTAL,
    SERVED_USAGE,
    bound_label,
)
from .indicators import SECONDS_BUCKET, SECONDS_COUNT
from .objective import Objective, OwnHistogram
from .policy import LivePolicy
from .queries import own_query
from .reading import Breached, Breaching, Counts, Healthy, Unknown, Waiting
from .silence import Silence
from .state import DisplayQuantile


def percent_of(counts: Counts) -> str | None:
    """Share of bad requests in percent, three significant digits; None without a request."""
    if counts.total <= 0:
        return None
    share = 100 * counts.bad / counts.total
    digits = 0 if share == 0 else max(0, 2 - math.floor(math.log10(share)))
    text = f"{share:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decimal(number: float, *, digits: int) -> str:
    """So many significant digits, never with an exponent: amounts of money are small."""
    return f"{Decimal(f'{number:.{digits}g}'):f}"


def limit_of(objective: Objective) -> str:
    """The allowed share in percent, exactly; or by how much it may be above stable's; or the allowed mean."""
    if objective.mean is not None:
        return decimal(float(objective.allowed), digits=12)
    return f"stable + {_percent(objective.allowed)}" if objective.above_stable else _percent(objective.allowed)


def _percent(share: Fraction) -> str:
    return f"{float(share * 100):.10g}"


def query_of(objective: Objective, *, namespace: str, policy: str, revisions: tuple[str, ...], bound: float | None = None) -> str:
    """Selector of the counters that the objective is judged by, to paste into Prometheus. `bound`: as of `bad_words`."""
    arms = "|".join(revision for revision in revisions if revision)
    labels = f'{NAMESPACE}="{namespace}",{POLICY}="{policy}",{REVISION}=~"{arms}"'
    match objective.indicator:
        case None:
            assert objective.counters is not None, "an objective without an indicator has counters of its own"
            return own_query(objective.counters, namespace=namespace, policy=policy, revisions=revisions)
        case Indicator.LATENCY:
            assert objective.latency is not None, "a Latency objective has its limit"
            label = bound_label(objective.latency.seconds if bound is None else bound)
            return f'{{__name__=~"{SECONDS_COUNT}|{SECONDS_BUCKET}",{labels},le=~"|{label}"}}'
        case Indicator.ERROR_RATE | Indicator.FALLBACK_RATE:
            return f"{SERVED_TOTAL}{{{labels}}}"
        case Indicator.TOKENS_PER_REQUEST | Indicator.COST_PER_REQUEST:
            return f'{{__name__=~"{SERVED_USAGE}|{SERVED_TOKENS}",{labels}}}'
        case Indicator.HALLUCINATION_RATE:
            return f'{GROUNDED_TOTAL}{{{labels},scorers="{objective.scorers}"}}'
        case Indicator.NEGATIVE_FEEDBACK_RATE:
            return f"{FEEDBACK_TOTAL}{{{labels}}}"
    assert_never(objective.indicator)


@dataclass(frozen=True)
class Arms:
    """What the judged arm and the one beside it are called, and since when requests of the first count."""

    judged: str
    beside: str
    since: str


CANARY = Arms("canary", beside="stable", since="in this step")
WATCHED = Arms("stable", beside="the other revision", since="since it serves")


def counted(objective: Objective, *, canary: Counts, stable: Counts | None, arms: Arms) -> str:
    """`latency: 61 of 412 canary requests over 150 ms (14.8 %, allowed 5 %) against 20 of 7,811 on stable (0.256 %)`."""
    allowed = f"allowed {limit_of(objective)} %"
    if canary.total == 0:
        return f"{objective.name}: no {arms.judged} request counted yet ({allowed})"
    judged = f"{canary.bad:,} of {canary.total:,} {arms.judged} requests"
    text = f"{objective.name}: {judged} {bad_words(objective)} ({percent_of(canary)} %, {allowed})"
    if stable is None or stable.total == 0:
        return f"{text}, none on {arms.beside} to compare with"
    return f"{text} against {stable.bad:,} of {stable.total:,} on {arms.beside} ({percent_of(stable)} %)"


def unjudged(*, sent: int, judged: int) -> str:
    """What became of the requests of this step that no objective counts; empty where there are none."""
    if sent <= judged:
        return ""
    return f"; {sent - judged:,} of {sent:,} sent in this step are not judged: the caller's own errors, cancelled, or still under way"


def explained(
    objective: Objective,
    *,
    state: Healthy | Breaching | Breached | Waiting,
    seen: str,
    query: str,
    quantiles: tuple[DisplayQuantile | None, DisplayQuantile | None],
    seconds: float,
    arms: Arms,
    outlook: str = "",
) -> str:
    """The evidence sentence. `seen`: from `counted`; `seconds`: length of the running episode; `quantiles`: canary, stable.

    `outlook`: from `outlook`, for what waits.
    """
    text = seen + quantile_words(objective, quantiles=quantiles, arms=arms)
    match state:
        case Healthy():
            return f"{text}. Query: {query}"
        case Waiting(more=more):
            return f"{text}; needs {more:,} more {arms.judged} requests {arms.since}{outlook}. Query: {query}"
        case Breaching(since=since):
            wanted = f"{objective.for_seconds} s and {objective.min_requests:,} requests are needed for a verdict"
            return f"{text}; over the limit for {seconds:.1f} s since {render_time(since)}, {wanted}. Query: {query}"
        case Breached(since=since):
            long = f"for {seconds:.1f} s (limit: {objective.for_seconds} s) " if objective.for_seconds else ""
            return f"{text}; over the limit {long}since {render_time(since)}. Query: {query}"
    assert_never(state)


def outlook(*, more: int, share: float, judged: int, beside: int, seconds: float) -> str:
    """How long that takes at this weight, or how many had to be there by now if there is none.

    `judged`, `beside`: requests of both arms in the `seconds` of the step.
    """
    everything = judged + beside
    if everything <= 0 or seconds <= 0 or share <= 0:
        return ""
    if judged == 0 and everything * share >= 1:
        return f", where about {everything * share:,.0f} were to be expected by now at {100 * share:g} %"
    rate = everything / seconds
    return f", about {math.ceil(more / (rate * share)):,} s at {100 * share:g} % of {rate:.3g} requests a second"


def unanswered(objective: Objective, *, silence: Silence, ends: float, policy: LivePolicy, arms: Arms) -> str:
    """Requests were sent and none was answered, up to `ends`; and what that leads to."""
    revision = f'{NAMESPACE}="{policy.namespace}",{POLICY}="{policy.name}",{REVISION}="{policy.canary}"'
    if objective.silent_seconds is None:
        leads = "the rollout holds until one is (`noTrafficAction` is `Hold`)"
    else:
        leads = f"that is a breach after {objective.silent_seconds} s (`noTrafficSeconds`)"
    sent = f"{silence.sent:,} requests were sent to {_named(arms)} in {ends - silence.since:.0f} s and none was answered"
    return f"{objective.name}: {sent}; {leads}. Query: {SENT_TOTAL}{{{revision}}}"


def _named(arms: Arms) -> str:
    return arms.judged if arms is WATCHED else f"the {arms.judged}"


def bound_missing(*, seconds: float, seen: tuple[float, ...]) -> Unknown:
    """No bucket at the limit: named with the nearest bounds that are there, never guessed. Or no bucket at all: how that comes."""
    if not seen:
        return Unknown(
            f"The metrics source has no `{SECONDS_BUCKET}` of pods that count the canary's requests: what scrapes them drops these series, "
            "or makes native histograms of them; it must keep the classic ones (`always_scrape_classic_histograms`)."
        )
    below = max((bound for bound in seen if bound < seconds), default=None)
    above = min((bound for bound in seen if bound > seconds), default=None)
    near = " and ".join(f"{round(bound * 1000, 3):g} ms" for bound in (below, above) if bound is not None)
    return Unknown(
        f"Pods that count the canary's requests have no bucket of `{SECONDS_BUCKET}` at `maxMilliseconds` "
        f"{round(seconds * 1000)}; the nearest bounds are {near}: use one of them."
    )


def bad_words(objective: Objective, *, bound: float | None = None) -> str:
    """What makes a request bad, as in "over 150 ms". `bound`: the latency (seconds) that is told of, where it is not the limit."""
    match objective.indicator:
        case Indicator.LATENCY:
            assert objective.latency is not None, "a Latency objective has its limit"
            limit = _milliseconds(objective.latency.seconds)
            over = limit if bound is None else f"{_milliseconds(bound)}, beside its limit of {limit},"
            return f"over {over} or handed over as late"
        case Indicator.ERROR_RATE:
            return "failed, or failed at the first tier"
        case Indicator.FALLBACK_RATE:
            return "answered by a later tier"
        case Indicator.TOKENS_PER_REQUEST | Indicator.COST_PER_REQUEST:
            raise AssertionError("of a mean nothing is bad")
        case Indicator.HALLUCINATION_RATE:
            return "answered without grounds, of those that were judged"
        case Indicator.NEGATIVE_FEEDBACK_RATE:
            return "called bad, of those that callers spoke of"
        case None:
            over = f"over {objective.counters.over:g}, " if isinstance(objective.counters, OwnHistogram) else ""
            return f"{over}bad by `promQL`"
    assert_never(objective.indicator)


def over_words(bound: float) -> str:
    """What makes a request bad at a latency bound (seconds), in short."""
    return f"over {_milliseconds(bound)}"


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000, 3):,.10g} ms"


def quantile_words(objective: Objective, *, quantiles: tuple[DisplayQuantile | None, DisplayQuantile | None], arms: Arms) -> str:
    """What the quantile that the objective names is on both arms; empty where it names none."""
    canary, stable = quantiles
    if objective.latency is None or canary is None:
        return ""
    beside = "" if stable is None else f", {arms.beside} {stable.sign} {stable.milliseconds:,} ms"
    return f"; p{objective.latency.percent} {canary.sign} {canary.milliseconds:,} ms{beside}"
