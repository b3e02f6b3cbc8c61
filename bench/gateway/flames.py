"""Sampled stacks: the largest shares as a table, and a flame graph as SVG, without a script in it. PURE.

A stack is the names of its calls, from the first to the innermost one, joined by `;` (what py-spy calls `raw`, and others folded).
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape, quoteattr

WIDTH: Final = 1200
ROW: Final = 16
# Of all samples: what is narrower can be neither read nor pointed at.
NARROWEST: Final = 0.002
CHARACTER: Final = 6.2  # pixels, of 11 point letters
_LINE: Final = re.compile(r":\d+\)")
_PYTHON: Final = ("#f4a259", "#f2b26b", "#f0963f", "#f6bd7f")
_NATIVE: Final = ("#8cb3d9", "#9dbfe0", "#7ba7d0", "#aecbe6")


@dataclass
class Call:
    """Samples in which a call was on the stack, and the calls that it made."""

    samples: int = 0
    calls: dict[str, "Call"] = field(default_factory=dict)


def stacks_of(raw: str) -> Counter[tuple[str, ...]]:
    """Samples by stack, calls without the lines that they were at. Raises ValueError for what is none."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in _LINE.sub(")", raw).splitlines():
        stack, _, samples = line.rpartition(" ")
        found[tuple(stack.split(";"))] += int(samples)
    return found


def shares(stacks: Mapping[tuple[str, ...], int]) -> list[tuple[str, float, float]]:
    """Of each call: its share by itself, and with what it called; the largest by themselves first."""
    alone: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for stack, samples in stacks.items():
        alone[stack[-1]] += samples
        for name in set(stack):
            inside[name] += samples
    every = sum(stacks.values())
    return [(name, samples / every, inside[name] / every) for name, samples in alone.most_common()]


def origins(stacks: Mapping[tuple[str, ...], int]) -> list[tuple[str, float]]:
    """Whose code runs, by the innermost call: a Python package, a library, or what else is compiled; the largest shares first."""
    found: Counter[str] = Counter()
    for stack, samples in stacks.items():
        found[_origin(stack[-1])] += samples
    return [(name, samples / found.total()) for name, samples in found.most_common()]


def drawn(stacks: Mapping[tuple[str, ...], int], *, title: str) -> str:
    """The flame graph: the first call at the bottom, a call's width its share. Python is orange, what is compiled is blue."""
    root = Call()
    for stack, samples in _without_shared_start(stacks).items():
        call = root
        call.samples += samples
        for name in stack:
            call = call.calls.setdefault(name, Call())
            call.samples += samples
    boxes = list(_boxes(root, x=0.0, depth=0, every=root.samples))
    height = (max((depth for _, _, depth, _ in boxes), default=0) + 3) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="4" y="{ROW}" font-size="13">{escape(title)}</text>',
    ]
    for name, x, depth, share in boxes:
        y, wide = height - (depth + 1) * ROW, share * WIDTH
        text = name if len(name) * CHARACTER <= wide else name[: max(0, int(wide / CHARACTER) - 1)] + "…"
        parts.append(
            f'<g><title>{escape(name)}: {share:.1%}</title><rect x="{x * WIDTH:.1f}" y="{y}" width="{wide:.1f}" height="{ROW - 1}" '
            f"fill={quoteattr(_colour(name))}/>"
            + (f'<text x="{x * WIDTH + 2:.1f}" y="{y + 12}">{escape(text)}</text>' if wide > 4 * CHARACTER else "")
            + "</g>"
        )
    return "\n".join([*parts, "</svg>", ""])


def table(rows: Sequence[tuple[str, float, float]], *, microseconds: float) -> str:
    """The largest shares, and what they are of the `microseconds` that a request takes, as Markdown."""
    lines = ["| alone, % | alone, µs | with what it calls, % | |", "| ---: | ---: | ---: | --- |"]
    lines += [
        f"| {alone:.1%} | {alone * microseconds:.1f} | {inside:.1%} | `{name}` |".replace("% |", " |") for name, alone, inside in rows
    ]
    return "\n".join(lines)


def _without_shared_start(stacks: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """Without what nearly every stack begins with, which says nothing."""
    rest = dict(stacks)
    while rest:
        firsts = Counter[str]()
        for stack, samples in rest.items():
            firsts[stack[0]] += samples if len(stack) > 1 else 0
        name, samples = firsts.most_common(1)[0]
        if samples < 0.99 * sum(rest.values()):
            break
        rest = {stack[1:]: samples for stack, samples in rest.items() if stack[0] == name and len(stack) > 1}
    return rest


def _boxes(call: Call, *, x: float, depth: int, every: int) -> Iterable[tuple[str, float, int, float]]:
    for name, called in sorted(call.calls.items()):
        share = called.samples / every
        if share >= NARROWEST:
            yield name, x, depth, share
            yield from _boxes(called, x=x, depth=depth + 1, every=every)
        x += share


def _origin(name: str) -> str:
    _, bracket, place = name.rpartition("(")
    file = place.removesuffix(")")
    if not bracket or file.endswith((".c", ".h", ".pyx", ".pxd")):
        return "compiled"
    return file if ".so" in file else file.split("/")[0].removesuffix(".py")


def _colour(name: str) -> str:
    shades = _PYTHON if name.endswith((".py)", ">)")) else _NATIVE
    return shades[zlib.crc32(name.encode()) % len(shades)]
