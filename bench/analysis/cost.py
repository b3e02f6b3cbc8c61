"""Processor time per update of the rule, in the same process, one core."""

import time

from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable, Sequential

from .judges import Ours
from .streams import Truth, always, stream

UPDATES = 3000


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
    blocks = stream(truth, rate=10, seconds=1800.0, seed="cost").blocks
    state = rule.start()
    began = time.process_time()
    for index in range(UPDATES):
        state = rule.observe(state, block=blocks[index % len(blocks)])
        rule.judge(state)
    return (time.process_time() - began) / UPDATES * 1e6
