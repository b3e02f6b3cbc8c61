"""The rule for means: when it fires, that it hardly ever does without cause, what it says and remembers."""

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstop.analysis.reading import Breached, Breaching, Healthy
from backstop.analysis.rule import Verdict
from backstop.analysis.sequential.mean import Mean, MeanBlock, MeanState, Sum, from_numbers, to_numbers
from backstop.analysis.sequential.meanwords import explained
from backstop.analysis.sequential.risk import Risk
from bench.analysis import streams
from bench.analysis.judges import OurMeans
from bench.analysis.streams import Truth

PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
TARGET = 0.02


def rule(*, for_seconds: int = 0, target: float = TARGET, planned: int = 360) -> Mean:
    return Mean(target=target, for_seconds=for_seconds, risk=Risk(share=0.005, tests=1), planned_blocks=planned)


def blocks(means: Iterable[float], *, requests: int = 50, stable: float | None = 0.012, start: float = 0.0) -> list[MeanBlock]:
    beside = Sum() if stable is None else Sum(amount=stable * 450, requests=450)
    return [
        MeanBlock(start=start + 5 * i, end=start + 5 * i + 5, canary=Sum(amount=mean * requests, requests=requests), stable=beside)
        for i, mean in enumerate(means)
    ]


def after(judge: Mean, stream: Iterable[MeanBlock], *, state: MeanState | None = None) -> MeanState:
    state = judge.start() if state is None else state
    for block in stream:
        state = judge.observe(state, block=block)
    return state


def verdicts(judge: Mean, stream: Iterable[MeanBlock]) -> list[Verdict]:
    found, state = [], judge.start()
    for block in stream:
        state = judge.observe(state, block=block)
        found.append(judge.judge(state))
    return found


def breached_at(judge: Mean, stream: list[MeanBlock]) -> float | None:
    return next((b.end for b, v in zip(stream, verdicts(judge, stream), strict=True) if isinstance(v, Breached)), None)


def test_three_times_the_target_is_decided_in_a_good_minute_and_dated_to_its_beginning() -> None:
    stream = blocks([0.015] * 40 + [0.06] * 20)
    at = breached_at(rule(), stream)
    assert at is not None
    assert 250 < at <= 280
    assert Breached(since=205.0) in verdicts(rule(), stream)


def test_a_mean_at_the_target_is_not_rolled_back_however_it_is_compared_with_stable() -> None:
    assert breached_at(rule(), blocks([0.01, 0.03] * 500)) is None


@pytest.mark.long
@pytest.mark.parametrize("planned", [4, 360])
def test_the_mean_of_the_evidence_is_at_most_one_however_skewed_requests_are(planned: int) -> None:
    # All streams of ten blocks at the target: nineteen times of twenty nothing, and once twenty times the target; whatever ended them.
    for judge in (rule(planned=planned), rule(planned=planned, for_seconds=5)):
        total = 0.0
        for stream in product((0, 20 * TARGET), repeat=10):
            large = sum(mean > 0 for mean in stream)
            total += 0.05**large * 0.95 ** (10 - large) * math.exp(judge.evidence(after(judge, blocks(stream))))
        assert 0.1 < total <= 1 + 1e-9


@pytest.mark.long
def test_skewed_costs_at_the_target_fire_in_one_of_two_hundred_streams_at_most() -> None:
    # Lognormal with σ = 1.5: the mean is three times the median. 300 streams of half an hour: at 0.5 % six or more are one in 500.
    rng = random.Random(3)
    judge, scale = rule(), TARGET / math.exp(1.5**2 / 2)
    fired = 0
    for _ in range(300):
        means = [sum(scale * math.exp(1.5 * rng.gauss(0, 1)) for _ in range(5)) / 5 for _ in range(360)]
        fired += breached_at(judge, blocks(means, requests=5)) is not None
    assert fired <= 5


def test_with_seconds_a_breach_must_last_and_one_dear_request_is_none() -> None:
    judge = rule(for_seconds=30)
    assert breached_at(judge, blocks([0.015] * 20 + [0.2] * 20)) == 135.0
    assert breached_at(judge, blocks([0.015] * 20 + [0.2] * 5 + [0.015] * 20)) is None
    assert breached_at(judge, blocks([0.015] * 20 + [20.0] + [0.015] * 40)) is None
    over = after(judge, blocks([0.06] * 5 + [0.005] * 20))
    assert judge.evidence(over) <= 0
    assert over.episode is None


def test_after_a_breach_that_is_over_a_later_one_is_found_beyond_the_plan() -> None:
    judge = rule(for_seconds=30, planned=40)
    stream = blocks([0.015] * 60 + [0.06] * 5 + [0.015] * 200 + [0.1] * 10)
    at = breached_at(judge, stream)
    assert at is not None
    assert at <= stream[-1].end


