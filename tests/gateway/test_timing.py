"""A deadline that moves."""

import asyncio
import time

import pytest

from backstop.gateway.timing import Deadline

SOON = 0.2


async def test_a_deadline_ends_what_waits_and_nobody_elses_cancellation_is_taken_for_it() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(time.monotonic() + SOON, clock=time.monotonic):
            await asyncio.Event().wait()

    async def waiting() -> None:
        async with Deadline(time.monotonic() + 60, clock=time.monotonic):
            await asyncio.Event().wait()

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_that_is_put_off_again_and_again_comes_when_it_was_said_last() -> None:
    began = time.monotonic()

    async def put_off() -> None:
        async with Deadline(began + SOON, clock=time.monotonic) as deadline:
            for step in range(1, 4):
                deadline.reschedule(began + SOON * (1 + step))
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await put_off()
    assert time.monotonic() - began > 3 * SOON


async def test_a_deadline_that_is_brought_forward_comes_at_once() -> None:
    async def bring_forward() -> None:
        async with Deadline(time.monotonic() + 60, clock=time.monotonic) as deadline:
            deadline.reschedule(time.monotonic() + 30)
            deadline.reschedule(time.monotonic())
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await bring_forward()


async def test_a_deadline_comes_by_the_loops_time_where_the_clock_stands_still() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(100.0 + SOON, clock=lambda: 100.0):
            await asyncio.Event().wait()


async def test_what_ends_in_time_ends_as_it_would_have() -> None:
    async with Deadline(time.monotonic() + 60, clock=time.monotonic):
        pass
    with pytest.raises(KeyError):
        async with Deadline(time.monotonic() + 60, clock=time.monotonic):
            raise KeyError
