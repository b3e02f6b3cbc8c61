"""The plot, as SVG: time to rollback against the request rate, and false rollbacks beside it."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from .cells import DETECTED, HEALTHY
from .table import Outcome, median

WIDTH, HEIGHT = 980, 430
LEFT, TOP, PANEL, TALL = 70, 60, 330, 270
GAP = 110
LONGEST = 1800.0
COLOURS = ("#1d3557", "#4ea1d3", "#0b6e4f", "#2a9d8f", "#9b2226", "#e76f51", "#f4a261", "#5e548e", "#b298dc", "#7f8c8d")


def drawn(outcomes: Sequence[Outcome], *, rates: Sequence[int]) -> str:
    """The picture; judges that were not asked about both rows are left out."""
    names = list(dict.fromkeys(one.judge for one in outcomes if one.what == DETECTED))
    found = {(one.what, one.judge, one.rate): one for one in outcomes}
    height = HEIGHT + 20 * ((len(names) + 1) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_axes(
            0, title="Time to rollback, 0.5 → 2 % bad", rates=rates, marks=[(5, "5 s"), (60, "1 min"), (600, "10 min"), (1800, "≥ 30 min")]
        ),
        *_axes(
            1,
            title="Healthy canaries rolled back in 30 min",
            rates=rates,
            marks=[(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
        ),
    ]
    for index, name in enumerate(names):
        colour = COLOURS[index % len(COLOURS)]
        slow = [(rate, min(LONGEST, median(found[DETECTED, name, rate].delays)[0])) for rate in rates if (DETECTED, name, rate) in found]
        false = [(rate, one.rollbacks / len(one.times)) for rate in rates if (one := found.get((HEALTHY, name, rate))) is not None]
        width = 3 if name.startswith(("Backstop", "Sequential")) else 1.5
        # Lines that coincide are moved apart by a pixel and a half each, so that all can be seen.
        shift = 1.5 * (index - len(names) / 2)
        parts += _line([(_x(0, rate, rates=rates), _high(value) + shift) for rate, value in slow], colour=colour, width=width)
        parts += _line([(_x(1, rate, rates=rates), _share(value) + shift) for rate, value in false], colour=colour, width=width)
        x, y = LEFT + (index % 2) * (PANEL + GAP), TOP + TALL + 70 + 20 * (index // 2)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(f'<text x="{x + 32}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _axes(panel: int, *, title: str, rates: Sequence[int], marks: Sequence[tuple[float, str]]) -> list[str]:
    x = LEFT + panel * (PANEL + GAP)
    parts = [f'<text x="{x}" y="{TOP - 24}" font-size="14" font-weight="bold">{escape(title)}</text>']
    for value, text in marks:
        y = _high(value) if panel == 0 else _share(value)
        parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{x + PANEL}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for rate in rates:
        at = _x(panel, rate, rates=rates)
        parts.append(f'<text x="{at:.1f}" y="{TOP + TALL + 20}" text-anchor="middle">{rate}</text>')
    parts.append(f'<text x="{x + PANEL / 2}" y="{TOP + TALL + 40}" text-anchor="middle">canary requests per second</text>')
    return parts


def _x(panel: int, rate: int, *, rates: Sequence[int]) -> float:
    low, high = math.log(min(rates)), math.log(max(rates))
    return LEFT + panel * (PANEL + GAP) + 15 + (PANEL - 30) * (math.log(rate) - low) / (high - low)


def _high(seconds: float) -> float:
    """From 4 s at the bottom to half an hour at the top, by its logarithm."""
    return TOP + TALL * (1 - math.log(max(4.0, seconds) / 4.0) / math.log(LONGEST / 4.0))


def _share(share: float) -> float:
    return TOP + TALL * (1 - share)


def _line(points: Sequence[tuple[float, float]], *, colour: str, width: float) -> list[str]:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="{width}"/>', *dots]
