"""One policy from samples to readings. Requests are served by pods and scraped every five seconds; counts are computed by hand."""

import functools
from collections.abc import Iterable
from dataclasses import replace

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective
from backstop.analysis.policy import Evaluation
from backstop.analysis.reading import Breached, Breaching, Counts, Healthy, SLOReading, Unknown, Waiting, state_name
from backstop.analysis.samples import Counter, Fetched, NoData, NotANumber, Partial, ProviderError, Sample, Series
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.reasons import Reason
from tests.analysis.history import Pod, errors_objective, latency_objective, live_policy, scraped, steady, visible

INTERVAL = 5.0


def run(
    samples: Sample, *objectives: Objective, until: float, since: float | None = 0.0, state: AnalysisState | None = None, start: float = 0.0
) -> Evaluation:
    """Evaluates every second, with a restart of the operator after each."""
    kept = state or AnalysisState()
    result = None
    for now in range(int(start), int(until) + 1):
        policy = live_policy(*objectives, since=since, state=kept)
        result = evaluate(visible(samples, until=now, after=now - 60.0), policy=policy, now=float(now), scrape_interval=INTERVAL)
        resumed = unpack(pack(result.state))
        assert isinstance(resumed, AnalysisState)
        kept = resumed
    assert result is not None
    return result


def first_breach(samples: Sample, objective: Objective, *, until: float) -> float | None:
    """The second at which the objective is `Breached` for the first time."""
    kept = AnalysisState()
    for now in range(int(until) + 1):
        seen = visible(samples, until=now, after=now - 60.0)
        result = evaluate(seen, policy=live_policy(objective, state=kept), now=float(now), scrape_interval=INTERVAL)
        kept = result.state
        if isinstance(result.readings[0].state, Breached):
            return float(now)
    return None


@functools.cache
def two_pods(*, slow_from: float, slow_to: float, until: float = 120.0) -> Sample:
    """Ten canary requests a second over two pods, over the limit from `slow_from` to `slow_to`; forty a second on stable."""
    pods: Iterable[Pod] = (
        Pod(
            name=name,
            offset=offset,
            requests=(
                *steady(0.0, slow_from, per_second=5),
                *steady(slow_from, slow_to, per_second=5, seconds=0.19),
                *steady(slow_to, until, per_second=5),
                *steady(0.0, until, per_second=20, revision="stable"),
            ),
        )
        for name, offset in (("a", 0.0), ("b", 2.0))
    )
    return scraped(pods, interval=INTERVAL, until=until)


def one(result: Evaluation) -> SLOReading:
    assert len(result.readings) == 1
    return result.readings[0]


@pytest.mark.parametrize("onset", [40.0, 41.0, 42.0, 43.0, 44.0])
def test_b01_a_slow_canary_is_breached_within_thirty_seconds_and_one_scrape(onset: float) -> None:
    # The poll after the scrape comes within a second.
    detected = first_breach(two_pods(slow_from=onset, slow_to=120.0), latency_objective(), until=120.0)
    assert detected is not None
    assert 30.0 <= detected - onset <= 30.0 + INTERVAL + 1.0


def test_b01_the_evidence_names_value_limit_counts_of_both_arms_and_the_query() -> None:
    result = run(two_pods(slow_from=42.0, slow_to=120.0), latency_objective(), until=77.0)
    reading = one(result)

    # Slow from 42: the block of a's scrape of 45 (b's of 42) is the first bad one, a's of 75 is the newest. In them: a from 40 to 75
    # (175 requests, the first 10 of them fine), b from 37 to 72 (175, of which 25 fine).
    assert reading.state == Breached(since=45.0)
    assert reading.canary == Counts(bad=315, total=350)
    assert reading.stable == Counts(bad=0, total=1400)
    assert (reading.value, reading.limit, reading.reason) == ("90", "5", Reason.LATENCY_BREACH)
    assert reading.breached_since == 45.0
    assert reading.evidence == (
        "latency: 315 of 350 canary requests over 150 ms or handed over as late (90 %, allowed 5 %) against 0 of 1,400 on stable (0 %); "
        "p95 ≈ 198 ms, stable ≤ 100 ms; over the limit for 30.0 s (limit: 30 s) since 1970-01-01T00:00:45.000Z. Query: "
        '{__name__=~"backstop_served_seconds_count|backstop_served_seconds_bucket",namespace="shop",policy="support",'
        'revision=~"canary|stable",le=~"|0.15"}'
    )


