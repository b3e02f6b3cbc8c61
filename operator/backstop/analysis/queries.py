"""Which queries a tick needs: one raw range selector for many policies, as short as possible. Pure; nothing is asked here.

One query covers all metrics of a policy, so that buckets, counts and totals come from the same scrapes.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..api.metricnames import GRID, LIMIT_MULTIPLES, NAMESPACE, REVISION, SENT_TOTAL, SERVED_TOTAL, bound_label
from .blocks import MARGIN_INTERVALS
from .indicators import SECONDS_BUCKET, SECONDS_COUNT
from .policy import LivePolicy

# How far back counters are read again: a longer silence of a target is not made up for.
LOOKBACK_SECONDS = 120.0
LOOKBACK_INTERVALS = 6
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


@dataclass(frozen=True)
class PlannedQuery:
    """One query for `policies`, all of the same source."""

    source: str
    promql: str
    policies: tuple[LivePolicy, ...]


def poll_seconds(scrape_interval: float) -> float:
    """How often to evaluate: often enough that a scrape is seen soon after it, so that detection is not late by another interval."""
    return max(scrape_interval / 5, 1.0)


def plan_queries(live: Sequence[LivePolicy], *, sources: Mapping[str, MetricsSourceConfig], now: float) -> tuple[PlannedQuery, ...]:
    """Queries for all policies whose source is in `sources`, batched by source and by how far back they must read."""
    groups: dict[tuple[str, int], list[LivePolicy]] = {}
    for policy in live:
        config = sources.get(policy.source)
        if config is not None:
            window = window_seconds(policy, now=now, scrape_interval=config.scrape_interval_seconds)
            # Powers of two: a policy that must read far back does not make the others do so.
            groups.setdefault((policy.source, 2 ** math.ceil(math.log2(window))), []).append(policy)
    return tuple(
        PlannedQuery(source=source, promql=selector(batch, window=window), policies=batch)
        for (source, window), members in sorted(groups.items(), key=lambda item: item[0])
        for batch in _batches(members)
    )


def window_seconds(policy: LivePolicy, *, now: float, scrape_interval: float) -> float:
    """How far back to read: to the oldest watermark of this step, or to its start, and a margin; bounded."""
    earliest = now - max(LOOKBACK_SECONDS, LOOKBACK_INTERVALS * scrape_interval)
    start = now if policy.since is None else policy.since
    marks = [at for at in policy.state.watermarks.values() if at >= max(start, earliest)]
    # A new step has no watermark yet; a silence longer than the lookback has none that can be reached.
    start = min(marks, default=start)
    return max(0.0, now - max(start, earliest)) + MARGIN_INTERVALS * scrape_interval


def selector(policies: Sequence[LivePolicy], *, window: int) -> str:
    """`{__name__=~…,namespace=~…,revision=~…,le=~…}[window]` for the policies' revisions and the bounds that they need."""
    limits = sorted({o.latency.seconds for p in policies for o in p.objectives if o.latency is not None})
    metrics = [SERVED_TOTAL, SENT_TOTAL, *([SECONDS_COUNT, SECONDS_BUCKET] if limits else [])]
    matchers = [
        f"__name__=~{_any_of(metrics)}",
        f"{NAMESPACE}=~{_any_of(sorted({p.namespace for p in policies}))}",
        f"{REVISION}=~{_any_of(sorted({r for p in policies for r in (p.canary, p.stable) if r}))}",
    ]
    if limits:
        # The empty alternative lets series without `le` through.
        matchers.append(f"le=~{_any_of(['', *sorted({label for b in needed_bounds(limits) for label in _spellings(b)})])}")
    return f"{{{','.join(matchers)}}}[{window}s]"


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
    for policy in sorted(policies, key=lambda p: (p.namespace, p.name)):
        takes = len(policy.canary) + len(policy.stable) + (len(policy.namespace) if policy.namespace != namespace else 0)
        if batch and (len(batch) == POLICIES_PER_QUERY or taken + takes > NAMES_CHARACTERS):
            batches.append(tuple(batch))
            batch, taken, takes = [], 0, len(policy.canary) + len(policy.stable) + len(policy.namespace)
        batch.append(policy)
        taken, namespace = taken + takes, policy.namespace
    return [*batches, tuple(batch)] if batch else batches


def _spellings(bound: float) -> set[str]:
    """Python's clients write `20.0`, Go's write `20`."""
    return {bound_label(bound), f"{bound:g}"}


def _any_of(values: Iterable[str]) -> str:
    pattern = "|".join(re.escape(value) for value in values)
    quoted = pattern.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'
