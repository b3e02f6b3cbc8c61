"""The metrics loops, with real sources that answer, or never do."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import pytest

from backstop.analysis.apart import Apart
from backstop.analysis.indicators import OWN_TOTAL
from backstop.analysis.objective import objective_of
from backstop.analysis.prometheus import PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.reading import Breached, Healthy, Unknown
from backstop.analysis.samples import Counter, Sample, Series
from backstop.analysis.state import AnalysisState
from backstop.analysis.tick import Answer, Here, NotEvaluated, Question, answered
from backstop.api.fallbackpolicy import SLO, Analysis, Canary, FallbackPolicySpec, PromQL, Step
from backstop.api.reasons import Reason
from backstop.controller.judging import JUDGED_SECONDS, WATCHED_SECONDS, Judging, live_policy, quiet_seconds, readings_for
from backstop.controller.keys import PolicyKey
from backstop.rollout.place import CanaryPlace, Place, StablePlace
from tests.analysis.history import Pod, Request, scraped
from tests.analysis.test_source import EMPTY, response, says, serving, silence, source_at
from tests.rollout.world import policy, revision

from .until import until

KEY = PolicyKey("shop", "support")
SCRAPE = 5.0
SOURCES = frozenset({"default"})


def place() -> Place:
    now = time.time()
    canary = CanaryPlace(
        revision("2"), started_at=now, step_hash="", unready_since=None, step_started_at=now, weight=5, generation=2, verified_at=now
    )
    return Place(stable=StablePlace(revision("1"), since=now - 100), canary=canary)


@contextlib.asynccontextmanager
async def judging(**sources: PrometheusSource):  # type: ignore[no-untyped-def]  # a generator of one Judging
    judge = Judging(
        {name: Here(source, clock=time.time) for name, source in sources.items()},
        wake=lambda _key, _urgent: None,
        clock=time.time,
        jitter=lambda: 0.0,
    )
    loops = [asyncio.create_task(judge.run(name)) for name in sources]
    try:
        yield judge
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def test_another_metrics_source_is_asked_from_when_the_spec_names_it() -> None:
    async with serving(silence) as (old_url, old_asked), serving(says(response(EMPTY))) as (new_url, new_asked):
        with (
            closing(source_at(old_url, name="old", deadline_seconds=0.5)) as old,
            closing(source_at(new_url, name="new")) as new,
        ):
            async with judging(old=old, new=new) as judge:

                def watch(source: str) -> None:
                    judge.watch(KEY, spec=policy().model_copy(update={"metricsSource": source}), place=place(), analysis=None)

                async def asked(taken: list[bytes], times: int) -> bool:
                    return len(taken) >= times

                watch("old")
                await until("the old source is asked", lambda: asked(old_asked, 1))
                watch("new")
                await until("the new source is asked again and again", lambda: asked(new_asked, 3))
    assert len(old_asked) == 1


async def test_policies_judged_by_the_gateways_alone_wait_for_no_selector_of_an_author() -> None:
    asked: list[bytes] = []

    async def answers_the_gateways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request)
        if b"jobs_total" in request:
            await reader.read()
        writer.write(response(EMPTY))
        await writer.drain()

    slo = SLO(name="own", promQL=PromQL(bad="failures_total", total="jobs_total"), maxPercent="1")
    async with serving(answers_the_gateways) as (url, _):
        with closing(source_at(url, deadline_seconds=60.0)) as source:
            async with judging(default=source) as judge:
                judge.watch(PolicyKey("shop", "own"), spec=policy().model_copy(update={"slos": [slo]}), place=place(), analysis=None)

                async def is_slow() -> bool:
                    return any(b"jobs_total" in request for request in asked)

                await until("the author's selector is asked", is_slow)
                judge.watch(KEY, spec=policy(), place=place(), analysis=None)

                async def asked_again_and_again() -> bool:
                    return sum(b"jobs_total" not in request for request in asked) >= 3

                await until("the gateways' metrics are asked again and again", asked_again_and_again)
                assert judge.judgement(KEY) is not None
                assert judge.judgement(PolicyKey("shop", "own")) is None


async def test_a_selector_that_takes_long_holds_up_its_own_policy_alone() -> None:
    asked: list[bytes] = []

    async def answers_all_but_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request)
        if b"slow_total" in request:
            await reader.read()
        writer.write(response(EMPTY))
        await writer.drain()

    def spec(total: str) -> FallbackPolicySpec:
        slo = SLO(name="own", promQL=PromQL(bad="failures_total", total=total), maxPercent="1")
        return policy().model_copy(update={"slos": [slo]})

    slow, quick = PolicyKey("shop", "slow"), PolicyKey("shop", "quick")
    async with serving(answers_all_but_one) as (url, _):
        with closing(source_at(url, deadline_seconds=60.0)) as source:
            async with judging(default=source) as judge:
                judge.watch(slow, spec=spec("slow_total"), place=place(), analysis=None)
                judge.watch(quick, spec=spec("jobs_total"), place=place(), analysis=None)

                async def asked_again_and_again() -> bool:
                    return sum(b"jobs_total" in request for request in asked) >= 4

                await until("the quick ones are asked again and again", asked_again_and_again)
                assert judge.judgement(quick) is not None
                assert judge.judgement(slow) is None
                assert sum(b"slow_total" in request for request in asked) == 1, "who waits is not asked again"


async def test_what_becomes_due_while_a_tick_takes_long_has_another() -> None:
    asked: list[bytes] = []

    async def answers_all_but_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request)
        if b"crowded" in request:
            await reader.read()
        writer.write(response(EMPTY))
        await writer.drain()

    crowded = PolicyKey("crowded", "support")
    async with serving(answers_all_but_one) as (url, _):
        with closing(source_at(url, deadline_seconds=60.0)) as source:
            async with judging(default=source) as judge:
                judge.watch(crowded, spec=policy(), place=place(), analysis=None)

                async def is_slow() -> bool:
                    return any(b"crowded" in request for request in asked)

                await until("the first tick waits", is_slow)
                judge.watch(KEY, spec=policy(), place=place(), analysis=None)

                async def asked_again_and_again() -> bool:
                    return sum(b"crowded" not in request for request in asked) >= 3

                await until("the others are asked again and again", asked_again_and_again)
                assert judge.judgement(KEY) is not None
                assert judge.judgement(crowded) is None
                assert sum(b"crowded" in request for request in asked) == 1, "who waits is not asked again"


@pytest.mark.parametrize(("both", "said"), [(False, "unless the operator's clock is set"), (True, "so clocks were set back")])
async def test_a_clock_that_is_set_back_ends_no_judging(both: bool, said: str) -> None:
    set_back, began = [0.0], time.time()

    def clock() -> float:
        return time.time() - set_back[0]

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        labels = {"__name__": "backstop_served_total", "namespace": KEY.namespace, "policy": KEY.name, "revision": "rev2", "pod": "a"}
        now, behind = time.time(), set_back[0] if both else 0.0
        values = [[at - behind, str(int(1000 + at - began))] for at in (now - 2 * SCRAPE, now - SCRAPE, now)]
        series = {"metric": labels | {"outcome": "error", "cache": "miss", "first_tier": "answered"}, "values": values}
        writer.write(response(json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [series]}}).encode()))
        await writer.drain()

    async with serving(counts) as (url, asked):
        with closing(source_at(url)) as source:
            judge = Judging({"default": Here(source, clock=clock)}, wake=lambda _key, _urgent: None, clock=clock, jitter=lambda: 0.0)
            loop = asyncio.create_task(judge.run("default"))
            here = place()
            assert here.canary is not None
            judge.watch(KEY, spec=policy(), place=replace(here, canary=replace(here.canary, verified_at=began - 60)), analysis=None)

            async def counted() -> bool:
                return judge._due.get(KEY, 0.0) > clock()

            async def asked_again() -> bool:
                return len(asked) > before

            async def tells_of_the_clock() -> bool:
                judgement = judge.judgement(KEY)
                return judgement is not None and said in judgement.readings[0].evidence

            async def goes_on() -> bool:
                judgement = judge.judgement(KEY)
                return judgement is not None and not isinstance(judgement.readings[0].state, Unknown)

            try:
                await until("a block is counted, and the next one waited for", counted)
                before, set_back[0] = len(asked), 3600.0
                await until("its source is asked again", asked_again)
                await until("it says what is wrong", tells_of_the_clock)
                if both:
                    await until("it goes on", goes_on)
            finally:
                loop.cancel()
                await asyncio.gather(loop, return_exceptions=True)


async def test_what_becomes_live_while_its_source_is_put_to_rest_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstop.controller.judging.KEPT_SECONDS", 0.01)
    resting, rested = asyncio.Event(), asyncio.Event()

    class TakesLong(Here):
        """To give back what it holds."""

        async def rest(self) -> None:
            resting.set()
            await rested.wait()

    async with serving(says(response(EMPTY))) as (url, asked):
        with closing(source_at(url)) as source, closing(source_at(url, name="other")) as other:
            evaluators = {"default": TakesLong(source, clock=time.time), "other": Here(other, clock=time.time)}
            judge = Judging(evaluators, wake=lambda _key, _urgent: None, clock=time.time, jitter=lambda: 0.0)
            loops = [asyncio.create_task(judge.run(name)) for name in evaluators]

            async def heard_by_the_other() -> bool:
                return not judge._changed.is_set()

            async def is_asked() -> bool:
                return bool(asked)

            try:
                async with asyncio.timeout(30):
                    await resting.wait()
                judge.watch(KEY, spec=policy(), place=place(), analysis=None)
                await until("the other source has looked", heard_by_the_other)
                rested.set()
                await until("its source is asked", is_asked)
            finally:
                rested.set()
                for loop in loops:
                    loop.cancel()
                await asyncio.gather(*loops, return_exceptions=True)


async def test_r04_counts_alone_are_told_twice_a_minute_and_a_verdict_at_once() -> None:
    turns_bad, now, woken = 60.0, [0.0], []
    judge = Judging({}, wake=lambda _key, _urgent: woken.append(now[0]), clock=lambda: now[0], jitter=lambda: 0.0)
    canary = CanaryPlace(
        revision("2"), started_at=0.0, step_hash="", unready_since=None, step_started_at=0.0, weight=5, generation=2, verified_at=0.0
    )
    spec = policy()
    spec = spec.model_copy(update={"slos": [spec.slos[0].model_copy(update={"forSeconds": 0})]})
    judge.watch(KEY, spec=spec, place=Place(stable=StablePlace(revision("1"), since=-100.0), canary=canary), analysis=None)
    of_canary = [Request(at=number / 20, revision="rev2", seconds=0.3 if number / 20 > turns_bad else 0.05) for number in range(2000)]
    requests = (*of_canary, *(one._replace(revision="rev1", seconds=0.05) for one in of_canary))
    for scrape in range(1, 18):
        now[0] = scrape * SCRAPE
        fetched = scraped([Pod("a", requests)], interval=SCRAPE, until=now[0])
        policy_now = judge._live[KEY]
        question = judge._question(KEY, policy=policy_now)
        judge._learn(KEY, policy=policy_now, answer=answered(question, fetched=fetched, asked=now[0], now=now[0], interval=SCRAPE))
    judgement = judge.judgement(KEY)
    assert judgement is not None
    assert isinstance(judgement.readings[0].state, Breached)
    quiet = [at for at in woken if 2 * SCRAPE < at <= turns_bad]
    assert quiet, "what is healthy is told now and then"
    assert all(later - earlier >= JUDGED_SECONDS for earlier, later in pairwise([at for at in woken if at <= turns_bad][1:]))
    assert turns_bad + SCRAPE in woken


def test_r04_of_a_thousand_canaries_counts_are_told_half_as_often_as_of_few() -> None:
    assert quiet_seconds(1) == quiet_seconds(400) == JUDGED_SECONDS
    assert quiet_seconds(1000) == quiet_seconds(50_000) == WATCHED_SECONDS


@pytest.mark.parametrize(
    ("holds", "seconds"),
    [((600, 60), 660), ((300, 120), 420), ((0, 0), 420), ((100, 20), 420)],
    ids=["longer", "as-long", "approvals-alone", "shorter"],
)
def test_a_late_regression_is_planned_for_as_long_as_a_default_rollout_lasts_however_short_the_holds(
    holds: tuple[int, int], seconds: float
) -> None:
    steps = [Step(weight=weight, holdSeconds=hold, approval=True) for weight, hold in zip((5, 100), holds, strict=True)]
    spec = policy().model_copy(update={"canary": Canary(steps=steps)})
    live = live_policy(KEY, spec=spec, place=place(), state=AnalysisState())
    assert live is not None
    assert live.planned_seconds == seconds


async def test_of_a_policy_with_own_counters_alone_no_number_of_requests_is_claimed() -> None:
    now = [SCRAPE]
    judge = Judging({}, wake=lambda _key, _urgent: None, clock=lambda: now[0], jitter=lambda: 0.0)
    canary = CanaryPlace(
        revision("2"), started_at=0.0, step_hash="", unready_since=None, step_started_at=0.0, weight=5, generation=2, verified_at=0.0
    )
    slo = SLO(name="own", promQL=PromQL(bad="failures_total", total="jobs_total"), maxPercent="1")
    spec = policy().model_copy(update={"slos": [slo], "canary": policy().canary.model_copy(update={"analysis": Analysis(warmUpSeconds=0)})})
    judge.watch(KEY, spec=spec, place=Place(stable=StablePlace(revision("1"), since=-100.0), canary=canary), analysis=None)
    total = Counter(OWN_TOTAL, "rev2", part=objective_of(slo).part)
    fetched = Sample((Series("pod", total, ((0.0, 0.0), (5.0, 40.0))),))
    live = judge._live[KEY]
    judge._learn(KEY, policy=live, answer=answered(Question(live), fetched=fetched, asked=now[0], now=now[0], interval=SCRAPE))
    judgement = judge.judgement(KEY)
    assert judgement is not None
    assert (judgement.readings[0].state, judgement.readings[0].canary.total, judgement.requests) == (Healthy(), 40, None)


def children(*, of: str) -> list[int]:
    """Ids of the processes that this one has started with these words in their command."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(maxsplit=2) for line in listed.splitlines() if of in line]
    return [int(pid) for pid, parent, _ in found if int(parent) == os.getpid()]


