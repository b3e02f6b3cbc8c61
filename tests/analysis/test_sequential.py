"""Properties of the sequential tests: what must hold for any stream."""

import math
import random
from collections.abc import Iterable
from itertools import pairwise, product

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backstop.analysis.sequential.betting import LN_STAKE_WEIGHTS, log_bets, log_bets_at
from backstop.analysis.sequential.bursts import (
    Bursts,
    Succession,
    correlation,
    design_effect,
    duration,
    thinned,
    with_pod_block,
    with_share,
)
from backstop.analysis.sequential.coarse import significant
from backstop.analysis.sequential.likelihood import log_mixture, log_ratios
from backstop.analysis.sequential.logspace import log_mean, log_sum
from backstop.analysis.sequential.odds import BETTER, LN_WORSE_WEIGHTS, WORSE, share_at
from backstop.analysis.sequential.promotion import (
    Promotion,
    clean_needed,
    growth_against_limit,
    log_point,
    log_promotion,
    more_needed,
    with_evidence,
)
from backstop.analysis.sequential.relative import Relative, compared, given_up, log_relative, with_pair
from backstop.analysis.sequential.restarts import idle_weight, log_value, settled, started, with_block
from backstop.analysis.sequential.risk import Risk
from backstop.analysis.sequential.twosample import Pair, log_e, projected

PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
EQUAL = tuple(-math.log(len(WORSE)) for _ in WORSE)
SHARES = st.one_of(st.sampled_from([0.0, 1.0, 1e-9, 0.01, 0.5]), st.floats(0, 1))
INNER = st.floats(1e-6, 1 - 1e-6)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    total = draw(st.one_of(st.sampled_from([0, 1, 10**18]), st.integers(0, 10**6)))
    return draw(st.one_of(st.sampled_from([0, total]), st.integers(0, total))), total


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    (k_c, n_c), (k_s, n_s) = draw(counts()), draw(counts())
    return Pair(canary_bad=k_c, canary_total=n_c, stable_bad=k_s, stable_total=n_s)


def bernoulli_mean(share: float, *, if_bad: float, if_good: float) -> float:
    """Mean of a figure that one request multiplies evidence by."""
    return share * if_bad + (1 - share) * if_good


@PATIENT
@given(counts(), SHARES)
def test_evidence_of_requests_is_a_number_whatever_is_counted(block: tuple[int, int], allowed: float) -> None:
    for multipliers in (WORSE, BETTER):
        assert math.isfinite(log_mixture(bad=block[0], total=block[1], allowed=allowed, multipliers=multipliers))


def test_a_limit_of_everything_is_never_broken_and_one_of_nothing_by_any_bad_request() -> None:
    assert log_mixture(bad=1000, total=1000, allowed=1.0) <= 1e-9
    assert log_mixture(bad=1, total=1000, allowed=0.0) > math.log(1000)
    assert log_mixture(bad=0, total=1000, allowed=0.0) == pytest.approx(0.0)


@PATIENT
@given(INNER, st.sampled_from(WORSE))
def test_one_request_has_a_mean_of_one_at_the_limit_and_less_below_it(allowed: float, multiplier: float) -> None:
    bad, good = (math.exp(log_ratios(bad=k, total=1, allowed=allowed, multipliers=[multiplier])[0]) for k in (1, 0))
    assert bernoulli_mean(allowed, if_bad=bad, if_good=good) == pytest.approx(1.0)
    assert bernoulli_mean(allowed / 2, if_bad=bad, if_good=good) < 1.0


@PATIENT
@given(INNER, st.sampled_from(BETTER))
def test_for_promotion_one_request_has_a_mean_of_one_at_the_limit_and_less_above_it(allowed: float, multiplier: float) -> None:
    bad, good = (math.exp(log_ratios(bad=k, total=1, allowed=allowed, multipliers=[multiplier])[0]) for k in (1, 0))
    assert bernoulli_mean(allowed, if_bad=bad, if_good=good) == pytest.approx(1.0)
    assert bernoulli_mean((1 + allowed) / 2, if_bad=bad, if_good=good) < 1.0


