"""Requests that are sent to a canary and never answered; what is required of an SLO; and what is said while it waits."""

from collections.abc import Mapping

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.policy import Evaluation
from backstop.analysis.reading import Breached, Breaching, Healthy, Unknown, Waiting
from backstop.analysis.samples import Counter, NoData, ProviderError, Sample, Series
from backstop.analysis.state import AnalysisState, pack, unpack
from backstop.api.fallbackpolicy import SLO
from backstop.api.reasons import Reason
from tests.analysis.history import errors_objective, live_policy, own_objective

INTERVAL = 5.0
SENT = Counter("backstop_sent_total", "canary")
STABLE = Counter("backstop_served_total", "stable", "miss", "success", "answered")


def served(outcome: str) -> Counter:
    return Counter("backstop_served_total", "canary", "miss", outcome, "answered")


def errors(*, action: str = "Hold", seconds: int = 300) -> Objective:
    return objective_of(SLO(name="errors", indicator="ErrorRate", maxPercent="1", noTrafficAction=action, noTrafficSeconds=seconds))


def every_scrape(counts: Mapping[Counter, tuple[int, ...]]) -> Sample:
    """Counters by what each scrape added, from 5 s on; before it all are there, at 0."""
    series = []
    for counter, added in counts.items():
        values = [sum(added[: i + 1]) for i in range(len(added))]
        points = tuple((INTERVAL * i, float(value)) for i, value in enumerate([0, *values]))
        series.append(Series(target="pod", counter=counter, points=points))
    return Sample(tuple(series))


def judged(sample: Sample, objective: Objective, *, until: float, share: float | None = None) -> Evaluation:
    """Evaluates at each scrape, with a restart of the operator after each."""
    state, result = AnalysisState(), None
    for now in range(0, int(until) + 1, int(INTERVAL)):
        live = live_policy(objective, since=0.0, state=state, share=share)
        seen = Sample(tuple(Series(s.target, s.counter, tuple(p for p in s.points if now - 40 <= p[0] <= now)) for s in sample.series))
        result = evaluate(seen, policy=live, now=float(now), scrape_interval=INTERVAL)
        resumed = unpack(pack(result.state))
        assert isinstance(resumed, AnalysisState)
        state = resumed
    assert result is not None
    return result


def test_requests_that_hang_hold_the_rollout_and_are_said() -> None:
    sample = every_scrape({SENT: (12, 12, 12), STABLE: (100, 100, 100)})
    (reading,) = judged(sample, errors(), until=15.0).readings
    assert (reading.state, reading.reason) == (Waiting(20), Reason.NO_TRAFFIC)
    assert reading.evidence == (
        "errors: 36 requests were sent to the canary in 10 s and none was answered; the rollout holds until one is "
        '(`noTrafficAction` is `Hold`). Query: backstop_sent_total{namespace="shop",policy="support",revision="canary"}'
    )


def test_fewer_than_twenty_may_be_under_way() -> None:
    sample = every_scrape({SENT: (6, 6, 7), STABLE: (100, 100, 100)})
    (reading,) = judged(sample, errors(action="Rollback", seconds=1), until=15.0).readings
    assert (reading.state, reading.reason) == (Waiting(20), Reason.WAITING_FOR_SAMPLES)


@pytest.mark.parametrize(("outcome", "reason"), [("cancelled", Reason.NO_TRAFFIC), ("caller_error", Reason.WAITING_FOR_SAMPLES)])
def test_a_caller_that_leaves_has_no_answer_and_one_that_is_told_its_own_mistake_has(outcome: str, reason: Reason) -> None:
    sample = every_scrape({SENT: (30, 30, 30), served(outcome): (0, 30, 30), STABLE: (1, 1, 1)})
    assert judged(sample, errors(), until=15.0).readings[0].reason == reason


def test_requests_that_hang_are_a_breach_after_the_declared_time_and_not_before() -> None:
    sample = every_scrape({SENT: (30,) * 20, STABLE: (100,) * 20})
    objective = errors(action="Rollback", seconds=60)
    (before,) = judged(sample, objective, until=60.0).readings
    assert (before.state, before.reason) == (Waiting(20), Reason.NO_TRAFFIC)
    assert "that is a breach after 60 s (`noTrafficSeconds`)" in before.evidence
    (after,) = judged(sample, objective, until=65.0).readings
    assert (after.state, after.reason) == (Breached(since=5.0), Reason.NO_TRAFFIC)
    assert "390 requests were sent to the canary in 60 s and none was answered" in after.evidence


