"""The queue of keys: each once, urgent first, deadlines, pauses that double."""

import asyncio

from backstop.controller.queue import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Agenda, KeyQueue


def agenda(jitter: float = 0.0) -> Agenda[str]:
    return Agenda(jitter=lambda: jitter)


def drained(queue: Agenda[str], *, now: float = 0.0) -> list[str]:
    taken = []
    while (key := queue.take(now=now)) is not None:
        taken.append(key)
        queue.done(key)
    return taken


def test_a_key_that_is_added_twice_is_taken_once() -> None:
    queue = agenda()
    queue.add("a")
    queue.add("b")
    queue.add("a")
    assert drained(queue) == ["a", "b"]


def test_an_urgent_key_overtakes_keys_that_came_before_it() -> None:
    queue = agenda()
    for key in "abc":
        queue.add(key)
    queue.add("c", urgent=True)
    assert drained(queue) == ["c", "a", "b"]


def test_a_running_key_is_not_taken_again_before_it_is_done() -> None:
    queue = agenda()
    queue.add("a")
    assert queue.take(now=0) == "a"
    queue.add("a")
    assert queue.take(now=0) is None
    queue.done("a")
    assert queue.take(now=0) == "a"


def test_what_comes_in_while_a_pass_runs_keeps_its_urgency() -> None:
    queue = agenda()
    queue.add("a")
    assert queue.take(now=0) == "a"
    queue.add("b")
    queue.add("a", urgent=True)
    queue.done("a")
    assert queue.take(now=0) == "a"


def test_a_key_comes_due_at_its_deadline_and_not_before() -> None:
    queue = agenda()
    queue.add_at("a", at=10.0)
    assert queue.take(now=9.999) is None
    assert queue.next_deadline() == 10.0
    assert queue.take(now=10.0) == "a"


def test_of_two_deadlines_the_earlier_holds() -> None:
    queue = agenda()
    queue.add_at("a", at=10.0)
    queue.add_at("a", at=5.0)
    queue.add_at("a", at=7.0)
    assert queue.next_deadline() == 5.0
    assert drained(queue, now=5.0) == ["a"]
    assert queue.next_deadline() is None


def test_a_pass_makes_its_deadline_anew() -> None:
    queue = agenda()
    queue.add_at("a", at=10.0)
    queue.add("a")
    assert queue.take(now=0) == "a"
    queue.done("a")
    assert queue.take(now=100.0) is None


def test_pauses_double_up_to_a_bound_and_start_again_after_a_success() -> None:
    queue = agenda()
    pauses = [queue.failed("a", now=0) for _ in range(12)]
    assert pauses[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert pauses[-1] == LONGEST_RETRY_SECONDS
    queue.succeeded("a")
    assert queue.failed("a", now=0) == FIRST_RETRY_SECONDS


def test_jitter_shortens_a_pause_by_at_most_half() -> None:
    assert agenda(jitter=1.0).failed("a", now=0) == FIRST_RETRY_SECONDS / 2


def test_a_forgotten_key_does_not_come_back() -> None:
    queue = agenda()
    queue.add_at("a", at=10.0)
    queue.forget("a")
    assert queue.next_deadline() is None
    assert queue.take(now=100.0) is None


async def test_workers_share_the_keys_and_wait_for_more() -> None:
    queue: KeyQueue[str] = KeyQueue(clock=lambda: 0.0, jitter=lambda: 0.0)
    taken: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        while True:
            key = await queue.get()
            await taken.put(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(3)]
    try:
        for key in ("a", "b", "c", "d"):
            queue.add(key)
        async with asyncio.timeout(10):
            assert {await taken.get() for _ in range(4)} == {"a", "b", "c", "d"}
            queue.add("e")
            assert await taken.get() == "e"
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def test_a_waiting_worker_notices_a_nearer_deadline() -> None:
    queue: KeyQueue[str] = KeyQueue(clock=asyncio.get_running_loop().time, jitter=lambda: 0.0)
    now = asyncio.get_running_loop().time()
    queue.add_at("late", at=now + 3600)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_at("soon", at=now + 0.01)
    async with asyncio.timeout(10):
        assert await waiting == "soon"