@PATIENT
@given(st.floats(0, 1e12), st.one_of(st.just(0.0), st.floats(1e-9, 1e9)))
def test_a_bet_is_a_number_and_never_loses_more_than_the_stake(mean: float, limit: float) -> None:
    bets = log_bets(mean=mean, limit=limit)
    assert all(math.isfinite(bet) for bet in bets)
    assert bets[0] >= math.log(0.98) - 1e-9
    assert bets[-1] >= math.log(0.1) - 1e-9


@PATIENT
@given(INNER, st.floats(0, 1), st.floats(0, 1), st.sampled_from(WORSE))
def test_a_bet_on_the_share_of_a_block_has_a_mean_of_one_at_the_limit_however_its_requests_hang_together(
    allowed: float, low: float, high: float, multiplier: float
) -> None:
    low, high = low * allowed, allowed + high * (1 - allowed)
    often = (allowed - low) / (high - low) if high > low else 0.0
    of_low, of_high = (math.exp(log_bets_at(share=share, allowed=allowed, multipliers=[multiplier])[0]) for share in (low, high))
    assert bernoulli_mean(often, if_bad=of_high, if_good=of_low) == pytest.approx(1.0)
    one = [log_bets_at(share=k, allowed=allowed) for k in (0, 1)]
    assert one == [pytest.approx(log_ratios(bad=k, total=1, allowed=allowed), abs=1e-9) for k in (0, 1)], "a block of one request"


@pytest.mark.parametrize(
    ("number", "digits", "kept"),
    [(2.96, 2, 2.9), (-2.91, 2, -3.0), (0.079, 2, 0.0), (-0.01, 2, -0.1), (123.9, 3, 123.0), (-1239.0, 3, -1239.0), (2.5, 2, 2.5)],
)
def test_evidence_of_fewer_digits_is_never_more(number: float, digits: int, kept: float) -> None:
    assert significant(number, digits=digits) == kept


@PATIENT
@given(st.floats(-1e6, 1e6), st.integers(2, 7))
def test_fewer_digits_win_nothing_and_lose_a_digit_at_most(number: float, digits: int) -> None:
    kept = significant(number, digits=digits)
    assert kept <= number
    assert kept == pytest.approx(number, rel=10.0 ** (1 - digits), abs=10.0 ** (1 - digits))
    assert significant(kept, digits=digits) == kept


@pytest.mark.long
@PATIENT
@given(st.lists(counts().filter(lambda block: block[1] > 0), max_size=30))
def test_bets_stay_a_number_over_any_blocks(blocks: list[tuple[int, int]]) -> None:
    state = started(len(LN_STAKE_WEIGHTS))
    for bad, total in blocks:
        state = with_block(state, ln_e=log_bets(mean=bad / total, limit=0.01), planned=360)
    assert math.isfinite(log_value(state, ln_weights=LN_STAKE_WEIGHTS, planned=360))


# -- restarts


