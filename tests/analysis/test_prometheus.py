"""The whole input path against a real Prometheus that scrapes real /metrics endpoints once a second."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import objective_of
from backstop.analysis.policy import Evaluation, LivePolicy
from backstop.analysis.prometheus import PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.reading import Breached, Counts, Healthy, Unknown
from backstop.analysis.samples import Fetched, NoData, Partial, ProviderError, Sample
from backstop.analysis.source import fetched_by_batch
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import SLO, PromQL
from backstop.api.reasons import Reason
from tests.analysis.conftest import SCRAPE_SECONDS, Pods, Prometheus
from tests.analysis.history import errors_objective, latency_objective, live_policy, own_objective
from tests.analysis.nativeservice import NativeService

pytestmark = pytest.mark.prometheus

DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.25


class Analysis:
    """Evaluates one policy again and again, resuming from the packed state each time."""

    def __init__(self, source: PrometheusSource) -> None:
        self.source = source
        self.since: float | None = None
        self.state = AnalysisState()
        self.fetched: Fetched = NoData("")
        self.objectives = (latency_objective(for_seconds=3), errors_objective(percent="50"))

    async def step(self) -> Evaluation:
        policy: LivePolicy = live_policy(*self.objectives, since=self.since, state=self.state)
        async for fetched in fetched_by_batch([policy], source=self.source, now=time.time()):
            self.fetched = fetched["shop", "support"]
        result = evaluate(self.fetched, policy=policy, now=time.time(), scrape_interval=SCRAPE_SECONDS)
        resumed = unpack(pack(result.state))
        assert isinstance(resumed, AnalysisState)
        self.state = resumed
        return result

    async def until(self, condition: Callable[[Evaluation], bool]) -> Evaluation:
        """The first evaluation for which the condition holds."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                result = await self.step()
                if condition(result):
                    return result
                await asyncio.sleep(POLL_SECONDS)

    async def blocks(self, count: int) -> Evaluation:
        """The evaluation that closes the last of `count` more blocks."""
        for _ in range(count - 1):
            await self.until(lambda result: result.closed_block)
        return await self.until(lambda result: result.closed_block)


def analysis_of(prometheus: Prometheus) -> Analysis:
    config = MetricsSourceConfig(name="default", url=prometheus.url, scrape_interval_seconds=SCRAPE_SECONDS)
    return Analysis(PrometheusSource(config))


@contextmanager
def started(service: NativeService) -> Iterator[None]:
    service.start()
    try:
        yield
    finally:
        service.stop()


async def test_m09_every_request_is_counted_once_through_restarts_of_a_pod_and_of_prometheus(pods: Pods, prometheus: Prometheus) -> None:
    first, second = pods.start(), pods.start()
    first.serve(revision="stable", count=1000)
    first.serve(revision="canary", count=500, seconds=0.19)  # before the step: not judged
    second.serve(revision="stable", count=1000)
    prometheus.scrape([first, second])
    await prometheus.start()
    analysis = analysis_of(prometheus)
    with closing(analysis.source):
        await analysis.until(lambda _: isinstance(analysis.fetched, Sample) and len({s.target for s in analysis.fetched.series}) == 2)
        analysis.since = time.time()
        assert (await analysis.blocks(2)).canary_requests == 0

        first.serve(revision="canary", count=30)
        second.serve(revision="canary", count=10, seconds=0.19)  # series that this pod did not have before
        result = await analysis.until(lambda result: result.canary_requests >= 40)
        assert result.readings[0].step_requests == 40

        first = pods.restart(first)
        first.serve(revision="canary", count=7)
        result = await analysis.until(lambda result: result.canary_requests >= 47)
        assert result.readings[0].step_requests == 47

        prometheus.stop()
        result = await analysis.step()
        state = result.readings[0].state
        assert isinstance(state, Unknown)
        assert state.why == "Metrics source `default` could not be reached: Connection refused."
        first.serve(revision="canary", count=13)
        await prometheus.start()

        result = await analysis.until(lambda result: result.canary_requests >= 60)
        assert (await analysis.blocks(3)).canary_requests == 60
        assert analysis.state.step_sent == 60


async def test_m10_a_latency_whose_histogram_prometheus_makes_a_native_one_of_is_said_to_be_unseen(
    pods: Pods, prometheus: Prometheus
) -> None:
    pod = pods.start()
    pod.serve(revision="stable", count=1000)
    prometheus.scrape([pod], option="convert_classic_histograms_to_nhcb")
    await prometheus.start()
    analysis = analysis_of(prometheus)
    with closing(analysis.source):
        await analysis.until(lambda _: isinstance(analysis.fetched, Sample))
        analysis.since = time.time()
        await analysis.blocks(2)
        pod.serve(revision="canary", count=100, seconds=0.19)
        result = await analysis.until(lambda result: result.canary_requests >= 100)
    latency, errors = result.readings
    assert isinstance(latency.state, Unknown)
    assert latency.reason is Reason.BUCKET_BOUNDARY_MISSING
    assert "it must keep the classic ones (`always_scrape_classic_histograms`)" in latency.evidence
    assert isinstance(errors.state, Healthy)


