"""Asks a metric source, all queries at once, and hands each policy its own result. A query that fails is `ProviderError` or `Partial` for
each of its policies; the other queries are not held up by it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
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


async def fetched_by_batch(
    live: Sequence[LivePolicy], *, source: MetricSource, now: float
) -> AsyncIterator[dict[tuple[str, str], Fetched]]:
    """Samples for each policy of this source, by (namespace, name): batch by batch, as they are answered.

    `now`: seconds since the epoch. Ends within the source's deadline.
    """
    config = source.config
    planned = plan_queries(live, sources={config.name: config}, now=now)
    for answer in asyncio.as_completed([_answered(query, source=source) for query in planned]):
        yield await answer


async def _answered(query: PlannedQuery, *, source: MetricSource) -> dict[tuple[str, str], Fetched]:
    answer = await source.query(query.promql)
    if isinstance(answer, Partial | ProviderError):
        return {(p.namespace, p.name): answer for p in query.policies}
    # In a thread: an answer for many pods takes longer than a route may wait.
    return await asyncio.to_thread(sort_answer, answer, policies=query.policies, source=query.source)
