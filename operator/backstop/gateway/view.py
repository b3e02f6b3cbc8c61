"""What the gateway knows of the traffic state, and since when. Written by the watch, read on every request."""

from collections.abc import Callable

from ..api.traffic import TrafficState
from .split import newer


class TrafficView:
    """The newest known state: None until one was read. `on_change` is told every new generation."""

    def __init__(self, *, on_change: Callable[[TrafficState], None]) -> None:
        self._on_change = on_change
        self.state: TrafficState | None = None
        self.read_at: float | None = None  # wall clock, seconds, of the last successful read

    def accept(self, read: TrafficState, *, at: float) -> None:
        """Act on `read`, unless a newer generation is known."""
        self.read_at = at
        state = newer(self.state, read=read)
        if state is not self.state:
            self.state = state
            self._on_change(state)
