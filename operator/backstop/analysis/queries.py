"""Which queries a tick needs: one raw range selector for many policies, as short as possible. Pure; nothing is asked here.

One query covers all metrics of a policy's gateways, so that buckets, counts and totals come from the same scrapes. SLOs with counters of
their own add one for each selector that they declare, however many policies declare it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from ..api.fallbackpolicy import Indicator
from ..api.metricnames import (
    FEEDBACK_TOTAL,
    GRID,
    GROUNDED_TOTAL,
    LIMIT_MULTIPLES,
    NAMESPACE,
    POD,
    REVISION,
    SENT_TOTAL,
    SERVED_TOKENS,
    SERVED_TOTAL,
    SERVED_USAGE,
    bound_label,
)
from ..api.names import revision_object
from ..api.selector import with_matchers
from .ahead import TOGETHER_SECONDS, look_until
from .blocks import MARGIN_INTERVALS
from .indicators import SECONDS_BUCKET, SECONDS_COUNT
from .objective import GATEWAYS, OwnCounters, OwnHistogram
from .policy import LivePolicy

# How far back counters are read again: a longer silence of a target is not made up for.
LOOKBACK_SECONDS = 120.0
LOOKBACK_INTERVALS = 6
# How far back stable is read once, before the canary is judged: so long, but not over more scrapes than that.
HISTORY_SECONDS = 600.0
HISTORY_SCRAPES = 120
# An answer with history is as long as thirty others.
HISTORIES_PER_QUERY = 10
# Bounds of one query: its URL stays under 8 KiB.
POLICIES_PER_QUERY = 100
NAMES_CHARACTERS = 4000
# Grid bounds beside a limit, for the display quantile and to name the nearest ones.
GRID_BELOW, GRID_ABOVE = 3, 1


@dataclass(frozen=True)
class MetricsSourceConfig:
    """A Prometheus-compatible server, as the operator is configured with. `url`: without `/api/v1`.

    Raises ValueError, with a sentence that names the field, for what cannot be asked.
    """

    name: str
    url: str
    scrape_interval_seconds: float

    def __post_init__(self) -> None:
        if re.fullmatch(r"https?://([^/?#\s@]*@)?([^/?#\s@:\[\]]+|\[[0-9a-fA-F:.]+\])(:\d+)?(/[^?#\s]*)?", self.url) is None:
            raise ValueError(f"`url` of metrics source `{self.name}` must look like `http://prometheus.monitoring:9090`, without a query")
        if not 0.1 <= self.scrape_interval_seconds <= 3600:
            raise ValueError(f"`scrapeIntervalSeconds` of metrics source `{self.name}` must be between 0.1 and 3600")


# Selectors of what is bad are asked when the totals are there, and reach this much further back: each scrape in the total is in them too.
APART_SECONDS = 10


@dataclass(frozen=True, order=True)
class OwnSelector:
    """One of the two selectors of an SLO's own counters, in use for `bad` or for the total; or the one of its histogram."""

    text: str
    revision_label: str
    bad: bool
    histogram: bool = False


class Range(NamedTuple):
    """So many seconds of samples, up to now, or `until` then (seconds since the epoch) where that is not 0."""

    seconds: int
    until: int = 0

    def written(self, *, more: int = 0) -> str:
        """As PromQL has it behind a selector, `more` seconds longer."""
        return f"[{self.seconds + more}s]" + (f" @ {self.until}" if self.until else "")


@dataclass(frozen=True)
class PlannedQuery:
    """One query for `policies`, all of the same source. `own`: what it is of; None: the gateways' own metrics."""

    source: str
    promql: str
    policies: tuple[LivePolicy, ...]
    own: OwnSelector | None = None


def poll_seconds(scrape_interval: float) -> float:
    """How often to evaluate: often enough that a scrape is seen soon after it, so that detection is not late by another interval."""
    return max(scrape_interval / 5, 1.0)


