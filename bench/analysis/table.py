"""What came out, with confidence intervals, as text and as a picture. Draws nothing that was not measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Z95 = 1.959964


@dataclass(frozen=True)
class Outcome:
    """One cell, one judge, one rate: how many runs, and when each was rolled back (seconds; None: never)."""

    what: str
    judge: str
    rate: int
    onset: float | None
    target: float | None
    bound: float | None
    seconds: float
    times: tuple[float | None, ...]

    @property
    def delays(self) -> list[float]:
        """Seconds from the onset; infinite where it was not found, or was rolled back before there was anything."""
        onset = self.onset or 0.0
        return sorted(math.inf if at is None or at <= onset else at - onset for at in self.times)

    @property
    def early(self) -> int:
        """Rolled back before there was anything to find."""
        return sum(at is not None and at <= (self.onset or 0.0) for at in self.times)

    @property
    def rollbacks(self) -> int:
        """Runs that were rolled back."""
        return sum(at is not None for at in self.times)


def wilson(successes: int, *, runs: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, 1927)."""
    p, z2 = successes / runs, Z95 * Z95
    middle = (p + z2 / (2 * runs)) / (1 + z2 / runs)
    half = Z95 * math.sqrt(p * (1 - p) / runs + z2 / (4 * runs * runs)) / (1 + z2 / runs)
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == runs else middle + half


def median(ordered: Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval, from the order statistics."""
    n = len(ordered)
    half = Z95 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return ordered[(n - 1) // 2], ordered[low], ordered[high]


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.3g} %"


def seconds(value: float) -> str:
    """Seconds, or that it was not found."""
    return "–" if math.isinf(value) else f"{value:.0f} s"


def figure(outcome: Outcome) -> str:
    """What is printed in a cell."""
    runs = len(outcome.times)
    if outcome.onset is None:
        low, high = wilson(outcome.rollbacks, runs=runs)
        return f"{percent(outcome.rollbacks / runs)} ({percent(low)}…{percent(high)})"
    middle, low, high = median(outcome.delays)
    missed = sum(map(math.isinf, outcome.delays))
    text = seconds(middle) if low == middle == high else f"{seconds(middle)} ({seconds(low)}…{seconds(high)})"
    if outcome.early:
        return f"{text}, {percent(outcome.early / runs)} before it"
    return f"{text}, {percent(missed / runs)} missed" if missed else text


def ratio(outcome: Outcome) -> str:
    """Mean canary requests over Wald's bound; only where every run found it, as the mean is not known else."""
    assert outcome.bound is not None, "only where there is a bound"
    used = [outcome.rate * at for at in outcome.times if at is not None]
    error = Z95 * stdev(used) / math.sqrt(len(used))
    return f"{fmean(used) / outcome.bound:.2f} ± {error / outcome.bound:.2f}"


def printed(outcomes: Sequence[Outcome], *, rates: Sequence[int]) -> str:
    """The table, in Markdown."""
    by_row: dict[tuple[str, str], dict[int, Outcome]] = {}
    for outcome in outcomes:
        by_row.setdefault((outcome.what, outcome.judge), {})[outcome.rate] = outcome
    lines, last = [], ""
    for (what, judge), found in by_row.items():
        if what != last:
            one = next(iter(found.values()))
            kind = "rolled back, share of all runs" if one.onset is None else "median time to rollback"
            lines += ["", f"**{what}** ({kind}; {len(one.times):,} runs each)", ""]
            columns = " | ".join("1 request/s" if rate == 1 else f"{rate} requests/s" for rate in rates)
            lines += [f"| | {columns} | mean / Wald's bound at the lowest rate |"]
            lines += ["|---|" + "---|" * (len(rates) + 1)]
            if any(outcome.target is not None for outcome in found.values()):
                wanted = [_wanted(found[rate]) if rate in found else "" for rate in rates]
                lines += ["| *wanted* | " + " | ".join(wanted) + " | |"]
            last = what
        bound = found.get(min(found))
        against = ratio(bound) if bound is not None and bound.bound is not None and bound.rollbacks == len(bound.times) else ""
        lines += [f"| {judge} | " + " | ".join(figure(found[rate]) if rate in found else "" for rate in rates) + f" | {against} |"]
    return "\n".join(lines).strip()


def _wanted(outcome: Outcome) -> str:
    if outcome.target is None:
        return ""
    return f"≤ {percent(outcome.target)}" if outcome.onset is None else f"≤ {outcome.target:.0f} s"
