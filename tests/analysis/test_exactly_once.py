"""Every request is counted once, whatever the times of the evaluations, the order of the series, and restarts in between."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstop.analysis.evaluation import evaluate
from backstop.analysis.queries import window_seconds
from backstop.analysis.reading import Breached, Counts
from backstop.analysis.samples import Sample
from backstop.analysis.state import AnalysisState, pack, unpack
from tests.analysis.history import Pod, Request, errors_objective, latency_objective, live_policy, scrape_times, scraped, steady, visible

INTERVAL = 5.0
SINCE = 20.0
END = 130.0
# Counts the requests that were answered; the policy's own count has those with an error too.
ANSWERED = latency_objective()


@st.composite
def histories(draw: st.DrawFn) -> tuple[Pod, ...]:
    """Up to four pods that come, go, restart and miss scrapes, and serve both revisions. One is there from the start."""
    pods = []
    for index in range(draw(st.integers(1, 4))):
        born = 0.0 if index == 0 else draw(st.sampled_from([0.0, 31.0, 48.0]))
        gone = 1000.0 if index == 0 else draw(st.sampled_from([1000.0, 64.0, 83.0]))
        # As ends of requests, tenths that are no scrape time, so that every request is on one side of each scrape.
        ends = draw(st.lists(st.integers(int(born * 10) + 1, 899), max_size=40))
        restarts = sorted(at for at in draw(st.sets(st.sampled_from([43.03, 57.03]), max_size=2)) if at > born)
        missed = draw(st.sets(st.integers(5, 15), max_size=3))
        offset = draw(st.sampled_from([0.0, 1.0, 3.5]))
        # A pod is visible from its first scrape on, and again after a restart; a counter that falls gives each restart away.
        first = [
            Request(began + 0.01, revision="stable", first_tier="skipped")
            for position, began in enumerate([born, *restarts])
            for _ in range(3 - position)
        ]
        served = [
            Request(
                end / 10 + 0.02,
                revision="canary" if end % 3 else "stable",
                outcome="error" if end % 5 == 0 else "success",
            )
            for end in ends
        ]
        pods.append(
            Pod(
                name=f"pod-{index}",
                requests=tuple(sorted(first + served, key=lambda r: r.at)),
                offset=offset,
                born=born,
                gone=gone,
                restarts=tuple(restarts),
                missed=tuple(offset + INTERVAL * i for i in missed),
            )
        )
    return tuple(pods)


def expected(pods: tuple[Pod, ...], *, until: float) -> Counts:
    """Canary requests between a pod's base (the first scrape of the step; birth, if born later) and its last scrape.

    What a process had served after its last scrape is lost with it: that was never said to anybody.
    """
    bad = total = 0
    for pod in pods:
        times = scrape_times(pod, interval=INTERVAL, until=until)
        in_step = [at for at in times if at >= SINCE]
        if not in_step:
            continue
        base = in_step[0] if times[0] <= SINCE else float("-inf")
        for request in pod.requests:
            seen_at = next((at for at in times if at >= request.at), None)
            died = next((restart for restart in sorted(pod.restarts) if restart > request.at), float("inf"))
            if request.revision == "canary" and seen_at is not None and request.at > base and seen_at < died:
                total += 1
                bad += request.outcome == "error"
    return Counts(bad=bad, total=total)


def counted(pods: tuple[Pod, ...], *, polls: list[float], restart: bool, order: random.Random) -> Counts:
    """Evaluates at each of `polls`, with the samples that can be seen then."""
    everything = scraped(pods, interval=INTERVAL, until=END)
    state = AnalysisState()
    for now in polls:
        policy = live_policy(ANSWERED, since=SINCE, state=state)
        after = now - window_seconds(policy, now=now, scrape_interval=INTERVAL)
        series = list(visible(everything, until=now, after=after).series)
        order.shuffle(series)
        state = evaluate(Sample(tuple(series)), policy=policy, now=now, scrape_interval=INTERVAL).state
        if restart:
            resumed = unpack(pack(state))
            assert isinstance(resumed, AnalysisState)
            state = resumed
    answered = state.objectives[ANSWERED.fingerprint].step_requests
    return Counts(bad=state.step_requests - answered, total=state.step_requests)


@pytest.mark.long
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(
    pods=histories(),
    polls=st.lists(st.integers(210, 990).map(lambda tenth: tenth / 10), max_size=12).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_m09_each_request_is_counted_once_whatever_the_times_of_the_evaluations(
    pods: tuple[Pod, ...], polls: list[float], seed: int
) -> None:
    order = random.Random(seed)
    # The first pod is there throughout, so that at the end every block is closed.
    once = counted(pods, polls=[END], restart=False, order=order)

    assert once == expected(pods, until=END)
    assert counted(pods, polls=[*polls, END], restart=False, order=order) == once
    assert counted(pods, polls=[*polls, END], restart=True, order=order) == once


@pytest.mark.parametrize("seed", range(8))
def test_m09_two_replicas_of_prometheus_that_answer_in_turns_count_no_request_twice_and_show_a_breach(seed: int) -> None:
    draw = random.Random(seed)
    bad, good = steady(0, END, per_second=2, seconds=0.3), steady(0, END, per_second=8, revision="stable")
    # Each replica scrapes the same pods, at moments of its own.
    replicas = [
        scraped([Pod(name, (*bad, *good), offset=draw.uniform(0, INTERVAL)) for name in ("pod-0", "pod-1")], interval=INTERVAL, until=END)
        for _ in range(2)
    ]
    state, breached_at = AnalysisState(), None
    for now in range(int(SINCE), int(END)):
        policy = live_policy(ANSWERED, since=SINCE, state=state)
        after = now - window_seconds(policy, now=now, scrape_interval=INTERVAL)
        result = evaluate(visible(draw.choice(replicas), until=now, after=after), policy=policy, now=now, scrape_interval=INTERVAL)
        state = result.state
        if breached_at is None and isinstance(result.readings[0].state, Breached):
            breached_at = now
    assert state.block_end is not None
    served = 2 * sum(SINCE < request.at <= state.block_end for request in bad)
    # What came in between the last scrape of one replica and the next one of the other is lost when they change places.
    assert 0.6 * served < state.step_requests <= served
    assert breached_at is not None
    assert breached_at <= SINCE + 30 + 4 * INTERVAL


@pytest.mark.parametrize(("late_by", "left_out"), [(0.0, 0), (2.0, 9), (4.0, 9)])
def test_of_a_new_series_that_a_store_shows_late_the_first_scrape_is_left_out_and_all_else_is_counted_once(
    late_by: float, left_out: int
) -> None:
    bad = steady(42.0, END, per_second=3, outcome="error")
    everything = scraped([Pod("pod", (*steady(0, END, per_second=2), *bad))], interval=INTERVAL, until=END)
    objective, state = errors_objective(), AnalysisState()
    for now in range(int(SINCE), int(END)):
        shown = (
            visible(Sample((one,)), until=now - (late_by if one.counter.outcome == "error" else 0.0), after=now - 40.0)
            for one in everything.series
        )
        policy = live_policy(objective, since=SINCE, state=state)
        sample = Sample(tuple(series for one in shown for series in one.series))
        state = evaluate(sample, policy=policy, now=now, scrape_interval=INTERVAL).state
    assert state.block_end is not None
    served = sum(SINCE < r.at <= state.block_end for r in steady(0, END, per_second=2)) + sum(r.at <= state.block_end for r in bad)
    # At 45 s it had counted those of three seconds, when the block of that scrape was closed without it.
    assert served - state.step_requests == left_out