async def test_after_clocks_were_set_back_it_is_seen_whether_prometheus_has_what_was_counted_and_counting_goes_on(
    pods: Pods, prometheus: Prometheus
) -> None:
    pod = pods.start()
    pod.serve(revision="stable", count=1000)
    pod.serve(revision="canary", count=500)
    prometheus.scrape([pod])
    await prometheus.start()
    analysis = analysis_of(prometheus)
    with closing(analysis.source):
        await analysis.until(lambda _: isinstance(analysis.fetched, Sample))
        analysis.since = time.time()
        await analysis.blocks(2)
        pod.serve(revision="canary", count=30)
        await analysis.until(lambda result: result.canary_requests >= 30)
        # As if that had been by clocks which were an hour ahead, and its samples were deleted.
        state = analysis.state
        assert state.block_end is not None
        ahead = {target: at + 3600 for target, at in state.watermarks.items()}
        analysis.state = replace(state, watermarks=ahead, block_end=state.block_end + 3600)

        (reading, _) = (await analysis.step()).readings
        assert isinstance(reading.state, Unknown)
        assert reading.reason is Reason.CLOCK_SET_BACK
        assert reading.evidence.endswith("by the operator's clock, so clocks were set back; requests are counted anew from now on.")
        await analysis.blocks(2)
        pod.serve(revision="canary", count=12)
        await analysis.until(lambda result: result.canary_requests >= 42)
        assert (await analysis.blocks(2)).canary_requests == 42


async def test_b01_a_slow_canary_is_breached_and_says_by_what(pods: Pods, prometheus: Prometheus) -> None:
    pod = pods.start()
    pod.serve(revision="stable", count=10)
    prometheus.scrape([pod])
    await prometheus.start()
    analysis = analysis_of(prometheus)
    with closing(analysis.source):
        await analysis.until(lambda _: isinstance(analysis.fetched, Sample))
        analysis.since = time.time()
        await analysis.blocks(1)
        pod.serve(revision="canary", count=40)
        healthy = await analysis.until(lambda result: result.canary_requests >= 40)
        assert [reading.state for reading in healthy.readings] == [Healthy(), Healthy()]

        def slow_again(result: Evaluation) -> bool:
            pod.serve(revision="canary", count=20, seconds=0.19)
            # What a fast second tier hid from the caller.
            pod.serve(revision="canary", count=5, seconds=0.05, first_tier="late")
            return isinstance(result.readings[0].state, Breached)

        breached = (await analysis.until(slow_again)).readings[0]
        assert breached.canary.bad == breached.canary.total > 0
        assert breached.stable == Counts(0, 0)
        assert breached.value == "100"
        assert "over 150 ms or handed over as late (100 %, allowed 5 %)" in breached.evidence


async def test_m04_a_policy_that_is_not_scraped_has_no_data(pods: Pods, prometheus: Prometheus) -> None:
    pod = pods.start()
    prometheus.scrape([pod])
    await prometheus.start()
    analysis = analysis_of(prometheus)
    with closing(analysis.source):
        result = await analysis.step()
        assert isinstance(analysis.fetched, NoData)
        assert isinstance(result.readings[0].state, Unknown)


async def test_a_query_that_prometheus_refuses_or_answers_with_another_type_is_an_error_of_the_provider(prometheus: Prometheus) -> None:
    prometheus.scrape([])
    await prometheus.start()
    with closing(analysis_of(prometheus).source) as source:
        assert await source.query("up{[5s]") == ProviderError("Metrics source `default` answered with HTTP status 400.")
        assert await source.query("vector(1)") == ProviderError(
            "Metrics source `default` answered with a 'vector' where a range vector was asked for."
        )
        assert await source.query("up[5s]") == []


async def test_a_backend_of_prometheus_that_fails_makes_the_answer_partial(pods: Pods, prometheus: Prometheus) -> None:
    pod = pods.start()
    pod.serve(revision="canary", count=10)
    prometheus.scrape([pod])
    with (prometheus.directory / "prometheus.yml").open("a") as config:
        config.write("remote_read: [{url: 'http://127.0.0.1:1/read', read_recent: true}]\n")
    await prometheus.start()
    analysis = analysis_of(prometheus)
    with closing(analysis.source):
        result = await analysis.until(lambda _: not isinstance(analysis.fetched, NoData))
    assert isinstance(analysis.fetched, Partial)
    assert isinstance(result.readings[0].state, Unknown)