@pytest.mark.long
async def test_what_evaluates_and_ends_again_and_again_is_told_once_as_metrics_that_are_not_available() -> None:
    woken: list[PolicyKey] = []
    started: list[int] = []

    async def ends(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        (process,) = children(of="backstop.analysis.apart")
        started.append(process)
        os.kill(process, signal.SIGKILL)

    async with serving(ends) as (url, _):
        apart = Apart(MetricsSourceConfig(name="default", url=url, scrape_interval_seconds=1.0))
        judge = Judging({"default": apart}, wake=lambda key, _urgent: woken.append(key), clock=time.time, jitter=lambda: 0.0)
        spec = policy().model_copy(update={"metricsSource": "default"})
        judge.watch(KEY, spec=spec, place=place(), analysis=None)
        loop = asyncio.create_task(judge.run("default"))

        async def asked_again() -> bool:
            return len(set(started)) >= 3

        try:
            await until("its source is asked again and again", asked_again, within=120)
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
    judgement = judge.judgement(KEY)
    assert judgement is not None
    (reading,) = judgement.readings
    assert isinstance(reading.state, Unknown)
    assert reading.reason is Reason.METRICS_UNAVAILABLE
    assert "what evaluates metrics source `default` has ended or hangs" in reading.evidence
    assert woken == [KEY]


async def test_an_evaluation_that_fails_hides_what_was_found_before_until_the_same_samples_are_evaluated() -> None:
    now, woken = [SCRAPE], []
    judge = Judging({}, wake=lambda _key, _urgent: woken.append(now[0]), clock=lambda: now[0], jitter=lambda: 0.0)
    canary = CanaryPlace(
        revision("2"), started_at=0.0, step_hash="", unready_since=None, step_started_at=0.0, weight=5, generation=2, verified_at=0.0
    )
    spec, where = policy(), Place(stable=StablePlace(revision("1"), since=-100.0), canary=canary)
    judge.watch(KEY, spec=spec, place=where, analysis=None)
    requests = tuple(Request(at=number / 20, revision="rev2", seconds=0.05) for number in range(1200))

    def evaluate() -> None:
        live = judge._live[KEY]
        question = judge._question(KEY, policy=live)
        fetched = scraped([Pod("a", requests)], interval=SCRAPE, until=now[0])
        judge._learn(KEY, policy=live, answer=answered(question, fetched=fetched, asked=now[0], now=now[0], interval=SCRAPE))

    def fail() -> None:
        failed = Answer(KEY.namespace, KEY.name, NotEvaluated("Traceback"), frozenset(), due=now[0], at=now[0])
        judge._learn(KEY, policy=judge._live[KEY], answer=failed)

    def states() -> list[str]:
        return [type(reading.state).__name__ for reading in readings_for(where, spec=spec, judgement=judge.judgement(KEY), sources=SOURCES)]

    for scrape in range(1, 11):
        now[0] = scrape * SCRAPE
        evaluate()
    assert states() == ["Healthy"]
    before = judge.judgement(KEY)
    woken.clear()
    now[0] += 1
    fail()
    fail()
    after = judge.judgement(KEY)
    assert states() == ["Unknown"]
    assert before is not None
    assert after is not None
    assert (after.analysis, after.requests) == (before.analysis, before.requests)
    assert woken == [now[0]]
    evaluate()
    assert states() == ["Healthy"]
