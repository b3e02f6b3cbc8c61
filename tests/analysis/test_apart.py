"""Evaluating in a process apart: the same answers as in this one, and what happens when that process does not go on."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import Any

import pytest

from backstop.analysis.apart import QUESTIONS_PER_FRAME, Apart
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.tick import ANSWERS_AT_ONCE, Answer, Evaluator, EvaluatorEnded, Here, NothingNew, Question
from tests.analysis.history import errors_objective, live_policy
from tests.analysis.test_source import response, says, serving, silence, source_at
from tests.controller.until import until
from tests.e2e_cluster.leftovers import eventually


def series(until: float) -> bytes:
    """A gateway that counts one request a second for the canary, a fifth of them bad."""
    labels = {"__name__": "backstop_served_total", "namespace": "shop", "policy": "support", "revision": "canary", "pod": "a"}
    labels |= {"cache": "miss", "first_tier": "answered"}
    times = [until - 5.0 * back for back in reversed(range(6))]
    result = [
        {"metric": labels | {"outcome": outcome}, "values": [(at, str(count * (number + 1))) for number, at in enumerate(times)]}
        for outcome, count in (("success", 4), ("error", 1))
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


def question(now: float) -> Question:
    return Question(live_policy(errors_objective(), since=now - 30.0))


async def answer(evaluator: Evaluator, questions: Sequence[Question]) -> list[Answer]:
    return [answer async for batch in evaluator.evaluate(questions) for answer in batch]


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@asynccontextmanager
async def apart(url: str, *, longest_seconds: float = 30.0, idle_seconds: float = 300.0) -> AsyncIterator[Apart]:
    evaluator = Apart(MetricsSourceConfig("default", url, 5.0), longest_seconds=longest_seconds, idle_seconds=idle_seconds)
    try:
        yield evaluator
    finally:
        await evaluator.rest()


async def test_the_answers_are_those_of_an_evaluation_in_this_process_tick_after_tick() -> None:
    now = time.time()
    async with serving(says(response(series(now)))) as (url, _), apart(url) as there:
        with closing(source_at(url)) as source:
            (here,) = await answer(Here(source, clock=time.time), [question(now)])
        (first,) = await answer(there, [question(now)])
        process = there.pid
        (again,) = await answer(there, [Question(question(now).policy, seen=first.newest)])
        assert there.pid == process, "the process stays"
    assert not isinstance(first.found, NothingNew)
    assert (first.found, first.newest, first.due) == (here.found, here.newest, here.due)
    assert again.found == NothingNew()


async def test_the_loop_turns_between_two_evaluations_so_that_no_answer_is_taken_for_late() -> None:
    turns, at = 0, list[int]()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def clock() -> float:
        at.append(turns)
        return time.time()

    questions = [Question(replace(question(time.time()).policy, name=name)) for name in ("a", "b", "c")]
    async with serving(says(response(series(time.time())))) as (url, _):
        with closing(source_at(url)) as source:
            turning = asyncio.create_task(turn())
            try:
                await answer(Here(source, clock=clock), questions)
            finally:
                turning.cancel()
    _, *evaluations = at
    assert len(evaluations) == 3
    assert evaluations == sorted(set(evaluations))


@pytest.mark.long
async def test_a_process_that_dies_is_said_and_the_next_tick_has_another() -> None:
    now = time.time()
    async with serving(says(response(series(now)))) as (url, _), apart(url) as there:
        await answer(there, [question(now)])
        assert there.pid is not None
        os.kill(there.pid, signal.SIGKILL)
        with pytest.raises(EvaluatorEnded, match="metrics source `default` has ended or hangs"):
            await answer(there, [question(now)])
        assert await answer(there, [question(now)])


@pytest.mark.long
async def test_a_process_that_was_killed_while_it_waited_costs_no_tick() -> None:
    now = time.time()
    async with serving(says(response(series(now)))) as (url, _), apart(url) as there:
        await answer(there, [question(now)])
        killed = there._idle[-1].process
        killed.kill()
        await killed.wait()
        assert await answer(there, [question(now)])
        assert there.pid not in (None, killed.pid)


@pytest.mark.long
async def test_many_questions_go_out_and_come_back_a_few_at_a_time() -> None:
    now = time.time()
    names = [f"policy-{number}" for number in range(2 * QUESTIONS_PER_FRAME + 5)]
    asked = [Question(replace(question(now).policy, name=name)) for name in names]
    async with serving(says(response(series(now)))) as (url, _), apart(url) as there:
        batches = [[one.name for one in batch] async for batch in there.evaluate(asked)]
    assert sorted(name for batch in batches for name in batch) == sorted(names)
    assert max(map(len, batches)) == ANSWERS_AT_ONCE


GARBLED = """
import sys, time
sys.stdout.buffer.write({frame!r})
sys.stdout.buffer.flush()
time.sleep(60)
"""


@pytest.mark.parametrize("frame", [b"\0\0\0\5hello", b"\0\0\0\0", b"\0\0\0\x0bcno\nthing\n."])
async def test_an_answer_that_is_garbled_ends_that_process_and_no_other(frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(silence) as (url, _), apart(url) as there:
        start = asyncio.create_subprocess_exec
        started = []

        async def another(python: str, *_: str, **pipes: Any) -> asyncio.subprocess.Process:
            started.append(await start(python, "-c", GARBLED.format(frame=frame), **pipes))
            return started[-1]

        monkeypatch.setattr(asyncio, "create_subprocess_exec", another)
        with pytest.raises(EvaluatorEnded, match="metrics source `default` has ended or hangs"):
            await answer(there, [question(time.time())])
        assert [process.returncode for process in started] == [-signal.SIGKILL]


PRINTS = """
import sys
from backstop.analysis import apart, tick
def answered(*args, found=tick.answered, **more):
    print("said by a library" * 999, flush=True)
    return found(*args, **more)
