"""Counters and histograms of one thread: the event loop counts, and the library shows them when it is asked for its registry.

The library's own are for any thread: each takes a lock for each count, and goes through a histogram's bounds one by one. With some
sixteen counts a request, that took a sixteenth of a whole answer's time. What other threads count stays with those.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """So many more."""
        self.value += amount


class Observations:
    """The series of a histogram that have the same labels. `bounds`: upper ones, ascending, without that of the last bucket, infinity."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # of each bucket by itself
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more. A bucket holds what is not above its bound."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


Child = TypeVar("Child", Count, Observations)
Family = TypeVar("Family", CounterMetricFamily, HistogramMetricFamily)


class _Tally(Collector, Generic[Child, Family]):
    """All series of a name. `make`: a new child; `family`: one without samples, as the library has it; `show`: a child, in such a one."""

    def __init__(
        self,
        make: Callable[[], Child],
        *,
        family: Callable[[], Family],
        show: Callable[[Family, Labels, Child], None],
        labels: Labels,
        registry: CollectorRegistry,
    ) -> None:
        self._make: Callable[[], Child] = make
        self._family: Callable[[], Family] = family
        self._show: Callable[[Family, Labels, Child], None] = show
        self._labels = labels
        self._children: dict[Labels, Child] = {}
        registry.register(self)

    def labels(self, *values: str) -> Child:
        """The child with these values of the labels, in their order; made when first asked for."""
        child = self._children.get(values)
        if child is None:
            assert len(values) == len(self._labels), values
            child = self._children[values] = self._make()
        return child

    def drop(self, label: str, *, value: str) -> None:
        """Forget what has this value of this label."""
        position = self._labels.index(label)
        self._children = {values: child for values, child in self._children.items() if values[position] != value}

    def describe(self) -> Iterable[Metric]:
        """Its name, so that no other can have it."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """What it comes to now."""
        family = self._family()
        for values, child in self._children.items():
            self._show(family, values, child)
        return [family]


class LoopCounter(_Tally[Count, CounterMetricFamily]):
    """A counter."""

    def __init__(self, name: str, documentation: str, labels: Labels, *, registry: CollectorRegistry) -> None:
        super().__init__(
            Count,
            family=lambda: CounterMetricFamily(name, documentation, labels=labels),
            show=lambda family, values, child: family.add_metric(values, child.value),
            labels=labels,
            registry=registry,
        )


class LoopHistogram(_Tally[Observations, HistogramMetricFamily]):
    """A histogram with these upper bounds, ascending; the bucket up to infinity is there besides."""

    def __init__(self, name: str, documentation: str, labels: Labels, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        said = [floatToGoString(bound) for bound in (*buckets, math.inf)]  # type: ignore[no-untyped-call]  # the library has no types here
        super().__init__(
            lambda: Observations(buckets),
            family=lambda: HistogramMetricFamily(name, documentation, labels=labels),
            show=lambda family, values, child: family.add_metric(values, list(zip(said, accumulate(child.counts), strict=True)), child.sum),
            labels=labels,
            registry=registry,
        )
