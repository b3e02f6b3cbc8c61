"""What was answered to the selectors of SLOs' own counters → the samples of each policy. Pure.

A foreign process is known by what it was scraped for alone: its series are told apart by position, and belong to the revision that
a label, or the name of their pod, says.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..api.metricnames import NAMESPACE, POD
from ..api.names import revision_object
from .answers import MatrixSeries, labels_of, points_of, target_of
from .indicators import OWN_BAD, OWN_TOTAL
from .objective import OwnCounters, OwnHistogram
from .onegrid import as_of
from .ownhistogram import with_histograms
from .ownseries import ArmSeries, scraped_twice
from .policy import LivePolicy
from .queries import OwnSelector
from .samples import Counter, Fetched, NoData, Partial, ProviderError, Sample, Series

OwnAnswer = list[ArmSeries] | Partial | ProviderError


def by_policy(
    answer: Iterable[MatrixSeries], *, policies: Sequence[LivePolicy], revision_label: str
) -> dict[tuple[str, str], list[ArmSeries]]:
    """Series of a batch → those of each policy by (namespace, name). What belongs to none of them is left out."""
    arms: dict[tuple[str, str], list[tuple[LivePolicy, str]]] = {}
    for policy in policies:
        for revision in sorted({policy.canary, policy.stable} - {""}):
            arm = revision if revision_label else revision_object(policy.name, revision=revision)
            arms.setdefault((policy.namespace, arm), []).append((policy, revision))
    found: dict[tuple[str, str], list[ArmSeries]] = {(p.namespace, p.name): [] for p in policies}
    for series in answer:
        namespace = series.metric.get(NAMESPACE, "")
        of = (arms.get((namespace, arm), []) for arm in _arms(series.metric, revision_label=revision_label))
        for policy, revision in next(filter(None, of), []):
            found[policy.namespace, policy.name].append(ArmSeries(revision, series))
    return found


def with_own(gateways: Fetched | None, *, policy: LivePolicy, answers: Mapping[OwnSelector, OwnAnswer], source: str) -> Fetched:
    """A policy's samples whole. `gateways`: what was read of these; None: nothing of it is needed.

    What could not be read hides only what it was asked for; where nothing could be read, that is the result.
    """
    parts: dict[str, Fetched] = {} if gateways is None else {"": gateways}
    for counters in {o.counters for o in policy.objectives if o.counters is not None}:
        if isinstance(counters, OwnCounters):
            parts[counters.part] = _samples(counters, answers=answers, source=source)
        else:
            parts[counters.part] = _histogram(counters, answers=answers, source=source)
    samples = [part for _, part in sorted(parts.items()) if isinstance(part, Sample)]
    unread = {name: part for name, part in sorted(parts.items()) if not isinstance(part, Sample)}
    if not samples:
        return parts[min(parts)]
    return Sample(tuple(series for sample in samples for series in sample.series), unread=unread)


def _arms(labels: Mapping[str, str], *, revision_label: str) -> tuple[str, ...]:
    """What the series may be of: a revision, or the Deployment of a pod of this name."""
    if revision_label:
        return (labels.get(revision_label, ""),)
    pod = labels.get(POD, "")
    return pod.rsplit("-", 2)[0], pod.rsplit("-", 1)[0]


def _samples(counters: OwnCounters, *, answers: Mapping[OwnSelector, OwnAnswer], source: str) -> Fetched:
    total = answers[OwnSelector(counters.total, counters.revision_label, bad=False)]
    bad = answers[OwnSelector(counters.bad, counters.revision_label, bad=True)]
    for answer in (total, bad):
        if isinstance(answer, Partial | ProviderError):
            return answer
    assert isinstance(total, list)
    assert isinstance(bad, list)
    if not total:
        where = f"label `{counters.revision_label}`" if counters.revision_label else "label `pod`"
        return NoData(
            f"Metrics source `{source}` has no samples of `promQL.total` ({counters.total}) for this policy's revisions; "
            f"is it scraped, with the revision in {where} and its namespace in label `namespace`?"
        )
    for answer, name, text in ((total, OWN_TOTAL, counters.total), (bad, OWN_BAD, counters.bad)):
        if any(one.series.histograms for one in answer):
            asked = f"a native histogram where `{name}` ({text}) asks for a counter"
            return ProviderError(f"Metrics source `{source}` has {asked}; name a counter, or name it in `promQL.histogram`.")
    try:
        totals = [_series(one, metric=OWN_TOTAL, number=i, part=counters.part) for i, one in enumerate(total)]
        bads = [_series(one, metric=OWN_BAD, number=i, part=counters.part) for i, one in enumerate(bad)]
    except ValueError:
        return ProviderError(f"Metrics source `{source}` answered with a value of `promQL` that is not a number, or a time that is none.")
    twice = scraped_twice(totals, labels=[one.series.metric for one in total])
    if twice is not None:
        return ProviderError(
            f"Metrics source `{source}` has several series where one is expected: {labels_of(twice[0])} and {labels_of(twice[1])}; "
            "scrape each process once, or name the job in both selectors of `promQL`."
        )
    return Sample((*(one for one in totals if one.points), *_beside(bads, totals=totals)))


def _histogram(histogram: OwnHistogram, *, answers: Mapping[OwnSelector, OwnAnswer], source: str) -> Fetched:
    answer = answers[OwnSelector(histogram.selector, histogram.revision_label, bad=False, histogram=True)]
    return answer if isinstance(answer, Partial | ProviderError) else with_histograms(histogram, answer=answer, source=source)


def _series(one: ArmSeries, *, metric: str, number: int, part: str) -> Series:
    points = points_of(one.series)
    counter = Counter(metric=metric, revision=one.revision, part=part, series=number)
    return Series(target=f"{target_of(one.series.metric)} {part}", counter=counter, points=points)


def _beside(bads: Iterable[Series], *, totals: Iterable[Series]) -> list[Series]:
    """What is bad at the scrapes that the total has; where a target has no total, at its own.

    Where another replica of the source scraped it, in between those (`onegrid`), it is told as of them. Never from before the first of any
    total: what is bad is asked for further back, and the others are not newer than that for it.
    """
    times: dict[str, set[float]] = {}
    for total in totals:
        times.setdefault(total.target, set()).update(at for at, _ in total.points)
    oldest = min((at for seen in times.values() for at in seen), default=math.inf)
    told = (_at_scrapes(bad, times=times[bad.target]) if bad.target in times else bad for bad in bads)
    return [replace(bad, points=points) for bad in told if (points := tuple(p for p in bad.points if p[0] >= oldest))]


def _at_scrapes(bad: Series, *, times: set[float]) -> Series:
    points = tuple(point for point in bad.points if point[0] in times)
    return replace(bad, points=points) if points else as_of(bad, times=times)
