"""The statistics against inputs and expected values from a file (`--analysis-fixtures FILE`), to a relative tolerance of 1e-5."""

import json
import math
from typing import Any

import pytest

from backstop.analysis.quantile import interpolated
from backstop.analysis.sequential.betting import LN_STAKE_WEIGHTS, log_bets
from backstop.analysis.sequential.bursts import Bursts, correlation, design_effect, with_pod_block
from backstop.analysis.sequential.likelihood import log_mixture, log_ratio
from backstop.analysis.sequential.logspace import log_sum
from backstop.analysis.sequential.odds import BETTER, LN_WORSE_WEIGHTS, WORSE, share_at
from backstop.analysis.sequential.promotion import log_point
from backstop.analysis.sequential.relative import compared, log_relative, with_pair
from backstop.analysis.sequential.restarts import log_value, started, with_block
from backstop.analysis.sequential.twosample import Pair, log_e, projected
from bench.analysis.bounds import information

TOLERANCE = 1e-5


def near(expected: Any) -> Any:
    return pytest.approx(expected, rel=TOLERANCE)


@pytest.fixture
def fixtures(pytestconfig: pytest.Config) -> Any:
    return json.loads(pytestconfig.getoption("--analysis-fixtures").read_text())


def test_the_likelihood_ratio_of_two_shares(fixtures: Any) -> None:
    for case in fixtures["one_sample_lr"]:
        assert log_ratio(bad=case["K"], total=case["N"], null=case["p0"], alternative=case["p1"]) == near(case["ln"])


def test_the_mixture_over_worse_odds(fixtures: Any) -> None:
    for case in fixtures["one_sample_mixture_omega12_uniform"]:
        ln = log_mixture(bad=case["K"], total=case["N"], allowed=case["p0"])
        assert math.exp(ln) == near(case["E"]) if "E" in case else ln == near(case["ln"])


def test_the_most_that_clean_requests_can_say(fixtures: Any) -> None:
    for case in fixtures["promote_point"]:
        assert math.exp(log_point(clean=case["n"], allowed=case["p0"])) == near(case["E"])


def test_the_mixture_over_better_odds(fixtures: Any) -> None:
    given = fixtures["promote_mixture"]
    assert list(BETTER) == given["multipliers"]
    for case in given["cases"]:
        ln = log_mixture(bad=case["K"], total=case["N"], allowed=given["p0"], multipliers=given["multipliers"])
        assert math.exp(ln) == near(case["E"])


@pytest.mark.parametrize("name", ["block_betting_lambda8", "block_betting_all_bad"])
def test_bets_on_blocks(fixtures: Any, name: str) -> None:
    given = fixtures[name]
    capital, seen = LN_STAKE_WEIGHTS, []
    for bad, total in given["blocks"]:
        if total:
            capital = tuple(one + bet for one, bet in zip(capital, log_bets(mean=bad / total, limit=given["p0"]), strict=True))
        seen.append(math.exp(log_sum(capital)))
    assert seen == near(given["E_after_each"])


def test_bets_on_blocks_with_restarts(fixtures: Any) -> None:
    given = fixtures["block_betting_restarts"]
    planned = given["planned_blocks"]
    state, seen = started(len(LN_STAKE_WEIGHTS)), []
    for bad, total in given["blocks"]:
        bets = log_bets(mean=bad / total, limit=given["p0"]) if total else (0.0,) * len(LN_STAKE_WEIGHTS)
        state = with_block(state, ln_e=bets, planned=planned)
        seen.append(math.exp(log_value(state, ln_weights=LN_STAKE_WEIGHTS, planned=planned)))
    assert seen == near(given["E_after_each"])


def pair(case: Any) -> Pair:
    return Pair(canary_bad=case["k_c"], canary_total=case["n_c"], stable_bad=case["k_s"], stable_total=case["n_s"])


