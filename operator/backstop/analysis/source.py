"""Asks a metric source, all queries at once, and hands each policy its own result. A query that fails is `ProviderError` or `Partial` for
each of its policies; the other queries are not held up by it.

Of SLOs' own counters, what is bad is asked when the totals have been answered: a scrape that is in the total is then in both.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from .answers import MatrixSeries, sort_answer
from .objective import GATEWAYS
from .owncounters import OwnAnswer, by_policy, with_own
from .policy import LivePolicy
from .queries import MetricsSourceConfig, OwnSelector, PlannedQuery, plan_queries
from .samples import Fetched, Partial, ProviderError

PolicyName = tuple[str, str]  # namespace and name


class MetricSource(Protocol):
    """A server that holds the samples. An answer within its own deadline, whatever happens: it does not raise."""

    @property
    def config(self) -> MetricsSourceConfig:
        """Its name and scrape interval."""
        ...

    async def query(self, promql: str) -> list[MatrixSeries] | Partial | ProviderError:
        """Asks for a range vector, now."""
        ...


async def fetched_by_batch(live: Sequence[LivePolicy], *, source: MetricSource, now: float) -> AsyncIterator[dict[PolicyName, Fetched]]:
    """Samples for each policy of this source, batch by batch, as they are answered; last, policies with counters of their own.

    `now`: seconds since the epoch. Ends within the source's deadline; with own counters, within two of them.
    """
    planned = plan_queries(live, sources={source.config.name: source.config}, now=now)
    named = {(p.namespace, p.name): p for query in planned if query.own is not None for p in query.policies}
    own = asyncio.create_task(_own([query for query in planned if query.own is not None], source=source))
    held: dict[PolicyName, Fetched] = {}
    try:
        for answer in asyncio.as_completed([_answered(query, source=source) for query in planned if query.own is None]):
            answered = await answer
            held |= {name: fetched for name, fetched in answered.items() if name in named}
            if whole := {name: fetched for name, fetched in answered.items() if name not in named}:
                yield whole
        if named:
            yield await asyncio.to_thread(_whole, named, fetched=held, own=await own)
    finally:
        own.cancel()


def _whole(
    live: Mapping[PolicyName, LivePolicy],
    *,
    fetched: Mapping[PolicyName, Fetched],
    own: Mapping[PolicyName, Mapping[OwnSelector, OwnAnswer]],
) -> dict[PolicyName, Fetched]:
    """The samples of the policies that have counters of their own."""
    return {
        name: with_own(fetched[name] if GATEWAYS in policy.parts else None, policy=policy, answers=own[name], source=policy.source)
        for name, policy in live.items()
    }


async def _own(planned: Sequence[PlannedQuery], *, source: MetricSource) -> dict[PolicyName, dict[OwnSelector, OwnAnswer]]:
    found: dict[PolicyName, dict[OwnSelector, OwnAnswer]] = {}
    for bad in (False, True):
        asked = [(query, query.own) for query in planned if query.own is not None and query.own.bad is bad]
        answers = await asyncio.gather(*(_answered_own(query, own=own, source=source) for query, own in asked))
        for (_, own), answered in zip(asked, answers, strict=True):
            for name, answer in answered.items():
                found.setdefault(name, {})[own] = answer
    return found


async def _answered_own(query: PlannedQuery, *, own: OwnSelector, source: MetricSource) -> Mapping[PolicyName, OwnAnswer]:
    answer = await source.query(query.promql)
    if isinstance(answer, Partial | ProviderError):
        return {(p.namespace, p.name): answer for p in query.policies}
    return await asyncio.to_thread(by_policy, answer, policies=query.policies, revision_label=own.revision_label)


async def _answered(query: PlannedQuery, *, source: MetricSource) -> dict[PolicyName, Fetched]:
    answer = await source.query(query.promql)
    if isinstance(answer, Partial | ProviderError):
        return {(p.namespace, p.name): answer for p in query.policies}
    # In a thread: an answer for many pods takes longer than a route may wait.
    return await asyncio.to_thread(sort_answer, answer, policies=query.policies, source=query.source)
