"""The workers that make passes."""

import asyncio
from typing import Any, cast

from backstop.controller.config import OperatorConfig
from backstop.controller.keys import Key, PolicyKey
from backstop.controller.run import Operator
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
