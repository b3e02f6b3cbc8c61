"""Clocks that were ahead while requests were counted, and are set back: counting goes on at once, and no request is counted twice."""

from dataclasses import replace

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.policy import Evaluation, LivePolicy, Told
from backstop.analysis.reading import Breached, Breaching, Healthy, Unknown
from backstop.analysis.samples import Counter, ProviderError, Sample, Series
from backstop.analysis.setback import AHEAD_SECONDS
from backstop.analysis.state import AnalysisState, WantedHistory, pack, unpack
from backstop.api.fallbackpolicy import SLO, EvaluationRule
from backstop.api.reasons import Reason
from tests.analysis.history import errors_objective, live_policy

INTERVAL = 5.0
HOUR = 3600.0
START = 1_763_000_000.0
SEQUENTIAL = errors_objective(percent="5", evaluation=EvaluationRule.SEQUENTIAL)
LASTING = errors_objective(percent="5", for_seconds=30, evaluation=EvaluationRule.SEQUENTIAL)
THRESHOLD = errors_objective(percent="5", for_seconds=30)
TOKENS = objective_of(SLO(name="tokens", indicator="TokensPerRequest", maxTokensPerRequest="500", forSeconds=30))
EACH = [SEQUENTIAL, LASTING, THRESHOLD, TOKENS]
PER_SCRAPE = 50  # requests of each arm


def shown(*, seconds: float, ahead: float, bad_from: float = 1e9, of_stable_too: bool = False, kept: float = 60.0) -> Sample:
    """What a source shows after so many seconds, with its clock that far ahead: scrapes of the last `kept` seconds, every 5 s."""
    scrapes = [INTERVAL * i for i in range(int(seconds / INTERVAL) + 1) if INTERVAL * i > seconds - kept]
    points: dict[Counter, list[tuple[float, float]]] = {}
    for at in scrapes:
        before = min(at, bad_from)
        for revision in ("canary", "stable"):
            fails = revision == "canary" or of_stable_too
            good, bad = (10 * before, 10 * (at - before)) if fails else (10 * at, 0.0)
            counts = {
                Counter("backstop_sent_total", revision): good + bad,
                Counter("backstop_served_total", revision, "miss", "success", "answered"): good,
                Counter("backstop_served_total", revision, "miss", "error", "answered"): bad,
                Counter("backstop_served_usage_total", revision, type="known", target="t"): good + bad,
                Counter("backstop_served_tokens_total", revision, type="output", target="t"): 300 * good + 5000 * bad,
            }
            for counter, value in counts.items():
                points.setdefault(counter, []).append((START + at + ahead, value))
    return Sample(tuple(Series("pod", counter, tuple(found)) for counter, found in points.items()))


def after(
    seconds: float, *, state: AnalysisState, objective: Objective, ahead: float, bad_from: float = 1e9, of_stable_too: bool = False
) -> Evaluation:
    """The evaluation so many seconds after the beginning of the step, which is judged since then, by clocks that far ahead."""
    policy = replace(live_policy(objective, since=START + 10, state=state), planned_seconds=300.0)
    fetched = shown(seconds=seconds, ahead=ahead, bad_from=bad_from, of_stable_too=of_stable_too)
    return evaluate(fetched, policy=policy, now=START + seconds + ahead, scrape_interval=INTERVAL)


def counted(objective: Objective, *, until: float = 100.0, ahead: float = HOUR, bad_from: float = 1e9) -> AnalysisState:
    """The state after so many seconds, an evaluation each, as a restart reads it back; of 30 s by clocks that are right."""
    state = AnalysisState()
    for second in range(12, int(until) + 1):
        by = ahead if second > 30 else 0.0
        state = after(float(second), state=state, objective=objective, ahead=by, bad_from=bad_from).state
    kept = unpack(pack(state))
    assert isinstance(kept, AnalysisState)
    return kept


@pytest.mark.parametrize("objective", EACH, ids=["at once", "lasting", "threshold", "mean"])
def test_counting_goes_on_with_the_first_scrape_and_no_request_is_counted_twice(objective: Objective) -> None:
    state = counted(objective)
    known = state.step_requests
    told: list[tuple[Reason, bool]] = []
    for second in range(101, 122):
        result = after(float(second), state=state, objective=objective, ahead=0.0)
        (reading,) = result.readings
        told.append((reading.reason, isinstance(reading.state, Unknown)))
        state = result.state
    assert told[0] == (Reason.CLOCK_SET_BACK, True)
    assert told[1:] == [(Reason.METRICS_AVAILABLE, False)] * 20
    # Counted on from the scrape at 105 s: those at 110, 115 and 120 s.
    assert state.step_requests - known == 3 * PER_SCRAPE
    assert state.block_end == START + 120
    assert max(state.watermarks.values()) == START + 120


