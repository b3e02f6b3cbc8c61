"""Asks the metric sources, all at once, and hands each policy its own result. A batch that fails is `ProviderError` or `Partial` for
each of its policies; the other sources are not held up by it.

Of SLOs' own counters, what is bad is asked when the totals have been answered: a scrape that is in the total is then in both.
"""

import asyncio
from collections.abc import Mapping, Sequence
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


async def fetch(live: Sequence[LivePolicy], *, sources: Mapping[str, MetricSource], now: float) -> dict[PolicyName, Fetched]:
    """Samples for each policy. `now`: seconds since the epoch. Ends within the sources' deadline; with own counters, within two of them."""
    planned = plan_queries(live, sources={name: source.config for name, source in sources.items()}, now=now)
    fetched: dict[PolicyName, Fetched] = {
        (p.namespace, p.name): ProviderError(f"The operator is configured with no metrics source named `{p.source}`.")
        for p in live
        if p.source not in sources
    }
    of_gateways, own = await asyncio.gather(
        asyncio.gather(*(_answered(query, source=sources[query.source]) for query in planned if query.own is None)),
        _own([query for query in planned if query.own is not None], sources=sources),
    )
    for answered in of_gateways:
        fetched |= answered
    if own:
        fetched |= await asyncio.to_thread(_whole, live, fetched=fetched, own=own)
    return fetched


def _whole(
    live: Sequence[LivePolicy], *, fetched: Mapping[PolicyName, Fetched], own: Mapping[PolicyName, Mapping[OwnSelector, OwnAnswer]]
) -> dict[PolicyName, Fetched]:
    """The samples of the policies that have counters of their own."""
    named = {name: policy for policy in live if (name := (policy.namespace, policy.name)) in own}
    return {
        name: with_own(fetched[name] if GATEWAYS in policy.parts else None, policy=policy, answers=own[name], source=policy.source)
        for name, policy in named.items()
    }


async def _own(planned: Sequence[PlannedQuery], *, sources: Mapping[str, MetricSource]) -> dict[PolicyName, dict[OwnSelector, OwnAnswer]]:
    found: dict[PolicyName, dict[OwnSelector, OwnAnswer]] = {}
    for bad in (False, True):
        asked = [(query, query.own) for query in planned if query.own is not None and query.own.bad is bad]
        answers = await asyncio.gather(*(_answered_own(query, own=own, source=sources[query.source]) for query, own in asked))
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
