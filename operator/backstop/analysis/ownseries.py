"""Series of an SLO's own counters, with the revision that they are of; and whether two of them count the same. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from .answers import MatrixSeries
from .samples import Series


@dataclass(frozen=True)
class ArmSeries:
    """One series of an answer, and the revision it is of."""

    revision: str
    series: MatrixSeries


def scraped_twice(totals: Sequence[Series], *, labels: Sequence[dict[str, str]]) -> tuple[dict[str, str], dict[str, str]] | None:
    """Two series of one target that were scraped side by side, but never together: two scrapers, or two jobs, count the same."""
    fullest: dict[str, int] = {}
    for number, one in enumerate(totals):
        before = fullest.get(one.target)
        if before is None or len(totals[before].points) < len(one.points):
            fullest[one.target] = number
    times = {target: {at for at, _ in totals[number].points} for target, number in fullest.items()}
    for number, one in enumerate(totals):
        other, others = fullest[one.target], times[one.target]
        mine = {at for at, _ in one.points}
        if len(mine) > 1 and mine.isdisjoint(others) and min(others) < max(mine) and min(mine) < max(others):
            return labels[other], labels[number]
    return None
