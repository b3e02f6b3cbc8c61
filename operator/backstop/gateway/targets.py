"""Which targets are taken out: a breaker for each, taught by what became of an attempt."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from .breaker import Breaker, BreakerState, Broke, LeftAlone, Lesson, Permit, Unclear, Worked
from .metrics import GatewayMetrics
from .revision import ModelTier, Revision
from .upstream import Failed, PassedBack, Streaming, Whole

# How long a target that refused our key, or cannot prove who it is, is left alone before one request tries it again.
UNUSABLE_SECONDS: Final = 30.0
_LOG: Final = logging.getLogger("backstop.gateway")


class TargetGate:
    """Opens and closes the targets of one revision, by their tiers' names. `clock` is monotonic, in seconds."""

    def __init__(self, revision: Revision, *, metrics: GatewayMetrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._breakers = {tier.name: Breaker(tier.breaker, clock=clock) for tier in revision.tiers if isinstance(tier, ModelTier)}
        self._unusable: set[str] = set()  # until somebody has corrected what is declared, or they have
        for name, breaker in self._breakers.items():
            metrics.watch_breaker(name, breaker=breaker)

    def admits(self, target: str) -> bool:
        """Whether `enter` would give a permit now."""
        return self._breakers[target].admits

    def enter(self, target: str) -> Permit | LeftAlone:
        """Whether an attempt may be made. Every Permit is followed by exactly one `leave`."""
        return self._breakers[target].enter()

    def leave(self, target: str, *, permit: Permit, result: Whole | Streaming | PassedBack | Failed | None) -> None:
        """The attempt ended; `result` is None when it was cancelled."""
        breaker = self._breakers[target]
        breaker.leave(permit, lesson=_lesson(result))
        if isinstance(result, Failed) and result.unusable:
            if target not in self._unusable:
                _LOG.warning("%s; it is tried again every %.0f s", result.failure.detail, UNUSABLE_SECONDS)
            self._unusable.add(target)
            self._metrics.set_target_up(target, up=False)
        elif target in self._unusable and breaker.state is BreakerState.CLOSED:
            _LOG.info("tier `%s` can be used again", target)
            self._unusable.discard(target)
            self._metrics.set_target_up(target, up=True)

    def status(self) -> Mapping[str, Mapping[str, Any]]:
        """The breakers by tier, for people: state, how the target failed, seconds until it is tried again."""
        return {
            name: {
                "state": breaker.state.name.lower().replace("_", "-"),
                "failureMode": breaker.mode,
                "openForSeconds": round(breaker.open_for, 1),
            }
            for name, breaker in self._breakers.items()
        }


def _lesson(result: Whole | Streaming | PassedBack | Failed | None) -> Lesson:
    match result:
        case Whole() | Streaming():
            return Worked()
        case PassedBack() | Failed(blameless=True) | None:
            return Unclear()
        case Failed(failure=failure, unusable=True):
            return Broke(failure.mode, leave_alone=UNUSABLE_SECONDS)
        case Failed(failure=failure, retry_after=seconds):
            return Broke(failure.mode, leave_alone=seconds)
