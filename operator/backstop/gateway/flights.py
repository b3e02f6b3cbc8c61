"""Single flight: of requests that are the same and wait for a whole answer, one asks, and the others wait for it.

Who waits does so within its own time. When the one that asks fails or its caller leaves, one of the others takes over; when the target
has failed that one too, all hand over. Knows nothing of what is kept.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import assert_never

from ..api.metricnames import FailureMode, FirstTier
from .errors import Failure
from .timing import on_loop
from .upstream import Whole
from .walk import Result, Walk


@dataclass(frozen=True)
class Shared:
    """An answer for all."""

    answer: Whole


@dataclass(frozen=True)
class Apart:
    """An answer for the one that asked alone: the others ask for themselves."""


@dataclass(frozen=True)
class Down:
    """The target failed."""

    failure: Failure
    first_tier: FirstTier


@dataclass(frozen=True)
class Left:
    """The caller of the one that asked has left, or waited for less than others do."""


@dataclass
class _Flight:
    last: bool  # the target has failed before: who waits does not try again
    landed: Shared | Apart | Down | Left = field(default_factory=Left)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Flights:
    """Flights by key, one at a time for each. `shares` says whether an answer is for all. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._flights: dict[bytes, _Flight] = {}

    async def ask(
        self, key: bytes, *, ask: Callable[[], Awaitable[Result]], shares: Callable[[Whole], bool], until: float, walk: Walk
    ) -> Result:
        """What `ask` gives, asked here or by another; waits for that one until `until`. `walk` is told what became of the first tier."""
        failed = False
        while (flight := self._flights.get(key)) is not None:
            walk.first_tier = FirstTier.LATE  # unless something comes of it
            landed = await self._wait(flight, until=until, walk=walk)
            match landed:
                case None:
                    return Failure(FailureMode.LATENCY_BREACH, "the target was late for a request like this one")
                case Shared(answer):
                    return answer
                case Apart():
                    return await ask()
                case Down(failure, first_tier) if flight.last:
                    walk.first_tier = first_tier
                    return failure
                case Down():
                    failed = True
                case Left():
                    failed = failed or flight.last
                case _:
                    assert_never(landed)
        return await self._lead(key, ask=ask, shares=shares, walk=walk, last=failed)

    async def _wait(self, flight: _Flight, *, until: float, walk: Walk) -> Shared | Apart | Down | Left | None:
        """How the flight ended; None when it has not by `until`."""
        try:
            with walk.wait(self._clock):
                async with asyncio.timeout_at(on_loop(until, clock=self._clock)):
                    await flight.over.wait()
            return flight.landed
        except TimeoutError:
            return None

    async def _lead(
        self, key: bytes, *, ask: Callable[[], Awaitable[Result]], shares: Callable[[Whole], bool], walk: Walk, last: bool
    ) -> Result:
        flight = self._flights[key] = _Flight(last=last)
        try:
            result = await ask()
            match result:
                case Failure(mode=FailureMode.LATENCY_BREACH) if walk.hurried:
                    flight.landed = Left()  # for those who wait longer the target may be in time
                case Failure():
                    flight.landed = Down(result, walk.first_tier)
                case Whole() if shares(result):
                    flight.landed = Shared(result)
                case _:
                    flight.landed = Apart()
            return result
        except asyncio.CancelledError:
            if walk.hedged:  # another tier was faster, as it would be for the next one that asks
                flight.landed = Down(
                    Failure(FailureMode.LATENCY_BREACH, "another tier was faster for a request like this one"), walk.first_tier
                )
            raise
        finally:
            del self._flights[key]
            flight.over.set()
