"""A front end that takes duplicates of two replicas out series by series. Values are computed by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.analysis.evaluation import evaluate
from backstop.analysis.onegrid import on_one_grid
from backstop.analysis.queries import window_seconds
from backstop.analysis.reading import Breached, Counts
from backstop.analysis.samples import Counter, Sample, Series
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import EvaluationRule
from tests.analysis.history import Pod, errors_objective, live_policy, scraped, steady, visible

GOOD = Counter("backstop_served_total", "canary", "miss", "success", "answered")
SENT = Counter("backstop_sent_total", "canary")
BAD = GOOD._replace(outcome="error", first_tier="failed")
INTERVAL = 5.0
SINCE, END = 20.0, 90.0


def told(*series: tuple[Counter, dict[float, float]]) -> dict[Counter, dict[float, float]]:
    found = on_one_grid([Series("pod", counter, tuple(points.items())) for counter, points in series])
    return {one.counter: dict(one.points) for one in found}


def test_a_series_of_the_other_replica_is_told_as_of_the_times_of_most() -> None:
    good, sent = {5.0: 1.0, 10.0: 2.0, 15.0: 3.0}, {5.0: 1.0, 10.0: 12.0, 15.0: 23.0}
    bad = {7.0: 10.0, 12.0: 20.0, 17.0: 30.0}
    assert told((GOOD, good), (SENT, sent), (BAD, bad)) == {GOOD: good, SENT: sent, BAD: {10.0: 10.0, 15.0: 20.0}}


def test_a_series_of_the_other_replica_is_not_older_than_one_scrape() -> None:
    good, sent = {5.0: 1.0, 10.0: 2.0, 15.0: 3.0, 20.0: 3.0}, {5.0: 1.0, 10.0: 12.0, 15.0: 23.0, 20.0: 40.0}
    assert told((GOOD, good), (SENT, sent), (BAD, {7.0: 10.0, 18.0: 30.0}))[BAD] == {10.0: 10.0, 20.0: 30.0}


def test_what_began_after_the_others_had_ended_keeps_its_times() -> None:
    series = ((GOOD, {5.0: 1.0, 10.0: 2.0}), (SENT, {5.0: 1.0, 10.0: 2.0}), (BAD, {15.0: 3.0, 20.0: 4.0}))
    assert told(*series) == dict(series)


def test_a_series_that_misses_scrapes_keeps_its_times() -> None:
    series = ((GOOD, {5.0: 1.0, 10.0: 2.0, 15.0: 2.0}), (SENT, {5.0: 1.0, 10.0: 2.0, 15.0: 2.0}), (BAD, {5.0: 3.0}))
    assert told(*series) == dict(series)


def test_where_the_process_began_again_the_sample_of_the_other_replica_is_left_out_for_it_may_be_of_before() -> None:
    good, sent = {5.0: 9.0, 10.0: 2.0, 15.0: 3.0}, {5.0: 9.0, 10.0: 2.0, 15.0: 8.0}
    assert told((GOOD, good), (SENT, sent), (BAD, {4.0: 40.0, 7.0: 50.0, 12.0: 1.0}))[BAD] == {5.0: 40.0, 15.0: 1.0}


def errors_of_the_other(pod: Pod, *, offsets: tuple[float, float]) -> tuple[Sample, list[float]]:
    """Samples of a pod with its errors from the second replica and all else from the first; and the times of these errors' samples."""
    first, second = (scraped([replace(pod, offset=offset)], interval=INTERVAL, until=END) for offset in offsets)
    bad = [one for one in second.series if one.counter.outcome == "error"]
    series = (*(one for one in first.series if one.counter.outcome != "error"), *bad)
    return Sample(series), sorted(at for one in bad for at, _ in one.points)


def test_an_outage_is_a_breach_at_once_where_its_series_comes_from_the_other_replica() -> None:
    requests = (*steady(0.0, END, per_second=1), *steady(41.0, END, per_second=9, outcome="error"))
    sample, _ = errors_of_the_other(Pod("pod", (*requests, *steady(0.0, END, per_second=90, revision="stable"))), offsets=(0.0, 2.0))
    objective = errors_objective(evaluation=EvaluationRule.SEQUENTIAL)
    before = evaluate(visible(sample, until=41.0), policy=live_policy(objective, since=SINCE), now=41.0, scrape_interval=INTERVAL)
    policy = live_policy(objective, since=SINCE, state=before.state)
    (reading,) = evaluate(visible(sample, until=46.0), policy=policy, now=46.0, scrape_interval=INTERVAL).readings
    assert isinstance(reading.state, Breached)
    assert reading.canary == Counts(bad=9, total=14)  # from 40 s to the scrape of 45 s, with the errors as of 42 s


@pytest.mark.long
@given(
    offsets=st.tuples(st.sampled_from([0.0, 1.0, 3.5]), st.sampled_from([0.5, 2.0, 4.5])),
    began=st.integers(10, 60),
    missed=st.sets(st.integers(5, 14), max_size=2),
    restart=st.sampled_from([None, 43.03, 57.03]),
    polls=st.lists(st.integers(210, 890).map(lambda tenth: tenth / 10), max_size=10).map(sorted),
)
def test_m09_errors_that_the_other_replica_shows_are_counted_once_each(
    offsets: tuple[float, float], began: int, missed: set[int], restart: float | None, polls: list[float]
) -> None:
    bad = steady(float(began), END, per_second=3, outcome="error")
    good = (*steady(0.0, END, per_second=2), *steady(0.0, END, per_second=5, revision="stable"))
    pod = Pod(
        "pod",
        (*good, *bad),
        restarts=() if restart is None else (restart,),
        missed=tuple(offset + INTERVAL * i for offset in offsets for i in missed),
    )
    sample, seen_at = errors_of_the_other(pod, offsets=offsets)
    objective, state = errors_objective(), AnalysisState()
    for now in [SINCE + 1.0, *polls, END]:
        policy = live_policy(objective, since=SINCE, state=state)
        after = now - window_seconds(policy, now=now, scrape_interval=INTERVAL)
        shown = visible(sample, until=now, after=after)
        state = evaluate(shown, policy=policy, now=now, scrape_interval=INTERVAL).state
        resumed = unpack(pack(state))
        assert isinstance(resumed, AnalysisState)
        state = resumed
    assert state.block_end is not None
    base = min(at for at in (offsets[0] + INTERVAL * i for i in range(20)) if at >= SINCE)
    counted_good = sum(base < r.at <= state.block_end for r in good if r.revision == "canary")
    newest = max((at for at in seen_at if at <= state.block_end), default=0.0)
    known = max((at for at in seen_at if at <= base), default=0.0)
    counted_bad = sum(known < r.at <= newest for r in bad)
    if restart is None:
        assert state.step_requests == counted_good + counted_bad
    else:
        # What a process served after its last scrape is lost with it, and what the other replica alone has seen of it.
        lost = [r for r in (*good, *bad) if r.revision == "canary" and r.at <= restart]
        scrapes = [at for at in (offsets[0] + INTERVAL * i for i in range(20)) if at not in pod.missed]
        before = max(at for at in scrapes if at < restart)
        earlier = max((at for at in seen_at if at <= before), default=0.0)
        lost = [r for r in lost if r.at > (before if r.outcome == "success" else earlier)]
        most = counted_good + counted_bad
        assert most - len(lost) <= state.step_requests <= most