def test_b02_slow_for_less_than_the_time_by_a_scrape_and_a_second_never_fires() -> None:
    assert first_breach(two_pods(slow_from=40.0, slow_to=64.0), latency_objective(), until=120.0) is None
    assert first_breach(two_pods(slow_from=40.0, slow_to=80.0), latency_objective(), until=120.0) is not None


def test_b03_each_objective_has_its_own_verdict() -> None:
    result = run(two_pods(slow_from=30.0, slow_to=120.0), errors_objective(), latency_objective(), until=77.0)
    assert [(reading.name, state_name(reading.state)) for reading in result.readings] == [("errors", "Healthy"), ("latency", "Breached")]


def test_a_healthy_canary_is_healthy_once_it_has_enough_requests() -> None:
    samples = two_pods(slow_from=120.0, slow_to=120.0)
    waiting = one(run(samples, latency_objective(min_requests=500), until=52.0))
    # Counted from the first scrapes that show anything: a from 5 to 50, b from 2 to 47; 225 requests each.
    assert waiting.state == Waiting(more=50)
    assert waiting.reason is Reason.WAITING_FOR_SAMPLES
    assert "needs 50 more canary requests in this step" in waiting.evidence
    healthy = one(run(samples, latency_objective(min_requests=500), until=62.0))
    assert (healthy.state, healthy.value) == (Healthy(), "0")


def test_m01_a_source_that_fails_makes_it_unknown_and_afterwards_it_goes_on_where_it_was() -> None:
    samples = two_pods(slow_from=40.0, slow_to=120.0)
    before = run(samples, latency_objective(), until=60.0)
    assert isinstance(one(before).state, Breaching)

    policy = live_policy(latency_objective(), state=before.state)
    failed = evaluate(ProviderError("It is down."), policy=policy, now=61.0, scrape_interval=INTERVAL)
    assert one(failed).state == Unknown("It is down.")
    assert one(failed).reason is Reason.METRICS_UNAVAILABLE
    assert failed.state == before.state
    assert not failed.closed_block

    after = run(samples, latency_objective(), until=77.0, start=70.0, state=failed.state)
    assert one(after) == one(run(samples, latency_objective(), until=77.0))


def test_what_was_counted_from_another_source_is_counted_no_more() -> None:
    before = run(two_pods(slow_from=40.0, slow_to=120.0), latency_objective(), until=60.0)
    assert isinstance(one(before).state, Breaching)
    samples = two_pods(slow_from=120.0, slow_to=120.0)
    other = replace(live_policy(latency_objective(), state=before.state), source="other")
    after = evaluate(visible(samples, until=61.0), policy=other, now=61.0, scrape_interval=INTERVAL)
    anew = evaluate(visible(samples, until=61.0), policy=replace(other, state=AnalysisState()), now=61.0, scrape_interval=INTERVAL)
    assert one(after) == one(anew)
    assert one(after).canary.bad == 0


@pytest.mark.parametrize(
    "fetched", [NoData("Nothing there."), NotANumber("Nothing there."), Partial("Nothing there."), ProviderError("Nothing there.")]
)
def test_whatever_is_no_sample_is_unknown(fetched: Fetched) -> None:
    result = evaluate(fetched, policy=live_policy(latency_objective(), errors_objective()), now=10.0, scrape_interval=INTERVAL)
    assert [reading.state for reading in result.readings] == [Unknown("Nothing there.")] * 2
    assert [reading.value for reading in result.readings] == [None, None]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0, 1e300])
