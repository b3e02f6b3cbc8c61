"""What judging live policies costs in processor time, apart from servers and network: answers that were made beforehand, tick by tick.

Pods count as the played gateways do, and one request of a hundred is slow by chance, the same ones for every policy.
"""

import gc
import json
import pickle
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from backstop.analysis.answers import read_answer, sort_answer
from backstop.analysis.apart import QUESTIONS_PER_FRAME
from backstop.analysis.objective import Objective, objectives_of
from backstop.analysis.policy import Evaluation, LivePolicy, Told
from backstop.analysis.queries import POLICIES_PER_QUERY, needed_bounds
from backstop.analysis.rules import blocks_in, rule_of, tests_among
from backstop.analysis.state import PACKED_BYTES, AnalysisState, ObjectiveState, pack
from backstop.analysis.tick import ANSWERS_AT_ONCE, Answer, Question, Quiet, answered, resumed
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.metricnames import bound_label

from .gateways import kind_of
from .slos import PRIMARY, fields_of, limits_of, series_of
from .stage import load
from .table import Row

SCRAPE_SECONDS: Final = 5.0
SINCE: Final = 1_000_000.0  # seconds since the epoch, when the canary gets its share
TICKS: Final = 15
QUIET_SECONDS: Final = 60.0  # for which counts alone are no news, among a thousand
WARM: Final = 3  # ticks that are not counted: what is read once, and what is compiled and kept on the way
SCRAPES: Final = 7  # in an answer: so many are in the 32 seconds that are asked for
PODS: Final = 2
REQUESTS: Final = {"stable": 200, "canary": 50}  # at a pod, between two scrapes
SLOW: Final = 0.01
PLANNED_SECONDS: Final = 36_000.0
T = TypeVar("T")
NAME: Final = "@policy@"  # stands for a policy's name in an answer of which many are made


@dataclass
class _Spent:
    """Processor seconds. `longest`: of what the operator's loop does without a pause."""

    reading: float = 0.0
    judging: float = 0.0
    passing_on: float = 0.0
    longest: float = 0.0

    def told(self, *, ticks: int) -> str:
        """Of one tick, part by part."""
        parts = (("reading answers", self.reading), ("judging", self.judging), ("to and from its process", self.passing_on))
        words = ", ".join(f"{name} {seconds / ticks:.2f}" for name, seconds in parts)
        return f"{sum(seconds for _, seconds in parts) / ticks:.2f} s: {words}"


def measure_evaluation(*, count: int, slos: int) -> list[Row]:
    """`count` live policies with so many SLOs each, all of them due at each tick."""
    gc.disable()  # as the process that evaluates has it between two ticks
    try:
        return _measured(count=count, slos=slos)
    finally:
        gc.enable()


def _measured(*, count: int, slos: int) -> list[Row]:
    questions = [Question(_policy(f"p-{number}", slos=slos)) for number in range(count)]
    spent, ticks = _Spent(), 0
    for number, (now, one) in enumerate(_answers(slos=slos)):
        if number == WARM:
            spent, ticks = _Spent(), 0
        ticks += 1
        for first in range(0, count, POLICIES_PER_QUERY):
            batch = questions[first : first + POLICIES_PER_QUERY]
            answers = _judged(_passed_on(batch, at_once=QUESTIONS_PER_FRAME, sent=True, spent=spent), one=one, now=now, spent=spent)
            heard = _passed_on(answers, at_once=ANSWERS_AT_ONCE, sent=False, spent=spent)
            questions[first : first + len(batch)] = map(_next, batch, heard)
    states = [resumed(question).policy.state for question in questions]
    began = time.process_time()
    largest = max(len(pack(state)) for state in states)
    packing = (time.process_time() - began) / count
    told = f"{count:,} live, {slos} SLOs, without servers: "
    series = one.count(b'"metric"')
    return [
        Row(told + "CPU of a tick", spent.told(ticks=ticks), load=load()),
        Row(told + "series of a policy", f"{series}, in {len(one):,} bytes"),
        Row(told + "longest step of the operator's loop", f"{spent.longest * 1000:.0f} ms of CPU"),
        Row(
            told + "state in status, the largest", f"{largest:,} bytes, {packing * 1000:.1f} ms of CPU to pack", f"≤ {PACKED_BYTES:,} bytes"
        ),
    ]


def _judged(questions: list[Question], *, one: bytes, now: float, spent: _Spent) -> list[Answer]:
    """The answers to one query's policies, as the process that evaluates comes to them. `one`: what is answered of each policy."""
    body = _body(one, names=[question.policy.name for question in questions])
    began = time.process_time()
    ready = [resumed(question) for question in questions]
    series = read_answer(body, source="default")
    assert isinstance(series, list), series
    fetched = sort_answer(series, policies=[question.policy for question in ready], source="default")
    read = time.process_time()
    answers = [answered(q, fetched=fetched["live", q.policy.name], asked=now, now=now, interval=SCRAPE_SECONDS) for q in ready]
    spent.reading += read - began
    spent.judging += time.process_time() - read
    return answers


