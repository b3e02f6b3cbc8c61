"""A circuit breaker: whether a target may be tried, from what its last attempts taught. PURE.

Knows permits, lessons and a monotonic clock; knows neither HTTP nor which target it is for.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, assert_never

from ..api.metricnames import FailureMode

# A window is forgotten in so many parts, one after the other.
_PARTS: Final = 10


class BreakerState(IntEnum):
    """As `backstop_breaker_state` says it."""

    CLOSED = 0  # attempts go through
    HALF_OPEN = 1  # one attempt at a time, to see
    OPEN = 2  # none


@dataclass(frozen=True)
class BreakerSettings:
    """When a breaker opens: `failure_percent` of at least `min_requests` attempts of the last `window` seconds; for `open` seconds."""

    window: float
    min_requests: int
    failure_percent: int
    open: float


class Permit(NamedTuple):
    """An attempt may be made. `generation`: of the breaker when it was given; what it teaches is old when that has passed."""

    generation: int
    probe: bool


@dataclass(frozen=True)
class LeftAlone:
    """No attempt may be made now. `mode`: how the target failed."""

    mode: FailureMode


@dataclass(frozen=True)
class Worked:
    """The target answered as it should."""


@dataclass(frozen=True)
class Broke:
    """The target failed. `leave_alone`: seconds that nobody shall ask it again, where that is known."""

    mode: FailureMode
    leave_alone: float = 0.0


@dataclass(frozen=True)
class Unclear:
    """Nothing was learned of the target: its caller left, or the mistake was the caller's."""


Lesson = Worked | Broke | Unclear


class Breaker:
    """One target's breaker. `clock` is monotonic, in seconds. Not for several threads."""

    def __init__(self, settings: BreakerSettings, *, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._window = _Window(settings.window)
        self._generation = 0  # rises whenever it opens or closes
        self._open_until: float | None = None  # None: closed
        self._mode = FailureMode.DEPENDENCY_FAILURE  # how the target failed, while not closed
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """Now."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    @property
    def mode(self) -> FailureMode | None:
        """How the target failed; None while it is closed."""
        return None if self._open_until is None else self._mode

    @property
    def open_for(self) -> float:
        """Seconds until it is tried again; 0 when it may be."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    @property
    def admits(self) -> bool:
        """Whether `enter` would give a permit now."""
        return self._open_until is None or not (self._probing or self._clock() < self._open_until)

    def enter(self) -> Permit | LeftAlone:
        """Whether an attempt may be made. Every Permit is followed by exactly one `leave` with it."""
        if self._open_until is None:
            return Permit(self._generation, probe=False)
        if not self.admits:
            return LeftAlone(self._mode)
        self._probing = True
        return Permit(self._generation, probe=True)

    def leave(self, permit: Permit, *, lesson: Lesson) -> None:
        """The attempt ended. An old permit neither closes the breaker nor counts, but what says how long to wait always holds."""
        if permit.probe:
            self._probing = False
        is_current = permit.generation == self._generation
        match lesson:
            case Unclear():
                return
            case Worked():
                if is_current and permit.probe:
                    self._close()
                elif is_current:
                    self._window.count(self._clock(), mode=None)
            case Broke(mode=mode, leave_alone=leave_alone):
                if is_current and permit.probe:
                    leave_alone = max(leave_alone, self._settings.open)
                if leave_alone > 0:
                    self._open(leave_alone, mode=mode)
                elif is_current:
                    self._window.count(self._clock(), mode=mode)
                    if self._is_too_much():
                        self._open(self._settings.open, mode=self._window.commonest())
            case _:
                assert_never(lesson)

    def _is_too_much(self) -> bool:
        attempts = self._window.attempts
        enough = attempts >= self._settings.min_requests
        return enough and self._window.failures.total() * 100 >= self._settings.failure_percent * attempts

    def _open(self, seconds: float, *, mode: FailureMode) -> None:
        until = self._clock() + seconds
        self._generation += 1
        self._window = _Window(self._settings.window)
        if self._open_until is None or until > self._open_until:  # of two ends the later one holds
            self._open_until, self._mode = until, mode

    def _close(self) -> None:
        self._generation += 1
        self._open_until = None


@dataclass
class _Part:
    """What was counted in one part of the window."""

    number: int
    attempts: int = 0
    failures: Counter[FailureMode] = field(default_factory=Counter)


class _Window:
    """Attempts of the last seconds, to a tenth of them."""

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _PARTS
        self._parts: deque[_Part] = deque()
        self.attempts = 0
        self.failures: Counter[FailureMode] = Counter()

    def count(self, now: float, *, mode: FailureMode | None) -> None:
        """Count an attempt that failed as `mode` says; None: that did not."""
        number = int(now // self._width)
        while self._parts and self._parts[0].number <= number - _PARTS:
            old = self._parts.popleft()
            self.attempts -= old.attempts
            self.failures -= old.failures
        if not self._parts or self._parts[-1].number != number:
            self._parts.append(_Part(number))
        part = self._parts[-1]
        part.attempts += 1
        self.attempts += 1
        if mode is not None:
            part.failures[mode] += 1
            self.failures[mode] += 1

    def commonest(self) -> FailureMode:
        """How most of what failed did; of two that are as common, the one that came first. There must be one."""
        return self.failures.most_common(1)[0][0]