@pytest.mark.parametrize("limit", ["0", "1", "100"])
def test_m03_what_is_not_a_count_is_unknown_whatever_the_limit(value: float, limit: str) -> None:
    counter = Counter("backstop_served_total", "canary", "miss", "error", "failed")
    good = run(Sample((Series("a", counter, ((5.0, 1.0), (10.0, 1.0))),)), errors_objective(percent=limit), until=11.0)
    sample = Sample((Series("a", counter, ((5.0, 1.0), (10.0, 1.0), (15.0, value))),))
    policy = live_policy(errors_objective(percent=limit), state=good.state)

    result = evaluate(sample, policy=policy, now=16.0, scrape_interval=INTERVAL)

    state = one(result).state
    assert isinstance(state, Unknown)
    assert "`backstop_served_total` of revision canary is" in state.why
    assert result.state == good.state


def test_m03_a_sample_that_is_not_a_count_is_skipped_when_a_newer_one_is() -> None:
    counter = Counter("backstop_served_total", "canary", "miss", "success", "answered")
    series = Series("a", counter, ((5.0, 0.0), (10.0, 30.0), (15.0, float("nan")), (20.0, 70.0)))
    result = run(Sample((series,)), errors_objective(), until=20.0)
    assert (one(result).state, result.canary_requests) == (Healthy(), 70)


def test_buckets_above_their_count_are_unknown() -> None:
    count = Counter("backstop_served_seconds_count", "canary", "miss", "", "answered")
    bucket = count._replace(metric="backstop_served_seconds_bucket", le=0.15)
    result = run(Sample((Series("a", count, ((5.0, 9.0),)), Series("a", bucket, ((5.0, 10.0),)))), latency_objective(), until=6.0)
    state = one(result).state
    assert isinstance(state, Unknown)
    assert "has a bucket above its count" in state.why


def test_m04_an_empty_answer_is_unknown_with_a_readable_message() -> None:
    result = evaluate(Sample(()), policy=live_policy(latency_objective()), now=10.0, scrape_interval=INTERVAL)
    assert one(result).state == Unknown("The metrics source has no samples of this policy's gateways; are their pods scraped?")


def test_samples_that_no_longer_come_are_unknown() -> None:
    samples = two_pods(slow_from=40.0, slow_to=120.0, until=60.0)
    result = run(samples, latency_objective(), until=85.0)
    state = one(result).state
    assert isinstance(state, Unknown)
    assert state.why == "The newest sample of this policy's gateways is 25 s old, at a scrape interval of 5 s."


def test_m05_a_canary_without_requests_beside_a_busy_stable_waits_and_says_for_how_many() -> None:
    pod = Pod(name="a", requests=steady(0.0, 60.0, per_second=10, revision="stable"))
    result = run(scraped([pod], interval=INTERVAL, until=60.0), latency_objective(), until=60.0)
    assert one(result).state == Waiting(more=20)
    assert one(result).evidence.startswith(
        "latency: no canary request counted yet (allowed 5 %); needs 20 more canary requests in this step. Query: "
    )


def test_m06_before_the_weight_is_verified_nothing_is_judged() -> None:
    samples = two_pods(slow_from=0.0, slow_to=120.0)
    result = run(samples, latency_objective(), until=100.0, since=None)
    assert one(result).state == Waiting(more=20)
    assert (result.closed_block, result.canary_requests, result.state.watermarks) == (False, 0, {})


def test_m06_only_requests_after_the_start_of_the_step_are_judged() -> None:
    # Slow to the end of the warm-up at 50, fine after it.
    samples = two_pods(slow_from=0.0, slow_to=50.0)
    result = run(samples, latency_objective(for_seconds=0), until=77.0, since=50.0)
    # Counted from a's scrape of 50 to that of 75, and from b's of 52 to that of 77.
    assert (one(result).state, one(result).step_requests, result.canary_requests) == (Healthy(), 250, 250)
    assert one(result).canary.bad == 0