def test_one_answer_ends_the_silence() -> None:
    answers = (0,) * 10 + (1,) + (0,) * 9
    sample = every_scrape({SENT: (30,) * 20, served("success"): answers, STABLE: (100,) * 20})
    objective = errors(action="Rollback", seconds=60)
    (reading,) = judged(sample, objective, until=100.0).readings
    assert (reading.state, reading.reason) == (Waiting(19), Reason.NO_TRAFFIC)
    assert "270 requests were sent to the canary in 40 s" in reading.evidence


def test_a_canary_that_stops_to_answer_after_a_healthy_beginning_holds_too() -> None:
    sample = every_scrape({SENT: (50,) * 6, served("success"): (50, 50, 50, 0, 0, 0), STABLE: (100,) * 6})
    assert judged(sample, errors(), until=15.0).readings[0].state == Healthy()
    (reading,) = judged(sample, errors(), until=30.0).readings
    assert (reading.state, reading.reason) == (Waiting(1), Reason.NO_TRAFFIC)


@pytest.mark.parametrize("action", ["Hold", "Rollback"])
def test_a_canary_that_stops_to_answer_with_too_little_evidence_against_it_is_rolled_back_where_that_is_asked_for(action: str) -> None:
    counts = {SENT: (50,) * 9, served("success"): (50, 46) + (0,) * 7, served("error"): (0, 4) + (0,) * 7, STABLE: (500,) * 9}
    objective = errors(action=action, seconds=20)
    before = judged(every_scrape(counts), objective, until=10.0).readings[0]
    assert isinstance(before.state, Breaching)
    after = judged(every_scrape(counts), objective, until=45.0).readings[0]
    assert (type(after.state), after.reason) == ((Breached, Reason.NO_TRAFFIC) if action == "Rollback" else (Breaching, before.reason))


def test_another_step_begins_without_a_silence() -> None:
    sample = every_scrape({SENT: (30,) * 3, STABLE: (100,) * 3})
    state = judged(sample, errors(), until=15.0).state
    later = evaluate(sample, policy=live_policy(errors(), since=15.0, state=state), now=16.0, scrape_interval=INTERVAL)
    assert later.readings[0].reason is Reason.WAITING_FOR_SAMPLES


def test_while_too_few_are_answered_it_is_said_how_long_that_takes_at_this_weight() -> None:
    sample = every_scrape({SENT: (2, 2, 2), served("success"): (2, 2, 2), STABLE: (38, 38, 38)})
    (reading,) = judged(sample, errors(), until=15.0, share=0.05).readings
    assert "needs 14 more canary requests in this step, about 35 s at 5 % of 8 requests a second. Query: " in reading.evidence


def test_while_none_come_at_all_it_is_said_how_many_were_to_be_expected() -> None:
    sample = every_scrape({SENT: (0, 0, 0), STABLE: (40, 40, 40)})
    (reading,) = judged(sample, errors(), until=15.0, share=0.05).readings
    assert "needs 20 more canary requests in this step, where about 6 were to be expected by now at 5 %. Query: " in reading.evidence


@pytest.mark.parametrize(("required", "state"), [(True, "Unknown"), (False, "Waiting")])
def test_own_counters_that_are_not_there_hold_only_what_requires_them(required: bool, state: str) -> None:
    slo = SLO.model_validate({"name": "own", "promQL": {"bad": "a", "total": "b"}, "maxPercent": "1", "required": required})
    result = evaluate(NoData("There are none."), policy=live_policy(objective_of(slo)), now=5.0, scrape_interval=INTERVAL)
    assert type(result.readings[0].state).__name__ == state
    assert result.readings[0].evidence.startswith("There are none")


def test_what_cannot_be_read_is_unknown_whether_it_is_required_or_not() -> None:
    for objective in (own_objective(required=False), errors_objective()):
        result = evaluate(ProviderError("It is down."), policy=live_policy(objective), now=5.0, scrape_interval=INTERVAL)
        assert result.readings[0].state == Unknown("It is down.")