def plan_queries(live: Sequence[LivePolicy], *, sources: Mapping[str, MetricsSourceConfig], now: float) -> tuple[PlannedQuery, ...]:
    """Queries for all policies whose source is in `sources`, batched by source and by how far back they must read."""
    gateways: dict[tuple[str, Range], list[LivePolicy]] = {}
    own: dict[tuple[str, Range, OwnSelector, frozenset[OwnSelector]], list[LivePolicy]] = {}
    for policy in live:
        config = sources.get(policy.source)
        if config is not None:
            window = _range(policy, now=now, scrape_interval=config.scrape_interval_seconds)
            if GATEWAYS in policy.parts:
                gateways.setdefault((policy.source, window), []).append(policy)
            for one in own_selectors(policy):
                # What is bad waits for the totals beside it: not for those that only others have.
                own.setdefault((policy.source, window, one, totals_beside(policy, bad=one)), []).append(policy)
    return (
        *(
            PlannedQuery(source=source, promql=selector(batch, window=window), policies=batch)
            for (source, window), members in sorted(gateways.items(), key=lambda item: item[0])
            for batch in _batches(members)
        ),
        *(
            PlannedQuery(source=source, promql=_own_query(one, policies=batch, window=window), policies=batch, own=one)
            for (source, window, one, _), members in sorted(own.items(), key=lambda item: (*item[0][:3], sorted(item[0][3])))
            for batch in _batches(members)
        ),
    )


def _range(policy: LivePolicy, *, now: float, scrape_interval: float) -> Range:
    if (until := look_until(policy.state, now=now)) is not None:
        return Range(math.ceil(TOGETHER_SECONDS + MARGIN_INTERVALS * scrape_interval), until=until)
    # Powers of two: a policy that must read far back does not make the others do so.
    return Range(2 ** math.ceil(math.log2(window_seconds(policy, now=now, scrape_interval=scrape_interval))))


def window_seconds(policy: LivePolicy, *, now: float, scrape_interval: float) -> float:
    """How far back to read: to the oldest watermark of this step, or to its start, and a margin; bounded."""
    earliest = now - max(LOOKBACK_SECONDS, LOOKBACK_INTERVALS * scrape_interval)
    start = now if policy.since is None else policy.since
    marks = [at for at in policy.state.watermarks.values() if at >= max(start, earliest)]
    # A new step has no watermark yet; a silence longer than the lookback has none that can be reached.
    start = min(marks, default=start)
    history = history_seconds(scrape_interval) if policy.wants_history else 0.0
    return max(0.0, now - max(start, earliest)) + history + MARGIN_INTERVALS * scrape_interval


def history_seconds(scrape_interval: float) -> float:
    """How far back of the canary stable is read."""
    return min(HISTORY_SECONDS, HISTORY_SCRAPES * scrape_interval)


def selector(policies: Sequence[LivePolicy], *, window: Range) -> str:
    """`{__name__=~…,namespace=~…,revision=~…,le=~…}[window]` for the policies' revisions and the bounds that they need."""
    limits = _limits(policies)
    means = any(o.mean is not None for p in policies for o in p.objectives)
    indicators = {o.indicator for p in policies for o in p.objectives}
    metrics = [
        *(SERVED_TOTAL, SENT_TOTAL),
        *([SECONDS_COUNT, SECONDS_BUCKET] if limits else []),
        *([SERVED_USAGE, SERVED_TOKENS] if means else []),
        *([GROUNDED_TOTAL] if Indicator.HALLUCINATION_RATE in indicators else []),
        *([FEEDBACK_TOTAL] if Indicator.NEGATIVE_FEEDBACK_RATE in indicators else []),
    ]
    matchers = [
        f"__name__=~{_any_of(metrics)}",
        f"{NAMESPACE}=~{_any_of(sorted({p.namespace for p in policies}))}",
        f"{REVISION}=~{_any_of(sorted({r for p in policies for r in (p.canary, p.stable) if r}))}",
    ]
    if limits:
        # The empty alternative lets series without `le` through.
        matchers.append(f"le=~{_any_of(['', *sorted({label for b in needed_bounds(limits) for label in _spellings(b)})])}")
    return f"{{{','.join(matchers)}}}{window.written()}"


def own_selectors(policy: LivePolicy) -> set[OwnSelector]:
    """The selectors that the policy's objectives declare."""
    found: set[OwnSelector] = set()
    for declared in {o.counters for o in policy.objectives}:
        match declared:
            case OwnCounters(bad=bad, total=total, revision_label=label):
                found |= {OwnSelector(total, label, bad=False), OwnSelector(bad, label, bad=True)}
            case OwnHistogram(selector=text, revision_label=label):
                found.add(OwnSelector(text, label, bad=False, histogram=True))
            case None:
                pass
            case _:
                assert_never(declared)
    return found


def totals_beside(policy: LivePolicy, *, bad: OwnSelector) -> frozenset[OwnSelector]:
    """The totals that the policy has beside this selector of what is bad; none beside a total."""
    declared = [o.counters for o in policy.objectives if isinstance(o.counters, OwnCounters)]
    beside = [c for c in declared if bad.bad and (c.bad, c.revision_label) == (bad.text, bad.revision_label)]
    return frozenset(OwnSelector(counters.total, counters.revision_label, bad=False) for counters in beside)


