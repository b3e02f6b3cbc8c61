"""One tick of one metric source: the policies that are due are asked for together, and each is evaluated from its own samples.

Knows nothing of rollouts, nor in which process it runs; everything that goes in and comes out can be pickled.
"""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .due import due_at
from .evaluation import evaluate, is_stale, newest_samples
from .policy import Evaluation, LivePolicy
from .samples import Fetched
from .source import MetricSource, fetched_by_batch

Newest = frozenset[tuple[str, float]]


@dataclass(frozen=True)
class Question:
    """A policy that is due. `seen`: the newest samples that it was last evaluated by, just as it is now; None: it was not."""

    policy: LivePolicy
    seen: Newest | None = None


@dataclass(frozen=True)
class NothingNew:
    """The samples are those of the evaluation before."""


@dataclass(frozen=True)
class NotEvaluated:
    """The evaluation failed: `why` is the traceback, for the log."""

    why: str


@dataclass(frozen=True)
class Answer:
    """What became of a question about this policy. `newest`: its newest samples. `due`: when to ask again, `at`: of the evaluation; both in
    seconds since the epoch.
    """

    namespace: str
    name: str
    found: Evaluation | NothingNew | NotEvaluated
    newest: Newest
    due: float
    at: float


class EvaluatorEnded(Exception):  # noqa: N818 - the name says what happened
    """What evaluates has ended or hangs; it is begun anew with the next tick."""


class Evaluator(Protocol):
    """Answers the questions of one source, in this process or apart from it."""

    @property
    def scrape_interval(self) -> float:
        """Of the source, in seconds."""
        ...

    def evaluate(self, questions: Sequence[Question]) -> AsyncIterator[Sequence[Answer]]:
        """The answers, batch by batch as they come. Raises EvaluatorEnded."""
        ...

    async def rest(self) -> None:
        """Give back what is only needed while something is evaluated."""
        ...


class Here:
    """An Evaluator in this process; its loop is kept busy for as long as an evaluation takes."""

    def __init__(self, source: MetricSource, *, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock

    @property
    def scrape_interval(self) -> float:
        """Of the source, in seconds."""
        return self._source.config.scrape_interval_seconds

    async def evaluate(self, questions: Sequence[Question]) -> AsyncIterator[Sequence[Answer]]:
        """The answers, batch by batch as they come."""
        asked, interval = self._clock(), self.scrape_interval
        by_name = {(q.policy.namespace, q.policy.name): q for q in questions}
        live = [question.policy for question in questions]
        async for fetched in fetched_by_batch(live, source=self._source, now=asked):
            answers: list[Answer] = []
            for name, found in fetched.items():
                answers.append(answered(by_name[name], fetched=found, asked=asked, now=self._clock(), interval=interval))
                # Else what the source answers meanwhile is heard after its deadline, and taken for late.
                await asyncio.sleep(0)
            yield answers

    async def rest(self) -> None:
        """Nothing is held that could be given back."""


def answered(question: Question, *, fetched: Fetched, asked: float, now: float, interval: float) -> Answer:
    """The answer to one question. Times in seconds since the epoch, `interval` of the scrapes in seconds."""
    policy, newest = question.policy, newest_samples(fetched)
    state, found = policy.state, _found(question, fetched=fetched, newest=newest, now=now, interval=interval)
    if isinstance(found, Evaluation):
        state = found.state
    due = due_at(fetched, state=state, now=asked, scrape_interval=interval)
    return Answer(policy.namespace, policy.name, found, newest, due=due, at=now)


def _found(question: Question, *, fetched: Fetched, newest: Newest, now: float, interval: float) -> Evaluation | NothingNew | NotEvaluated:
    if newest == question.seen and not is_stale(fetched, now=now, scrape_interval=interval):
        return NothingNew()  # it is asked several times between two scrapes
    try:
        return evaluate(fetched, policy=question.policy, now=now, scrape_interval=interval)
    except Exception:  # noqa: BLE001 - one policy's series must not end the judging of all others; without readings it holds
        return NotEvaluated(traceback.format_exc())
