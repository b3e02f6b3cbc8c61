"""The workers that make passes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from backstop.controller.config import OperatorConfig
from backstop.controller.keys import Key, PolicyKey
from backstop.controller.run import URGENT_WORKERS, WORKERS, Operator
from backstop.telemetry.metrics import Metrics

from .until import until

PASSES = 1000


async def test_passes_that_wait_for_nothing_let_the_event_loop_turn_between_them() -> None:
    nobody = cast(Any, None)  # nothing is asked of the API server
    config = OperatorConfig(gatewayImage="localhost/backstop:test")
    operator = Operator(config, connection=nobody, client=nobody, evaluators={}, metrics=Metrics(), instance="test")
    turns, turns_at_pass = 0, []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def rest(_: Key) -> bool:
        turns_at_pass.append(turns)
        return False

    for number in range(PASSES):
        operator._queue.add(PolicyKey("shop", f"p-{number}"))
    tasks = [asyncio.create_task(operator._work(cast(Any, rest))), asyncio.create_task(count_turns())]
    try:

        async def all_made() -> bool:
            return len(turns_at_pass) == PASSES

        await until("every pass is made", all_made)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(set(turns_at_pass)) == PASSES


async def test_a_breach_is_acted_on_while_every_other_worker_waits_for_a_slow_write() -> None:
    nobody = cast(Any, None)  # nothing is asked of the API server
    config = OperatorConfig(gatewayImage="localhost/backstop:test")
    operator = Operator(config, connection=nobody, client=nobody, evaluators={}, metrics=Metrics(), instance="test")
    slow = {PolicyKey("shop", f"slow-{number}") for number in range(2 * WORKERS)}
    breaches = {PolicyKey("shop", f"bad-{number}") for number in range(URGENT_WORKERS)}
    begun: set[Key] = set()
    written = asyncio.Event()

    async def make_pass(key: Key) -> bool:
        begun.add(key)
        if key in slow:
            await written.wait()
        return False

    for key in slow:
        operator._queue.add(key)
    working = asyncio.create_task(operator._passes_and_judging(cast(Any, make_pass), judging=nobody))
    try:
        await until("all workers wait for a write", has(lambda: len(begun) >= WORKERS))
        for key in breaches:
            operator._queue.add(key, urgent=True)
        await until("the breaches are acted on", has(lambda: breaches <= begun))
        assert len(begun - breaches) == WORKERS
        written.set()
        await until("the others are made too", has(lambda: slow <= begun))
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_breach_is_acted_on_while_passes_of_other_breaches_hang() -> None:
    nobody = cast(Any, None)  # nothing is asked of the API server
    config = OperatorConfig(gatewayImage="localhost/backstop:test")
    operator = Operator(config, connection=nobody, client=nobody, evaluators={}, metrics=Metrics(), instance="test")
    hanging = {PolicyKey("shop", f"slow-{number}") for number in range(WORKERS + 8)}
    breach, begun = PolicyKey("shop", "bad"), set[Key]()

    async def make_pass(key: Key) -> bool:
        begun.add(key)
        if key in hanging:
            await asyncio.Event().wait()
        return False

    for key in hanging:
        operator._queue.add(key, urgent=True)
    working = asyncio.create_task(operator._passes_and_judging(cast(Any, make_pass), judging=nobody))
    try:
        await until("all of them hang", has(lambda: hanging <= begun))
        operator._queue.add(breach, urgent=True)
        await until("the breach is acted on", has(lambda: breach in begun))
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def has(what: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return what()

    return look
