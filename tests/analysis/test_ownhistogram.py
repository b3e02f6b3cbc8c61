"""Histograms of a foreign service, classic and native: how many observations are over a bound, or that it cannot be told."""

import math
from typing import Any

import pytest

from backstop.analysis.answers import MatrixSeries
from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective, OwnHistogram, objective_of
from backstop.analysis.owncounters import by_policy, with_own
from backstop.analysis.policy import Evaluation
from backstop.analysis.queries import OwnSelector, plan_queries
from backstop.analysis.reading import Breached, Counts, Unknown
from backstop.analysis.samples import BoundMissing, Fetched, NoData, NotANumber, ProviderError, Sample
from backstop.api.fallbackpolicy import SLO, EvaluationRule, PromQL
from backstop.api.reasons import Reason
from tests.analysis.history import live_policy
from tests.analysis.test_queries import DEFAULT

INTERVAL = 5.0
POD = "support-canary-7f9c5d8b6-x2x4z"
Values = dict[float, float]


def over(bound: str, *, percent: str = "5") -> Objective:
    slo = SLO(name="rpc", promQL=PromQL(histogram='rpc_seconds{method="answer"}', over=bound), maxPercent=percent)
    return objective_of(slo.model_copy(update={"evaluation": EvaluationRule.THRESHOLD}))


def steps(*values: float, start: float = 0.0) -> Values:
    return {start + INTERVAL * index: value for index, value in enumerate(values)}


def series(name: str, values: Values, **labels: str) -> MatrixSeries:
    metric = {"__name__": name, "namespace": "shop", "pod": POD, "instance": "10.0.0.7:80"} | labels
    return MatrixSeries(metric=metric, values=[(at, str(value)) for at, value in values.items()])


def classic(count: Values, buckets: dict[str, Values], **labels: str) -> list[MatrixSeries]:
    ends = [series("rpc_seconds_bucket", values, le=le, **labels) for le, values in buckets.items()]
    return [series("rpc_seconds_count", count, **labels), *ends, series("rpc_seconds_bucket", count, le="+Inf", **labels)]


def native(*scrapes: dict[tuple[float, float], int], zeros: int = 0, **labels: str) -> MatrixSeries:
    """One sample every scrape: how many there are in the buckets between these ends, and about zero."""
    metric = {"__name__": "rpc_seconds", "namespace": "shop", "pod": POD, "instance": "10.0.0.7:80"} | labels
    found: list[Any] = []
    for index, buckets in enumerate(scrapes):
        told = [[3, "-1e-128", "1e-128", str(zeros)]] if zeros else []
        told += [[0, repr(low), repr(high), str(count)] for (low, high), count in buckets.items()]
        found.append([INTERVAL * index, {"count": str(sum(buckets.values()) + zeros), "sum": "1.5", "buckets": told}])
    return MatrixSeries(metric=metric, histograms=found)


def read(objective: Objective, *answer: MatrixSeries) -> Fetched:
    policy = live_policy(objective)
    declared = objective.counters
    assert isinstance(declared, OwnHistogram)
    asked = OwnSelector(declared.selector, "", bad=False, histogram=True)
    answers = {asked: by_policy(answer, policies=[policy], revision_label="")["shop", "support"]}
    return with_own(None, policy=policy, answers=answers, source="default")


def judged(objective: Objective, *answer: MatrixSeries, now: float = 10.0) -> Evaluation:
    fetched = read(objective, *answer)
    return evaluate(fetched, policy=live_policy(objective, since=0.0), now=now, scrape_interval=INTERVAL)


def counts(objective: Objective, *answer: MatrixSeries) -> Counts:
    (reading,) = judged(objective, *answer).readings
    return reading.canary


# -- classic


def test_of_a_classic_histogram_what_is_over_the_bound_is_bad() -> None:
    answer = classic(steps(100, 140, 200), {"0.1": steps(10, 20, 30), "0.25": steps(90, 125, 175), "1.0": steps(99, 139, 198)})
    assert counts(over("0.25", percent="100"), *answer) == Counts(bad=25 - 10, total=100)
    (reading,) = judged(over("0.25"), *answer).readings
    assert isinstance(reading.state, Breached)
    assert "15 of 100 canary requests over 0.25, bad by `promQL` (15 %, allowed 5 %)" in reading.evidence


def test_the_count_and_the_bucket_of_a_scrape_come_together_or_wait() -> None:
    answer = classic(steps(100, 140, 200), {"0.25": steps(90, 125)})
    assert counts(over("0.25", percent="100"), *answer) == Counts(bad=5, total=40)


