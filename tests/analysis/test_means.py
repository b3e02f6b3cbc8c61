"""Tokens and money per request, from the counters of entry pods to verdicts. Sums are computed by hand; scrapes are five seconds apart."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective, objective_of, objectives_of
from backstop.analysis.policy import Evaluation
from backstop.analysis.queries import Range, selector
from backstop.analysis.reading import Breached, Breaching, Counts, Healthy, SLOReading, Unknown, Waiting
from backstop.analysis.samples import Counter, Sample, Series
from backstop.analysis.sequential.mean import MeanState
from backstop.analysis.state import AnalysisState, ObjectiveState, pack, unpack
from backstop.api.fallbackpolicy import SLO, FallbackPolicySpec
from backstop.api.metricnames import target_label
from backstop.api.problems import parse_strictly
from backstop.api.reasons import Reason
from tests.analysis.history import errors_objective, live_policy, visible

INTERVAL = 5.0
URL = "http://models:8000/v1"
PRIMARY = target_label("primary", base_url=URL, model="m")
SMALL = target_label("small", base_url=URL, model="s")
OTHER = target_label("primary", base_url="http://elsewhere:8000/v1", model="m")

# Requests of one revision in one block, at a target: how many said their usage, how many did not, and tokens of each one that did.
Block = tuple[str, str, int, int, int, int]


def canary(known: int, *, tokens: tuple[int, int], unknown: int = 0, target: str = PRIMARY) -> Block:
    return ("canary", target, known, unknown, *tokens)


def stable(known: int, *, tokens: tuple[int, int], target: str = PRIMARY) -> Block:
    return ("stable", target, known, 0, *tokens)


def scraped(blocks: Sequence[Sequence[Block]], *, start: float = 0.0) -> Sample:
    """What a pod shows that is scraped at `start` and after each of the blocks."""
    values: dict[Counter, float] = {Counter("backstop_served_total", "stable", "miss", "success", "answered"): 1.0}
    points: dict[Counter, list[tuple[float, float]]] = {}
    for index, block in enumerate([(), *blocks]):
        for revision, target, known, unknown, tokens_in, tokens_out in block:
            for counter, n in (
                (Counter("backstop_served_total", revision, "miss", "success", "answered"), known + unknown),
                (Counter("backstop_sent_total", revision), known + unknown),
                (Counter("backstop_served_usage_total", revision, target=target, type="known"), known),
                (Counter("backstop_served_usage_total", revision, target=target, type="unknown"), unknown),
                (Counter("backstop_served_tokens_total", revision, target=target, type="input"), known * tokens_in),
                (Counter("backstop_served_tokens_total", revision, target=target, type="output"), known * tokens_out),
            ):
                values[counter] = values.get(counter, 0.0) + n
        for counter, value in values.items():
            points.setdefault(counter, []).append((start + index * INTERVAL, value))
    return Sample(tuple(Series(target="pod", counter=counter, points=tuple(found)) for counter, found in points.items()))


def run(blocks: Sequence[Sequence[Block]], *objectives: Objective, state: AnalysisState | None = None) -> list[Evaluation]:
    """An evaluation after each scrape, each by an operator that has just started."""
    samples, kept, results = scraped(blocks), state or AnalysisState(), []
    for index in range(len(blocks) + 1):
        now = index * INTERVAL + 0.1
        policy = live_policy(*objectives, state=kept)
        results.append(evaluate(visible(samples, until=now, after=now - 60), policy=policy, now=now, scrape_interval=INTERVAL))
        resumed = unpack(pack(results[-1].state))
        assert isinstance(resumed, AnalysisState)
        kept = resumed
    return results


def last(blocks: Sequence[Sequence[Block]], objective: Objective) -> SLOReading:
    return run(blocks, objective)[-1].readings[0]


def tokens_objective(**fields: Any) -> Objective:
    return objective_of(SLO.model_validate({"name": "tokens", "indicator": "TokensPerRequest", "maxTokensPerRequest": 900} | fields))


def priced(*, output: str = "10.00", model: str = "m", slo: dict[str, Any] | None = None) -> FallbackPolicySpec:
    price = {"inputPerMillionTokens": "2.50", "outputPerMillionTokens": output, "currency": "USD"}
    cheap = {"inputPerMillionTokens": "0", "outputPerMillionTokens": "1", "currency": "USD"}
    spec = {
        "promptVersion": "answer-1",
        "latencyBudgetMilliseconds": 500,
        "chain": [
            {"name": "primary", "model": {"baseURL": URL, "name": model}, "timeouts": {"firstTokenMilliseconds": 300}, "price": price},
            {"name": "small", "model": {"baseURL": URL, "name": "s"}, "price": cheap},
            {"name": "static", "static": {"default": "Later."}},
        ],
        "slos": [{"name": "cost", "indicator": "CostPerRequest", "maxCostPerRequest": "0.008"} | (slo or {})],
    }
    return parse_strictly(FallbackPolicySpec, spec, prefix="spec")


def cost_objective(**fields: Any) -> Objective:
    (objective,) = objectives_of(priced(**fields))
    return objective


USUAL = [canary(10, tokens=(300, 500)), stable(90, tokens=(300, 500))]
TRIPLE = [canary(10, tokens=(300, 2100)), stable(90, tokens=(300, 500))]


def test_a_canary_within_its_limit_is_healthy_and_tells_both_means() -> None:
    reading = last([USUAL] * 4, tokens_objective())
    assert (reading.state, reading.reason) == (Healthy(), Reason.METRICS_AVAILABLE)
    assert (reading.value, reading.limit, reading.canary_mean, reading.stable_mean) == ("800", "900", "800", "800")
    assert (reading.canary, reading.stable) == (Counts(total=40), Counts(total=360))
    assert reading.evidence.startswith(
        "tokens: 800 tokens per request over 40 canary requests (allowed 900) against 800 tokens per request over 360 on stable; "
        "evidence e = "
    )
    assert reading.evidence.endswith(
        'Query: {__name__=~"backstop_served_usage_total|backstop_served_tokens_total",namespace="shop",policy="support",'
        'revision=~"canary|stable"}'
    )


def test_a_canary_that_takes_far_more_tokens_is_breached_beside_a_stable_that_does_not() -> None:
    results = [result.readings[0] for result in run([USUAL] * 4 + [TRIPLE] * 12, tokens_objective())]
    states = [reading.state for reading in results]
    assert Breached(since=25.0) in states
    first = states.index(Breached(since=25.0))
    assert not any(isinstance(state, Breached) for state in states[:first])
    reading = results[first]
    assert reading.reason is Reason.TOKENS_BREACH
    assert reading.value == "2400"
    assert reading.evidence.startswith(
        f"tokens: 2,400 tokens per request over {10 * (first - 4)} canary requests (allowed 900) against 800 "
    )
    assert "(false-rollback risk of the whole rollout ≤ 1 %); began ≈ 1970-01-01T00:00:25.000Z" in reading.evidence


def test_a_breach_of_both_arms_is_shared_and_one_without_stable_is_suspected() -> None:
    both = [canary(10, tokens=(300, 4000)), stable(90, tokens=(300, 4000))]
    shared = last([both] * 10, tokens_objective())
    assert (shared.state, shared.reason) == (Breaching(since=5.0, shared=True), Reason.SHARED_BREACH)
    alone = last([[canary(10, tokens=(300, 4000))]] * 10, tokens_objective())
    assert alone.state == Breached(since=5.0, suspected=True)


def test_with_seconds_a_breach_must_last() -> None:
    patient = tokens_objective(forSeconds=30)
    assert not any(isinstance(r.readings[0].state, Breached) for r in run([USUAL] * 4 + [TRIPLE] * 5 + [USUAL] * 8, patient))
    assert any(isinstance(r.readings[0].state, Breached) for r in run([USUAL] * 4 + [TRIPLE] * 20, patient))


def test_m05_a_step_waits_for_requests_whose_usage_is_known_and_says_how_many_are_not() -> None:
    mute = [canary(5, tokens=(300, 500), unknown=40), stable(90, tokens=(300, 500))]
    reading = last([mute] * 2, tokens_objective())
    assert (reading.state, reading.reason) == (Waiting(more=10), Reason.WAITING_FOR_SAMPLES)
    assert reading.step_requests == 10
    assert "over 10 canary requests (allowed 900)" in reading.evidence
    assert "; 80 canary requests more are not judged, as what they came to is not known; evidence" in reading.evidence
    assert "; needs 10 more canary requests in this step" in reading.evidence


def test_m04_answers_of_which_none_says_its_usage_are_neither_good_nor_bad() -> None:
    reading = last([[canary(0, tokens=(0, 0), unknown=40)]] * 10, tokens_objective())
    assert (reading.state, reading.value) == (Waiting(more=20), None)
    assert reading.evidence.startswith("tokens: no canary request counted yet (allowed 900 tokens per request); 400 canary requests more")
    unseen = evaluate(Sample(()), policy=live_policy(tokens_objective()), now=5.0, scrape_interval=INTERVAL).readings[0]
    assert isinstance(unseen.state, Unknown)


def test_what_requests_cost_is_their_tokens_at_the_prices_of_the_targets_that_answered() -> None:
    # 300 · 2.50 + 500 · 10 millionths are 0.00575, at the small one 500 millionths; thirty and ten of them in all.
    reading = last([[canary(15, tokens=(300, 500)), canary(5, tokens=(300, 500), target=SMALL)]] * 2, cost_objective())
    assert (reading.value, reading.limit) == ("0.0044375", "0.008")
    assert reading.evidence.startswith(
        "cost: 0.00444 USD per request over 40 canary requests (allowed 0.008), none on stable to compare with"
    )
    dear = [canary(10, tokens=(300, 4000)), stable(90, tokens=(300, 500))]
    breached = last([dear] * 10, cost_objective())
    assert (breached.state, breached.reason) == (Breached(since=5.0), Reason.COST_BREACH)
    assert (breached.value, breached.stable_mean) == ("0.04075", "0.00575")


def test_a_target_that_the_policy_has_no_price_for_costs_something_that_is_not_known() -> None:
    # Stable still asks another address, whose price the policy no longer says: nothing to compare with, and no evidence that it is over.
    moved = [canary(10, tokens=(300, 4000)), stable(90, tokens=(300, 4000), target=OTHER)]
    reading = last([moved] * 10, cost_objective())
    assert reading.state == Breached(since=5.0, suspected=True)
    assert reading.stable is None
    unknown = last([[canary(10, tokens=(300, 4000), target=OTHER)]] * 10, cost_objective())
    assert (unknown.state, unknown.value) == (Waiting(more=20), None)
    assert "; 100 canary requests more are not judged" in unknown.evidence


def test_tokens_of_a_type_that_nobody_knows_yet_are_no_evidence_of_costs() -> None:
    samples = scraped([TRIPLE] * 6)
    odd = Counter("backstop_served_tokens_total", "canary", target=PRIMARY, type="imagined")
    series = Series("pod", odd, tuple((index * INTERVAL, float(index)) for index in range(7)))
    result = evaluate(Sample((*samples.series, series)), policy=live_policy(cost_objective()), now=30.1, scrape_interval=INTERVAL)
    assert result.readings[0].state == Waiting(more=20)


def test_another_price_is_another_objective_and_the_same_one_is_the_same() -> None:
    assert cost_objective() == cost_objective()
    assert len({cost_objective().fingerprint, cost_objective(output="11").fingerprint, cost_objective(model="n").fingerprint}) == 3
    assert tokens_objective().fingerprint != tokens_objective(maxTokensPerRequest=901).fingerprint


def test_small_limits_are_written_without_an_exponent() -> None:
    objective = cost_objective(slo={"maxCostPerRequest": "0.00000123"})
    reading = last([USUAL] * 10, objective)
    assert reading.limit == "0.00000123"
    assert "(allowed 0.00000123)" in reading.evidence


def test_a_mean_shares_the_risk_with_the_other_objectives_and_goes_on_beside_them() -> None:
    results = run([USUAL] * 4 + [TRIPLE] * 14, tokens_objective(), cost_objective(), errors_objective(percent="50"))
    tokens, cost, errors = results[-1].readings
    assert isinstance(tokens.state, Breached)
    assert isinstance(cost.state, Breached)
    assert errors.state == Healthy()
    assert "≥ 200 (false-rollback risk of the whole rollout ≤ 1 %)" in tokens.evidence, "two of them bear the risk of 1 %"


def test_a_new_step_counts_its_requests_anew_and_the_evidence_goes_on() -> None:
    state = run([USUAL] * 4, tokens_objective())[-1].state
    policy = live_policy(tokens_objective(), state=state, since=20.0)
    after = evaluate(scraped([USUAL] * 5), policy=policy, now=25.1, scrape_interval=INTERVAL).readings[0]
    assert (after.step_requests, after.state) == (10, Waiting(more=10))
    assert after.canary.total == 50


def test_of_a_mean_no_step_is_passed_early_and_stable_s_history_is_not_read() -> None:
    objective = tokens_objective()
    assert not any(result.readings[0].promotable for result in run([USUAL] * 40, replace(objective)))
    assert not live_policy(objective, state=AnalysisState(), since=None).wants_history


def test_the_query_asks_for_tokens_only_where_they_are_judged() -> None:
    assert "tokens" not in selector([live_policy(errors_objective())], window=Range(60))
    assert "backstop_served_usage_total|backstop_served_tokens_total" in selector([live_policy(tokens_objective())], window=Range(60))


def test_the_state_of_a_mean_survives_packing_and_its_objective_pickling() -> None:
    state = run([USUAL] * 4 + [TRIPLE] * 2, cost_objective())[-1].state
    (kept,) = state.objectives.values()
    assert isinstance(kept.rule, MeanState)
    assert pickle.loads(pickle.dumps(cost_objective())) == cost_objective()
    resumed = unpack(pack(state))
    assert isinstance(resumed, AnalysisState)
    (again,) = resumed.objectives.values()
    assert isinstance(again.rule, MeanState)
    assert again.rule.canary.ln_capital == pytest.approx(kept.rule.canary.ln_capital, rel=1e-6)
    assert again.rule.all_canary.requests == 60
    assert again.rule.episode is not None
    assert (again.rule.episode.first_bad, again.rule.episode.canary.requests) == (25.0, 20)
    assert again.rule.episode.canary.amount == pytest.approx(0.435)  # twenty times 300 · 2.50 + 2,100 · 10 millionths


def test_a_state_of_another_rule_under_the_same_name_begins_anew() -> None:
    objective = tokens_objective()
    state = run([USUAL] * 4, errors_objective())[-1].state
    (other,) = state.objectives.values()
    mixed = replace(state, objectives={objective.fingerprint: ObjectiveState(rule=other.rule, step_requests=7)})
    result = evaluate(scraped([USUAL] * 5), policy=live_policy(objective, state=mixed), now=25.1, scrape_interval=INTERVAL)
    assert result.readings[0].step_requests == 10
