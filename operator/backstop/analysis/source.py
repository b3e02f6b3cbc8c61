"""Asks a metric source, all queries at once, and hands each policy its own result. A query that fails is `ProviderError` or `Partial` for
each of its policies, and holds up those alone: each policy is handed out when all of its own queries are answered.

Of SLOs' own counters, what is bad is asked when the totals that it is declared beside have been answered: a scrape that is in the total is
then in both.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

from .answers import MatrixSeries, sort_answer
from .objective import GATEWAYS
from .owncounters import OwnAnswer, by_policy, with_own
from .policy import LivePolicy
from .queries import MetricsSourceConfig, OwnSelector, PlannedQuery, own_selectors, plan_queries, totals_beside
from .samples import Fetched, Partial, ProviderError

PolicyName = tuple[str, str]  # namespace and name
_Gateways = dict[PolicyName, asyncio.Task[dict[PolicyName, Fetched]]]
_Own = dict[tuple[PolicyName, OwnSelector], asyncio.Task[Mapping[PolicyName, OwnAnswer]]]
_Task = asyncio.Task[dict[PolicyName, Fetched]] | asyncio.Task[Mapping[PolicyName, OwnAnswer]]


class MetricSource(Protocol):
    """A server that holds the samples. An answer within a bounded time, whatever happens: it does not raise."""

    @property
    def config(self) -> MetricsSourceConfig:
        """Its name and scrape interval."""
        ...

    async def query(self, promql: str, *, own: bool = False) -> list[MatrixSeries] | Partial | ProviderError:
        """Asks for a range vector, now. `own`: by a selector that a policy's author declared; the gateways' do not wait for these."""
        ...


async def fetched_by_batch(live: Sequence[LivePolicy], *, source: MetricSource, now: float) -> AsyncIterator[dict[PolicyName, Fetched]]:
    """Samples for each policy of this source, batch by batch, as they are answered.

    `now`: seconds since the epoch. Ends within the time that the source takes for an answer; with own counters, within two of these.
    """
    gateways: _Gateways = {}
    own: _Own = {}
    for query in plan_queries(live, sources={source.config.name: source.config}, now=now):
        names = [(p.namespace, p.name) for p in query.policies]
        if query.own is None:
            gateways |= dict.fromkeys(names, asyncio.create_task(_answered(query, source=source)))
        else:
            answered = asyncio.create_task(_answered_own(query, own=query.own, asked=own, source=source))
            own |= dict.fromkeys(((name, query.own) for name in names), answered)
    together: dict[frozenset[_Task], dict[PolicyName, LivePolicy]] = {}
    for policy in (policy for policy in live if policy.source == source.config.name):
        name = policy.namespace, policy.name
        needed: list[_Task] = [own[name, one] for one in own_selectors(policy)]
        needed += [gateways[name]] if GATEWAYS in policy.parts else []
        together.setdefault(frozenset(needed), {})[name] = policy
    batches = [asyncio.create_task(_batch(members, needed=tasks, gateways=gateways, own=own)) for tasks, members in together.items()]
    try:
        for batch in asyncio.as_completed(batches):
            yield await batch
    finally:
        for task in {*batches, *gateways.values(), *own.values()}:
            task.cancel()


async def _batch(
    live: Mapping[PolicyName, LivePolicy], *, needed: Iterable[_Task], gateways: _Gateways, own: _Own
) -> dict[PolicyName, Fetched]:
    """The samples of policies, as soon as what they all need is answered."""
    await asyncio.gather(*needed)
    fetched = {name: gateways[name].result()[name] for name, policy in live.items() if GATEWAYS in policy.parts}
    answers = {name: {one: own[name, one].result()[name] for one in own_selectors(policy)} for name, policy in live.items()}
    return _whole(live, fetched=fetched, own=answers) if any(answers.values()) else fetched


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


async def _answered_own(query: PlannedQuery, *, own: OwnSelector, asked: _Own, source: MetricSource) -> Mapping[PolicyName, OwnAnswer]:
    """`asked`: all selectors, those of the totals among them that are answered before what is bad is asked."""
    if own.bad:
        await asyncio.wait({asked[(p.namespace, p.name), total] for p in query.policies for total in totals_beside(p, bad=own)})
    answer = await source.query(query.promql, own=True)
    if isinstance(answer, Partial | ProviderError):
        return {(p.namespace, p.name): answer for p in query.policies}
    return by_policy(answer, policies=query.policies, revision_label=own.revision_label)


async def _answered(query: PlannedQuery, *, source: MetricSource) -> dict[PolicyName, Fetched]:
    answer = await source.query(query.promql)
    if isinstance(answer, Partial | ProviderError):
        return {(p.namespace, p.name): answer for p in query.policies}
    return sort_answer(answer, policies=query.policies, source=query.source)
