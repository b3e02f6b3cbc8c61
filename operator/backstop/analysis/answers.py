"""What a Prometheus-compatible server answered, read strictly. Pure: bytes in, tagged results out; knows no HTTP.

`infos` are remarks on the query's style and change nothing; `warnings` (and `isPartial` of VictoriaMetrics) say that series may be
missing, which makes the whole answer `Partial`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ..api.metricnames import NAMESPACE, POD, POLICY, REVISION
from .policy import LivePolicy
from .samples import Counter, Fetched, NoData, Partial, ProviderError, Sample, Series

INSTANCE = "instance"
SHOWN_CHARACTERS = 200
LATEST_TIME = 1e11  # seconds since the epoch: the year 5138


class MatrixSeries(msgspec.Struct, frozen=True):
    """One series of a range vector: labels, and (seconds since the epoch, value as text) pairs; those of a native histogram apart."""

    metric: dict[str, str]
    values: list[tuple[float, str]] = []
    histograms: list[Any] = []


class _Target(NamedTuple):
    """A scrape target: the labels of one of its series, and from when to when it was scraped, seconds since the epoch."""

    labels: Mapping[str, str]
    first: float
    last: float


class _Content(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    status: str
    data: _Content | None = None
    warnings: list[str] | None = None
    is_partial: bool = False


def read_answer(body: bytes, *, source: str) -> list[MatrixSeries] | Partial | ProviderError:
    """A response body with HTTP status 200 → the series of its range vector."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ProviderError(f"Metrics source `{source}` answered with something that is not a Prometheus answer; check its `url`.")
    if envelope.status != "success" or envelope.data is None:
        return ProviderError(f"Metrics source `{source}` answered with status {envelope.status[:32]!r} instead of data.")
    if envelope.data.result_type != "matrix":
        kind = envelope.data.result_type[:32]
        return ProviderError(f"Metrics source `{source}` answered with a {kind!r} where a range vector was asked for.")
    if envelope.warnings or envelope.is_partial:
        said = "; ".join(envelope.warnings or ["the answer is marked partial"])[:SHOWN_CHARACTERS]
        return Partial(f"Metrics source `{source}` answered in part, so nothing of it is used: {said}")
    try:
        return msgspec.json.decode(envelope.data.result, type=list[MatrixSeries])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ProviderError(f"Metrics source `{source}` answered with series that cannot be read.")


def sort_answer(answer: Iterable[MatrixSeries], *, policies: Sequence[LivePolicy], source: str) -> dict[tuple[str, str], Fetched]:
    """Series of a batch → the samples of each policy by (namespace, name). What belongs to none of them is left out."""
    by_policy: dict[tuple[str, str], list[MatrixSeries]] = {(p.namespace, p.name): [] for p in policies}
    for series in answer:
        by_policy.get((series.metric.get(NAMESPACE, ""), series.metric.get(POLICY, "")), []).append(series)
    return {
        (p.namespace, p.name): _of_policy(by_policy[p.namespace, p.name], revisions={p.canary, p.stable} - {""}, source=source)
        for p in policies
    }


def _of_policy(found: list[MatrixSeries], *, revisions: set[str], source: str) -> Fetched:
    seen: dict[tuple[str, Counter], dict[str, str]] = {}
    targets: dict[str, _Target] = {}
    series: list[Series] = []
    for one in found:
        if one.metric.get(REVISION) not in revisions:
            continue
        target = target_of(one.metric)
        try:
            counter, points = _counter(one.metric), points_of(one)
        except ValueError:
            what = "a value or bound that is not a number, or a time that is none"
            return ProviderError(f"Metrics source `{source}` answered with {what}: {labels_of(one.metric)}.")
        if not points:
            continue
        other = seen.setdefault((target, counter), one.metric)
        if other is not one.metric:
            return _several(other, one.metric, source=source)
        series.append(Series(target=target, counter=counter, points=points))
        known = targets.get(target) or _Target(one.metric, points[0][0], points[-1][0])
        targets[target] = known._replace(first=min(known.first, points[0][0]), last=max(known.last, points[-1][0]))
    if not series:
        return NoData(f"Metrics source `{source}` has no samples of this policy's gateways; are their pods scraped?")
    twice = _scraped_twice(targets.values())
    return Sample(tuple(series)) if twice is None else _several(*twice, source=source)


def _several(one: Mapping[str, str], other: Mapping[str, str], *, source: str) -> ProviderError:
    return ProviderError(
        f"Metrics source `{source}` has several series where one is expected: {labels_of(one)} and {labels_of(other)}; "
        "scrape each gateway pod once."
    )


def _scraped_twice(targets: Collection[_Target]) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
    """Two targets that are one pod: of its name, or of one address where one of the two has no name, over the same time.

    One after the other they may be: a pod that got another address, or an address that got another pod.
    """
    nameless = {one.labels.get(INSTANCE, ""): one for one in targets if not one.labels.get(POD)}
    named: dict[str, list[_Target]] = {}
    for one in targets:
        pod, instance = one.labels.get(POD, ""), one.labels.get(INSTANCE, "")
        if not pod:
            continue
        for other in (*named.get(pod, ()), *((nameless[instance],) if instance and instance in nameless else ())):
            if other.first < one.last and one.first < other.last:
                return other.labels, one.labels
        named.setdefault(pod, []).append(one)
    return None


def points_of(series: MatrixSeries) -> tuple[tuple[float, float], ...]:
    """Times and values. Raises ValueError for what is no time or no number."""
    points = tuple([(at, float(value)) for at, value in series.values])
    if points and not (min(points)[0] >= 0 and max(points)[0] < LATEST_TIME):
        raise ValueError("not a time")
    return points


def _counter(labels: dict[str, str]) -> Counter:
    of, bound = labels.get, labels.get("le")
    return Counter(
        of("__name__", ""),
        of(REVISION, ""),
        of("cache", ""),
        of("outcome", ""),
        of("first_tier", ""),
        None if bound is None else float(bound),
        target=of("target", ""),
        type=of("type", ""),
        label=of("label", ""),
        scorers=of("scorers", ""),
    )


def target_of(labels: dict[str, str]) -> str:
    """The scrape target that a series is of."""
    return f"{labels.get(POD, '')} {labels.get(INSTANCE, '')}".strip()


def labels_of(labels: Mapping[str, Any]) -> str:
    """A series' labels, for people."""
    return "{" + ", ".join(f"{name}={value!r}" for name, value in sorted(labels.items()))[:SHOWN_CHARACTERS] + "}"
