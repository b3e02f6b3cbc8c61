"""Time per update of the rule: the quickest of many rounds, so that what else the machine does is left out."""

import math
import time

from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable, Sequential

from .judges import Ours
from .streams import Truth, always, stream

ROUNDS, UPDATES = 500, 10


def measured() -> str:
    """A Markdown table of µs per block and verdict."""
    lines = ["| rule | µs per block, verdict included |", "|---|---|"]
    tails = ((0.01, 0.01),) * 5
    for name, ours, truth in (
        ("limit, both tests", Ours(AtMost(0.01)), Truth(always(0.005), always(0.005))),
        ("allowed increase", Ours(NoMoreThanStable(0.0005)), Truth(always(0.005), always(0.005))),
        ("limit, six latency bounds", Ours(AtMost(0.05), comparisons=6), Truth(always(0.02), always(0.02), tails=tails)),
    ):
        lines.append(f"| {name} | {_micros(ours.rule(), truth=truth):.0f} |")
    return "\n".join(lines)


def _micros(rule: Sequential, *, truth: Truth) -> float:
    drawn = stream(truth, rate=10, seconds=1800.0, seed="cost")
    quickest, state, blocks = math.inf, rule.seeded(rule.start(), history=drawn.history), drawn.blocks
    for index in range(0, ROUNDS * UPDATES, UPDATES):
        part = [blocks[(index + offset) % len(blocks)] for offset in range(UPDATES)]
        began = time.perf_counter()
        for block in part:
            state = rule.observe(state, block=block)
            rule.judge(state)
        quickest = min(quickest, time.perf_counter() - began)
    return quickest / UPDATES * 1e6
