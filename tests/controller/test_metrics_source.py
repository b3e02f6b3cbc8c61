"""Which metric source a policy is judged by: the one that its spec names, and nothing that another has said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from backstop.analysis.reading import Healthy, SLOReading, Unknown
from backstop.analysis.tick import Answer, EvaluatorEnded, Here, Question, answered
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.reasons import Reason
from backstop.controller.judging import Judging, readings_for
from backstop.controller.keys import PolicyKey
from backstop.kube.connection import Connection
from backstop.rollout.place import CanaryPlace, Place, StablePlace
from tests.analysis.history import Pod, Request, scraped
from tests.analysis.test_source import source_at
from tests.rollout.world import policy, revision

from .operators import running
from .until import until
from .world import Behaviour, World, condition, policy_spec

KEY = PolicyKey("shop", "support")
SCRAPE = 5.0
CANARY = CanaryPlace(
    revision("2"), started_at=0.0, step_hash="", unready_since=None, step_started_at=0.0, weight=5, generation=2, verified_at=0.0
)
PLACE = Place(stable=StablePlace(revision("1"), since=-100.0), canary=CANARY)
FEW = tuple(Request(at=number / 20, revision="rev2", seconds=0.05) for number in range(2400))
MANY = tuple(Request(at=number / 50, revision="rev2", seconds=0.05) for number in range(6000))


def naming(source: str) -> FallbackPolicySpec:
    return policy().model_copy(update={"metricsSource": source})


@dataclass
class Judged:
    """A policy that is judged, evaluation by evaluation."""

    judge: Judging
    sources: frozenset[str]
    now: list[float]
    woken: list[PolicyKey] = field(default_factory=list)

    def watch(self, source: str, *, analysis: str | None = None) -> None:
        self.judge.watch(KEY, spec=naming(source), place=PLACE, analysis=analysis)

    def read(self, source: str) -> tuple[SLOReading, ...]:
        """What holds where the spec names this source."""
        return readings_for(PLACE, spec=naming(source), judgement=self.judge.judgement(KEY), sources=self.sources)

    def evaluate(self, requests: Sequence[Request], *, scrapes: int) -> SLOReading:
        """By so many scrapes more of the source that is named now."""
        for _ in range(scrapes):
            self.now[0] += SCRAPE
            live = self.judge._live[KEY]
            fetched = scraped([Pod("a", tuple(requests))], interval=SCRAPE, until=self.now[0])
            self.judge._learn(
                KEY, policy=live, answer=answered(Question(live), fetched=fetched, asked=self.now[0], now=self.now[0], interval=SCRAPE)
            )
        (reading,) = self.read(self.judge._live[KEY].source)
        return reading


@contextlib.contextmanager
def configured(*names: str, now: float = 0.0) -> Iterator[Judged]:
    """An operator with these sources, of which nobody asks anything."""
    with ExitStack() as stack:
        sources = {name: stack.enter_context(contextlib.closing(source_at("http://127.0.0.1:9", name=name))) for name in names}
        at, woken = [now], list[PolicyKey]()
        evaluators = {name: Here(source, clock=lambda: at[0]) for name, source in sources.items()}
        judge = Judging(evaluators, wake=lambda key, _urgent: woken.append(key), clock=lambda: at[0], jitter=lambda: 0.0)
        yield Judged(judge, frozenset(names), at, woken)


def test_a_source_that_is_not_configured_makes_every_slo_unknown_and_says_what_to_do() -> None:
    with configured("default", "metrics") as it:
        it.watch("default")
        assert it.evaluate(FEW, scrapes=10).state == Healthy()
        for _ in range(2):
            (reading,) = it.read("elsewhere")
            it.watch("elsewhere")
    assert isinstance(reading.state, Unknown)
    assert reading.evidence == (
        "`spec.metricsSource` names `elsewhere`, which the operator's `metrics.sources` do not have (they have: default, metrics); "
        "correct the name, or add the source to them"
    )
    assert reading.reason is Reason.METRICS_SOURCE_NOT_FOUND


def test_an_operator_without_sources_says_that_it_has_none() -> None:
    with configured() as it:
        it.watch("default")
        (reading,) = it.read("default")
    assert "(they have: none)" in reading.evidence


def test_without_a_canary_that_has_traffic_there_is_nothing_to_be_unknown() -> None:
    at_rest = Place(stable=StablePlace(revision("1"), since=-100.0))
    assert readings_for(at_rest, spec=naming("elsewhere"), judgement=None, sources=frozenset({"default"})) == ()


def test_a_source_that_is_named_again_counts_on_and_its_old_readings_are_no_news() -> None:
    with configured("default") as it:
        it.watch("default")
        it.evaluate(FEW, scrapes=10)
        counted = it.judge._live[KEY].state
        it.watch("elsewhere")
        it.now[0] += 2 * SCRAPE
        it.watch("default")
        assert it.read("default") == ()
        assert it.judge._live[KEY].state == counted
        assert it.evaluate(FEW, scrapes=1).state == Healthy()
        # Two scrapes came in while nobody looked.
        assert it.judge._live[KEY].state.step_requests == counted.step_requests + 3 * SCRAPE * 20


def test_another_source_is_believed_from_its_own_samples_alone() -> None:
    with configured("default", "other") as it, configured("other") as alone:
        it.watch("default")
        assert it.evaluate(FEW, scrapes=10).state == Healthy()
        assert it.read("other") == (), "what the former source said"
        it.watch("other")
        assert it.read("other") == ()
        assert it.judge._live[KEY].wants_history
        alone.now[0] = it.now[0]
        alone.watch("other")
        assert it.evaluate(MANY, scrapes=2) == alone.evaluate(MANY, scrapes=2)


def test_after_a_restart_tests_go_on_with_the_source_that_they_began_with_and_begin_anew_with_another() -> None:
    with configured("default", "other") as before:
        before.watch("default")
        before.evaluate(FEW, scrapes=12)
        written = before.judge.judgement(KEY)
    assert written is not None
    with configured("default", "other", now=before.now[0]) as it, configured("other", now=before.now[0]) as alone:
        it.watch("default", analysis=written.analysis)
        assert it.judge._live[KEY].state.block_end == written.at
        it.judge.forget(KEY)
        it.watch("other", analysis=written.analysis)
        alone.watch("other")
        assert it.judge._live[KEY].wants_history
        assert it.evaluate(MANY, scrapes=1) == alone.evaluate(MANY, scrapes=1)


async def test_a_former_source_that_ends_says_nothing_of_the_one_that_is_named_now() -> None:
    asked, ends = asyncio.Event(), asyncio.Event()

    class Ends(Here):
        """While it is waited for."""

        async def evaluate(self, questions: Sequence[Question]) -> AsyncIterator[Sequence[Answer]]:
            asked.set()
            await ends.wait()
            raise EvaluatorEnded("it has ended")
            yield ()

    with configured("other") as it, contextlib.closing(source_at("http://127.0.0.1:9")) as source:
        it.judge._evaluators = {**it.judge._evaluators, "default": Ends(source, clock=lambda: it.now[0])}
        it.watch("default")
        loop = asyncio.create_task(it.judge.run("default"))

        async def nobody_is_waited_for() -> bool:
            return not it.judge._asked

        try:
            async with asyncio.timeout(30):
                await asked.wait()
            it.watch("other")
            reading = it.evaluate(FEW, scrapes=10)
            ends.set()
            await until("it has ended", nobody_is_waited_for)
            assert it.read("other") == (reading,)
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


def held(seconds: int) -> dict[str, Any]:
    return {"steps": [{"weight": 40, "holdSeconds": seconds}, {"weight": 100, "holdSeconds": 1}], "analysis": {"warmUpSeconds": 0}}


async def seen_to_be_healthy(world: World) -> None:
    """At 40 %, which is held for long."""
    for name in ("v1", "v2"):
        await world.prompt(name)
    await world.apply("v1")
    await world.stable_on("v1")
    await world.apply("v2", canary=held(600))
    await world.until_status(
        "v2 is healthy at 40 %", lambda s: "canary" in s and [slo["state"] for slo in s.get("slos", ())] == ["Healthy"]
    )


@pytest.mark.apiserver
async def test_a_canary_goes_no_further_on_what_a_source_said_before_the_spec_named_one_that_is_not_there(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        await seen_to_be_healthy(world)
        await world.apply("v2", canary=held(1), metricsSource="elsewhere")
        status = await world.until_status("it says why", lambda s: condition(s, "MetricsAvailable")["status"] == "False")
        said = condition(status, "MetricsAvailable")
        assert said["reason"] == "MetricsSourceNotFound"
        assert said["message"].startswith("latency: `spec.metricsSource` names `elsewhere`")
        assert "(they have: default)" in said["message"]
        await world.until_status("its clock stands", lambda s: s["canary"].get("blindSince"))
        # The source that is named again says nothing: what it said before is no reason to go on while it is waited for.
        world.metrics_answer.clear()
        generation = (await world.apply("v2", canary=held(1)))["metadata"]["generation"]
        status = await world.until_status(
            "it has looked again",
            lambda s: s["observedGeneration"] == generation and condition(s, "MetricsAvailable")["reason"] == "MetricsUnavailable",
        )
        assert status["canary"]["weight"] == 40
        world.metrics_answer.set()
        await world.stable_on("v2")
    assert await world.shares() == [0, 400, 1000, 0]


@pytest.mark.apiserver
async def test_an_operator_that_comes_back_without_the_source_holds_and_says_why_until_it_has_it_again(
    connection: Connection, world: World
) -> None:
    async with running(connection, world):
        await seen_to_be_healthy(world)
        before = await world.status()
    await world.apply("v2", canary=held(1))
    async with running(connection, world, sources=("other",), sweep_seconds=0.5) as without:
        status = await world.until_status("it says why", lambda s: condition(s, "MetricsAvailable")["status"] == "False")
        assert (
            "names `default`, which the operator's `metrics.sources` do not have (they have: other)"
            in (condition(status, "MetricsAvailable")["message"])
        )
        assert [slo["state"] for slo in status["slos"]] == ["Unknown"]
        await world.until_status("its clock stands", lambda s: s["canary"].get("blindSince"))
        await without.lists(3)
        status = await world.status()
        assert (status["canary"]["revision"], status["canary"]["weight"]) == (before["canary"]["revision"], 40)
    async with running(connection, world):
        await world.stable_on("v2")
    assert await world.shares() == [0, 400, 1000, 0]


@pytest.mark.apiserver
async def test_a_canary_whose_source_is_not_there_is_taken_back_where_the_policy_asks_for_that_and_stays_rejected(
    connection: Connection, world: World
) -> None:
    rollback = policy_spec("v2")["rollback"] | {"onMetricsUnavailable": {"afterSeconds": 1, "action": "Rollback"}}
    async with running(connection, world):
        await seen_to_be_healthy(world)
        await world.apply("v2", canary=held(600), metricsSource="elsewhere", rollback=rollback)
        status = await world.until_status("it is taken back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
        assert status["lastRollout"]["reason"] == "MetricsUnavailable"
        await world.apply("v2", canary=held(600), rollback=rollback)
        await world.until_status("it stays so", lambda s: condition(s, "Stalled")["reason"] == "RolledBack")
        await world.quiet()
    assert await world.shares() == [0, 400, 0]


@pytest.mark.apiserver
async def test_a_breach_that_was_decided_stays_decided_without_the_source_that_showed_it(connection: Connection, world: World) -> None:
    async with running(connection, world):
        await seen_to_be_healthy(world)
        world.behaviour["v2"] = Behaviour(bad=0.5)
        await world.until_status("it is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
        rejected = (await world.status())["rejected"]
    async with running(connection, world, sources=("other",), sweep_seconds=0.5) as without:
        await without.lists(3)
        await world.quiet()
        assert (await world.status())["rejected"] == rejected
    assert await world.shares() == [0, 400, 0]
