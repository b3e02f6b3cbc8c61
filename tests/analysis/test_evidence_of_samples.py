"""One policy from samples to readings by the sequential rule: what it sees, what it says, and what it remembers over a restart.

Requests are served by pods and scraped every five seconds, as in `test_evaluation`.
"""

from dataclasses import replace
from fractions import Fraction

import pytest

from backstop.analysis.blocks import MARGIN_INTERVALS, Block
from backstop.analysis.deltas import Increase
from backstop.analysis.evaluation import evaluate
from backstop.analysis.folding import arm_block
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.policy import Evaluation, LivePolicy, Told
from backstop.analysis.queries import HISTORY_SECONDS, MetricsSourceConfig, plan_queries, window_seconds
from backstop.analysis.reading import Breached, Breaching, Counts, Healthy, SLOReading, Waiting
from backstop.analysis.rules import judged, observed, rule_of
from backstop.analysis.samples import Counter, ProviderError, Sample
from backstop.analysis.sequential.bursts import correlation
from backstop.analysis.sequential.promotion import Promotion
from backstop.analysis.sequential.relative import Seen
from backstop.analysis.sequential.rule import Sequential
from backstop.analysis.sequential.state import SequentialState
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import SLO, EvaluationRule
from backstop.api.reasons import Reason
from tests.analysis.history import Pod, errors_objective, latency_objective, live_policy, scraped, steady, visible

INTERVAL = 5.0
PLANNED = 300.0
LATENCY = latency_objective(evaluation=EvaluationRule.SEQUENTIAL)
ERRORS = errors_objective(percent="5", evaluation=EvaluationRule.SEQUENTIAL)
INCREASE = objective_of(SLO(name="more", indicator="ErrorRate", maxIncreasePercent="0.5"))


def served(
    *, bad_from: float, bad_to: float = 1e9, until: float = 120.0, stable: float = 20.0, stable_bad: bool = False, began: float = 0.0
) -> Sample:
    """Over two pods: ten canary requests a second from `began` on, all late and failed between the two times; `stable` a second a pod."""
    bad_from, to = min(bad_from, until), min(bad_to, until)

    def bad(start: float, end: float, *, per_second: float, revision: str) -> tuple[object, ...]:
        half = per_second / 2
        return (
            *steady(start, end, per_second=half, seconds=0.19, revision=revision),
            *steady(start, end, per_second=half, outcome="error", revision=revision),
        )

    def pod(name: str, offset: float) -> Pod:
        of_stable = (
            (*steady(-700.0, bad_from, per_second=stable, revision="stable"), *bad(bad_from, to, per_second=stable, revision="stable"))
            if stable_bad
            else steady(-700.0, until, per_second=stable, revision="stable")
        )
        of_canary = (
            *steady(began, bad_from, per_second=5),
            *bad(bad_from, to, per_second=5, revision="canary"),
            *steady(to, until, per_second=5),
        )
        return Pod(name=name, offset=offset, requests=(*of_canary, *of_stable))  # type: ignore[arg-type]  # requests, all of them

    return scraped([pod("a", 0.0), pod("b", 2.0)], interval=INTERVAL, until=until)


def asked(*objectives: Objective, state: AnalysisState, since: float | None = 0.0) -> LivePolicy:
    return replace(live_policy(*objectives, state=state, since=since), planned_seconds=PLANNED)


def run(samples: Sample, *objectives: Objective, until: float, restarting: bool = False) -> list[Evaluation]:
    """An evaluation every second; with `restarting`, by another operator each."""
    results: list[Evaluation] = []
    state = AnalysisState()
    for now in range(int(until) + 1):
        seen = visible(samples, until=now, after=now - 60.0)
        results.append(evaluate(seen, policy=asked(*objectives, state=state), now=float(now), scrape_interval=INTERVAL))
        state = results[-1].state
        if restarting:
            resumed = unpack(pack(state))
            assert isinstance(resumed, AnalysisState)
            state = resumed
    return results


def first_breach(samples: Sample, objective: Objective, *, until: float = 119.0) -> float | None:
    results = run(samples, objective, until=until)
    return next((float(now) for now, result in enumerate(results) if isinstance(result.readings[0].state, Breached)), None)


def last(results: list[Evaluation]) -> SLOReading:
    return results[-1].readings[0]


@pytest.mark.parametrize("onset", [40.0, 42.0, 44.0])
def test_b01_an_outage_is_breached_within_thirty_seconds_and_one_scrape(onset: float) -> None:
    detected = first_breach(served(bad_from=onset), LATENCY)
    assert detected is not None
    assert 30.0 <= detected - onset <= 37.0


