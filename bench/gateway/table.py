"""Figures side by side, as a Markdown table, with what ours are to those of the others."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .calls import Calls
from .measure import BUSY_CONNECTIONS, CONNECTIONS, Figures
from .stacks import Fault

# The callers' and the model's own ceiling has to be so many times what is measured with them.
ENOUGH: Final = 3.0


@dataclass(frozen=True)
class Row:
    """One figure of every stack. `read` gives it, or NaN; `better`: the sign of a difference that is."""

    what: str
    read: Callable[[Figures, Figures], float]
    digits: int
    more_is_better: bool = False


def _ms(seconds: float) -> float:
    return seconds * 1000


def _of(calls: Calls | None, read: Callable[[Calls], float]) -> float:
    return math.nan if calls is None else read(calls)


def _rows() -> list[Row]:
    rows: list[Row] = []
    for n in CONNECTIONS:
        many = f"{n} connection{'s' if n > 1 else ''}"
        rows += [
            Row(f"added latency, {many}: p50, ms", lambda f, d, n=n: _ms(_of(f.whole.get(n), _median) - _of(d.whole.get(n), _median)), 2),  # type: ignore[misc]  # a default that binds
            Row(f"added latency, {many}: p99, ms", lambda f, d, n=n: _ms(_of(f.whole.get(n), _slow) - _of(d.whole.get(n), _slow)), 2),  # type: ignore[misc]  # the same
            Row(f"requests/s, {many}", lambda f, _, n=n: _of(f.whole.get(n), _rate), 0, more_is_better=True),  # type: ignore[misc]  # the same
        ]
    rows += [
        Row("stream, first token added: p50, ms", lambda f, d: _ms(_of(f.stream, _first) - _of(d.stream, _first)), 2),
        Row("stream, first token added: p99, ms", lambda f, d: _ms(_of(f.stream, _late_first) - _of(d.stream, _late_first)), 2),
        Row("stream, any token held: p50, ms", lambda f, d: _ms(_of(f.stream, _lag) - _of(d.stream, _lag)), 3),
        Row("stream, any token held: p99, ms", lambda f, d: _ms(_of(f.stream, _late) - _of(d.stream, _late)), 3),
        Row(f"tokens/s, {BUSY_CONNECTIONS} streams", lambda f, _: _of(f.streams, lambda c: c.tokens_per_second), 0, more_is_better=True),
        Row("cache hit, 1 connection: p50, ms, in all", lambda f, _: _ms(_of(f.hit, lambda c: c.whole.p50)), 2),
        Row("cache hit, 1 connection: p99, ms, in all", lambda f, _: _ms(_of(f.hit, lambda c: c.whole.p99)), 2),
        Row(f"cache hits/s, {BUSY_CONNECTIONS} connections", lambda f, _: _of(f.hits, lambda c: c.per_second), 0, more_is_better=True),
        Row("rules answer, no model does: p50, ms, in all", lambda f, _: _ms(_of(f.ruled, lambda c: c.whole.p50)), 2),
        Row("rules answer, no model does: p99, ms, in all", lambda f, _: _ms(_of(f.ruled, lambda c: c.whole.p99)), 2),
        Row("memory idle, MiB", lambda f, _: math.nan if f.idle is None else f.idle, 0),
        Row("memory after the load, MiB", lambda f, _: math.nan if f.loaded is None else f.loaded, 0),
    ]
    for fault in Fault:
        rows += [
            Row(f"first byte, primary {fault}: p50, ms", lambda f, _, x=fault: _ms(_of(f.faults.get(x), _byte)), 1),  # type: ignore[misc]  # the same
            Row(f"first byte, primary {fault}: p99, ms", lambda f, _, x=fault: _ms(_of(f.faults.get(x), _late_byte)), 1),  # type: ignore[misc]  # the same
        ]
    return rows


def _median(calls: Calls) -> float:
    return calls.whole.p50


def _slow(calls: Calls) -> float:
    return calls.whole.p99


def _rate(calls: Calls) -> float:
    return calls.per_second


def _first(calls: Calls) -> float:
    return calls.first_text.p50


def _late_first(calls: Calls) -> float:
    return calls.first_text.p99


def _lag(calls: Calls) -> float:
    return calls.lag.p50


def _late(calls: Calls) -> float:
    return calls.lag.p99


def _byte(calls: Calls) -> float:
    return calls.first_byte.p50


def _late_byte(calls: Calls) -> float:
    return calls.first_byte.p99


@dataclass(frozen=True)
class Round:
    """All stacks once, ours first, and the model without anything between."""

    direct: Figures
    stacks: Sequence[Figures]


def table(rounds: Sequence[Round]) -> str:
    """All figures, each the median of the rounds. The ratios say how many times better ours is, whichever way a figure is good: of what
    was measured in the same round, with the least and the most of them.
    """
    first = rounds[0].stacks
    titles = ["", "ceiling", *(f"{s.name} {s.version}" for s in first), *(f"× {other.name}" for other in first[1:])]
    lines = [_line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
    for row in _rows():
        values = [[row.read(stack, one.direct) for stack in one.stacks] for one in rounds]
        ceiling = _middle([row.read(one.direct, one.direct) for one in rounds]) if row.more_is_better else math.nan
        shown = [_middle(column) for column in zip(*values, strict=True)]
        ratios = [_ratios([_ratio(of[0], of[n], row=row) for of in values]) for n in range(1, len(first))]
        lines.append(_line([row.what, *(_number(value, digits=row.digits) for value in (ceiling, *shown)), *ratios]))
    spare = [_most(one.direct) / _most(one.stacks[0]) for one in rounds]
    said = f"The ceiling is {_spared(_middle(spare))}."
    tokens = [_tokens(one.direct) / _tokens(one.stacks[0]) for one in rounds]
    if not math.isnan(_middle(tokens)):
        said += f" Of tokens/s it is {_spared(_middle(tokens))}."
    left_out = dict.fromkeys(note for one in rounds for stack in one.stacks for note in stack.notes)
    return "\n".join([*lines, "", said, *(line for note in left_out for line in ("", f"Left out: {note}"))])


def _most(figures: Figures) -> float:
    return max((calls.per_second for calls in figures.whole.values()), default=math.nan)


def _tokens(figures: Figures) -> float:
    return _of(figures.streams, lambda calls: calls.tokens_per_second)


def _middle(values: Sequence[float]) -> float:
    """The median of those that there are."""
    return statistics.median([value for value in values if not math.isnan(value)] or [math.nan])


def _spared(times: float) -> str:
    return f"{times:.1f} times the best of ours: " + ("enough" if times >= ENOUGH else f"**too little to tell**, {ENOUGH:.0f} are needed")


def _ratio(ours: float, theirs: float, *, row: Row) -> float:
    if not (ours > 0 and theirs > 0):
        return math.nan
    return ours / theirs if row.more_is_better else theirs / ours


def _ratios(values: Sequence[float]) -> str:
    there = [value for value in values if not math.isnan(value)]
    middle = _number(_middle(there), digits=1)
    return middle if len(there) < 2 else f"{middle} ({min(there):.1f}…{max(there):.1f})"


def _number(value: float, *, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
