"""Whatever a server answers: no exception, no verdict without evidence, and a sentence for people."""

import json
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backstop.analysis.answers import MatrixSeries, read_answer, sort_answer
from backstop.analysis.due import due_at
from backstop.analysis.evaluation import evaluate, is_stale, newest_samples
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.owncounters import by_policy, with_own
from backstop.analysis.policy import LivePolicy
from backstop.analysis.queries import OwnSelector, own_selectors, plan_queries
from backstop.analysis.reading import Breached, SLOReading, Unknown
from backstop.analysis.samples import Counter, Fetched, NoData, NotANumber, Partial, ProviderError, Sample, Series
from backstop.analysis.sequential.explanation import WON_BEFORE
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import SLO, EvaluationRule
from backstop.api.policystatus import SLOStatus
from tests.analysis.history import errors_objective, latency_objective, live_policy, own_objective
from tests.analysis.test_queries import DEFAULT

INTERVAL = 5.0
LABELS = {"__name__": "backstop_served_total", "namespace": "shop", "policy": "support", "revision": "canary", "pod": "a"}
POLICY = live_policy(errors_objective())

# A busy machine is no failure.
bad_input = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])

values = st.one_of(
    st.integers(0, 50).map(float),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 0.5, 1e18, 1e19, 1e300, 5e-324]),
    st.floats(),
)
# Steady scrapes, and clocks that jump: back, far ahead, to before everything.
times = st.one_of(st.integers(0, 12).map(lambda i: i * INTERVAL), st.sampled_from([1e9, 1e10, 0.001]), st.floats(0, 1e10))
counters = st.one_of(
    st.builds(
        Counter,
        metric=st.sampled_from(["backstop_served_total", "backstop_served_seconds_count", "backstop_sent_total"]),
        revision=st.sampled_from(["canary", "stable", "older"]),
        cache=st.sampled_from(["miss", ""]),
        outcome=st.sampled_from(["success", "error", "cancelled", "of a newer version", ""]),
        first_tier=st.sampled_from(["answered", "failed", "late", ""]),
    ),
    st.builds(
        Counter,
        metric=st.sampled_from(["backstop_served_usage_total", "backstop_served_tokens_total"]),
        revision=st.sampled_from(["canary", "stable"]),
        type=st.sampled_from(["known", "unknown", "input", "output", "of a newer version"]),
        target=st.just("t"),
    ),
    st.builds(
        Counter,
        metric=st.just("backstop_feedback_total"),
        revision=st.sampled_from(["canary", "stable"]),
        label=st.sampled_from(["negative", "positive", "of a newer version"]),
    ),
    st.builds(
        Counter,
        metric=st.just("backstop_served_seconds_bucket"),
        revision=st.sampled_from(["canary", "stable"]),
        cache=st.just("miss"),
        le=st.sampled_from([0.1, 0.15, 0.2, float("inf"), float("nan"), -1.0]),
    ),
    st.builds(
        Counter,
        metric=st.sampled_from(["promQL.total", "promQL.bad"]),
        revision=st.sampled_from(["canary", "stable"]),
        part=st.just(own_objective().part),
        series=st.integers(0, 2),
    ),
)
series = st.builds(
    Series,
    target=st.sampled_from(["a", "b", "c"]),
    counter=counters,
    points=st.lists(st.tuples(times, values), min_size=1, max_size=14).map(tuple),
)
samples = st.builds(Sample, series=st.lists(series, max_size=12).map(tuple))
failures = st.sampled_from([NoData, NotANumber, Partial, ProviderError]).map(lambda kind: kind("It was not to be read."))
evaluations = st.sampled_from(EvaluationRule)
percents = st.sampled_from(["0", "1", "100"])
objectives = st.lists(
    st.one_of(
        st.builds(errors_objective, percent=percents, for_seconds=st.sampled_from([0, 10]), evaluation=evaluations),
        st.builds(own_objective, percent=st.sampled_from(["0", "100"]), min_requests=st.sampled_from([1, 20])),
        st.builds(latency_objective, for_seconds=st.sampled_from([0, 30]), min_requests=st.sampled_from([1, 20]), evaluation=evaluations),
        st.builds(SLO, name=st.just("rate"), indicator=st.just("ErrorRate"), maxIncreasePercent=st.sampled_from(["0.05", "100"])).map(
            objective_of
        ),
        st.builds(SLO, name=st.just("mean"), indicator=st.just("TokensPerRequest"), maxTokensPerRequest=st.sampled_from(["1", "500"])).map(
            objective_of
        ),
        st.builds(SLO, name=st.just("near"), indicator=st.just("ErrorRate"), maxPercent=st.just("100"), marginPercent=percents).map(
            partial(objective_of, promotes=True)
        ),
        st.builds(SLO, name=st.just("told"), indicator=st.just("NegativeFeedbackRate"), maxPercent=st.sampled_from(["0", "1"])).map(
            partial(objective_of, promotes=True)
        ),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda objective: objective.fingerprint,
)


def judged(fetched: Fetched, live: LivePolicy, *, now: float) -> AnalysisState:
    """One whole evaluation, with all that is done beside it; the state as a restart reads it back."""
    newest_samples(fetched)
    is_stale(fetched, now=now, scrape_interval=INTERVAL)
    result = evaluate(fetched, policy=live, now=now, scrape_interval=INTERVAL)
    assert len(result.readings) == len(live.objectives)
    for reading, objective in zip(result.readings, live.objectives, strict=True):
        has_its_evidence(reading, objective=objective)
    due_at(fetched, state=result.state, now=now, scrape_interval=INTERVAL)
    plan_queries([live], sources={"default": DEFAULT}, now=now)
    state = unpack(pack(result.state))
    assert isinstance(state, AnalysisState)
    return state


def has_its_evidence(reading: SLOReading, *, objective: Objective) -> None:
    assert 0 <= reading.canary.bad <= reading.canary.total
    assert reading.evidence
    assert SLOStatus(name=reading.name, state="Healthy", limit=reading.limit, value=reading.value).value == reading.value
    if isinstance(reading.state, Breached) and reading.reason != "NoTraffic" and WON_BEFORE not in reading.evidence:
        assert reading.canary.total >= 1
        assert reading.is_mean or Fraction(reading.canary.bad, reading.canary.total) > (0 if objective.above_stable else objective.allowed)


@pytest.mark.long
@bad_input
@given(
    rounds=st.lists(st.tuples(samples | failures, times), min_size=1, max_size=4),
    declared=objectives,
    since=st.one_of(st.none(), st.just(0.0), times),
    from_zero=st.booleans(),
)
def test_no_counters_and_no_clocks_make_it_fall_or_judge_without_evidence(
    rounds: list[tuple[Fetched, float]], declared: list[Objective], since: float | None, from_zero: bool
) -> None:
    state = AnalysisState()
    for fetched, now in rounds:
        live = LivePolicy("shop", "support", "default", "canary", "stable", tuple(declared), since, state, from_zero, share=0.05)
        state = judged(fetched, live, now=now)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LABELS, "metric", "values", "le"]), inner, max_size=4),
    max_leaves=8,
)
matrices = st.lists(
    st.fixed_dictionaries(
        {
            "metric": st.one_of(
                st.just(LABELS), st.dictionaries(st.sampled_from([*LABELS, "le"]), st.text(max_size=8), max_size=5), documents
            ),
            "values": st.one_of(
                st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), values.map(str)), max_size=4), documents
            ),
        }
    ),
    max_size=4,
)