def test_an_incident_that_stable_shares_is_held_and_without_stable_it_is_only_suspected() -> None:
    shared = verdicts(rule(), blocks([0.2] * 5, stable=0.2))
    assert not any(isinstance(one, Breached) for one in shared)
    assert shared[-1] == Breaching(since=5.0, shared=True)
    assert verdicts(rule(), blocks([0.2] * 5, stable=None))[-1] == Breached(since=5.0, suspected=True)
    assert verdicts(rule(), blocks([0.2] * 5))[-1] == Breached(since=5.0)


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf, -1.0])
def test_a_sum_that_is_no_amount_says_nothing(amount: float) -> None:
    odd = MeanBlock(start=10, end=15, canary=Sum(amount=amount, requests=50), stable=Sum(amount=amount, requests=450))
    empty = MeanBlock(start=10, end=15, canary=Sum(), stable=Sum())
    before = blocks([0.06] * 2)
    assert after(rule(), [*before, odd]) == after(rule(), [*before, empty])
    assert verdicts(rule(), [odd]) == [Healthy()]


def test_a_target_of_nothing_is_broken_by_anything_and_only_by_that() -> None:
    assert breached_at(rule(target=0.0), blocks([0.0] * 20, stable=0.0)) is None
    assert breached_at(rule(target=0.0), blocks([1e-6], stable=0.0)) == 5.0


def test_a_gap_ends_a_breach() -> None:
    judge = rule(for_seconds=30)
    first, then = blocks([0.06] * 4), blocks([0.06] * 4, start=20.0)
    gap = MeanBlock(start=then[0].start, end=then[0].end, canary=then[0].canary, stable=then[0].stable, after_gap=True)
    assert breached_at(judge, [*first, *then]) is not None
    assert breached_at(judge, [*first, gap, *then[1:]]) is None


def test_the_sentences_have_all_figures() -> None:
    judge = rule()
    stream = blocks([0.06] * 8, start=1_000_000.0)
    open_, closed = after(judge, stream[:2]), after(judge, stream)
    text = explained("cost", unit="USD", rule=judge, state=closed, verdict=judge.judge(closed), now=1_000_040.0)
    assert text.startswith(
        "cost: 0.06 USD per request over 400 canary requests (allowed 0.02) against 0.012 USD per request over 3,600 on stable; "
    )
    assert "≥ 200 (false-rollback risk of the whole rollout ≤ 0.5 %); began ≈ 1970-01-12T13:46:45.000Z, 35 s before the decision" in text
    waits = explained("cost", unit="USD", rule=judge, state=open_, verdict=Breaching(since=1_000_005.0), now=1_000_010.0)
    blocks_needed = judge.blocks_needed(open_)
    assert blocks_needed is not None
    assert waits.endswith(f"; needs ≈ {50 * blocks_needed:,} more requests (≈ {5 * blocks_needed} s) like these")


@pytest.mark.parametrize(("mean", "stable"), [(0.06, 0.012), (0.03, None), (0.03, 0.026), (0.04, 0.03)])
@pytest.mark.parametrize("seen", [1, 3, 8])
def test_the_requests_that_are_said_to_be_missing_are_as_many_as_it_takes(mean: float, stable: float | None, seen: int) -> None:
    judge = rule()
    (block,) = blocks([mean], stable=stable)
    state = after(judge, [block] * seen)
    said, taken = judge.blocks_needed(state), 0
    while judge.evidence(state) < judge.risk.ln_threshold:
        state = judge.observe(state, block=block)
        taken += 1
    assert said == (pytest.approx(taken, rel=0.03, abs=1) if taken else None)


def waiting(judge: Mean, stream: list[MeanBlock]) -> str:
    state = after(judge, stream)
    verdict = judge.judge(state)
    assert isinstance(verdict, Breaching)
    return explained("cost", unit="USD", rule=judge, state=state, verdict=verdict, now=stream[-1].end)


def test_no_number_of_requests_is_promised_to_decide_what_never_does() -> None:
    # Stable is over the target of 0.02, too: the canary is bet against 0.0264.
    stream = blocks([0.026] * 40, stable=0.024)
    for count in (1, 3, 20, 40):
        assert "needs" not in waiting(rule(for_seconds=30), stream[:count])
    evidence = [rule().evidence(after(rule(), stream[:count])) for count in (3, 20, 40)]
    assert evidence == sorted(evidence, reverse=True), "it falls"