def test_m06_a_new_step_counts_anew_and_the_running_breach_goes_on() -> None:
    samples = two_pods(slow_from=20.0, slow_to=120.0)
    first = run(samples, latency_objective(), until=40.0)
    assert one(first).breached_since == 25.0

    between = run(samples, latency_objective(), until=45.0, start=41.0, since=None, state=first.state)
    assert one(between).state == Breaching(since=25.0)
    assert one(between).step_requests == 0

    second = run(samples, latency_objective(), until=62.0, start=46.0, since=48.0, state=between.state)
    assert one(second).state == Breached(since=25.0)
    # From a's scrape of 50 to that of 60, and from b's of 52 to that of 62.
    assert one(second).step_requests == 50 + 50


def test_m09_a_counter_reset_counts_each_request_once() -> None:
    pod = Pod(name="a", requests=steady(0.0, 60.0, per_second=10), restarts=(30.001,))
    # Everything from the scrape of 0, which shows nothing, so from 5 on; the process restarts right after the scrape of 30.
    assert run(scraped([pod], interval=INTERVAL, until=60.0), errors_objective(), until=60.0).canary_requests == 550


@pytest.mark.parametrize("late", ["success", "error"])
def test_m09_a_counter_of_the_newest_scrape_that_is_visible_later_than_the_others_is_counted_once(late: str) -> None:
    counters = {o: Counter("backstop_served_total", "canary", "miss", o, "answered") for o in ("success", "error")}
    values = {"success": lambda at: 1000.0 + 10 * at, "error": lambda at: 300.0 + (at >= 40.0)}
    state, judged = AnalysisState(), []
    for newest in (30.0, 35.0, 40.0, 45.0):
        for hidden in (late, ""):  # first without it, then whole
            times = [INTERVAL * i for i in range(int(newest / INTERVAL) + 1)]
            series = (
                Series("pod", counter, tuple((at, values[o](at)) for at in times if (o, at) != (hidden, newest)))
                for o, counter in counters.items()
            )
            policy = live_policy(errors_objective(percent="5"), since=10.0, state=state)
            result = evaluate(Sample(tuple(series)), policy=policy, now=newest + 1, scrape_interval=INTERVAL)
            assert isinstance(result.readings[0].state, Healthy)
            state = result.state
            judged.append(result.canary_requests)
    assert judged == [150, 200, 200, 250, 250, 301, 301, 351]


def test_m10_a_limit_without_a_bucket_is_unknown_and_names_the_nearest_bounds() -> None:
    samples = two_pods(slow_from=0.0, slow_to=120.0)
    reading = one(run(samples, latency_objective(milliseconds=170), until=60.0))
    assert isinstance(reading.state, Unknown)
    assert reading.reason is Reason.BUCKET_BOUNDARY_MISSING
    assert "`maxMilliseconds` 170" in reading.evidence
    assert "150 ms and 200 ms" in reading.evidence


def test_m10_a_bucket_that_only_pods_without_requests_have_is_none() -> None:
    # Entry pods of stable were made with other limits than the canary's own pods, which count nothing.
    counting = two_pods(slow_from=120.0, slow_to=120.0)
    own = [
        Series("canary-pod", Counter(metric, "canary", "miss", "", "answered", bound), tuple((at * INTERVAL, 0.0) for at in range(25)))
        for metric, bound in (("backstop_served_seconds_count", None), ("backstop_served_seconds_bucket", 0.17))
    ]
    both = Sample((*counting.series, *own))
    assert first_breach(both, latency_objective(milliseconds=170), until=120.0) is None
    reading = one(run(both, latency_objective(milliseconds=170), until=60.0))
    assert reading.reason is Reason.BUCKET_BOUNDARY_MISSING
    assert "150 ms and 200 ms" in reading.evidence
    assert reading.canary.total == 0


