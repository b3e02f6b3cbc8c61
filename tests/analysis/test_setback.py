"""Clocks that were ahead while requests were counted, and are set back: counting goes on at once, and no request is counted twice."""

from dataclasses import replace

import pytest

from backstop.analysis.ahead import AHEAD_SECONDS, look_until
from backstop.analysis.evaluation import evaluate, newest_samples
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.policy import Evaluation, LivePolicy, Told
from backstop.analysis.queries import plan_queries, window_seconds
from backstop.analysis.reading import Breached, Breaching, Healthy, Unknown
from backstop.analysis.samples import Counter, NoData, ProviderError, Sample, Series
from backstop.analysis.state import AnalysisState, WantedHistory, pack, unpack
from backstop.analysis.tick import Question, answered
from backstop.api.fallbackpolicy import SLO, EvaluationRule
from backstop.api.reasons import Reason
from tests.analysis.history import errors_objective, live_policy, own_objective
from tests.analysis.test_queries import DEFAULT

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
        "What was counted last is of 3599 s from now by the operator's clock, so clocks were set back; "
        "requests are counted anew from now on."
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


# -- what sources do with samples of a time to come

AHEAD, LATER = 300.0, 500


class Store:
    """Scrapes every 5 s, by a clock that was ahead from 30 to 100 s on. What it does with those of then when that is set back is its kind.

    `wiped`: they are deleted; `strict`: nothing older than they are is taken; `lenient`: they stay, and what comes stands among them.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.scrapes: dict[float, float] = {}  # when a scrape is said to have been → when it was

    def scrape(self, second: float) -> None:
        ahead = 30 < second <= 100
        stamp = second + (AHEAD if ahead else 2.0 if second > 100 else 0.0)
        if self.kind != "strict" or stamp > max(self.scrapes, default=0.0):
            self.scrapes[stamp] = second

    def set_back(self) -> None:
        if self.kind == "wiped":
            self.scrapes.clear()

    def answer(self, *, after: float, until: float) -> Sample | NoData:
        seen = [(stamp, at) for stamp, at in sorted(self.scrapes.items()) if after < stamp <= until]
        if not seen:
            return NoData("It has no samples.")
        counters = [Counter("backstop_served_total", revision, "miss", "success", "answered") for revision in ("canary", "stable")]
        return Sample(tuple(Series("pod", one, tuple((START + stamp, 10 * at) for stamp, at in seen)) for one in counters))


@pytest.mark.parametrize("kind", ["wiped", "strict", "lenient"])
def test_no_request_is_counted_twice_whatever_becomes_of_what_was_scraped_ahead_of_time(kind: str) -> None:
    store, state, unknown, said = Store(kind), AnalysisState(), list[int](), set[str]()
    for second in range(LATER):
        if second == 101:
            store.set_back()
        if second % 5 == 0:
            store.scrape(float(second))
        if second < 12:
            continue
        now = second + (AHEAD if 30 < second <= 100 else 0.0)
        policy = live_policy(SEQUENTIAL, since=START + 10, state=state)
        if (minute := look_until(state, now=START + now)) is not None:
            fetched = store.answer(after=minute - START - 80, until=minute - START)
        else:
            seconds = window_seconds(policy, now=START + now, scrape_interval=INTERVAL)
            fetched = store.answer(after=now - 2 * seconds, until=now)
        result = evaluate(fetched, policy=policy, now=START + now, scrape_interval=INTERVAL)
        state = result.state
        if isinstance(result.readings[0].state, Unknown) and result.readings[0].reason is Reason.CLOCK_SET_BACK:
            unknown.append(second)
            said.add(result.readings[0].evidence.partition(": ")[2])
    assert state.block_end is not None
    assert state.block_end == START + 497
    # From the scrape at 10 s on; the last one before the clock went ahead is out of reach then.
    everything = 10 * (495 - 10) - 10 * 5
    if kind == "wiped":
        assert unknown == [101]
        assert state.step_requests == everything - 10 * 5, "what came between the last scrape of then and the first of now"
    else:
        assert unknown == list(range(101, 370)), "and that is said all the while"
        assert said == {"nothing can be counted before that time comes, unless the operator's clock is set, or they are deleted there."}
        assert state.step_requests == everything


def test_that_the_newest_samples_are_those_of_before_is_no_reason_to_say_nothing() -> None:
    state = counted(SEQUENTIAL)
    kept = shown(seconds=100.0, ahead=HOUR)
    question = Question(live_policy(SEQUENTIAL, since=START + 10, state=state), seen=newest_samples(kept))
    found = answered(question, fetched=kept, asked=START + 101, now=START + 101, interval=INTERVAL).found
    assert isinstance(found, Evaluation)
    assert found.readings[0].reason is Reason.CLOCK_SET_BACK


def test_what_is_asked_then_is_whether_the_source_has_samples_of_then() -> None:
    state = counted(SEQUENTIAL)
    policies = [replace(live_policy(one, state=state), name=name) for one, name in ((SEQUENTIAL, "a"), (own_objective(), "b"))]
    queries = plan_queries(policies, sources={"default": DEFAULT}, now=START + 101)
    minute = look_until(state, now=START + 101)
    assert minute is not None
    assert START + HOUR + 100 <= minute < START + HOUR + 160
    assert [query.promql.rpartition("[")[2] for query in queries] == [f"80s] @ {minute}", f"80s] @ {minute}", f"90s] @ {minute}"]
    assert not any("@" in query.promql for query in plan_queries(policies, sources={"default": DEFAULT}, now=START + HOUR + 101))


def test_history_that_is_still_wanted_is_asked_for_again_in_time() -> None:
    state = counted(SEQUENTIAL)
    kept = state.objectives[SEQUENTIAL.fingerprint]
    wanted = WantedHistory(before=START + HOUR, failed=1, again=START + HOUR + 130)
    state = replace(state, objectives={SEQUENTIAL.fingerprint: replace(kept, history=wanted)})
    for second in (101.0, 102.0):
        result = after(second, state=state, objective=SEQUENTIAL, ahead=0.0)
        state = result.state
    policy: LivePolicy = live_policy(SEQUENTIAL, since=START + 10, state=result.state)
    assert policy.wants_history
    result = evaluate(shown(seconds=106.0, ahead=0.0, kept=700.0), policy=policy, now=START + 106, scrape_interval=INTERVAL)
    assert result.state.objectives[SEQUENTIAL.fingerprint].history is None
