"""A foreign service's histogram, classic or native → for each scrape, how many observations there were and how many over the bound.

Both are counters, taken from one and the same sample, so that no event is in one without the other. The share over a bound is exact only
where a bucket ends at it; elsewhere this says `BoundMissing`, with the nearest ends, and guesses nothing. Native buckets end at powers of
2^(2^−n), n their schema, so 0.25, 0.5, 1 and 2 are always ends; of others, and of buckets with ends of their own choice, the buckets tell.
Where a process exports both kinds the native one is counted. Pure.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from .answers import LATEST_TIME, MatrixSeries, labels_of, points_of, target_of
from .indicators import OWN_BAD, OWN_TOTAL
from .objective import OwnHistogram
from .ownseries import ArmSeries, scraped_twice
from .samples import BoundMissing, Counter, Fetched, NoData, NotANumber, ProviderError, Sample, Series

BUCKET, COUNT = "_bucket", "_count"
# People write a bound with fewer digits than a float has; the narrowest native buckets are 0.27 % wide.
SAME_BOUND = 1e-6
FINEST_SCHEMA = 8


class _Native(msgspec.Struct, frozen=True):
    """One native sample: of each bucket with an observation, how its ends belong to it, both ends, and its count."""

    count: str
    buckets: list[tuple[int, str, str, str]] = []


@dataclass(frozen=True)
class _Point:
    """One scrape of one histogram."""

    at: float
    total: float
    bad: float


class _Missing(Exception):  # noqa: N818 - an answer of its own kind
    """No bucket ends at the bound; these are the nearest ends."""

    def __init__(self, ends: Iterable[float]) -> None:
        super().__init__()
        self.ends = tuple(sorted(set(ends)))


class _Falling(Exception):  # noqa: N818 - an answer of its own kind
    """The newest buckets are not cumulative."""


def with_histograms(counters: OwnHistogram, *, answer: Sequence[ArmSeries], source: str) -> Fetched:
    """The series of an answer → samples of `OWN_TOTAL` and `OWN_BAD`."""
    of = f"`promQL.histogram` ({counters.selector})"
    if not answer:
        where = f"label `{counters.revision_label}`" if counters.revision_label else "label `pod`"
        return NoData(
            f"Metrics source `{source}` has no samples of {of} for this policy's revisions; "
            f"is it scraped, with the revision in {where} and its namespace in label `namespace`?"
        )
    try:
        found = [(one, points) for one, points in _histograms(answer, over=counters.over) if points]
    except (ValueError, TypeError, msgspec.ValidationError):
        return ProviderError(
            f"Metrics source `{source}` answered with a value or bound of {of} that is not a number, or a time that is none."
        )
    except _Falling:
        return NotANumber(f"{of} has buckets that are not cumulative; it is judged again when the process exports counts.")
    except _Missing as missing:
        return _bound_missing(of, over=counters.over, ends=missing.ends)
    if not found:
        return NoData(f"Metrics source `{source}` has no count or no bucket of {of}; name the histogram, without `_bucket` and `_count`.")
    series: list[Series] = []
    totals: list[tuple[Series, dict[str, str]]] = []
    for one, points in found:
        target = f"{target_of(one.series.metric)} {counters.part}"
        totals.append(
            (Series(target, _counter(one, counters=counters, metric=OWN_TOTAL), tuple((p.at, p.total) for p in points)), one.series.metric)
        )
        for run in _runs(points):
            for metric, values in ((OWN_TOTAL, [(p.at, p.total) for p in run]), (OWN_BAD, [(p.at, p.bad) for p in run])):
                counter = _counter(one, counters=counters, metric=metric)._replace(series=len(series) // 2)
                series.append(Series(target=target, counter=counter, points=tuple(values)))
    twice = scraped_twice([one for one, _ in totals], labels=[labels for _, labels in totals])
    if twice is not None:
        return ProviderError(
            f"Metrics source `{source}` has several series where one is expected: {labels_of(twice[0])} and {labels_of(twice[1])}; "
            "scrape each process once, or name the job in `promQL.histogram`."
        )
    return Sample(tuple(series))


def _counter(one: ArmSeries, *, counters: OwnHistogram, metric: str) -> Counter:
    return Counter(metric=metric, revision=one.revision, part=counters.part)


def _histograms(answer: Sequence[ArmSeries], *, over: float) -> Iterator[tuple[ArmSeries, list[_Point]]]:
    native = [one for one in answer if one.series.histograms]
    for one in native:
        yield one, _native(one.series, over=over)
    counted_natively = {(one.revision, target_of(one.series.metric)) for one in native}
    classic: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[list[ArmSeries], list[ArmSeries]]] = {}
    for one in answer:
        metric = one.series.metric
        name = metric.get("__name__", "")
        if (one.revision, target_of(metric)) in counted_natively or not name.endswith((BUCKET, COUNT)):
            continue
        labels = tuple(sorted((label, value) for label, value in metric.items() if label not in ("__name__", "le")))
        counts, buckets = classic.setdefault((one.revision, labels), ([], []))
        (buckets if name.endswith(BUCKET) else counts).append(one)
    for counts, buckets in classic.values():
        for one in counts:
            yield one, _classic(one.series, buckets=[bucket.series for bucket in buckets], over=over)


def _classic(count: MatrixSeries, *, buckets: Sequence[MatrixSeries], over: float) -> list[_Point]:
    """The scrapes at which the count and the bucket at the bound both are there: what is late waits.

    One whose buckets are not cumulative is left out, as of gateways (`screening`): the next one covers its time too. Raises `_Falling`
    where that is the newest.
    """
    values = {bound: _values(bucket) for bucket in buckets if "le" in bucket.metric and math.isfinite(bound := float(bucket.metric["le"]))}
    totals = _values(count)
    at_bound = next((found for bound, found in values.items() if _is(bound, over)), None)
    if at_bound is None:
        if any(total != 0 for total in totals.values()):
            raise _Missing(values)
        return []
    falling = {at for at in totals if any(later < one for one, later in pairwise(_rising(values, at=at)))}
    if falling and max(totals) in falling:
        raise _Falling
    return [
        _Point(at=at, total=total, bad=total - at_bound[at]) for at, total in sorted(totals.items()) if at in at_bound and at not in falling
    ]


def _rising(values: Mapping[float, Mapping[float, float]], *, at: float) -> list[float]:
    """What the buckets that there are at this time counted, by their bounds."""
    return [found[at] for _, found in sorted(values.items()) if at in found]


def _values(series: MatrixSeries) -> dict[float, float]:
    return dict(points_of(series))


def _native(series: MatrixSeries, *, over: float) -> list[_Point]:
    points = []
    for at, sample in msgspec.convert(series.histograms, list[tuple[float, _Native]], strict=False):
        if not 0 <= at < LATEST_TIME:
            raise ValueError("not a time")
        buckets = [(float(low), float(high), float(count)) for _, low, high, count in sample.buckets]
        _check_native(buckets, over=over)
        bad = sum(count for low, _, count in buckets if low > over or _is(low, over))
        points.append(_Point(at=at, total=float(sample.count), bad=bad))
    return points


def _check_native(buckets: Sequence[tuple[float, float, float]], *, over: float) -> None:
    """Raises `_Missing` where a bucket reaches across the bound, or one that is empty so far would."""
    across = [(low, high) for low, high, _ in buckets if low < over < high and not _is(low, over) and not _is(high, over)]
    if across:
        raise _Missing(across[0])
    schema = _schema((low, high) for low, high, _ in buckets)
    if schema is None:
        return
    place = math.log2(over) * 2**schema if over > 0 else math.nan
    low, high = (2.0 ** (step / 2**schema) for step in (math.floor(place), math.ceil(place))) if over > 0 else (0.0, 0.0)
    if not (_is(low, over) or _is(high, over)):
        raise _Missing((low, high))


def _schema(buckets: Iterable[tuple[float, float]]) -> int | None:
    """n, where the ends of all buckets above 0 are powers of 2^(2^−n); None where they are not, or there are none."""
    positive = [(low, high) for low, high in buckets if 0 < low < high < math.inf]
    if not positive:
        return None
    low, high = positive[0]
    width = math.log2(high) - math.log2(low)  # of ends of one's own choice the ratio may be beyond a float, or 1
    schema = round(-math.log2(width)) if width > 0 else FINEST_SCHEMA + 1
    if not -4 <= schema <= FINEST_SCHEMA:
        return None
    step = 2.0 ** (2.0**-schema)
    return schema if all(_is(high, low * step) and _is_whole(math.log2(low) * 2.0**schema) for low, high in positive) else None


def _is(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SAME_BOUND)


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-4


def _runs(points: Sequence[_Point]) -> Iterator[Sequence[_Point]]:
    """The points between restarts of the process: both counters begin again together, whichever of them is seen to fall."""
    begin = 0
    for index, (one, later) in enumerate(pairwise(points), start=1):
        if later.total < one.total or later.bad < one.bad:
            yield points[begin:index]
            begin = index
    yield points[begin:]


def _bound_missing(of: str, *, over: float, ends: Sequence[float]) -> BoundMissing:
    below = max((end for end in ends if end < over), default=None)
    above = min((end for end in ends if end > over), default=None)
    near = " and ".join(f"{end:.7g}" for end in (below, above) if end is not None)
    nearest = f"the nearest ends are {near}: use one of them" if near else "it has no bucket at all"
    return BoundMissing(f"No bucket of {of} ends at `promQL.over` {over:.7g}, and nothing is guessed; {nearest}.")