def test_a_breach_that_must_last_says_how_long_it_has_and_what_is_missing() -> None:
    judge = rule(for_seconds=30)
    stream = blocks([0.06] * 3)
    missing = judge.blocks_needed(after(judge, stream))
    assert missing is not None
    assert waiting(judge, stream).endswith(
        "; since 1970-01-01T00:00:05.000Z, 10 of the 30 s that it must last; "
        f"needs ≈ {50 * missing} more requests (≈ {5 * missing} s) like these"
    )
    assert waiting(judge, stream[:1]).endswith(" more requests like these"), "of one block nobody knows how long it took"


def test_evidence_that_outlives_the_breach_is_said_to_be_of_before() -> None:
    judge = rule()
    (fine,) = blocks([0.01], start=60.0)
    stream = [*blocks([0.06] * 12), MeanBlock(start=60.0, end=65.0, canary=fine.canary, stable=fine.stable, after_gap=True)]
    state = after(judge, stream)
    assert isinstance(judge.judge(state), Breached)
    text = explained("cost", unit="USD", rule=judge, state=state, verdict=judge.judge(state), now=65.0)
    assert text.endswith("; won by requests before these")


AMOUNTS = st.one_of(st.sampled_from([0.0, 1e-9, 1e18]), st.floats(0, 1e6))


@PATIENT
@given(st.lists(st.tuples(AMOUNTS, st.integers(0, 10**9), st.booleans()), max_size=30), st.sampled_from([0, 30]))
def test_whatever_comes_in_there_is_a_verdict_and_a_bounded_state_that_can_be_kept(
    stream: list[tuple[float, int, bool]], for_seconds: int
) -> None:
    judge = rule(for_seconds=for_seconds)
    state = judge.start()
    for index, (amount, requests, gap) in enumerate(stream):
        arm = Sum(amount=amount, requests=requests)
        state = judge.observe(state, block=MeanBlock(start=5.0 * index, end=5.0 * index + 5, canary=arm, stable=arm, after_gap=gap))
        assert explained("cost", unit="USD", rule=judge, state=state, verdict=judge.judge(state), now=1e9).startswith("cost: ")
    numbers = to_numbers(state, origin=1000.0)
    assert len(numbers) <= 33
    assert from_numbers(numbers, origin=1000.0) == state


@pytest.mark.parametrize("numbers", [[], [1.0] * 20, [1.0] * 27, [math.nan] * 33, [math.inf] * 26])
def test_what_cannot_have_been_written_is_refused(numbers: list[float]) -> None:
    with pytest.raises(ValueError):
        from_numbers(numbers, origin=0.0)


# -- incidents that stable shares


def together(means: Iterable[tuple[float, float]], *, requests: int = 50) -> list[MeanBlock]:
    """Blocks of a canary and of a stable that come to these means, nine requests on stable for each of the canary's."""
    return [
        MeanBlock(start=5.0 * i, end=5.0 * i + 5, canary=Sum(mine * requests, requests), stable=Sum(theirs * 9 * requests, 9 * requests))
        for i, (mine, theirs) in enumerate(means)
    ]


def test_an_incident_that_both_share_rolls_no_canary_back_however_it_falls() -> None:
    # Half as dear again for five minutes, in requests that vary as costs do. By a race of two tests against the target it is every third.
    def share(t: float) -> float:
        return 1.5 if 300.0 <= t < 600.0 else 0.8

    runs = [streams.stream(Truth(share, share, shape=0.5), rate=rate, seconds=1200, seed=f"{s}") for rate in (10, 100) for s in range(10)]
    assert [OurMeans(1.0)(run) for run in runs] == [None] * 20


def test_a_shared_incident_is_held_and_said_while_it_lasts_and_not_held_against_the_canary_afterwards() -> None:
    judge = rule()
    found = verdicts(judge, together([(0.015, 0.015)] * 20 + [(0.05, 0.048)] * 20 + [(0.015, 0.015)] * 40))
    assert not any(isinstance(one, Breached) for one in found)
    assert found[39] == Breaching(since=105.0, shared=True)
    assert set(found[40:]) == {Healthy()}


def test_a_canary_far_dearer_than_a_stable_that_is_over_the_target_too_is_rolled_back() -> None:
    at = breached_at(rule(), together([(0.015, 0.015)] * 20 + [(0.12, 0.024)] * 20))
    assert at is not None
    assert at <= 160


@PATIENT
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=30))
def test_what_stable_comes_to_never_adds_to_the_evidence(means: list[tuple[float, float]]) -> None:
    judge = rule(target=1.0)
    beside = after(judge, together(means))
    alone = after(judge, [replace(block, stable=Sum()) for block in together(means)])
    assert judge.evidence(beside) <= judge.evidence(alone) + 1e-9