@bad_input
@given(result=matrices | documents)
@example(result=[{"metric": LABELS, "values": [[1e308, "1"]]}])
@example(result=[{"metric": LABELS, "values": [[-1e15, "1"]]}])
@example(result=[{"metric": LABELS, "values": []}])
@example(result=[{"metric": LABELS}])
@example(result=[{"metric": LABELS, "histograms": [[5.0, {"count": "3", "sum": "1", "buckets": []}]]}])
def test_no_answer_makes_it_fall(result: Any) -> None:
    body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
    answer = read_answer(body, source="default")
    own = live_policy(own_objective(revision_label="revision"))
    if isinstance(answer, ProviderError):
        assert answer.sentence.startswith("Metrics source `default` answered with ")
        return
    assert isinstance(answer, list)
    judged(sort_answer(answer, policies=[POLICY], source="default")["shop", "support"], POLICY, now=5.0)
    found = by_policy(answer, policies=[own], revision_label="revision")["shop", "support"]
    judged(with_own(None, policy=own, answers=dict.fromkeys(own_selectors(own), found), source="default"), own, now=5.0)


@pytest.mark.parametrize(
    "body", [b"\x00", b"[" * 100_000, b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[NaN,"1"]]}]}}']
)
def test_what_is_no_json_is_an_error_of_the_provider(body: bytes) -> None:
    assert isinstance(read_answer(body, source="default"), ProviderError)