def _passed_on(what: list[T], *, at_once: int, sent: bool, spent: _Spent) -> list[T]:
    """The same on the other side of a pipe. `sent`: by the operator, which else receives it."""
    found: list[T] = []
    for first in range(0, len(what), at_once):
        began = time.process_time()
        text = pickle.dumps(what[first : first + at_once], protocol=pickle.HIGHEST_PROTOCOL)
        packed = time.process_time()
        found += pickle.loads(text)
        ended = time.process_time()
        spent.passing_on += ended - began
        spent.longest = max(spent.longest, packed - began if sent else ended - packed)
    return found


def _next(question: Question, answer: Answer) -> Question:
    """What is asked at the next tick, as the operator would."""
    if isinstance(answer.found, Quiet):
        return replace(question, seen=answer.newest, went_on=answer.found.state)
    assert isinstance(answer.found, Evaluation), answer.found
    told = Told(tuple(reading.standing for reading in answer.found.readings), until=answer.at + QUIET_SECONDS)
    return Question(replace(question.policy, state=answer.found.state), seen=answer.newest, told=told)


def _policy(name: str, *, slos: int) -> LivePolicy:
    spec = {
        "promptVersion": "v1",
        "latencyBudgetMilliseconds": 400,
        "chain": [PRIMARY, {"name": "static", "static": {"default": "Sorry."}}],
        **fields_of(slos),
    }
    objectives = objectives_of(FallbackPolicySpec.model_validate(spec))
    # Their history is read: it comes once, and is no part of a usual tick.
    begun = {o.fingerprint: _begun(o, tests=tests_among(objectives)) for o in objectives}
    return LivePolicy(
        namespace="live",
        name=name,
        source="default",
        canary="canary",
        stable="stable",
        objectives=objectives,
        since=SINCE,
        state=AnalysisState(canary="canary", stable="stable", source="default", objectives=begun),
        from_zero=True,
        share=REQUESTS["canary"] / sum(REQUESTS.values()),
        planned_seconds=PLANNED_SECONDS,
    )


def _begun(objective: Objective, *, tests: int) -> ObjectiveState:
    planned = blocks_in(PLANNED_SECONDS, scrape_interval=SCRAPE_SECONDS)
    return ObjectiveState(rule=rule_of(objective, tests=tests, planned_blocks=planned).start(), planned_blocks=planned)


def _body(one: bytes, *, names: list[str]) -> bytes:
    """The answer to a query for these policies, each of which has the same series."""
    series = b",".join(one.replace(NAME.encode(), name.encode()) for name in names)
    return b'{"status":"success","data":{"resultType":"matrix","result":[' + series + b"]}}"


def _answers(*, slos: int) -> Iterator[tuple[float, bytes]]:
    """For each tick the time, and the series of one policy as Prometheus writes them."""
    pods = [_Pod(number, slos=slos) for number in range(PODS)]
    for tick in range(-1, TICKS):
        for pod in pods:
            pod.scrape(SINCE + SCRAPE_SECONDS * tick + pod.number, canary=tick > 0)
        if tick > 0:
            series = [one for pod in pods for one in pod.series()]
            yield SINCE + SCRAPE_SECONDS * tick + PODS, json.dumps(series, separators=(",", ":")).encode()[1:-1]


class _Pod:
    """An entry pod whose counters have been scraped some times."""

    def __init__(self, number: int, *, slos: int) -> None:
        self.number = number
        self._random = random.Random(number)
        self._slos = slos
        self._counts = {revision: {"none": 0, "quick": 0, "total": 0} for revision in REQUESTS}
        self._scrapes: list[tuple[float, dict[str, dict[str, int]]]] = []

    def scrape(self, at: float, *, canary: bool) -> None:
        """One more, after the requests of one interval."""
        for revision, requests in REQUESTS.items():
            if revision == "stable" or canary:
                self._counts[revision]["total"] += requests
                self._counts[revision]["quick"] += sum(self._random.random() >= SLOW for _ in range(requests))
        self._scrapes.append((at, {revision: dict(counts) for revision, counts in self._counts.items()}))

    def series(self) -> Iterator[dict[str, Any]]:
        """Those that are asked for, with their newest samples."""
        of = {"instance": f"10.0.0.{self.number}:9090", "job": "gateways", "pod": f"{NAME}-canary-x2yz{self.number}"}
        wanted = {None, *map(bound_label, needed_bounds(limits_of(self._slos)))}
        for revision in REQUESTS:
            for metric, labels in series_of(("live", NAME), revision=revision, slos=self._slos):
                if labels.get("le") in wanted:
                    values = [[at, str(counts[revision][kind_of(labels)])] for at, counts in self._scrapes[-SCRAPES:]]
                    yield {"metric": dict(sorted({"__name__": metric, **of, **labels}.items())), "values": values}
