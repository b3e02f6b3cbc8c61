"""One tick of one metric source: the policies that are due are asked for together, and each is evaluated from its own samples.

Knows nothing of rollouts, nor in which process it runs; everything that goes in and comes out can be pickled.
"""

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .due import due_at
from .evaluation import evaluate, is_stale, newest_samples
from .policy import Evaluation, LivePolicy, Told
from .samples import Fetched
from .source import MetricSource, fetched_by_batch

# A breach does not wait until all policies of its query are evaluated; and what takes answers takes few at a time.
ANSWERS_AT_ONCE = 10

Newest = frozenset[tuple[str, float]]


@dataclass(frozen=True)
class Question:
    """A policy that is due. `seen`: the newest samples that it was last evaluated by, just as it is now; None: it was not.

    `told`: what is known of it already, just as it is now. `went_on`: the state to go on from, where that is not the policy's: a `Quiet`'s.
    """

    policy: LivePolicy
    seen: Newest | None = None
    told: Told | None = None
    went_on: bytes | None = None


@dataclass(frozen=True)
class NothingNew:
    """The samples are those of the evaluation before."""


@dataclass(frozen=True)
class Quiet:
    """It was evaluated, and there is no news. `state`: the next one, pickled: who asks hands it on, and looks into none."""

    state: bytes


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
    found: Evaluation | Quiet | NothingNew | NotEvaluated
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
        by_name = {(q.policy.namespace, q.policy.name): resumed(q) for q in questions}
        live = [question.policy for question in by_name.values()]
        async for fetched in fetched_by_batch(live, source=self._source, now=asked):
            answers: list[Answer] = []
            for name, found in fetched.items():
                answers.append(answered(by_name[name], fetched=found, asked=asked, now=self._clock(), interval=interval))
                # Else what the source answers meanwhile is heard after its deadline, and taken for late.
                await asyncio.sleep(0)
                if len(answers) == ANSWERS_AT_ONCE:
                    yield answers
                    answers = []
            if answers:
                yield answers

    async def rest(self) -> None:
        """Nothing is held that could be given back."""


def resumed(question: Question) -> Question:
    """The question, with the state to go on from as its policy's."""
    if question.went_on is None:
        return question
    return replace(question, policy=replace(question.policy, state=pickle.loads(question.went_on)), went_on=None)


def answered(question: Question, *, fetched: Fetched, asked: float, now: float, interval: float) -> Answer:
    """The answer to one question, which is `resumed`. Times in seconds since the epoch, `interval` of the scrapes in seconds."""
    policy, newest = question.policy, newest_samples(fetched)
    evaluated = _found(question, fetched=fetched, newest=newest, now=now, interval=interval)
    state = evaluated.state if isinstance(evaluated, Evaluation) else policy.state
    due = due_at(fetched, state=state, now=asked, scrape_interval=interval)
    is_quiet = isinstance(evaluated, Evaluation) and not evaluated.readings
    found = Quiet(pickle.dumps(state, protocol=pickle.HIGHEST_PROTOCOL)) if is_quiet else evaluated
    return Answer(policy.namespace, policy.name, found, newest, due=due, at=now)


def _found(question: Question, *, fetched: Fetched, newest: Newest, now: float, interval: float) -> Evaluation | NothingNew | NotEvaluated:
    if newest == question.seen and not is_stale(fetched, now=now, scrape_interval=interval):
        return NothingNew()  # it is asked several times between two scrapes
    try:
        return evaluate(fetched, policy=question.policy, now=now, scrape_interval=interval, told=question.told)
    except Exception:  # noqa: BLE001 - one policy's series must not end the judging of all others; without readings it holds
        return NotEvaluated(traceback.format_exc())
