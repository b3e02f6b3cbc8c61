"""What a Prometheus-compatible server answered, read strictly. Pure: bytes in, tagged results out; knows no HTTP.

`infos` are remarks on the query's style and change nothing; `warnings` (and `isPartial` of VictoriaMetrics) say that series may be
missing, which makes the whole answer `Partial`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

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
            return ProviderError(
                f"Metrics source `{source}` has several series where one is expected: {labels_of(other)} and {labels_of(one.metric)}; "
                "scrape each gateway pod once."
            )
        series.append(Series(target=target, counter=counter, points=points))
    if not series:
        return NoData(f"Metrics source `{source}` has no samples of this policy's gateways; are their pods scraped?")
    return Sample(tuple(series))


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


def labels_of(labels: dict[str, Any]) -> str:
    """A series' labels, for people."""
    return "{" + ", ".join(f"{name}={value!r}" for name, value in sorted(labels.items()))[:SHOWN_CHARACTERS] + "}"