async def test_own_counters_of_two_kinds_are_counted_once_and_breach_without_any_gateway(pods: Pods, prometheus: Prometheus) -> None:
    canary, stable, scorer = pods.start_worker(), pods.start_worker(), pods.start_worker()
    canary.jobs.labels("done", "").inc(500)
    stable.jobs.labels("done", "").inc(500)
    stable.jobs.labels("failed", "").inc(50)
    scorer.jobs.labels("done", "stable").inc(50)
    workers = {"support-canary-7f9c5d8b6-x2x4z": canary, "support-stable-6b8f4c7d5-q9w8k": stable, "scorer-0": scorer}
    prometheus.scrape([], workers=workers)
    await prometheus.start()
    analysis = analysis_of(prometheus)
    analysis.objectives = (own_objective(), own_objective(name="scored", revision_label="version", percent="50"))
    with closing(analysis.source):
        await analysis.until(lambda _: isinstance(analysis.fetched, Sample) and len({s.target for s in analysis.fetched.series}) == 3)
        analysis.since = time.time()
        await analysis.blocks(2)

        canary.jobs.labels("done", "").inc(30)
        scorer.jobs.labels("done", "canary").inc(25)  # series that this process did not have before
        own, scored = (await analysis.until(lambda result: result.readings[0].step_requests >= 30)).readings
        assert (own.state, own.canary) == (Healthy(), Counts(bad=0, total=30))
        scored = (await analysis.until(lambda result: result.readings[1].step_requests >= 25)).readings[1]
        assert (scored.state, scored.canary) == (Healthy(), Counts(bad=0, total=25))

        canary.jobs.labels("failed", "").inc(3)
        stable.jobs.labels("failed", "").inc(1)
        own, scored = (await analysis.until(lambda result: isinstance(result.readings[0].state, Breached))).readings
        assert (own.canary, own.reason) == (Counts(bad=3, total=33), Reason.PROMQL_BREACH)
        assert (await analysis.blocks(3)).readings[0].step_requests == 33
        assert isinstance(scored.state, Healthy)


async def test_a_native_histogram_of_a_foreign_service_is_counted_to_the_request_and_breaches(pods: Pods, prometheus: Prometheus) -> None:
    canary, stable = (NativeService(name="rpc_seconds", schema=3) for _ in range(2))
    with started(canary), started(stable):
        canary.observe(0.1, count=500)
        canary.observe(3.0, count=40)
        stable.observe(0.1, count=900)
        workers = {"support-canary-7f9c5d8b6-x2x4z": canary, "support-stable-6b8f4c7d5-q9w8k": stable}
        prometheus.scrape([], workers=workers, option="scrape_native_histograms")
        await prometheus.start()
        analysis = analysis_of(prometheus)

        def within(bound: str) -> SLO:
            histogram = PromQL(histogram='rpc_seconds{method="answer"}', over=bound)
            return SLO(name=f"over-{bound.replace('.', '-')}", promQL=histogram, maxPercent="5")

        analysis.objectives = (objective_of(within("0.5")), objective_of(within("0.6")))
        with closing(analysis.source):
            await analysis.until(
                lambda result: result.readings[1].reason is Reason.BUCKET_BOUNDARY_MISSING and not isinstance(analysis.fetched, NoData)
            )
            analysis.since = time.time()
            await analysis.blocks(2)
            canary.observe(0.1, count=30)
            canary.observe(0.49, count=6)  # in the bucket that ends at the bound
            stable.observe(0.3, count=100)
            fine = (await analysis.until(lambda result: result.readings[0].step_requests >= 36)).readings[0]
            assert (fine.state, fine.canary) == (Healthy(), Counts(bad=0, total=36))

            slow = 0

            def slow_again(result: Evaluation) -> bool:
                nonlocal slow
                if isinstance(result.readings[0].state, Breached):
                    return True
                canary.observe(0.51, count=20)
                stable.observe(0.1, count=180)
                slow += 20
                return False

            breached, unknown = (await analysis.until(slow_again)).readings
            assert 0 < breached.canary.bad == breached.canary.total <= slow
            assert "over 0.5, bad by `promQL`" in breached.evidence
            assert isinstance(unknown.state, Unknown)
            assert unknown.state.why.endswith("the nearest ends are 0.5946036 and 0.6484198: use one of them.")
            assert (await analysis.blocks(3)).readings[0].step_requests == 36 + slow


async def test_a_matcher_that_prometheus_refuses_is_unknown_and_hides_nothing_else(pods: Pods, prometheus: Prometheus) -> None:
    pod = pods.start()
    pod.serve(revision="canary", count=10)
    prometheus.scrape([pod])
    await prometheus.start()
    analysis = analysis_of(prometheus)
    counters = PromQL(bad="jobs_total", total='jobs_total{state=~"("}')
    analysis.objectives = (errors_objective(), objective_of(SLO(name="own", promQL=counters, maxPercent="1")))
    with closing(analysis.source):
        seen = await analysis.until(lambda result: not isinstance(result.readings[0].state, Unknown))
    assert seen.readings[1].state == Unknown("Metrics source `default` answered with HTTP status 400.")