def buckets(*values: float, count: float) -> Sample:
    """A histogram of the canary that shows these counts at every scrape from 5 s on, and zero before."""
    found = {Counter("backstop_served_seconds_count", "canary", "miss", "", "answered"): count}
    for le, value in zip((0.1, 0.15, 0.2), values, strict=True):
        found[Counter("backstop_served_seconds_bucket", "canary", "miss", "", "answered", le)] = value
    return Sample(tuple(Series("pod", counter, ((0.0, 0.0), (5.0, value))) for counter, value in found.items()))


@pytest.mark.parametrize(
    ("histogram", "said"),
    [
        (buckets(30, 20, 40, count=40), "has buckets that are not cumulative"),
        (buckets(30, 35, 50, count=40), "has a bucket above its count"),
        (buckets(float("nan"), 35, 40, count=40), "is nan, which is not a count"),
        (buckets(10, 20, 30, count=-1), "is -1, which is not a count"),
        (buckets(10, 20, 30, count=float("inf")), "is inf, which is not a count"),
    ],
)
def test_m03_a_histogram_that_is_none_is_unknown_and_says_so(histogram: Sample, said: str) -> None:
    (reading,) = evaluate(histogram, policy=live_policy(latency_objective(for_seconds=0)), now=5.0, scrape_interval=INTERVAL).readings
    assert isinstance(reading.state, Unknown)
    assert said in reading.state.why


@pytest.mark.parametrize("bound", [float("inf"), float("nan")])
def test_a_bucket_without_a_finite_bound_is_no_bound(bound: float) -> None:
    slow = buckets(0, 0, 0, count=40)
    endless = replace(slow.series[1], counter=slow.series[1].counter._replace(le=bound), points=((0.0, 0.0), (5.0, 40.0)))
    for sample in (Sample((*slow.series, endless)), Sample((slow.series[0], endless))):
        (reading,) = evaluate(sample, policy=live_policy(latency_objective(for_seconds=0)), now=5.0, scrape_interval=INTERVAL).readings
        assert "inf" not in reading.evidence
        assert "nan" not in reading.evidence
    assert isinstance(reading.state, Unknown), "there is no bucket at the limit"


@pytest.mark.parametrize(("percent", "bad", "breached"), [("0", 0, False), ("0", 1, True), ("100", 40, False)])
@pytest.mark.parametrize("times", [1, 10**16])
def test_limits_of_0_and_of_100_percent_are_limits_whatever_the_number_of_requests(
    percent: str, bad: int, breached: bool, times: int
) -> None:
    outcomes = {"success": 40 - bad, "error": bad}
    sample = Sample(
        tuple(
            Series(
                "pod", Counter("backstop_served_total", "canary", "miss", outcome, "answered"), ((0.0, 0.0), (5.0, float(count * times)))
            )
            for outcome, count in outcomes.items()
        )
    )
    (reading,) = evaluate(sample, policy=live_policy(errors_objective(percent=percent)), now=5.0, scrape_interval=INTERVAL).readings
    assert isinstance(reading.state, Breached) is breached
    assert (reading.canary.bad, reading.canary.total) == (bad * times, 40 * times)


def test_own_selectors_that_find_a_native_histogram_say_so() -> None:
    policy = live_policy(own_objective())
    found = [
        MatrixSeries(metric={"namespace": "shop", "pod": "support-canary-7f9c5-x2x4z"}, histograms=[[5.0, {}]]),
    ]
    answers = {one: by_policy(found, policies=[policy], revision_label="")["shop", "support"] for one in own_selectors(policy)}
    assert with_own(None, policy=policy, answers=answers, source="default") == ProviderError(
        "Metrics source `default` has a native histogram where `promQL.total` (jobs_total) asks for a counter; name a counter, or name it "
        "in `promQL.histogram`."
    )
    assert isinstance(answers[OwnSelector("jobs_total", "", bad=False)], list)