@pytest.mark.parametrize("onset", [40.0, 42.0, 44.0])
@pytest.mark.parametrize("objective", [ERRORS, INCREASE], ids=["limit", "increase"])
def test_b01_without_a_time_to_wait_an_outage_is_breached_within_two_scrapes(onset: float, objective: Objective) -> None:
    detected = first_breach(served(bad_from=onset), objective)
    assert detected is not None
    assert detected - onset <= 2 * INTERVAL + 1.0


@pytest.mark.parametrize("onset", [40.0, 42.0, 44.0])
def test_b01_a_time_that_is_not_waited_for_costs_an_outage_none(onset: float) -> None:
    fields = {"name": "errors", "indicator": "ErrorRate", "maxPercent": "5", "forSeconds": 30}
    at_once, waiting = (objective_of(SLO.model_validate(fields | {"waitForSustained": waits})) for waits in (False, None))
    found = [first_breach(served(bad_from=onset), one) for one in (at_once, waiting)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0] - onset <= 2 * INTERVAL + 1.0
    assert found[1] - onset >= 30.0


def test_b02_bad_for_less_than_the_time_by_a_scrape_and_a_second_never_fires() -> None:
    assert first_breach(served(bad_from=40.0, bad_to=64.0), LATENCY) is None
    assert first_breach(served(bad_from=40.0, bad_to=80.0), LATENCY) is not None


def test_b03_a_breach_says_counts_evidence_and_beginning_and_where_to_look_it_up() -> None:
    healthy, breached = run(
        served(bad_from=42.0), objective_of(SLO(name="handoffs", indicator="FallbackRate", maxPercent="10")), LATENCY, until=77.0
    )[-1].readings
    assert isinstance(healthy.state, Healthy)
    assert breached.state == Breached(since=47.0)  # the scrapes of 45 and of 47 s are one block
    assert (breached.reason, breached.limit) == (Reason.LATENCY_BREACH, "5")
    counted, evidence, *rest = breached.evidence.split("; ")
    assert counted == (
        f"latency: {breached.canary.bad} of {breached.canary.total} canary requests over 150 ms or handed over as late "
        f"({breached.value} %, allowed 5 %) against 0 of {breached.stable.total:,} on stable (0 %)"  # type: ignore[union-attr]  # it has requests
    )
    assert evidence.startswith("evidence e = 10^")
    assert evidence.endswith("≥ 200 (false-rollback risk of the whole rollout ≤ 1 %)")  # two tests share it
    assert rest[0].startswith("began ≈ 1970-01-01T00:00:47.000Z, 30 s before the decision")
    assert 'Query: {__name__=~"backstop_served_seconds_count|' in breached.evidence


def test_b17_a_canary_worse_than_stable_but_within_its_limit_is_healthy() -> None:
    pods = [
        Pod(
            name="a",
            requests=(
                *steady(0.0, 600.0, per_second=9.75),
                *steady(0.0, 600.0, per_second=0.25, outcome="error"),
                *steady(0.0, 600.0, per_second=89.1, revision="stable"),
                *steady(0.0, 600.0, per_second=0.9, revision="stable", outcome="error"),
            ),
        )
    ]
    samples, state = scraped(pods, interval=INTERVAL, until=600.0), AnalysisState()
    found: list[tuple[object, object]] = []
    for now in range(5, 600, 5):
        seen = visible(samples, until=now, after=now - 60.0)
        result = evaluate(seen, policy=asked(ERRORS, INCREASE, state=state), now=float(now), scrape_interval=INTERVAL)
        state = result.state
        found.append(tuple(reading.state for reading in result.readings))  # type: ignore[arg-type]  # of two
    assert {type(limit) for limit, _ in found} <= {Healthy, Waiting}
    assert isinstance(found[-1][1], Breached), "an increase of 1.5 points where half a point is allowed"


def test_an_incident_that_stable_shares_is_no_breach_and_is_called_so() -> None:
    reading = last(run(served(bad_from=40.0, stable_bad=True), ERRORS, until=100.0))
    assert isinstance(reading.state, Breaching)
    assert reading.state.shared
    assert reading.reason is Reason.SHARED_BREACH
    assert "stable breaks the limit too and the canary is no worse, so that a rollback cannot help" in reading.evidence


def test_beside_a_stable_that_hardly_anybody_calls_a_breach_is_suspected() -> None:
    reading = last(run(served(bad_from=40.0, stable=0.2), ERRORS, until=70.0))
    assert isinstance(reading.state, Breached)
    assert reading.suspected
    assert "only suspected, as stable had too few requests to compare with" in reading.evidence
    assert "counted by blocks as too little is known of bursts" in reading.evidence


