"""Figures side by side, as a Markdown table, with what ours are to those of the others."""

import math
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


def table(stacks: Sequence[Figures], *, direct: Figures) -> str:
    """All figures. The first stack is ours; the ratios say how many times better it is, whichever way a figure is good."""
    ours, others = stacks[0], stacks[1:]
    titles = ["", "ceiling", *(f"{s.name} {s.version}" for s in stacks), *(f"× {other.name}" for other in others)]
    lines = [_line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
    for row in _rows():
        values = [row.read(stack, direct) for stack in stacks]
        ceiling = row.read(direct, direct) if row.more_is_better else math.nan
        ratios = [_ratio(values[0], value, row=row) for value in values[1:]]
        lines.append(_line([row.what, _number(ceiling, digits=row.digits), *(_number(v, digits=row.digits) for v in values), *ratios]))
    best = max((calls.per_second for calls in ours.whole.values()), default=math.nan)
    spare = max(calls.per_second for calls in direct.whole.values()) / best
    left_out = [line for stack in stacks for note in stack.notes for line in ("", f"Left out: {note}")]
    said = f"The ceiling is {_spared(spare)}."
    if direct.streams is not None and ours.streams is not None:
        said += f" Of tokens/s it is {_spared(direct.streams.tokens_per_second / ours.streams.tokens_per_second)}."
    return "\n".join([*lines, "", said, *left_out])


def _spared(times: float) -> str:
    return f"{times:.1f} times the best of ours: " + ("enough" if times >= ENOUGH else f"**too little to tell**, {ENOUGH:.0f} are needed")


def _ratio(ours: float, theirs: float, *, row: Row) -> str:
    if not (ours > 0 and theirs > 0):
        return ""
    return f"{(ours / theirs if row.more_is_better else theirs / ours):.1f}"


def _number(value: float, *, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
