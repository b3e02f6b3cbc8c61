"""The trailing window of a rule: the newest canary requests, at least 10 s and 20 requests of them, in a bounded number of spans."""

from dataclasses import dataclass, replace

from ..reading import Counts
from ..rule import ArmBlock

WINDOW_SECONDS = 10.0
WINDOW_REQUESTS = 20
# Beyond it the two neighbours with the fewest requests are kept as one: only the window's far edge gets coarser.
SPANS = 12
# Scrapes are not exactly periodic.
CLOCK_SLACK_SECONDS = 0.1


@dataclass(frozen=True)
class Span:
    """What came in during so many seconds."""

    seconds: float
    canary: Counts
    stable: Counts


def widened(window: tuple[Span, ...], *, block: ArmBlock) -> tuple[Span, ...]:
    """The window with one more block; a block without a canary request only lengthens the newest span."""
    span = Span(seconds=block.end - block.start, canary=block.canary, stable=block.stable or Counts())
    if block.canary.total == 0:
        return (*window[:-1], _joined(window[-1], span)) if window else ()
    window = (*window, span)
    while len(window) > 1 and is_whole(window[1:]):
        window = window[1:]
    if len(window) > SPANS:
        at = min(range(len(window) - 1), key=lambda i: window[i].canary.total + window[i + 1].canary.total)
        window = (*window[:at], _joined(window[at], window[at + 1]), *window[at + 2 :])
    return window


def canary_of(window: tuple[Span, ...]) -> Counts:
    """Canary requests of the window."""
    return Counts(bad=sum([span.canary.bad for span in window]), total=sum([span.canary.total for span in window]))


def newest_of(window: tuple[Span, ...]) -> tuple[Span, ...]:
    """The newest 10 s of it, however few requests they have."""
    while len(window) > 1 and sum(span.seconds for span in window[1:]) >= WINDOW_SECONDS - CLOCK_SLACK_SECONDS:
        window = window[1:]
    return window


def stable_of(window: tuple[Span, ...]) -> Counts:
    """Stable's requests at the same time."""
    return Counts(bad=sum([span.stable.bad for span in window]), total=sum([span.stable.total for span in window]))


def is_whole(window: tuple[Span, ...]) -> bool:
    """Whether it has the seconds and the requests that a window has."""
    seconds = sum([span.seconds for span in window])
    return seconds >= WINDOW_SECONDS - CLOCK_SLACK_SECONDS and sum([span.canary.total for span in window]) >= WINDOW_REQUESTS


def _joined(older: Span, newer: Span) -> Span:
    return replace(older, seconds=older.seconds + newer.seconds, canary=older.canary + newer.canary, stable=older.stable + newer.stable)