@PATIENT
@given(st.integers(1, 50))
def test_the_weights_of_all_starts_add_up_to_one_and_never_come_to_an_end(planned: int) -> None:
    idle = [idle_weight(blocks, planned=planned) for blocks in range(20 * planned)]
    assert idle[:2] == [1.0, 0.5]
    assert all(0 < later < one for one, later in pairwise(idle))
    assert idle_weight(10**6 * planned, planned=planned) < 1e-6
    starts = [one - later for one, later in pairwise(idle[1:])]
    assert all(start == pytest.approx(0.5 / planned) for start in starts[: planned // 2])
    assert all(later <= one * (1 + 1e-9) for one, later in pairwise(starts))


@PATIENT
@given(st.integers(0, 20))
def test_without_evidence_restarts_say_neither_yes_nor_no(blocks: int) -> None:
    state = started(len(WORSE))
    for _ in range(blocks):
        state = with_block(state, ln_e=[0.0] * len(WORSE), planned=10)
    assert log_value(state, ln_weights=EQUAL, planned=10) == pytest.approx(0.0)


def test_what_was_won_is_given_up_and_what_was_put_in_goes_on() -> None:
    state = started(2)
    for _ in range(4):
        state = with_block(state, ln_e=[5.0, -5.0], planned=10)
    before, state = state, settled(state, planned=10)
    assert state.ln_capital[0] == pytest.approx(math.log(1 - idle_weight(4, planned=10)))
    assert state.ln_capital[1] == before.ln_capital[1]
    assert log_value(state, ln_weights=[0.0, -math.inf], planned=10) == pytest.approx(0.0)


@pytest.mark.parametrize("planned", [1, 4, 100])
def test_however_long_it_goes_on_and_whenever_it_is_settled_the_mean_is_at_most_one(planned: int) -> None:
    # All streams of ten requests, each with its chance, at a limit of a quarter; settled after each good one that follows a bad one.
    total = 0.0
    for stream in product((0, 1), repeat=10):
        state, last = started(len(WORSE)), 0
        for bad in stream:
            state = with_block(state, ln_e=log_ratios(bad=bad, total=1, allowed=0.25), planned=planned)
            state = settled(state, planned=planned) if last > bad else state
            last = bad
        chance = 0.25 ** sum(stream) * 0.75 ** (10 - sum(stream))
        total += chance * math.exp(log_value(state, ln_weights=EQUAL, planned=planned))
    assert 0.1 < total <= 1 + 1e-9


# -- two arms


@PATIENT
@example(a=0.99999, b=0.99999, n_c=1, n_s=1, delta=1.7520437305296177e-05)
@given(INNER, INNER, st.integers(1, 10**6), st.integers(1, 10**6), st.floats(-0.5, 0.5))
def test_the_projection_is_the_nearest_point_of_the_null(a: float, b: float, n_c: int, n_s: int, delta: float) -> None:
    low, high = max(0.0, -delta), min(1.0, 1 - delta)

    def distance(s: float) -> float:
        c = s + delta
        far = n_c * (a * math.log(a / c) + (1 - a) * math.log((1 - a) / (1 - c)))
        return far + n_s * (b * math.log(b / s) + (1 - b) * math.log((1 - b) / (1 - s)))

    s = projected(a, b=b, canary_total=n_c, stable_total=n_s, delta=delta)
    assert low < s < high
    width = min(s - low, high - s) / 1000
    floor = 1e-9 * (n_c + n_s)
    assert distance(s) <= min(distance(s - width), distance(s + width)) + floor


@PATIENT
@given(INNER, st.sampled_from(WORSE[:10]), INNER, st.floats(0, 0.05), st.integers(1, 2000), st.integers(1, 2000))
def test_a_block_of_two_arms_has_a_mean_of_at_most_one_on_the_null(
    b: float, multiplier: float, true: float, delta: float, n_c: int, n_s: int
) -> None:
    stable = true * (1 - delta) * 0.999
    a = min(1 - 1e-9, share_at(multiplier, of=min(b + delta, 1 - 1e-6)))
    s = projected(a, b=b, canary_total=n_c, stable_total=n_s, delta=delta)
    canary = bernoulli_mean(stable + delta, if_bad=a / (s + delta), if_good=(1 - a) / (1 - s - delta))
    beside = bernoulli_mean(stable, if_bad=b / s, if_good=(1 - b) / (1 - s))
    assert n_c * math.log(canary) + n_s * math.log(beside) <= 1e-7 * (n_c + n_s)


@pytest.mark.long
@PATIENT
@given(st.lists(pairs(), max_size=20), SHARES, st.sampled_from([0.0, 0.001, 0.3, 1.0]))
def test_evidence_of_two_arms_is_a_number_whatever_is_counted(blocks: list[Pair], prior: float, delta: float) -> None:
    state = compared(history_bad=3, history_total=900)
    for block in blocks:
        state = with_pair(state, block=block, prior=prior, delta=delta, planned=360)
    assert math.isfinite(log_relative(state, planned=360))
    assert log_relative(given_up(state, planned=360), planned=360) <= min(1e-9, log_relative(state, planned=360) + 1e-9)


def test_a_block_without_one_of_the_arms_says_nothing() -> None:
    for n_c, n_s in ((0, 100), (100, 0), (0, 0)):
        block = Pair(canary_bad=n_c, canary_total=n_c, stable_bad=0, stable_total=n_s)
        assert log_e(block, a=0.5, b=0.01, delta=0.0) == 0.0


def after(blocks: list[Pair], *, delta: float = 0.0) -> Relative:
    state = compared(history_bad=45, history_total=9000)
    for block in blocks:
        state = with_pair(state, block=block, prior=0.01, delta=delta, planned=360)
    return state


def figures(state: Relative) -> int:
    return 2 + len(state.restarts.ln_capital) + 4


def test_the_state_is_as_large_after_a_thousand_blocks_as_after_one() -> None:
    block = Pair(canary_bad=1, canary_total=50, stable_bad=2, stable_total=450)
    one, many = after([block]), after([block] * 1000)
    assert figures(one) == figures(many) == 18
    assert len(many.restarts.ln_capital) == len(WORSE)


@pytest.mark.parametrize(("canary", "stable", "delta"), [(0.005, 0.005, 0.0), (0.006, 0.005, 0.001), (0.02, 0.02, 0.0)])
def test_the_mean_of_the_relative_evidence_on_a_null_stream_is_at_most_one(canary: float, stable: float, delta: float) -> None:
    # Of 600 streams of 12 blocks. The tolerance is 3.5 standard errors of this very sample: about one in 4,000 would be beyond.
    rng = random.Random(11)
    values = []
    for _ in range(600):
        blocks = []
        for _ in range(12):
            k_c, k_s = (sum(rng.random() < share for _ in range(n)) for share, n in ((canary, 25), (stable, 75)))
            blocks.append(Pair(canary_bad=k_c, canary_total=25, stable_bad=k_s, stable_total=75))
        values.append(math.exp(log_relative(after(blocks, delta=delta), planned=360)))
    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) / (len(values) - 1))
    assert mean <= 1 + 3.5 * error