def test_scrapes_that_come_much_slower_than_declared_are_said_so() -> None:
    pods = [Pod(name, requests=steady(0.0, 200.0, per_second=10, outcome="error")) for name in ("a", "b")]
    samples = scraped(pods, interval=15.0, until=200.0)
    kept = AnalysisState()
    for now in range(201):
        policy = live_policy(errors_objective(for_seconds=30), state=kept)
        result = evaluate(visible(samples, until=now, after=now - 60.0), policy=policy, now=float(now), scrape_interval=INTERVAL)
        kept = result.state
    reading = one(result)
    assert isinstance(reading.state, Unknown)
    assert "15 s apart" in reading.evidence
    assert "`scrapeIntervalSeconds` 5" in reading.evidence


def test_requests_that_are_not_judged_are_told_of_while_it_waits() -> None:
    refused = scraped([Pod("a", requests=steady(0.0, 60.0, per_second=50, outcome="caller_error"))], interval=INTERVAL, until=60.0)
    reading = one(run(refused, errors_objective(), until=58.0))
    assert reading.state == Waiting(more=20)
    # From the scrape of 5, the first that shows anything, to that of 55.
    assert "2,500 of 2,500 sent in this step are not judged" in reading.evidence


def test_b04_an_unknown_objective_hides_no_breach_of_another() -> None:
    samples = two_pods(slow_from=20.0, slow_to=120.0)
    off_the_buckets = replace(latency_objective(milliseconds=170), name="off")
    result = run(samples, off_the_buckets, latency_objective(), until=62.0)
    assert [state_name(reading.state) for reading in result.readings] == ["Unknown", "Breached"]


def test_another_canary_and_an_edited_objective_are_judged_anew() -> None:
    samples = two_pods(slow_from=20.0, slow_to=120.0)
    first = run(samples, latency_objective(), until=40.0)

    edited = live_policy(latency_objective(min_requests=30), state=first.state)
    assert one(evaluate(samples, policy=edited, now=40.0, scrape_interval=INTERVAL)).breached_since != 25.0
    other = live_policy(latency_objective(), canary="other", state=first.state)
    result = evaluate(visible(samples, until=40.0), policy=other, now=40.0, scrape_interval=INTERVAL)
    assert one(result).state == Waiting(more=20)


def test_sent_requests_are_counted_whether_or_not_they_end() -> None:
    sent = Counter("backstop_sent_total", "canary")
    stable = Counter("backstop_served_total", "stable", "miss", "success", "answered")
    series = (Series("a", sent, ((5.0, 0.0), (10.0, 25.0))), Series("a", stable, ((5.0, 0.0), (10.0, 90.0))))
    result = run(Sample(series), latency_objective(), until=10.0)
    assert (result.canary_sent, result.canary_requests) == (25, 0)


def test_huge_counts_are_counted_without_an_error() -> None:
    good = Counter("backstop_served_total", "canary", "miss", "success", "answered")
    bad = Counter("backstop_served_total", "canary", "miss", "error", "failed")
    series = (Series("a", good, ((5.0, 0.0), (10.0, 1e18))), Series("a", bad, ((5.0, 0.0), (10.0, 1e18))))
    result = run(Sample(series), errors_objective(), until=10.0)
    assert (one(result).canary, one(result).value) == (Counts(bad=10**18, total=2 * 10**18), "50")


def test_more_pods_than_can_be_told_apart_in_the_state_are_unknown() -> None:
    counter = Counter("backstop_served_total", "canary", "miss", "success", "answered")
    series = tuple(Series(f"pod-{index}", counter, ((5.0, 1.0),)) for index in range(257))
    state = one(run(Sample(series), errors_objective(), until=6.0)).state
    assert isinstance(state, Unknown)
    assert "257 gateway pods" in state.why
