"""An Evaluator in a process of its own, so that no tick delays a route: the tests of a thousand policies keep a core busy for seconds.

The process (`python -m backstop.analysis.apart`) reads questions from its standard input and writes answers to its standard output; each
frame is a length of four bytes and a pickle, from and to nobody but its parent; the questions of a tick end with one of None, and so do its
answers. It ends when its input does, so also when the parent dies.
"""

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import struct
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from .credentials import Credentials
from .prometheus import NO_CREDENTIALS, PrometheusSource
from .queries import MetricsSourceConfig
from .tick import Answer, EvaluatorEnded, Here, Question

# Between two batches; a source that does not answer is given up within its own deadline.
LONGEST_SECONDS: Final = 30.0
# Beside the one that was needed last, a process is kept for so long after its last tick.
IDLE_SECONDS: Final = 300.0
# Futures of threads keep themselves, and the answers in them, alive. They are looked for after each tick, when little else is there: with
# Python's own thresholds, looking for them takes longer than reading the answers.
COLLECT_AFTER: Final = 10_000_000
# The questions of a tick go out so many at a time: packing those of a thousand policies at once would keep the loop from everything else.
QUESTIONS_PER_FRAME: Final = 20
# Where both want the same core, the operator has nine tenths of it: it writes routes, and waits for next to nothing else.
NICENESS: Final = 10
_LENGTH: Final = struct.Struct(">I")


class _GarbledError(Exception):
    """A frame that is no pickle of answers."""


@dataclass(frozen=True)
class _Idle:
    """A process that waits for questions, since then (seconds of the loop's clock)."""

    process: Process
    since: float


class Apart:
    """An Evaluator whose process is started with the first question, and again after it has ended; one for each tick at the same time."""

    def __init__(
        self,
        config: MetricsSourceConfig,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        longest_seconds: float = LONGEST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._longest_seconds = longest_seconds
        self._idle_seconds = idle_seconds
        self._idle: list[_Idle] = []  # the newest last, which is taken first

    @property
    def scrape_interval(self) -> float:
        """Of the source, in seconds."""
        return self._config.scrape_interval_seconds

    @property
    def pid(self) -> int | None:
        """Of a process that waits for questions; None while there is none."""
        return self._idle[-1].process.pid if self._idle else None

    async def evaluate(self, questions: Sequence[Question]) -> AsyncIterator[Sequence[Answer]]:
        """The answers, batch by batch as they come. Raises EvaluatorEnded."""
        waiting = self._waiting()
        process = waiting or await self._start()
        try:
            if waiting is None:
                await self._send(process, (self._config, self._credentials))
            for first in range(0, len(questions), QUESTIONS_PER_FRAME):
                await self._send(process, questions[first : first + QUESTIONS_PER_FRAME])
                await asyncio.sleep(0)
            await self._send(process, None)
            while (answers := await self._receive(process)) is not None:
                yield answers
        except (OSError, EOFError, TimeoutError, _GarbledError) as error:
            await _end(process)
            raise EvaluatorEnded(f"what evaluates metrics source `{self._config.name}` has ended or hangs ({error!r})") from None
        except BaseException:
            await _end(process)  # what it still has to say would be taken for the answers to other questions
            raise
        now = asyncio.get_running_loop().time()
        self._idle.append(_Idle(process, since=now))
        while len(self._idle) > 1 and now - self._idle[0].since >= self._idle_seconds:
            await _end(self._idle.pop(0).process)

    async def rest(self) -> None:
        """End the processes that wait for questions."""
        while self._idle:
            await _end(self._idle.pop().process)

    def _waiting(self) -> Process | None:
        """A process that waits for questions, and has not been killed meanwhile."""
        while self._idle:
            process = self._idle.pop().process
            if process.returncode is None:
                return process
        return None

    async def _start(self) -> Process:
        command = (sys.executable, "-m", "backstop.analysis.apart")
        modules = {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}  # the same as here, wherever they are
        try:
            return await asyncio.create_subprocess_exec(*command, env=os.environ | modules, stdin=PIPE, stdout=PIPE)
        except OSError as error:
            raise EvaluatorEnded(f"what evaluates metrics source `{self._config.name}` cannot be started ({error!r})") from None

    async def _send(self, process: Process, told: object) -> None:
        assert process.stdin is not None
        text = pickle.dumps(told, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.write(_LENGTH.pack(len(text)) + text)
        async with asyncio.timeout(self._longest_seconds):
            await process.stdin.drain()

    async def _receive(self, process: Process) -> Sequence[Answer] | None:
        """One batch; None after the last."""
        assert process.stdout is not None
        async with asyncio.timeout(self._longest_seconds):
            (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            frame = await process.stdout.readexactly(length)
        try:
            answers: Sequence[Answer] | None = pickle.loads(frame)
        except Exception as error:  # noqa: BLE001 - of what is garbled, unpickling raises anything
            raise _GarbledError(repr(error)) from None
        return answers


async def _end(process: Process) -> None:
    """Kill it, which is over in a moment; whoever is cancelled meanwhile waits for that first, or its loop may close before."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()  # it holds nothing that would be lost
    cancelled = None
    while process.returncode is None:
        try:
            await process.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _serve(source: PrometheusSource, *, questions: BinaryIO, answers: BinaryIO, clock: Callable[[], float]) -> None:
    evaluator = Here(source, clock=clock)
    try:
        while True:
            async for batch in evaluator.evaluate(await asyncio.to_thread(_questions, questions)):
                _write(answers, batch)
            _write(answers, None)
            gc.collect()
    finally:
        source.close()


def _questions(stream: BinaryIO) -> list[Question]:
    """Those of one tick: frames up to one of None. Raises EOFError at the end of the stream."""
    asked: list[Question] = []
    while (frame := _read(stream)) is not None:
        asked += frame
    return asked


def _read(stream: BinaryIO) -> Any:
    """One frame. Raises EOFError at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(*_LENGTH.unpack(head)))


def _write(stream: BinaryIO, told: object) -> None:
    text = pickle.dumps(told, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(text)) + text)
    stream.flush()


def main() -> None:
    """The process."""
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the parent: with that this ends too
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    frames = os.dup(1)
    os.dup2(2, 1)  # what a library prints is for the log
    with contextlib.suppress(EOFError, BrokenPipeError), os.fdopen(frames, "wb") as answers:
        config, credentials = _read(sys.stdin.buffer)
        source = PrometheusSource(config, credentials=credentials)
        asyncio.run(_serve(source, questions=sys.stdin.buffer, answers=answers, clock=time.time))


if __name__ == "__main__":
    main()