def test_what_is_said_once_is_by_how_much() -> None:
    (reading,) = after(101.0, state=counted(SEQUENTIAL), objective=SEQUENTIAL, ahead=0.0).readings
    assert reading.evidence == (
        "What was counted last is of 3599 s from now, so clocks were set back; requests are counted anew from now on."
    )
    assert reading.state == Unknown(reading.evidence)


def test_it_is_news_whatever_was_told_before() -> None:
    state = counted(SEQUENTIAL)
    before = after(101.0, state=state, objective=SEQUENTIAL, ahead=HOUR)
    policy = live_policy(SEQUENTIAL, since=START + 10, state=state)
    told = Told(tuple(one.standing for one in before.readings), until=START + HOUR + 130)
    fetched = shown(seconds=101.0, ahead=0.0)
    assert evaluate(fetched, policy=policy, now=START + 101, scrape_interval=INTERVAL, told=told).readings


@pytest.mark.parametrize(("objective", "at_most"), [(SEQUENTIAL, 15.0), (LASTING, 45.0), (THRESHOLD, 45.0), (TOKENS, 45.0)])
def test_a_failure_that_begins_then_is_found_as_soon_as_ever(objective: Objective, at_most: float) -> None:
    state = counted(objective)
    for second in range(101, 200):
        result = after(float(second), state=state, objective=objective, ahead=0.0, bad_from=101.0)
        state = result.state
        if isinstance(result.readings[0].state, Breached):
            break
    assert second <= 101 + at_most


@pytest.mark.parametrize("objective", [LASTING, THRESHOLD, TOKENS], ids=["lasting", "threshold", "mean"])
def test_a_failure_that_had_begun_has_lasted_from_then_on(objective: Objective) -> None:
    state = counted(objective, until=100.0, bad_from=81.0)
    lasting: list[float] = []
    for second in range(101, 150):
        result = after(float(second), state=state, objective=objective, ahead=0.0, bad_from=81.0)
        state, verdict = result.state, result.readings[0].state
        if isinstance(verdict, Breaching | Breached):
            assert START + 100 <= verdict.since <= START + second
        if isinstance(verdict, Breached):
            lasting.append(second)
    assert lasting
    # The first block that is counted again ends at 110 s.
    assert lasting[0] == 140


def test_evidence_of_before_decides_alone_no_sooner_than_it_would_have() -> None:
    """With an incident that stable shares: what the limit lost by it would be held against the canary alone."""
    state = AnalysisState()
    for second in range(12, 101):
        of = after(float(second), state=state, objective=SEQUENTIAL, ahead=HOUR, bad_from=60.0, of_stable_too=True)
        state = of.state
    assert isinstance(of.readings[0].state, Breaching)
    for second in range(101, 160):
        result = after(float(second), state=state, objective=SEQUENTIAL, ahead=0.0, bad_from=60.0, of_stable_too=True)
        state = result.state
        assert not isinstance(result.readings[0].state, Breached)


def test_clocks_that_differ_by_less_move_nothing() -> None:
    state = counted(SEQUENTIAL, ahead=AHEAD_SECONDS - 1)
    result = after(101.0, state=state, objective=SEQUENTIAL, ahead=0.0)
    assert isinstance(result.readings[0].state, Healthy)
    assert result.state.watermarks == state.watermarks


def test_as_long_as_the_source_does_not_answer_the_state_stays_as_it_is() -> None:
    state = counted(SEQUENTIAL)
    policy = live_policy(SEQUENTIAL, since=START + 10, state=state)
    result = evaluate(ProviderError("It is down."), policy=policy, now=START + 101, scrape_interval=INTERVAL)
    assert result.readings[0].state == Unknown("It is down.")
    assert result.state == state


def test_history_that_is_still_wanted_is_asked_for_again_in_time() -> None:
    state = counted(SEQUENTIAL)
    kept = state.objectives[SEQUENTIAL.fingerprint]
    wanted = WantedHistory(before=START + HOUR, failed=1, again=START + HOUR + 130)
    state = replace(state, objectives={SEQUENTIAL.fingerprint: replace(kept, history=wanted)})
    result = after(101.0, state=state, objective=SEQUENTIAL, ahead=0.0)
    policy: LivePolicy = live_policy(SEQUENTIAL, since=START + 10, state=result.state)
    assert policy.wants_history
    result = evaluate(shown(seconds=106.0, ahead=0.0, kept=700.0), policy=policy, now=START + 106, scrape_interval=INTERVAL)
    assert result.state.objectives[SEQUENTIAL.fingerprint].history is None