tick.answered = answered
apart.main()
"""


@pytest.mark.long
async def test_what_is_printed_garbles_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    async with serving(says(response(series(now)))) as (url, _), apart(url, longest_seconds=60.0) as there:
        start = asyncio.create_subprocess_exec
        monkeypatch.setattr(asyncio, "create_subprocess_exec", lambda python, *_, **pipes: start(python, "-c", PRINTS, **pipes))
        assert [one.name for one in await answer(there, [question(now)])] == ["support"]


async def test_a_process_that_does_not_answer_is_ended() -> None:
    async with serving(silence) as (url, _), apart(url, longest_seconds=0.2) as there:
        with pytest.raises(EvaluatorEnded):
            await answer(there, [question(time.time())])
        assert there.pid is None


@pytest.mark.long
async def test_a_tick_that_is_broken_off_leaves_no_answer_for_the_next() -> None:
    now = time.time()
    async with serving(silence) as (slow, asked), apart(slow) as there:
        broken = asyncio.create_task(answer(there, [question(now)]))

        async def is_asked() -> bool:
            return bool(asked)

        await until("the source is asked", is_asked)
        broken.cancel()
        with pytest.raises(asyncio.CancelledError):
            await broken
        assert there.pid is None


async def test_what_is_broken_off_while_its_process_is_ended_waits_for_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its loop could close while the process still ends, and nobody would close its pipes."""
    start, started = asyncio.create_subprocess_exec, list[asyncio.subprocess.Process]()

    async def broken_off_when_killed(python: str, *_: str, **pipes: Any) -> asyncio.subprocess.Process:
        process = await start(python, "-c", GARBLED.format(frame=b"\0\0\0\0"), **pipes)
        kill = process.kill

        def kill_and_cancel() -> None:
            kill()
            broken.cancel()

        monkeypatch.setattr(process, "kill", kill_and_cancel)
        started.append(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", broken_off_when_killed)
    async with serving(silence) as (url, _), apart(url) as there:
        broken = asyncio.create_task(answer(there, [question(time.time())]))
        with pytest.raises(asyncio.CancelledError):
            await broken
        assert [process.returncode for process in started] == [-signal.SIGKILL]


@pytest.mark.long
async def test_ticks_at_the_same_time_have_a_process_each_and_no_answers_of_the_other() -> None:
    now = time.time()
    others = Question(replace(question(now).policy, name="other"))
    async with serving(says(response(series(now)))) as (url, _), apart(url) as there:
        first, second = await asyncio.gather(answer(there, [question(now)]), answer(there, [others]))
        assert [[one.name for one in found] for found in (first, second)] == [["support"], ["other"]]
        processes = [idle.process.pid for idle in there._idle]
        await there.rest()
        assert len(processes) == 2
        assert all(is_gone(process) for process in processes)


@pytest.mark.long
async def test_a_process_that_was_needed_beside_another_ends_when_it_was_idle_for_long() -> None:
    now = time.time()
    others = Question(replace(question(now).policy, name="other"))
    async with serving(says(response(series(now)))) as (url, _), apart(url, idle_seconds=0.0) as there:
        start, started = asyncio.create_subprocess_exec, list[int]()

        async def noted(*command: str, **pipes: Any) -> asyncio.subprocess.Process:
            process = await start(*command, **pipes)
            started.append(process.pid)
            return process

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(asyncio, "create_subprocess_exec", noted)
            await asyncio.gather(answer(there, [question(now)]), answer(there, [others]))
        assert len(started) == 2
        assert [process for process in started if not is_gone(process)] == [there.pid]
        assert [one.name for one in await answer(there, [question(now)])] == ["support"]


async def test_at_rest_there_is_no_process() -> None:
    now = time.time()
    async with serving(says(response(series(now)))) as (url, _), apart(url) as there:
        assert there.pid is None
        await answer(there, [question(now)])
        process = there.pid
        assert process is not None
        await there.rest()
        assert is_gone(process)


PARENT = """
import asyncio, sys, time
from backstop.analysis.apart import QUESTIONS_PER_FRAME, Apart
from backstop.analysis.queries import MetricsSourceConfig
from tests.analysis.test_apart import question

async def main():
    evaluator = Apart(MetricsSourceConfig("default", sys.argv[1], 5.0))
    async for _ in evaluator.evaluate([question(time.time())]):
        pass
    print(evaluator.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.long
async def test_it_ends_with_the_process_that_started_it_however_that_ends() -> None:
    async with serving(says(response(series(time.time())))) as (url, _):
        modules = {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        command = (sys.executable, "-c", PARENT, url)
        parent = await asyncio.create_subprocess_exec(*command, env=os.environ | modules, stdout=asyncio.subprocess.PIPE)
        assert parent.stdout is not None
        child = int(await parent.stdout.readline())
        parent.kill()
        await parent.wait()
    assert await asyncio.to_thread(eventually, lambda: is_gone(child))