def test_a_process_that_began_again_is_counted_from_zero_whichever_counter_shows_it() -> None:
    # Over the bound there were 2, and are 3 after the restart: that one has not fallen.
    answer = classic(steps(100, 5, 9), {"0.25": steps(98, 2, 4)})
    assert counts(over("0.25", percent="100"), *answer) == Counts(bad=5, total=9)


def test_series_of_one_histogram_are_counted_apart() -> None:
    fast = classic(steps(100, 140, 200), {"0.25": steps(100, 140, 200)}, path="/a")
    slow = classic(steps(10, 20, 20), {"0.25": steps(0, 0, 0)}, path="/b")
    assert counts(over("0.25", percent="100"), *fast, *slow) == Counts(bad=10, total=110)


def test_m10_a_classic_histogram_without_the_bound_is_told_with_its_nearest_ends() -> None:
    answer = classic(steps(100, 140), {"0.1": steps(10, 20), "0.5": steps(90, 125)})
    (reading,) = judged(over("0.25"), *answer, now=5.0).readings
    assert reading.reason is Reason.BUCKET_BOUNDARY_MISSING
    assert reading.state == Unknown(
        'No bucket of `promQL.histogram` (rpc_seconds{method="answer"}) ends at `promQL.over` 0.25, and nothing is guessed; '
        "the nearest ends are 0.1 and 0.5: use one of them."
    )


def test_a_histogram_that_has_observed_nothing_lacks_no_bound() -> None:
    assert isinstance(read(over("0.25"), *classic(steps(0, 0), {})), NoData)


def test_buckets_of_a_foreign_process_that_are_not_cumulative_are_told() -> None:
    answer = classic(steps(100, 140), {"0.1": steps(95, 130), "0.25": steps(90, 125)})
    assert read(over("0.25"), *answer) == NotANumber(
        '`promQL.histogram` (rpc_seconds{method="answer"}) has buckets that are not cumulative; it is judged again when the process '
        "exports counts."
    )


def test_an_older_scrape_whose_buckets_are_not_cumulative_is_passed_over_and_the_next_one_counts_its_time() -> None:
    fall = classic(steps(100, 140, 200), {"0.1": steps(95, 130, 150), "0.25": steps(96, 125, 175)})
    assert counts(over("0.25", percent="100"), *fall) == Counts(bad=25 - 4, total=100)


@pytest.mark.parametrize("count", [-1.0, float("nan"), float("inf"), 50.0])
def test_m03_counts_of_a_foreign_histogram_that_are_none_are_unknown(count: float) -> None:
    (reading,) = judged(over("0.25"), *classic(steps(100, count), {"0.25": steps(90, 90)}), now=5.0).readings
    assert isinstance(reading.state, Unknown)
    assert "which is not a count" in reading.state.why


# -- native: ends at powers of 2^(1/8), as with schema 3


def end(step: int, *, schema: int = 3) -> float:
    return math.pow(2.0, step / 2**schema)


QUICK, AT_HALF, SLOW = (end(-12), end(-11)), (end(-9), end(-8)), (end(2), end(3))


def test_of_a_native_histogram_what_is_over_an_end_of_a_bucket_is_bad() -> None:
    scrapes = {QUICK: 100, AT_HALF: 7, SLOW: 2}, {QUICK: 140, AT_HALF: 9, SLOW: 2}, {QUICK: 190, AT_HALF: 9, SLOW: 10}
    assert counts(over("0.5", percent="100"), native(*scrapes, zeros=3)) == Counts(bad=8, total=100)
    # An end with fewer digits than a float has is the same.
    assert counts(over("1.0905077", percent="100"), native(*scrapes)) == Counts(bad=8, total=100)


def test_a_native_histogram_of_a_process_that_began_again_is_counted_from_zero() -> None:
    assert counts(over("0.5", percent="100"), native({QUICK: 100, SLOW: 2}, {QUICK: 4, SLOW: 3})) == Counts(bad=3, total=7)


@pytest.mark.parametrize("bound", ["0.6", "0.25001", "0.000000001"])
def test_m10_a_bound_inside_of_a_native_bucket_is_told_also_while_that_is_empty(bound: str) -> None:
    (reading,) = judged(over(bound), native({QUICK: 100}, {QUICK: 140}), now=5.0).readings
    assert reading.reason is Reason.BUCKET_BOUNDARY_MISSING
    assert isinstance(reading.state, Unknown)
    step = next(step for step in range(-400, 0) if end(step) < float(bound) < end(step + 1))
    assert f"the nearest ends are {end(step):.7g} and {end(step + 1):.7g}: use one of them." in reading.state.why


