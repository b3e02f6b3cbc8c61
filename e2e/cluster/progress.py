"""One line on the terminal for each slow thing: what, elapsed, expected.

A terminal gets a line that moves; anything else gets a line at the start, one
every half minute, and one at the end. Goes to standard error, as standard
output belongs to the answer of the command.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLAIN_INTERVAL_S = 30.0
TERMINAL_INTERVAL_S = 0.5


def clock_face(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


@contextmanager
def step(what: str, *, expected_s: float) -> Iterator[None]:
    """Shows `what` while the block runs; `expected_s` is the time it takes with nothing cached."""
    terminal = sys.stderr.isatty()
    started = time.monotonic()
    finished = threading.Event()
    usual = f"of about {clock_face(expected_s)}" if expected_s >= 1 else ""

    def show() -> None:
        text = f"{what} … {clock_face(time.monotonic() - started)} {usual}"
        print(f"\r\x1b[2K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def keep_showing() -> None:
        show()
        while not finished.wait(TERMINAL_INTERVAL_S if terminal else PLAIN_INTERVAL_S):
            show()

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    outcome = "failed after"
    try:
        yield
        outcome = "done in"
    finally:
        finished.set()
        thread.join()
        text = f"{what}: {outcome} {time.monotonic() - started:.1f} s"
        print(f"\r\x1b[2K{text}" if terminal else text, file=sys.stderr, flush=True)