def test_the_mean_of_the_absolute_evidence_on_a_null_stream_is_at_most_one() -> None:
    rng = random.Random(12)
    values = []
    for _ in range(1500):
        state = started(len(WORSE))
        for _ in range(12):
            bad = sum(rng.random() < 0.05 for _ in range(20))
            state = with_block(state, ln_e=log_ratios(bad=bad, total=20, allowed=0.05), planned=360)
        values.append(math.exp(log_value(state, ln_weights=EQUAL, planned=360)))
    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) / (len(values) - 1))
    assert mean <= 1 + 3.5 * error


def test_worse_of_the_canary_is_found_and_worse_of_both_is_not() -> None:
    worse = Pair(canary_bad=5, canary_total=50, stable_bad=2, stable_total=450)
    shared = Pair(canary_bad=25, canary_total=50, stable_bad=225, stable_total=450)
    assert log_relative(after([worse] * 5), planned=360) > math.log(1000)
    assert log_relative(after([shared] * 5), planned=360) < math.log(10)


# -- bursts


@PATIENT
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(50, 500)), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_the_pods_does_not_matter(blocks: list[tuple[int, int]], rng: random.Random) -> None:
    def estimated(blocks: list[tuple[int, int]]) -> float:
        sums = Bursts()
        for bad, total in blocks:
            sums = with_pod_block(sums, bad=bad, total=total)
        return correlation(sums)

    shuffled = blocks[:]
    rng.shuffle(shuffled)
    assert estimated(shuffled) == pytest.approx(estimated(blocks), abs=1e-9)


@pytest.mark.long
@PATIENT
@given(st.lists(counts(), max_size=10))
def test_a_correlation_is_always_between_0_and_1(blocks: list[tuple[int, int]]) -> None:
    sums = Bursts()
    for bad, total in blocks:
        sums = with_pod_block(sums, bad=bad, total=total)
    assert 0.0 <= correlation(sums) <= 1.0
    assert design_effect(50, correlation=correlation(sums)) >= 1.0


def test_counts_are_divided_by_the_design_effect_of_one_and_a_half_times_the_correlation() -> None:
    # 1 + (n − 1)·1.5·0.02: of 101 requests 4, of 901 ones 28; and of one request 1, whatever the correlation.
    thin = thinned(Pair(canary_bad=8, canary_total=101, stable_bad=14, stable_total=901), correlation=0.02)
    assert (thin.canary_bad, thin.canary_total) == pytest.approx((2, 101 / 4))
    assert (thin.stable_bad, thin.stable_total) == pytest.approx((0.5, 901 / 28))
    # At most all of a block is one burst.
    whole = thinned(Pair(canary_bad=50, canary_total=50, stable_bad=1, stable_total=1), correlation=0.9)
    assert (whole.canary_bad, whole.canary_total, whole.stable_bad, whole.stable_total) == pytest.approx((1, 1, 1, 1))