@pytest.mark.parametrize("bound", ["0.5", "1", "2", "0.25"])
@pytest.mark.parametrize("schema", [0, 1, 5, 8])
def test_powers_of_two_are_ends_in_every_schema(bound: str, schema: int) -> None:
    near = (end(-1, schema=schema), end(0, schema=schema)), (end(0, schema=schema), end(1, schema=schema))
    assert isinstance(read(over(bound), native(dict.fromkeys(near, 4))), Sample)


def test_buckets_with_ends_of_their_own_choice_are_judged_at_these() -> None:
    custom = {(0.0, 0.3): 50, (0.3, 0.7): 20, (0.7, 2.0): 5}
    assert isinstance(read(over("0.3"), native(custom)), Sample)
    assert counts(over("0.7", percent="100"), native(custom, custom | {(0.7, 2.0): 9})) == Counts(bad=4, total=4)
    assert isinstance(read(over("0.5"), native(custom)), BoundMissing)


@pytest.mark.parametrize("ends", [(5e-324, 0.3), (1e300, math.nextafter(1e300, math.inf))], ids=["far apart", "near"])
def test_ends_of_ones_own_choice_may_be_as_far_apart_and_as_near_as_floats_are(ends: tuple[float, float]) -> None:
    assert counts(over("0.3", percent="100"), native({ends: 4}, {ends: 4, (0.3, 2.0): 1})) == Counts(1, 1)


def test_what_is_about_zero_is_over_no_bound_and_a_bound_of_zero_is_no_end() -> None:
    assert counts(over("0.5", percent="100"), native({SLOW: 1}, {SLOW: 2}, zeros=10)) == Counts(bad=1, total=1)
    assert isinstance(read(over("0"), native({SLOW: 1}, zeros=10)), BoundMissing)


def test_of_a_process_that_exports_both_kinds_the_native_one_is_counted_once() -> None:
    both = [native({QUICK: 100}, {QUICK: 140, SLOW: 10}), *classic(steps(100, 150), {"0.5": steps(100, 140)})]
    assert counts(over("0.5", percent="100"), *both) == Counts(bad=10, total=50)


@pytest.mark.parametrize(
    "histogram",
    [
        [5.0, {"count": "x", "buckets": []}],
        [5.0, {"count": "3", "buckets": [[0, "a", "b", "1"]]}],
        [5.0, {"count": "3", "buckets": [[0]]}],
        ["soon", {"count": "3"}],
        [1e300, {"count": "3"}],
        5.0,
        None,
        [5.0, {}],
    ],
)
def test_a_native_histogram_that_cannot_be_read_is_an_error_of_the_provider(histogram: Any) -> None:
    broken = MatrixSeries(metric=native().metric, histograms=[histogram])
    assert isinstance(read(over("0.5"), broken), ProviderError)


def test_a_histogram_that_one_process_has_in_two_jobs_is_refused() -> None:
    twice = [native({QUICK: 1}, {QUICK: 2}, {QUICK: 3}, job="a"), native({QUICK: 1}, {QUICK: 2}, {QUICK: 3}, job="b")]
    shifted = MatrixSeries(metric=twice[1].metric, histograms=[[at + 2.0, sample] for at, sample in twice[1].histograms])
    refused = read(over("0.5"), twice[0], shifted)
    assert isinstance(refused, ProviderError)
    assert "several series where one is expected" in refused.sentence


# -- asking


def test_all_kinds_of_a_histogram_are_asked_for_in_one_query() -> None:
    (planned,) = plan_queries([live_policy(over("0.5"))], sources={"default": DEFAULT}, now=10.0)
    arms = 'namespace=~"shop",pod=~"(support-canary|support-stable)-[a-z0-9]+(-[a-z0-9]+)?"'
    names = '__name__=~"rpc_seconds|rpc_seconds_bucket|rpc_seconds_count"'
    assert planned.promql.rpartition("[")[0] == f'{{method="answer",{names},{arms}}}'


def test_no_series_at_all_is_no_data() -> None:
    assert isinstance(read(over("0.5")), NoData)
    assert isinstance(read(over("0.5"), series("rpc_seconds_sum", steps(1, 2))), NoData)


@pytest.mark.parametrize(
    "declared",
    [
        {"histogram": "rpc_seconds"},
        {"over": "0.5"},
        {"bad": "a", "total": "b", "over": "0.5"},
        {"bad": "a", "histogram": "rpc_seconds", "over": "0.5"},
        {"bad": "a"},
        {},
        {"histogram": "rate(rpc_seconds[5m])", "over": "0.5"},
        {"histogram": "rpc_seconds", "over": "0,5"},
    ],
)
def test_a_declaration_that_is_neither_of_the_two_is_refused(declared: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"promQL|over"):
        PromQL.model_validate(declared)
