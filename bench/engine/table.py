"""Figures and how they are printed. Knows nothing of where they come from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. `target`: what it should be, empty where nothing is promised. `load`: the machine's, when it was read."""

    what: str
    value: str
    target: str = ""
    load: str = ""


def percentile(values: Sequence[float], *, percent: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def spread(values: Sequence[float], *, unit: str = "s") -> str:
    """Median, 99th percentile and greatest of a sample."""
    if not values:
        return "none seen"
    p50, p99 = percentile(values, percent=50), percentile(values, percent=99)
    return f"p50 {p50:.2f} {unit}, p99 {p99:.2f} {unit}, max {max(values):.2f} {unit} (n={len(values)})"


def printed(rows: Sequence[Row]) -> str:
    """The table as text."""
    head = Row("figure", "value", "target", "load")
    columns = [[getattr(row, name) for row in (head, *rows)] for name in ("what", "value", "target", "load")]
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in zip(*columns, strict=True)]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
