"""Asks the metric sources, all at once, and hands each policy its own result. A batch that fails is `ProviderError` or `Partial` for
each of its policies; the other sources are not held up by it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from .answers import MatrixSeries, sort_answer
from .policy import LivePolicy
from .queries import MetricsSourceConfig, PlannedQuery, plan_queries
from .samples import Fetched, Partial, ProviderError


class MetricSource(Protocol):
    """A server that holds the samples. An answer within its own deadline, whatever happens: it does not raise."""

    @property
    def config(self) -> MetricsSourceConfig:
        """Its name and scrape interval."""
        ...

    async def query(self, promql: str) -> list[MatrixSeries] | Partial | ProviderError:
        """Asks for a range vector, now."""
        ...


async def fetch(live: Sequence[LivePolicy], *, sources: Mapping[str, MetricSource], now: float) -> dict[tuple[str, str], Fetched]:
    """Samples for each policy, by (namespace, name). `now`: seconds since the epoch. Ends within the sources' deadline."""
    planned = plan_queries(live, sources={name: source.config for name, source in sources.items()}, now=now)
    fetched: dict[tuple[str, str], Fetched] = {
        (p.namespace, p.name): ProviderError(f"The operator is configured with no metrics source named `{p.source}`.")
        for p in live
        if p.source not in sources
    }
    for answered in await asyncio.gather(*(_answered(query, source=sources[query.source]) for query in planned)):
        fetched |= answered
    return fetched


async def _answered(query: PlannedQuery, *, source: MetricSource) -> dict[tuple[str, str], Fetched]:
    answer = await source.query(query.promql)
    if isinstance(answer, Partial | ProviderError):
        return {(p.namespace, p.name): answer for p in query.policies}
    # In a thread: an answer for many pods takes longer than a route may wait.
    return await asyncio.to_thread(sort_answer, answer, policies=query.policies, source=query.source)