def test_all_or_nothing_blocks_are_fully_correlated_and_even_ones_not_at_all() -> None:
    bursts, even = Bursts(), Bursts()
    for index in range(200):
        bursts = with_pod_block(bursts, bad=100 * (index % 2), total=100)
        even = with_pod_block(even, bad=50, total=100)
    assert correlation(bursts) == pytest.approx(1.0, abs=0.01)
    assert correlation(even) == 0.0


def lasting(bad: Iterable[int], *, total: int = 1000, seconds: float = 5.0) -> float:
    state = Succession()
    for one in bad:
        state = with_share(state, bad=one, total=total)
    return duration(state, seconds=seconds)


def test_shares_that_stay_for_a_while_last_for_blocks_and_alternating_ones_do_not() -> None:
    assert lasting(([0] * 20 + [100] * 20) * 3) == 12.0
    assert lasting(([0] * 20 + [100] * 20) * 3, seconds=30.0) == 2.0
    assert lasting(([0] * 20 + [100] * 20) * 3, seconds=90.0) == 1.0
    assert lasting([0, 100] * 60) == 1.0
    assert lasting([50] * 120) == 1.0
    assert lasting([0, 0, 100]) == 1.0


@pytest.mark.parametrize("stays", [0.5, 0.7])
def test_bursts_last_as_long_as_those_that_follow_from_the_one_before(stays: float) -> None:
    # Each block keeps the share of the one before with the chance r, so that sums vary (1 + r)/(1 − r) times as much.
    rng = random.Random(5)
    shares, share = [], 0.05
    for _ in range(20_000):
        share = share if rng.random() < stays else rng.uniform(0, 0.1)
        shares.append(sum(rng.random() < share for _ in range(100)))
    assert lasting(shares, total=100) == pytest.approx((1 + stays) / (1 - stays), rel=0.1)


@pytest.mark.parametrize("share", [0.005, 0.3])
def test_independent_requests_are_hardly_ever_taken_for_bursts_that_last(share: float) -> None:
    rng = random.Random(6)
    streams = [[sum(rng.random() < share for _ in range(50)) for _ in range(120)] for _ in range(60)]
    assert sum(lasting(stream, total=50) > 1 for stream in streams) <= 2


# -- promotion and risk


def test_under_one_percent_takes_299_clean_requests_at_least() -> None:
    assert clean_needed(allowed=0.01, risk=0.05) == 299
    assert log_point(clean=298, allowed=0.01) < math.log(20) <= log_point(clean=299, allowed=0.01)


def clean(requests: int) -> Promotion:
    block = Pair(canary_bad=0, canary_total=requests, stable_bad=0, stable_total=0)
    return with_evidence(Promotion(), block=block, allowed=0.01, b=0.005, margin=0.005)


def missing(members: Promotion, *, share: float) -> float | None:
    """Requests with this bad share that the test of a limit of 1 % needs."""
    one = Pair(canary_bad=share, canary_total=1, stable_bad=0, stable_total=0)
    return more_needed(members.ln_absolute, growth=growth_against_limit(one, allowed=0.01), risk=0.05)


def test_the_number_of_requests_that_are_said_to_be_missing_is_just_enough() -> None:
    found = missing(clean(100), share=0.0)
    assert found is not None
    more = math.ceil(found)
    assert log_promotion(clean(100 + more), absolute=True, relative=False) >= math.log(20)
    assert log_promotion(clean(100 + more - 1), absolute=True, relative=False) < math.log(20)
    assert missing(clean(1000), share=0.0) == 0


def test_a_canary_at_the_limit_is_never_promised_a_promotion() -> None:
    assert missing(clean(100), share=0.01) is None


def test_the_risk_is_split_evenly() -> None:
    assert Risk(share=0.01, tests=10).ln_threshold == pytest.approx(math.log(1000))
    assert Risk(share=0.01, tests=1).ln_pass == pytest.approx(math.log(10))


def test_sums_of_logarithms() -> None:
    assert log_sum([]) == -math.inf
    assert log_sum([1e6, 1e6]) == pytest.approx(1e6 + math.log(2))
    assert log_mean([-math.inf, 0.0]) == pytest.approx(math.log(0.5))
    assert sum(math.exp(weight) for weight in LN_WORSE_WEIGHTS) == pytest.approx(1.0)