def test_what_is_watched_and_over_its_limit_on_too_little_evidence_is_healthy_and_known_to_be_over() -> None:
    few = (*steady(0.0, 30.0, per_second=4), *steady(12.0, 16.0, per_second=1, outcome="error"))
    pod = Pod(name="a", requests=(*few, *steady(-60.0, 30.0, per_second=40, revision="stable")))
    policy = replace(asked(ERRORS, replace(ERRORS, name="ten", allowed=Fraction(1, 10)), state=AnalysisState()), watched=True)
    seen = visible(scraped([pod], interval=INTERVAL, until=30.0), until=20.0, after=-40.0)
    over, within = evaluate(seen, policy=policy, now=20.0, scrape_interval=INTERVAL).readings
    assert (over.state, over.over) == (Healthy(), True), over.evidence
    assert (within.state, within.over) == (Healthy(), False), within.evidence


@pytest.mark.parametrize("watched", [True, False])
def test_that_what_is_watched_comes_over_its_limit_is_told_at_once_and_of_a_canary_with_its_counts(watched: bool) -> None:
    """A verdict on the revision before waits for that (`guard.compare`); of a canary nothing follows from it."""
    pod = Pod("a", (*steady(0.0, 60.0, per_second=10), *steady(30.0, 60.0, per_second=0.8, outcome="error")))
    samples, policy = scraped([pod], interval=INTERVAL, until=60.0), replace(asked(ERRORS, state=AnalysisState()), watched=watched)
    told: Told | None = None
    heard: list[bool] = []
    for now in range(10, 46):
        seen = visible(samples, until=float(now))
        result = evaluate(seen, policy=policy, now=float(now), scrape_interval=INTERVAL, told=told)
        policy = replace(policy, state=result.state)
        for reading in result.readings:
            assert isinstance(reading.state, Healthy | Waiting)
            heard.append(reading.over)
            told = Told((reading.standing,), until=1000.0)
    assert heard[-1] is watched
    assert heard.count(True) == (1 if watched else 0)