def test_one_block_of_two_arms(fixtures: Any) -> None:
    for case in fixtures["relative_block"]:
        guess = {"b": case["b"], "delta": case["delta"]}
        assert projected(case["a"], canary_total=case["n_c"], stable_total=case["n_s"], **guess) == near(case["s_star"])
        assert log_e(pair(case), a=case["a"], **guess) == near(case["ln"])


def test_the_mean_of_a_block_of_two_arms_at_equal_shares(fixtures: Any) -> None:
    given = fixtures["relative_block_is_valid"]
    n_c, n_s, a, b, delta = (given[name] for name in ("n_c", "n_s", "a", "b", "delta"))
    s = projected(a, b=b, canary_total=n_c, stable_total=n_s, delta=delta)
    c = s + delta
    for text, expected in given["expected_e_at"].items():
        share = float(text)
        canary = (share * a / c + (1 - share) * (1 - a) / (1 - c)) ** n_c
        assert canary * (share * b / s + (1 - share) * (1 - b) / (1 - s)) ** n_s == near(expected)


def test_the_relative_test_over_blocks(fixtures: Any) -> None:
    given = fixtures["relative_engine"]
    planned = given["planned_blocks"]
    state = compared(history_bad=given["history"]["K_s"], history_total=given["history"]["N_s"])
    plug_in, total = [], []
    for n_c, k_c, n_s, k_s in given["blocks_nc_kc_ns_ks"]:
        block = Pair(canary_bad=k_c, canary_total=n_c, stable_bad=k_s, stable_total=n_s)
        state = with_pair(state, block=block, prior=given["p0"], delta=given["delta"], planned=planned)
        plug_in.append(state.ln_plug_in)
        total.append(log_relative(state, planned=planned))
    assert plug_in == near(given["plug_in_ln_after_each"])
    assert total == near(given["total_ln_after_each"])


def test_the_correlation_inside_a_block(fixtures: Any) -> None:
    given = fixtures["intra_block_correlation"]
    sums = Bursts()
    for bad in given["k"]:
        sums = with_pod_block(sums, bad=bad, total=given["n"])
    assert (sums.bad + 0.5) / (sums.total + 1) == near(given["p_hat"])
    assert correlation(sums) == near(given["rho_hat"])
    assert design_effect(50, correlation=correlation(sums)) == near(given["deff_n50"])


def test_the_quantile_for_display(fixtures: Any) -> None:
    for case in fixtures["histogram_quantile_display"]:
        buckets = [(bound, 100.0 if bound >= case["all_in_bucket"][1] else 0.0) for bound in case["bounds"]]
        shown = interpolated(buckets, rank=case["q"] * 100)
        assert shown is not None
        assert shown.sign == "≈"
        assert abs(shown.milliseconds - case["value"] * 1000) <= 0.5 + TOLERANCE, "whole milliseconds are shown"


def test_the_requests_that_no_test_can_do_without(fixtures: Any) -> None:
    for name, requests in fixtures["bounds_ln200_over_information"].items():
        change, ratio = name.split(" r=")
        b, a = (0.005, 1.0) if change == "outage" else map(float, change.split("->"))
        assert math.log(200) / information(a, b=b, ratio=float(ratio), delta=0.0) == pytest.approx(requests, abs=0.05)


def test_the_grids_are_those_of_the_file(fixtures: Any) -> None:
    for word in ("1.5,2,3,4.5,7,12,20,40,100,400,2000,1e5", "2,4,4,3,2,2,1,1,1,1,1,1", ".02,.05,.1,.2,.35,.5,.7,.9"):
        assert word in fixtures["note"]
    assert WORSE == (1.5, 2, 3, 4.5, 7, 12, 20, 40, 100, 400, 2000, 1e5)
    assert [round(23 * math.exp(weight)) for weight in LN_WORSE_WEIGHTS] == [2, 4, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1]
    assert share_at(8, of=0.005) == near(0.04 / 1.035)
