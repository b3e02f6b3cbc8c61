"""How often a route that somebody else keeps changing is put right: at once, then after pauses that grow. Pure, but for what it remembers.

Another controller that wants the same object otherwise would be answered write for write, as fast as both can.
"""

from dataclasses import dataclass
from typing import Final

from .keys import PolicyKey

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
# Whoever is quiet for so long was a person who made a mistake.
FORGOTTEN_SECONDS: Final = 2 * LONGEST_PAUSE_SECONDS


@dataclass(frozen=True)
class _Repaired:
    at: float
    pause: float


class Repairs:
    """The latest repair of each policy's route; times in seconds since the epoch."""

    def __init__(self) -> None:
        self._latest: dict[PolicyKey, _Repaired] = {}

    def due_at(self, key: PolicyKey, *, now: float) -> float:
        """From when on the route may be repaired again: now, or later."""
        latest = self._latest.get(key)
        if latest is None or now - latest.at >= FORGOTTEN_SECONDS:
            return now
        return max(now, latest.at + latest.pause)

    def made(self, key: PolicyKey, *, now: float) -> int:
        """It was repaired. Returns the seconds until it may be again; 0 where it was right for long before."""
        latest = self._latest.get(key)
        before = latest.pause if latest is not None and now - latest.at < FORGOTTEN_SECONDS else 0.0
        self._latest[key] = _Repaired(now, min(2 * before or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
        return round(before)

    def forget(self, key: PolicyKey) -> None:
        """The policy is gone."""
        self._latest.pop(key, None)
