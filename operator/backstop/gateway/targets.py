"""Which targets are taken out: one that refuses our key (401, 403) is left alone, then tried again by one request at a time."""

from collections.abc import Callable
from typing import Final

from .metrics import GatewayMetrics

# How long a target that refused our key is left alone before one request tries it again.
RETRY_AFTER_SECONDS: Final = 30.0


class TargetGate:
    """Opens and closes targets by name. `clock` is monotonic, in seconds."""

    def __init__(self, *, metrics: GatewayMetrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._closed_until: dict[str, float] = {}
        self._trying: set[str] = set()

    def enter(self, target: str) -> bool:
        """Whether an attempt may be made. Every True is followed by exactly one `leave`."""
        closed_until = self._closed_until.get(target)
        if closed_until is None:
            return True
        if target in self._trying or self._clock() < closed_until:
            return False
        self._trying.add(target)
        return True

    def leave(self, target: str, *, refused: bool | None) -> None:
        """The attempt ended. `refused`: the key was (not) refused; None: nothing was learned (late, cut, cancelled)."""
        self._trying.discard(target)
        match refused:
            case None:
                return
            case True:
                self._closed_until[target] = self._clock() + RETRY_AFTER_SECONDS
                self._metrics.set_target_up(target, up=False)
            case False:
                if self._closed_until.pop(target, None) is not None:
                    self._metrics.set_target_up(target, up=True)