def test_of_stable_those_pods_are_counted_that_have_the_limit_as_a_bound() -> None:
    """Else all requests of the others were over it, and a regression were one that stable shares."""
    slow = (*steady(0.0, 120.0, per_second=7), *steady(0.0, 120.0, per_second=3, seconds=0.25))
    usual = steady(0.0, 120.0, per_second=45, revision="stable")
    samples = scraped([Pod("a", (*slow, *usual)), Pod("b", usual)], interval=INTERVAL, until=120.0)
    lacks = Sample(tuple(one for one in samples.series if (one.target, one.counter.le) != ("b", 0.15)))
    whole, part = (run(seen, LATENCY, until=60.0) for seen in (samples, lacks))
    of_both, of_one = last(whole).stable, last(part).stable
    assert of_both is not None
    assert of_one == Counts(0, of_both.total // 2)
    assert first_breach(lacks, LATENCY) == first_breach(samples, LATENCY) is not None


def test_m05_a_breach_needs_no_minimum_of_requests_and_a_step_does() -> None:
    fussy = objective_of(SLO(name="errors", indicator="ErrorRate", maxPercent="5", minRequests=400))
    assert isinstance(last(run(served(bad_from=20.0), fussy, until=30.0)).state, Breached)
    waiting = last(run(served(bad_from=1e9), fussy, until=30.0))
    assert isinstance(waiting.state, Waiting)
    assert f"; needs {waiting.state.more} more canary requests in this step. Query: " in waiting.evidence
    assert "evidence e = " in waiting.evidence


def test_m01_a_source_that_fails_makes_nothing_known_and_costs_nothing() -> None:
    samples = served(bad_from=40.0)
    whole = run(samples, LATENCY, until=77.0)
    blind = evaluate(ProviderError("It is down."), policy=asked(LATENCY, state=whole[60].state), now=61.0, scrape_interval=INTERVAL)
    assert blind.state == whole[60].state
    after = evaluate(visible(samples, until=77.0), policy=asked(LATENCY, state=blind.state), now=77.0, scrape_interval=INTERVAL)
    assert after.readings[0] == last(whole)


@pytest.mark.long
@pytest.mark.parametrize("bad_from", [30.0, 1e9])
def test_another_operator_at_every_second_comes_to_the_same_verdicts(bad_from: float) -> None:
    samples = served(bad_from=bad_from, bad_to=50.0, until=90.0)
    one, many = (run(samples, LATENCY, ERRORS, INCREASE, until=90.0, restarting=restarting) for restarting in (False, True))
    for plain, resumed in zip(one, many, strict=True):
        assert [r.state for r in plain.readings] == [r.state for r in resumed.readings]
        assert [(r.canary, r.stable) for r in plain.readings] == [(r.canary, r.stable) for r in resumed.readings]
    kept = [
        [o.rule.absolute.ln_capital for o in result.state.objectives.values() if isinstance(o.rule, SequentialState)]
        for result in (one[-1], many[-1])
    ]
    for plain_one, resumed_one in zip(*kept, strict=True):
        assert plain_one == pytest.approx(resumed_one, rel=1e-5, abs=1e-5)


# -- what it remembers


def test_what_stable_did_before_the_canary_came_is_read_once_and_for_the_whole_of_ten_minutes() -> None:
    waiting = asked(ERRORS, state=AnalysisState(), since=None)
    assert window_seconds(waiting, now=1000.0, scrape_interval=INTERVAL) == HISTORY_SECONDS + MARGIN_INTERVALS * INTERVAL

    samples = served(bad_from=1e9, began=40.0)
    first = evaluate(visible(samples, until=40.0), policy=waiting, now=40.0, scrape_interval=INTERVAL)
    assert first.state.objectives[ERRORS.fingerprint].history is None
    kept = first.state.objectives[ERRORS.fingerprint].rule
    assert isinstance(kept, SequentialState)
    # Forty requests a second; of the first seconds no scrape says when they came.
    assert 40 * 20 <= kept.history.total <= 40 * 40
    assert kept.history.bad == 0

    begun = asked(ERRORS, state=first.state, since=40.0)
    assert window_seconds(begun, now=45.0, scrape_interval=INTERVAL) < 60
    second = evaluate(visible(samples, until=60.0), policy=begun, now=60.0, scrape_interval=INTERVAL)
    again = second.state.objectives[ERRORS.fingerprint].rule
    assert isinstance(again, SequentialState)
    assert again.history == kept.history


def test_the_history_of_an_edited_objective_is_read_in_mid_canary_and_of_the_others_it_is_not_read_again() -> None:
    samples = served(bad_from=1e9, until=120.0)
    state = run(samples, ERRORS, LATENCY, until=100.0)[-1].state
    edited = objective_of(SLO(name="errors", indicator="ErrorRate", maxPercent="4"))
    policy = asked(edited, LATENCY, state=state)
    assert policy.wants_history
    assert window_seconds(policy, now=101.0, scrape_interval=INTERVAL) > HISTORY_SECONDS
    result = evaluate(visible(samples, until=107.0), policy=policy, now=107.0, scrape_interval=INTERVAL)
    assert not replace(policy, state=result.state).wants_history
    new, other = (result.state.objectives[o.fingerprint].rule for o in (edited, LATENCY))
    assert isinstance(new, SequentialState)
    assert isinstance(other, SequentialState)
    begun = state.block_end
    assert begun is not None
    # Forty requests of stable a second up to the newest block, of the first seconds no scrape says when they came; then one block or two.
    assert 40 * (begun - 20) <= new.history.total <= 40 * begun
    assert 1 <= new.absolute.blocks <= 2
    assert new.older is not None
    assert new.older.bursts.total == new.history.total
    assert new.bursts.total == pytest.approx(40 * 5 * new.absolute.blocks, rel=0.01)
    before = state.objectives[LATENCY.fingerprint].rule
    assert isinstance(before, SequentialState)
    assert other.history == before.history, "what is read for another counts once"
    assert other.absolute.blocks == before.absolute.blocks + new.absolute.blocks


@pytest.mark.parametrize("restarted", [False, True])
def test_an_objective_that_is_edited_in_the_guard_window_knows_the_bursts_that_it_was_edited_from(restarted: bool) -> None:
    samples = served(bad_from=60.0, bad_to=65.0, until=120.0, stable_bad=True)
    looser = objective_of(SLO(name="mistakes", indicator="ErrorRate", maxPercent="10"), risk=Fraction(1, 50))
    slower = latency_objective(evaluation=EvaluationRule.SEQUENTIAL, milliseconds=200)
    state = run(samples, ERRORS, LATENCY, until=100.0)[-1].state
    if restarted:
        kept = unpack(pack(state))
        assert isinstance(kept, AnalysisState)
        state = kept
    policy = replace(asked(looser, slower, state=state, since=100.0), watched=True)
    assert not policy.wants_history, "what is beside has not served for long"
    only_canary = Sample(tuple(one for one in samples.series if one.counter.revision == "canary"))
    result = evaluate(visible(only_canary, until=115.0, after=60.0), policy=policy, now=115.0, scrape_interval=INTERVAL)
    old, new, other = (one.rule for one in (state.objectives[ERRORS.fingerprint], *result.state.objectives.values()))
    assert isinstance(old, SequentialState)
    assert isinstance(new, SequentialState)
    assert isinstance(other, SequentialState)
    assert correlation(old.bursts) > 0.1, "half of stable's requests failed for five seconds"
    assert correlation(new.bursts) == pytest.approx(correlation(old.bursts), rel=1e-5)
    assert new.succession.blocks == old.succession.blocks
    assert 1 <= new.absolute.blocks <= 3, "the evidence is its own"
    assert other.succession.blocks == 0, "other requests are late at another limit"


def test_a_failure_of_the_question_costs_the_history_nothing_but_time() -> None:
    samples = served(bad_from=1e9, until=120.0)
    policy = asked(ERRORS, state=AnalysisState(), since=40.0)
    failed = evaluate(ProviderError("It is down."), policy=policy, now=41.0, scrape_interval=INTERVAL).state
    policy = replace(policy, state=failed)
    assert not policy.wants_history, "the canary is not to wait for it"
    # The source does not answer for longer than the pause, and is not asked for the history meanwhile.
    failed = evaluate(ProviderError("It is down."), policy=policy, now=60.0, scrape_interval=INTERVAL).state
    assert not replace(policy, state=failed).wants_history
    wanted = []
    for now in range(61, 80):
        result = evaluate(visible(samples, until=now), policy=policy, now=now, scrape_interval=INTERVAL)
        kept = unpack(pack(result.state)) if result.state.block_end is not None else result.state
        assert isinstance(kept, AnalysisState)
        policy = replace(policy, state=kept)
        wanted.append(policy.wants_history)
    assert wanted == [True] + [False] * 18
    rule = policy.state.objectives[ERRORS.fingerprint].rule
    assert isinstance(rule, SequentialState)
    assert 40 * 15 <= rule.history.total <= 40 * 40, "of before the canary was judged"
    assert rule.older is not None
    assert rule.older.bursts.total == rule.history.total
    assert rule.bursts.total == pytest.approx(40 * 5 * rule.absolute.blocks, rel=0.1), "each block once"


def test_history_that_cannot_be_had_is_asked_for_five_times_in_four_minutes_and_that_is_said() -> None:
    samples = served(bad_from=1e9, until=500.0)
    policy, asked_at = asked(ERRORS, state=AnalysisState(), since=40.0), []
    for now in range(40, 500, 5):
        if policy.wants_history:
            asked_at.append(now)
        answer = ProviderError("More than 64 MiB.") if policy.wants_history else visible(samples, until=now, after=now - 60.0)
        result = evaluate(answer, policy=policy, now=now, scrape_interval=INTERVAL)
        policy = replace(policy, state=result.state)
    # After 15, 30, 60 and 120 s, at the first evaluation from then on.
    assert asked_at == [40, 60, 95, 160, 285]
    assert "; what stable did before could not be read, nor in 4 tries more" in result.readings[0].evidence
    kept = result.state.objectives[ERRORS.fingerprint]
    assert isinstance(kept.rule, SequentialState)
    assert kept.rule.absolute.blocks >= 85, "the canary is judged meanwhile"


def test_history_waits_while_a_breach_is_to_be_decided() -> None:
    samples = served(bad_from=45.0, until=100.0)
    slow = errors_objective(percent="5", for_seconds=60, evaluation=EvaluationRule.SEQUENTIAL)
    policy = asked(slow, state=AnalysisState(), since=40.0)
    policy = replace(policy, state=evaluate(ProviderError("Down."), policy=policy, now=40.0, scrape_interval=INTERVAL).state)
    for now in range(41, 90):
        result = evaluate(visible(samples, until=now, after=now - 60.0), policy=policy, now=now, scrape_interval=INTERVAL)
        policy = replace(policy, state=result.state)
        assert not policy.wants_history
    assert isinstance(result.readings[0].state, Breaching)


def test_policies_that_want_history_are_asked_for_ten_at_a_time() -> None:
    config = MetricsSourceConfig("default", "http://prometheus:9090", INTERVAL)
    waiting = [replace(asked(ERRORS, state=AnalysisState(), since=None), name=f"p{number:02d}") for number in range(25)]
    first = evaluate(visible(served(bad_from=1e9), until=40.0), policy=waiting[0], now=40.0, scrape_interval=INTERVAL)
    begun = [replace(policy, state=first.state, name=f"q{policy.name}") for policy in waiting]
    planned = plan_queries([*waiting, *begun], sources={"default": config}, now=1000.0)
    assert sorted(len(query.policies) for query in planned) == [5, 10, 10, 25]


def test_a_policy_of_thresholds_asks_for_no_history() -> None:
    policy = asked(errors_objective(), state=AnalysisState(), since=None)
    assert window_seconds(policy, now=1000.0, scrape_interval=INTERVAL) == MARGIN_INTERVALS * INTERVAL


def test_stable_is_counted_by_pod_so_that_bursts_are_told_from_chance() -> None:
    # One pod of stable fails for a block of five seconds now and then, and the other one never: bad requests come together.
    def pod(name: str, *, bursts: tuple[float, ...]) -> Pod:
        bad = tuple(request for at in bursts for request in steady(at, at + 5.0, per_second=10, revision="stable", outcome="error"))
        return Pod(name=name, requests=(*steady(0.0, 120.0, per_second=5), *steady(0.0, 120.0, per_second=30, revision="stable"), *bad))

    samples = scraped([pod("a", bursts=(20.1, 60.1, 90.1)), pod("b", bursts=())], interval=INTERVAL, until=120.0)
    kept = run(samples, ERRORS, until=120.0)[-1].state.objectives[ERRORS.fingerprint].rule
    assert isinstance(kept, SequentialState)
    assert kept.bursts.total_squares < kept.bursts.total**2 / 40, "about 46 blocks of a pod, not 23 of both"
    assert correlation(kept.bursts) > 0.05


def test_latency_is_compared_at_further_bounds_and_one_that_a_pod_lacks_says_nothing() -> None:
    assert LATENCY.bounds_beside == pytest.approx((0.1755, 0.1995, 0.255, 0.3, 0.45))
    kept = run(served(bad_from=40.0), LATENCY, until=60.0)[-1].state.objectives[LATENCY.fingerprint].rule
    assert isinstance(kept, SequentialState)
    rule = rule_of(LATENCY, tests=1, planned_blocks=60)
    assert isinstance(rule, Sequential)
    assert len(kept.relatives) == rule.comparisons == 6
    # The pods of this test have the bounds 0.1, 0.15, 0.2 and 0.3.
    seen = [one.seen.canary_total > 0 for one in kept.relatives]
    assert seen == [True, False, False, False, True, False]
    assert kept.relatives[0].seen.canary_bad > 0
    assert kept.relatives[4].seen.canary_bad == 0, "nothing took longer than 300 ms"


def test_of_a_pod_that_lacks_a_further_bound_none_is_counted_there_and_of_the_other_all_are() -> None:
    # Two pods of the same traffic; one was begun before there were multiples of this limit.
    whole = served(bad_from=40.0)
    lacks = Sample(tuple(one for one in whole.series if (one.target, one.counter.le) != ("b", 0.3)))

    def seen(samples: Sample) -> list[Seen]:
        kept = run(samples, LATENCY, until=60.0)[-1].state.objectives[LATENCY.fingerprint].rule
        assert isinstance(kept, SequentialState)
        return [one.seen for one in kept.relatives]

    of_both, of_one = seen(whole), seen(lacks)
    assert of_one[0] == of_both[0]
    assert of_one[4].canary_total == pytest.approx(of_both[4].canary_total / 2, rel=0.02) != 0
    assert of_one[4].stable_total == pytest.approx(of_both[4].stable_total / 2, rel=0.02)


def test_a_new_revision_and_an_edited_objective_begin_new_tests_and_a_change_of_weight_does_not() -> None:
    state = run(served(bad_from=30.0), ERRORS, until=40.0)[-1].state
    before = state.objectives[ERRORS.fingerprint].rule
    assert isinstance(before, SequentialState)
    assert before.absolute.blocks > 0

    def rule_after(policy: LivePolicy) -> SequentialState:
        result = evaluate(Sample(()), policy=policy, now=41.0, scrape_interval=INTERVAL)
        rule = result.state.objectives[policy.objectives[0].fingerprint].rule
        assert isinstance(rule, SequentialState)
        return rule

    assert rule_after(asked(ERRORS, state=state, since=50.0)) == before
    edited = objective_of(SLO(name="errors", indicator="ErrorRate", maxPercent="4"))
    assert rule_after(asked(edited, state=state)).absolute.blocks == 0
    assert rule_after(replace(asked(ERRORS, state=state), canary="another")).absolute.blocks == 0
    for other in (
        SLO(name="errors", indicator="ErrorRate", maxPercent="5", forSeconds=30),
        SLO(name="errors", indicator="ErrorRate", maxPercent="5", forSeconds=30, waitForSustained=False),
        SLO(name="errors", indicator="ErrorRate", maxIncreasePercent="5"),
        SLO(name="errors", indicator="ErrorRate", maxPercent="5", evaluation="Threshold"),
    ):
        assert objective_of(other).fingerprint != ERRORS.fingerprint


def test_to_ask_for_early_promotion_in_mid_canary_begins_no_test_anew() -> None:
    state = run(served(bad_from=1e9), ERRORS, until=40.0)[-1].state
    slo = SLO(name=ERRORS.name, indicator="ErrorRate", maxPercent="5")
    early = objective_of(slo, promotes=True)
    assert early != ERRORS
    result = evaluate(visible(served(bad_from=1e9), until=60.0), policy=asked(early, state=state), now=60.0, scrape_interval=INTERVAL)
    before, after = state.objectives[ERRORS.fingerprint].rule, result.state.objectives[early.fingerprint].rule
    assert isinstance(before, SequentialState)
    assert isinstance(after, SequentialState)
    assert after.absolute.blocks == before.absolute.blocks + 4, "forty seconds to sixty, with a scrape every five"
    assert before.promotion == Promotion()
    assert after.promotion != Promotion()


def test_evidence_against_another_margin_is_given_up_and_so_is_that_of_a_margin_that_was_taken_out() -> None:
    declared = {"name": "errors", "indicator": "ErrorRate", "maxPercent": "5"}
    none, narrow, same, wide = (
        objective_of(SLO(**declared, **margin), promotes=True)
        for margin in ({}, {"marginPercent": "1"}, {"marginPercent": "1.0"}, {"marginPercent": "5"})
    )
    assert none.fingerprint == ERRORS.fingerprint, "what is kept by older versions goes on"
    assert narrow.fingerprint == same.fingerprint
    for before, after in ((none, narrow), (narrow, wide), (wide, none)):
        state = run(served(bad_from=1e9), before, until=60.0)[-1].state
        kept = state.objectives[before.fingerprint].rule
        assert isinstance(kept, SequentialState)
        assert kept.promotion != Promotion()
        result = evaluate(Sample(()), policy=asked(after, state=state), now=61.0, scrape_interval=INTERVAL)
        anew = result.state.objectives[after.fingerprint].rule
        assert isinstance(anew, SequentialState)
        assert anew.promotion == Promotion()


def test_a_step_ends_the_later_the_smaller_its_margin_is() -> None:
    def requests(margin: str | None) -> int:
        slo = SLO(name="errors", indicator="ErrorRate", maxPercent="20", marginPercent=margin)
        results = run(served(bad_from=1e9), objective_of(slo, promotes=True), until=120.0)
        return min(result.readings[0].step_requests for result in results if result.readings[0].promotable)

    assert requests("5") > requests(None) > requests("20")


@pytest.mark.parametrize(
    ("margin", "words"),
    [("1.5", "that it is less than 1.5 points worse than stable"), ("0", "that it is better than stable"), (None, "2.5 points worse")],
)
def test_a_canary_that_is_worse_than_stable_by_more_than_its_margin_is_told_that_its_step_does_not_end_early(
    margin: str | None, words: str
) -> None:
    requests = (
        *steady(0.0, 70.0, per_second=10),
        *steady(0.0, 70.0, per_second=0.4, outcome="error"),
        *steady(0.0, 70.0, per_second=40, revision="stable"),
    )
    slo = SLO(name="errors", indicator="ErrorRate", maxPercent="5", marginPercent=margin)
    reading = last(run(scraped([Pod("pod", requests)], interval=INTERVAL, until=70.0), objective_of(slo, promotes=True), until=60.0))
    assert "the step does not end early while requests are like these, which never show" in reading.evidence
    assert words in reading.evidence


def test_what_is_told_already_is_not_put_into_words_again_until_it_is_time_or_something_follows_from_it() -> None:
    samples = served(bad_from=40.0)
    first = evaluate(visible(samples, until=30.0), policy=asked(ERRORS, state=AnalysisState()), now=30.0, scrape_interval=INTERVAL)
    told = Told(tuple(reading.standing for reading in first.readings), until=60.0)

    def later(now: float, *, known: Told | None) -> Evaluation:
        policy = asked(ERRORS, state=first.state)
        return evaluate(visible(samples, until=now), policy=policy, now=now, scrape_interval=INTERVAL, told=known)

    quiet = later(40.0, known=told)
    assert quiet.readings == ()
    assert quiet.closed_block
    assert quiet.state == later(40.0, known=None).state, "it is judged all the same"
    assert later(40.0, known=replace(told, until=40.0)).readings == later(40.0, known=None).readings != ()
    (breached,) = later(55.0, known=told).readings
    assert isinstance(breached.state, Breached)


def test_steps_that_are_edited_in_mid_canary_change_no_plan_that_the_tests_have_begun_with() -> None:
    state = run(served(bad_from=1e9), ERRORS, until=40.0)[-1].state
    longer = replace(asked(ERRORS, state=state), planned_seconds=9000.0)
    result = evaluate(Sample(()), policy=longer, now=41.0, scrape_interval=INTERVAL)
    assert result.state.objectives[ERRORS.fingerprint].planned_blocks == PLANNED / INTERVAL


def test_counts_of_a_reading_are_of_the_episode_or_of_the_trailing_window() -> None:
    reading = last(run(served(bad_from=1e9), ERRORS, until=60.0))
    assert reading.canary.bad == 0
    assert 20 <= reading.canary.total <= 200
    assert reading.stable is not None
    assert reading.stable == Counts(0, 4 * reading.canary.total)


def test_a_canary_is_known_to_be_good_enough_after_some_hundred_clean_requests_where_that_is_asked_for() -> None:
    slo = SLO(name="errors", indicator="ErrorRate", maxPercent="5")
    results = run(served(bad_from=1e9), objective_of(slo, promotes=True), until=60.0)
    good = [result.readings[0] for result in results if result.readings[0].promotable]
    # ln 20 / -ln 0.95: no test can know it sooner than with 59 clean requests.
    assert good
    assert good[0].step_requests >= 59
    assert "; good enough to end the step early. Query: " in good[0].evidence
    before = results[results.index(next(result for result in results if result.readings[0].promotable)) - 1].readings[0]
    assert "the step early" in before.evidence
    assert not any(result.readings[0].promotable for result in run(served(bad_from=1e9), objective_of(slo), until=60.0))
    assert not any(result.readings[0].promotable for result in run(served(bad_from=20.0), objective_of(slo, promotes=True), until=60.0))


def test_a_canary_without_stable_beside_it_is_told_that_its_step_does_not_end_early() -> None:
    slo = SLO(name="errors", indicator="ErrorRate", maxPercent="5")
    alone = scraped([Pod("pod", steady(0.0, 70.0, per_second=10))], interval=INTERVAL, until=70.0)
    reading = last(run(alone, objective_of(slo, promotes=True), until=60.0))
    assert not reading.promotable
    assert "; the step does not end early while stable has no requests to compare with. Query: " in reading.evidence


def test_b18_a_canary_with_cold_caches_is_compared_with_what_stable_answered_without_its_own() -> None:
    slow = objective_of(SLO(name="slow", indicator="Latency", maxMilliseconds=150, maxIncreasePercent="1"))

    def answers(revision: str, *, cache: str, total: float, within: float) -> dict[Counter, float]:
        count = Counter("backstop_served_seconds_count", revision, cache, "", "answered")
        bounds = (0.1, 0.15, *slow.bounds_beside)
        buckets = {count._replace(metric="backstop_served_seconds_bucket", le=bound): within for bound in bounds}
        return {count: total, **buckets}

    # Of what a model is asked for, 5 % is late on both; stable answers 40 % from its cache at once, and most of the late with
    # what is stale.
    added = {
        **answers("canary", cache="miss", total=40, within=38),
        **answers("stable", cache="miss", total=232, within=228),
        **answers("stable", cache="stale", total=8, within=0),
        **answers("stable", cache="hit", total=160, within=160),
    }
    block = Block(0.0, 5.0, added, watermarks={}, gaps=frozenset(), increases=(Increase(5.0, "a", added),))
    policy = asked(slow, LATENCY, state=AnalysisState())
    beside, limited = (arm_block(objective, block=block, policy=policy) for objective in (slow, LATENCY))
    assert (beside.canary, beside.stable) == (Counts(2, 40), Counts(12, 240))
    assert {(one.canary, one.stable) for one in beside.bounds} == {(Counts(2, 40), Counts(12, 240))}
    assert (limited.canary, limited.stable) == (Counts(2, 40), Counts(12, 400)), "callers feel a limit whatever answers them"
    rule = rule_of(slow, tests=1, planned_blocks=120)
    state = rule.start()
    for index in range(120):
        state = observed(rule, state, block=replace(beside, start=5.0 * index, end=5.0 * index + 5.0))
        assert isinstance(judged(rule, state), Healthy)


def test_b18_a_limit_that_only_warm_caches_keep_rolls_no_canary_back() -> None:
    def served(revision: str, *, cache: str, bad: float, good: float) -> dict[Counter, float]:
        count = Counter("backstop_served_total", revision, cache, "success", "answered")
        return {count: good, count._replace(outcome="error"): bad}

    # 8 % of what the model is asked for fails on both; stable answers 40 % from its cache, and so keeps 5 %.
    added = {
        **served("canary", cache="miss", bad=4, good=46),
        **served("stable", cache="miss", bad=19, good=221),
        **served("stable", cache="hit", bad=0, good=160),
    }
    block = Block(0.0, 5.0, added, watermarks={}, gaps=frozenset(), increases=(Increase(5.0, "a", added),))
    arms = arm_block(ERRORS, block=block, policy=asked(ERRORS, state=AnalysisState()))
    assert (arms.canary, arms.stable) == (Counts(4, 50), Counts(19, 400))
    rule = rule_of(ERRORS, tests=1, planned_blocks=120)
    state = rule.start()
    for index in range(120):
        state = observed(rule, state, block=replace(arms, start=5.0 * index, end=5.0 * index + 5.0))
        assert not isinstance(judged(rule, state), Breached), "it is no worse than stable: stable is not asked as often"
