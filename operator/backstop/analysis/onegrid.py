"""Counters of one target that two replicas of a metrics source have scraped, as of the times of one of them. Pure.

A query front end that takes duplicates out series by series shows each from the replica that has its first sample of the range. For all
series that are older that is the same one; one that is new, as of the first errors of a canary, may come from the other, with times of
its own. No scrape would be whole then: each lacks what the next one has.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .samples import Series


@dataclass(frozen=True)
class _Grid:
    """Series that were scraped together, and their times."""

    times: frozenset[float]
    series: tuple[Series, ...]

    def is_among(self, other: "_Grid") -> bool:
        """Whether the times of one lie between those of the other."""
        return min(self.times) < max(other.times) and min(other.times) < max(self.times)


def on_one_grid(series: Sequence[Series]) -> Sequence[Series]:
    """The series of one target. Those that were never scraped with most others, but in between, are told as of the others' times.

    What is counted between two scrapes of these is then at most one scrape old, and is counted by the next one. Where one of them falls the
    process began again, perhaps after the last sample of those in between: they are left out there, and counted from 0 by the next scrape.
    """
    if len({one.points[-1][0] for one in series}) < 2:  # a time that all have
        return series
    grids = _grids(series)
    main = max(grids, key=lambda grid: (len(grid.series), len(grid.times), -min(grid.times)))
    beside = [grid for grid in grids if grid is not main and grid.is_among(main)]
    if not beside:
        return series
    fell = {later[0] for one in main.series for before, later in pairwise(sorted(one.points)) if later[1] < before[1]}
    moved = {one.counter: as_of(one, times=main.times, without=fell) for grid in beside for one in grid.series}
    return [told for one in series if (told := moved.get(one.counter, one)).points]


def as_of(one: Series, *, times: Iterable[float], without: Iterable[float] = ()) -> Series:
    """At each of these times, but `without` some, the newest value since the time before; none where there is no sample in between."""
    left_out = set(without)
    points = sorted(one.points)
    told: list[tuple[float, float]] = []
    for before, at in pairwise((-math.inf, *sorted(times))):
        since = [value for taken, value in points if before < taken <= at]
        if since and at not in left_out:
            told.append((at, since[-1]))
    return replace(one, points=tuple(told))


def _grids(series: Iterable[Series]) -> list[_Grid]:
    """Series that have a time in common, also by way of others, together."""
    grids: list[_Grid] = []
    for one in series:
        joined = _Grid(frozenset(at for at, _ in one.points), (one,))
        apart = []
        for grid in grids:
            if grid.times.isdisjoint(joined.times):
                apart.append(grid)
            else:
                joined = _Grid(grid.times | joined.times, (*grid.series, *joined.series))
        grids = [*apart, joined]
    return grids