def any_kind(text: str) -> str:
    """The selector of a histogram → one of all its series, whether it is a classic or a native one."""
    name, brace, rest = text.partition("{")
    return with_matchers(brace + rest, matchers=[f"__name__=~{_any_of([name, f'{name}_bucket', f'{name}_count'])}"])


def narrowed(text: str, *, revision_label: str, arms: Iterable[tuple[str, str, str]]) -> str:
    """An author's selector, narrowed down to these (namespace, policy, revision)."""
    arms = list(arms)
    if revision_label:
        arm = f"{revision_label}=~{_any_of(sorted({revision for _, _, revision in arms}))}"
    else:
        names = "|".join(sorted({revision_object(policy, revision=revision) for _, policy, revision in arms}))
        # Kubernetes shortens long names, and then no dash stands before the last five characters.
        arm = f'{POD}=~"({names})-[a-z0-9]+(-[a-z0-9]+)?"'
    return with_matchers(text, matchers=[f"{NAMESPACE}=~{_any_of(sorted({namespace for namespace, _, _ in arms}))}", arm])


def own_query(counters: OwnCounters | OwnHistogram, *, namespace: str, policy: str, revisions: Iterable[str]) -> str:
    """What an objective's own counters are read by, for people: `bad / total`, or all series of the histogram."""
    arms = [(namespace, policy, revision) for revision in revisions if revision]
    if isinstance(counters, OwnHistogram):
        return narrowed(any_kind(counters.selector), revision_label=counters.revision_label, arms=arms)
    return " / ".join(narrowed(text, revision_label=counters.revision_label, arms=arms) for text in (counters.bad, counters.total))


def _own_query(one: OwnSelector, *, policies: Sequence[LivePolicy], window: Range) -> str:
    arms = [(p.namespace, p.name, revision) for p in policies for revision in (p.canary, p.stable) if revision]
    text = any_kind(one.text) if one.histogram else one.text
    return f"{narrowed(text, revision_label=one.revision_label, arms=arms)}{window.written(more=APART_SECONDS if one.bad else 0)}"


def needed_bounds(limits: Iterable[float]) -> tuple[float, ...]:
    """Bucket bounds to read for these latency limits, in seconds, rising: the limits, their multiples, their neighbours in the grid."""
    bounds: set[float] = set()
    for limit in limits:
        bounds |= {round(limit * multiple, 6) for multiple in LIMIT_MULTIPLES}
        bounds |= set([bound for bound in GRID if bound < limit][-GRID_BELOW:])
        bounds |= set([bound for bound in GRID if bound > limit][:GRID_ABOVE])
    return tuple(sorted(bounds))


def _batches(policies: Sequence[LivePolicy]) -> list[tuple[LivePolicy, ...]]:
    batches: list[tuple[LivePolicy, ...]] = []
    batch: list[LivePolicy] = []
    taken, namespace = 0, None
    # Those with the same limits together: each series of a query is read at all of its bounds.
    for policy in sorted(policies, key=lambda p: (_limits((p,)), p.namespace, p.name)):
        takes = _characters(policy) + (len(policy.namespace) if policy.namespace != namespace else 0)
        most = HISTORIES_PER_QUERY if any(p.wants_history for p in (policy, *batch[:1])) else POLICIES_PER_QUERY
        if batch and (len(batch) >= most or taken + takes > NAMES_CHARACTERS):
            batches.append(tuple(batch))
            batch, taken, takes = [], 0, _characters(policy) + len(policy.namespace)
        batch.append(policy)
        taken, namespace = taken + takes, policy.namespace
    return [*batches, tuple(batch)] if batch else batches


def _limits(policies: Iterable[LivePolicy]) -> list[float]:
    """Their latency limits in seconds, rising."""
    return sorted({o.latency.seconds for p in policies for o in p.objectives if o.latency is not None})


def _characters(policy: LivePolicy) -> int:
    """How long the names of its revisions are in a query; only the author's own counters are told by the names of pods."""
    named = 2 * (len(policy.name) + 1) if any(o.counters is not None and not o.counters.revision_label for o in policy.objectives) else 0
    return len(policy.canary) + len(policy.stable) + named


def _spellings(bound: float) -> set[str]:
    """Python's clients write `20.0`, Go's write `20`."""
    return {bound_label(bound), f"{bound:g}"}


def _any_of(values: Iterable[str]) -> str:
    pattern = "|".join(re.escape(value) for value in values).replace("\\-", "-")
    quoted = pattern.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'
