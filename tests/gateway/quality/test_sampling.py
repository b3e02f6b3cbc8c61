"""Which answers are drawn, what waits, and that judging leaves the event loop to others."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from backstop.api.quality import Quality
from backstop.gateway.client import Client
from backstop.gateway.compilation import compile_revision
from backstop.gateway.metrics import GatewayMetrics
from backstop.gateway.quality.grounds import Grounds
from backstop.gateway.quality.sampling import LONGEST_MESSAGES, LONGEST_SAMPLE, MOST_HELD, MOST_QUEUED, WORKERS, AnswerSampler
from backstop.gateway.quality.settings import BuiltIn, compile_quality
from backstop.gateway.quality.verdict import PASSED, Verdict
from backstop.gateway.quality.written import LONGEST_ANSWER, LONGEST_CONTEXT, Written
from backstop.gateway.usage import Usage

from ..harness import eventually, make_record, static_tier

MESSAGES = b'[{"role":"user","content":"When?"}]'
REQUEST = {"messages": MESSAGES}


class Sampling:
    """A sampler, and what it counts."""

    def __init__(self, *, percent: int = 100, clock: Callable[[], float] = time.monotonic, scorers: Sequence[BuiltIn] = ()) -> None:
        quality = Quality.model_validate(
            {"samplePercent": percent, "scorers": [{"name": "words", "type": "Lexical"}, {"name": "figures", "type": "NumbersAndLinks"}]}
        )
        self.registry = CollectorRegistry()
        metrics = GatewayMetrics(compile_revision(make_record([static_tier()]), environment={}), registry=self.registry)
        settings = compile_quality(quality, authorizations={}, authorities={}, about={})
        settings = replace(settings, scorers=tuple(scorers)) if scorers else settings
        self.sampler = AnswerSampler(settings, client=Client(idle_seconds=1.0), metrics=metrics, clock=clock, random=Random(3))

    def total(self, name: str, **labels: str) -> float:
        samples = (s for family in self.registry.collect() for s in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    @property
    def judged(self) -> float:
        return self.total("backstop_quality_answers_total")


def body_of(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}).encode()


class Stream:
    """A stream of these events, and then its end."""

    def __init__(self, *events: bytes) -> None:
        self.head, *self._events = events
        self.closed = False
        self.usage: Usage | None = None

    async def more(self) -> tuple[bytes, bool] | None:
        return (self._events.pop(0), True) if self._events else None

    async def close(self, *, late: bool = False) -> None:
        self.closed = True


def written_off(written: Written, grounds: Grounds | None) -> Verdict:
    """A scorer with a mistake in it, which the answer `Boom.` finds."""
    if written.answer == "Boom.":
        raise OverflowError("math range error")
    return PASSED


async def test_an_answer_that_a_scorer_fails_at_is_counted_and_told_of_once_and_the_next_ones_are_judged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sampling = Sampling(scorers=[BuiltIn("words", judge=written_off, grounding=True)])
    async with sampling.sampler.running():
        for text in ["Boom."] * (WORKERS + 1) + ["Ten."]:
            draw = sampling.sampler.draw(REQUEST)
            assert draw is not None
            draw.whole(body_of(text))

        async def done() -> bool:
            return sampling.judged == WORKERS + 2

        await eventually(done)
    assert sampling.total("backstop_quality_samples_total", scorer="words", label="error") == WORKERS + 1
    assert sampling.total("backstop_quality_samples_total", scorer="words", label="pass") == 1
    assert sampling.total("backstop_quality_answers_total", label="error") == WORKERS + 1
    assert sampling.sampler.status() == {"queued": 0, "bytes": 0, "scorers": {}}
    (told,) = caplog.records
    assert told.exc_info is not None
    assert told.exc_info[0] is OverflowError


async def test_so_many_answers_are_drawn_as_the_policy_says() -> None:
    sampler = Sampling(percent=10).sampler
    drawn = sum(sampler.draw(REQUEST) is not None for _ in range(10_000))
    assert 880 <= drawn <= 1120, "four standard deviations around a tenth"


async def test_what_waits_is_bounded_in_number_and_what_does_not_fit_is_counted() -> None:
    sampling = Sampling()
    for _ in range(MOST_QUEUED + 5):
        draw = sampling.sampler.draw(REQUEST)
        assert draw is not None
        draw.whole(body_of("Ten."))
    assert sampling.sampler.status()["queued"] == MOST_QUEUED
    assert sampling.total("backstop_quality_dropped_total", reason="queue") == 5
    async with sampling.sampler.running():

        async def done() -> bool:
            return sampling.judged == MOST_QUEUED

        await eventually(done)
    assert sampling.sampler.status() == {"queued": 0, "bytes": 0, "scorers": {}}


async def test_what_waits_is_bounded_in_bytes_streams_under_way_among_it() -> None:
    sampling = Sampling()
    piece = b"data: " + b"x" * (LONGEST_SAMPLE // 2) + b"\n\n"
    streams = []
    for _ in range(2 * MOST_HELD // len(piece) + 3):
        draw = sampling.sampler.draw(REQUEST)
        assert draw is not None
        streams.append(draw.recorded(Stream(piece)))
    assert MOST_HELD - 2 * len(piece) < sampling.sampler.status()["bytes"] <= MOST_HELD
    assert sampling.total("backstop_quality_dropped_total", reason="memory") > 0
    for stream in streams:
        await stream.more()
        await stream.close()
    assert sampling.sampler.status()["queued"] == MOST_HELD // (len(piece) + len(MESSAGES))
    too_long = sampling.sampler.draw(REQUEST)
    assert too_long is not None
    too_long.whole(b"x" * (LONGEST_SAMPLE + LONGEST_MESSAGES))
    assert sampling.sampler.status()["queued"] == MOST_HELD // (len(piece) + len(MESSAGES))


async def test_a_stream_that_is_given_up_is_not_judged_and_holds_nothing() -> None:
    sampling = Sampling()
    draw = sampling.sampler.draw(REQUEST)
    assert draw is not None
    inner = Stream(b"data: {}\n\n", b"data: {}\n\n")
    stream = draw.recorded(inner)
    assert await stream.more() == (b"data: {}\n\n", True)
    assert sampling.sampler.status()["bytes"] > 0
    await stream.close()
    assert inner.closed
    assert sampling.sampler.status() == {"queued": 0, "bytes": 0, "scorers": {}}


async def test_a_long_answer_is_judged_in_many_steps_between_which_others_have_their_turn() -> None:
    sampling = Sampling(clock=lambda: 0.0)  # no step takes time, so that there is no rest, but a turn for others
    words = " ".join(f"word{number} {number}" for number in range(20_000))
    messages = json.dumps([{"role": "user", "content": words[: LONGEST_CONTEXT - 10]}]).encode()
    events = [
        b"data: " + body_of(words[start : start + 20]).replace(b'"message"', b'"delta"') + b"\n\n" for start in range(0, LONGEST_ANSWER, 20)
    ]
    draw = sampling.sampler.draw({"messages": messages})
    assert draw is not None
    stream = draw.recorded(Stream(*events))
    while await stream.more() is not None:
        pass
    turns = 0
    async with sampling.sampler.running():
        while not sampling.judged:
            turns += 1
            await asyncio.sleep(0)
    # 410 events by 32, and 64 Ki characters of context by 2 Ki: nobody waits for more than one of these steps.
    assert turns >= 410 // 32 + 32
    assert sampling.total("backstop_quality_answers_total", label="pass") == 1
