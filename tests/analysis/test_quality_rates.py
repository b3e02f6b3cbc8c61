"""Judged answers and feedback, from counters to verdicts. A canary's answers are counted by its own pods, feedback by whoever took it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backstop.analysis.deltas import by_metric
from backstop.analysis.evaluation import evaluate
from backstop.analysis.indicators import counts_of
from backstop.analysis.objective import Objective, objectives_of
from backstop.analysis.queries import Range, selector
from backstop.analysis.reading import Breached, Counts, Healthy, SLOReading, Waiting
from backstop.analysis.samples import Counter, Sample, Series
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.problems import parse_strictly
from backstop.api.quality import Quality, grounding_digest
from backstop.api.reasons import Reason
from tests.analysis.history import errors_objective, live_policy, visible

INTERVAL = 5.0
WORDS = {"name": "words", "type": "Lexical"}
FIGURES = {"name": "figures", "type": "NumbersAndLinks"}
JUDGE = {"name": "judge", "type": "HTTP", "http": {"url": "http://judge:8000"}}
REFUSALS = {"name": "refusals", "type": "Refusal"}


def objective(*scorers: dict[str, Any], indicator: str = "HallucinationRate", **limit: Any) -> Objective:
    spec = {
        "promptVersion": "answer-1",
        "latencyBudgetMilliseconds": 500,
        "chain": [{"name": "static", "static": {"default": "Later."}}],
        "quality": {"scorers": list(scorers or (WORDS,))},
        "feedback": {"keyRef": {"name": "feedback", "key": "key"}},
        "slos": [{"name": "quality", "indicator": indicator, **(limit or {"maxPercent": "2"})}],
    }
    (found,) = objectives_of(parse_strictly(FallbackPolicySpec, spec, prefix="spec"))
    return found


def digest_of(*scorers: dict[str, Any]) -> str:
    return grounding_digest(Quality.model_validate({"scorers": list(scorers)}))


def judged(label: str, revision: str = "canary", *, scorers: str = digest_of(WORDS)) -> Counter:
    return Counter("backstop_quality_answers_total", revision, label=label, scorers=scorers)


def said(label: str, revision: str = "canary") -> Counter:
    return Counter("backstop_feedback_total", revision, label=label)


def run(blocks: Sequence[Mapping[str, Mapping[Counter, int]]], one: Objective) -> SLOReading:
    """The reading after these blocks, each evaluated by an operator that has just started. By pod, what a block adds."""
    values: dict[str, dict[Counter, float]] = {pod: dict.fromkeys(counters, 0.0) for block in blocks for pod, counters in block.items()}
    points: dict[tuple[str, Counter], list[tuple[float, float]]] = {}
    for index, block in enumerate([{}, *blocks]):
        for pod, counters in block.items():
            for counter, n in counters.items():
                values[pod][counter] = values[pod].get(counter, 0.0) + n
        for pod, known in values.items():
            for counter, value in known.items():
                points.setdefault((pod, counter), []).append((index * INTERVAL, value))
    samples = Sample(tuple(Series(target=pod, counter=counter, points=tuple(found)) for (pod, counter), found in points.items()))
    kept, readings = AnalysisState(), []
    for index in range(len(blocks) + 1):
        now = index * INTERVAL + 0.1
        policy = replace(live_policy(one, state=kept), share=0.1)
        result = evaluate(visible(samples, until=now, after=now - 60), policy=policy, now=now, scrape_interval=INTERVAL)
        resumed = unpack(pack(result.state))
        assert isinstance(resumed, AnalysisState)
        kept, readings = resumed, list(result.readings)
    return readings[0]


def sent(count: int) -> dict[Counter, int]:
    """That a canary has requests at all, by an entry pod."""
    return {
        Counter("backstop_served_total", "canary", "miss", "success", "answered"): count,
        Counter("backstop_sent_total", "canary"): count + 9,
    }


INVENTS = {
    "entry": {judged("pass", "stable"): 90, judged("fail", "stable"): 0, **sent(50)},
    "canary-pod": {judged("pass"): 30, judged("fail"): 20, judged("skip"): 900, judged("error"): 900},
}
TRUE = {
    "entry": {judged("pass", "stable"): 90, judged("fail", "stable"): 1, **sent(50)},
    "canary-pod": {judged("pass"): 50, judged("fail"): 0, judged("skip"): 9},
}


def test_b12_answers_without_grounds_breach_whoever_counts_them_and_skips_are_no_answers() -> None:
    reading = run([INVENTS] * 2, objective())
    assert isinstance(reading.state, Breached)
    assert not reading.state.suspected, "stable was judged by the same scorers"
    assert reading.reason is Reason.HALLUCINATION_RATE_BREACH
    assert (reading.canary.bad, reading.canary.total) == (40, 100)
    assert reading.evidence.startswith(
        "quality: 40 of 100 canary requests answered without grounds, of those that were judged (40 %, allowed 2 %) against 0 of 180 on "
        "stable"
    )
    assert (
        f'Query: backstop_quality_answers_total{{namespace="shop",policy="support",revision=~"canary|stable",scorers="{digest_of(WORDS)}"}}'
        in (reading.evidence)
    )


def test_a_canary_that_makes_nothing_up_is_healthy() -> None:
    reading = run([TRUE] * 3, objective())
    assert reading.state == Healthy()
    assert reading.value == "0"


def test_what_other_scorers_said_is_never_compared() -> None:
    """Stable was made before a scorer was edited: what it is judged by is another thing."""
    others = digest_of(WORDS | {"failBelowPercent": 5})
    entry = {judged("pass", "stable", scorers=others): 90, judged("fail", "stable", scorers=others): 90, **sent(50)}
    reading = run([{**INVENTS, "entry": entry}] * 6, objective())
    assert isinstance(reading.state, Breached)
    assert reading.state.suspected
    assert reading.stable is None
    assert "none on stable to compare with" in reading.evidence
    assert isinstance(run([INVENTS] * 2, objective(FIGURES)).state, Waiting), "the canary's own are not these either"


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        ([WORDS, REFUSALS], True),
        ([WORDS | {"name": "other"}], True),
        ([WORDS | {"failBelowPercent": 40}], True),
        ([WORDS | {"failBelowPercent": 41}], False),
        ([FIGURES], False),
        ([WORDS, FIGURES], False),
    ],
)
def test_scorers_are_told_apart_by_what_they_judge_by_and_by_nothing_else(edited: list[dict[str, Any]], same: bool) -> None:
    assert (digest_of(*edited) == digest_of(WORDS)) is same
    assert (objective(*edited).fingerprint == objective(WORDS).fingerprint) is same


def test_a_scorer_of_ones_own_counts_by_where_it_is_and_not_by_how_it_is_reached() -> None:
    http = {"url": "http://judge:8000", "timeoutMilliseconds": 100, "apiKeyRef": {"name": "judge", "key": "token"}}
    assert digest_of(JUDGE | {"http": http}) == digest_of(JUDGE)
    assert digest_of(JUDGE | {"http": {"url": "http://judge:8001"}}) != digest_of(JUDGE)
    assert digest_of(JUDGE | {"grounding": False}) == ""


def test_feedback_counts_negative_ones_of_all_that_was_said() -> None:
    added = {
        said("negative"): 3.0,
        said("positive"): 5.0,
        said("neutral"): 2.0,
        said("of a newer gateway"): 7.0,
        said("negative", "stable"): 1.0,
    }
    one = objective(indicator="NegativeFeedbackRate", maxIncreasePercent="3")
    assert counts_of(one, counted=by_metric(added), revision="canary") == Counts(bad=3, total=10)
    assert counts_of(one, counted=by_metric(added), revision="unheard-of") is None


def test_a_canary_that_callers_dislike_is_breached() -> None:
    block = {
        "entry": {said("negative", "stable"): 2, said("positive", "stable"): 38, said("negative"): 9, said("positive"): 6, **sent(50)},
        "other": {said("negative", "stable"): 1, said("positive", "stable"): 41, said("negative"): 4, said("positive"): 3},
    }
    reading = run([block] * 3, objective(indicator="NegativeFeedbackRate", maxIncreasePercent="3"))
    assert isinstance(reading.state, Breached)
    assert reading.reason is Reason.FEEDBACK_BREACH
    assert "canary requests called bad, of those that callers spoke of" in reading.evidence


def test_who_waits_for_answers_to_be_judged_is_told_how_many_and_not_how_long() -> None:
    reading = run([{"entry": sent(50), "canary-pod": {judged("pass"): 1, judged("fail"): 0}}] * 2, objective())
    assert reading.state == Waiting(18)
    assert "needs 18 more canary requests in this step. Query" in reading.evidence
    assert "are not judged" not in reading.evidence, "that most answers are not drawn is how it is meant"


def test_queries_ask_for_what_is_judged_only_where_it_is() -> None:
    assert "quality" not in selector([live_policy(errors_objective())], window=Range(32))
    assert '|backstop_quality_answers_total"' in selector([live_policy(objective())], window=Range(32))
    assert '|backstop_feedback_total"' in selector(
        [live_policy(objective(indicator="NegativeFeedbackRate", maxPercent="9"))], window=Range(32)
    )
