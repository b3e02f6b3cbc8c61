"""Single flight by itself: what its callers over sockets cannot tell apart. The rest is in `test_cache`."""

import asyncio
import time

from backstop.api.metricnames import FailureMode, FirstTier
from backstop.gateway.errors import Failure
from backstop.gateway.flights import Flights
from backstop.gateway.upstream import Whole
from backstop.gateway.walk import Result, Walk

KEY = b"key"


def shares(_: Whole) -> bool:
    return True


async def test_who_waits_for_another_gives_up_when_its_own_time_is_over() -> None:
    flights, answered, began = Flights(clock=time.monotonic), asyncio.Event(), asyncio.Event()

    async def ask() -> Result:
        began.set()
        await answered.wait()
        return Whole(b"late")

    async def never() -> Result:
        raise AssertionError("somebody asks already")

    far, walk = time.monotonic() + 60, Walk(started=0, budget=60)
    async with asyncio.timeout(10):
        asking = asyncio.create_task(flights.ask(KEY, ask=ask, shares=shares, until=far, walk=Walk(started=0, budget=60)))
        await began.wait()
        given = await flights.ask(KEY, ask=never, shares=shares, until=time.monotonic() + 0.01, walk=walk)
        assert isinstance(given, Failure)
        assert (given.mode, walk.first_tier) == (FailureMode.LATENCY_BREACH, FirstTier.LATE)
        assert walk.waited > 0
        answered.set()
        assert await asking == Whole(b"late")


async def test_a_flight_that_breaks_off_leaves_nothing_behind() -> None:
    flights = Flights(clock=time.monotonic)

    async def broken() -> Result:
        raise ConnectionError

    async def well() -> Result:
        return Whole(b"well")

    for ask, expected in ((broken, ConnectionError), (well, Whole)):
        (given,) = await asyncio.gather(
            flights.ask(KEY, ask=ask, shares=shares, until=time.monotonic() + 60, walk=Walk(started=0, budget=60)), return_exceptions=True
        )
        assert isinstance(given, expected)


async def test_who_waits_longer_is_not_told_that_the_target_was_late_for_those_who_wait_less() -> None:
    flights, tried = Flights(clock=time.monotonic), 0

    async def late() -> Result:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0)  # for the others to wait
        return Failure(FailureMode.LATENCY_BREACH, "late")

    async def well() -> Result:
        return Whole(b"well")

    asking = [(late, True), (late, True), (late, True), (well, False)]
    given = await asyncio.gather(
        *(
            flights.ask(KEY, ask=ask, shares=shares, until=time.monotonic() + 60, walk=Walk(started=0, budget=60, hurried=hurried))
            for ask, hurried in asking
        )
    )
    assert (given[-1], tried) == (Whole(b"well"), 3)
