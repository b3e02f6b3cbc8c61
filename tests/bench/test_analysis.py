"""The benchmark of the analysis: its streams are what they say, the judges beside ours are as their documentation says, its figures too."""

import math
import random
import xml.etree.ElementTree as ET
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from backstop.analysis.reading import Counts
from backstop.analysis.rule import ArmBlock
from backstop.analysis.sequential.bursts import Bursts, correlation, with_pod_block
from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable
from bench.analysis.__main__ import STREAMS, judged, keep, kept
from bench.analysis.bounds import divergence, information
from bench.analysis.cells import DETECTED, HEALTHY, cells
from bench.analysis.judges import Failures, MannWhitney, OurMeans, Ours, Shipped
from bench.analysis.plot import COLOURS, drawn
from bench.analysis.streams import THOUSANDTHS, Stream, Truth, always, stream
from bench.analysis.table import Outcome, median, printed, wilson


def correlated(one: list[float], *, other: list[float]) -> float:
    x, y = sum(one) / len(one), sum(other) / len(other)
    spread = math.sqrt(sum((a - x) ** 2 for a in one) * sum((b - y) ** 2 for b in other))
    return sum((a - x) * (b - y) for a, b in zip(one, other, strict=True)) / spread


def totals(blocks: tuple[ArmBlock, ...]) -> tuple[Counts, Counts]:
    canary, stable = Counts(), Counts()
    for block in blocks:
        assert block.stable is not None
        canary, stable = canary + block.canary, stable + block.stable
    return canary, stable


def near(counts: Counts, *, share: float, requests: float, inflated: float = 1.0) -> bool:
    """Within four standard errors of both."""
    of_share = abs(counts.bad - share * counts.total) <= 4 * math.sqrt(inflated * share * (1 - share) * counts.total)
    return of_share and abs(counts.total - requests) <= 4 * math.sqrt(inflated * requests)


@pytest.mark.parametrize("rate", [1, 10, 100])
@pytest.mark.parametrize("tails", [(), ((0.3, 0.1), (0.02, 0.001))])
def test_a_stream_has_the_shares_and_the_rate_that_are_asked_for(rate: int, tails: tuple[tuple[float, float], ...]) -> None:
    one = stream(Truth(always(0.05), always(0.01), tails=tails), rate=rate, seconds=1800, seed="a")
    canary, stable = totals(one.blocks)
    assert near(canary, share=0.05, requests=1800 * rate)
    assert near(stable, share=0.01, requests=9 * 1800 * rate)
    for index, (c, s) in enumerate(tails):
        over = sum((block.bounds[index].canary for block in one.blocks), Counts())
        beside = sum((block.bounds[index].stable or Counts() for block in one.blocks), Counts())
        assert near(over, share=c, requests=1800 * rate)
        assert near(beside, share=s, requests=9 * 1800 * rate)


@pytest.mark.parametrize("icc", [0.02, 0.1])
def test_bursts_have_the_correlation_that_is_asked_for(icc: float) -> None:
    one = stream(Truth(always(0.05), always(0.05), correlation=icc), rate=10, seconds=20000, seed="b")
    sums = Bursts()
    for block in one.blocks:
        assert block.stable is not None
        sums = with_pod_block(sums, bad=block.stable.bad, total=block.stable.total)
    assert correlation(sums) == pytest.approx(icc, rel=0.15)


def test_bursts_that_stay_go_on_in_each_arm_by_itself() -> None:
    one = stream(Truth(always(0.05), always(0.05), correlation=0.1, stays=0.8), rate=100, seconds=20000, seed="d")

    def persistence(shares: list[float]) -> float:
        mean = sum(shares) / len(shares)
        return sum((x - mean) * (y - mean) for x, y in pairwise(shares)) / sum((x - mean) ** 2 for x in shares)

    canary = [block.canary.bad / block.canary.total for block in one.blocks]
    stable = [block.stable.bad / block.stable.total for block in one.blocks if block.stable]
    assert persistence(canary) == pytest.approx(0.8, abs=0.06)
    assert persistence(stable) == pytest.approx(0.8, abs=0.06)
    assert abs(correlated(canary, other=stable)) < 0.1


def test_where_stable_has_a_warm_cache_both_arms_are_compared_without_it() -> None:
    one = stream(Truth(always(0.05), always(0.05), cached=0.4), rate=10, seconds=5000, seed="e")
    canary, stable = totals(one.blocks)
    assert near(canary, share=0.05, requests=50_000)
    assert near(stable, share=0.03, requests=450_000, inflated=2.0)
    asked = sum((block.compared.stable or Counts() for block in one.blocks if block.compared), Counts())
    assert near(asked, share=0.05, requests=270_000)
    assert all(block.compared is not None and block.compared.stable is not None for block in one.history)
    judged, compared = Ours(NoMoreThanStable(0.0005)), Ours(AtMost(0.04))
    assert judged(one) is None, "of what the model is asked for, both have as much"
    assert compared(one) is None


def test_means_have_the_level_and_the_skew_that_are_asked_for() -> None:
    one = stream(Truth(always(1.5), always(0.8), shape=0.5), rate=10, seconds=20_000, seed="f")
    canary, stable = totals(one.blocks)
    assert canary.bad / THOUSANDTHS / canary.total == pytest.approx(1.5, rel=0.02)
    assert stable.bad / THOUSANDTHS / stable.total == pytest.approx(0.8, rel=0.01)
    means = [block.canary.bad / THOUSANDTHS / block.canary.total for block in one.blocks]
    # A request varies by its mean over the root of the shape; the mean of fifty by a seventh of that.
    spread = math.sqrt(sum((mean - 1.5) ** 2 for mean in means) / len(means))
    assert spread == pytest.approx(1.5 / math.sqrt(0.5 * 50), rel=0.05)


def test_a_mean_is_judged_against_its_target() -> None:
    assert OurMeans(1.0)(of([(150_000, 50)] * 60, stable=(360_000, 450))) is not None
    assert OurMeans(1.0)(of([(49_000, 50)] * 360, stable=(360_000, 450))) is None


def test_each_cell_has_a_name_of_its_own() -> None:
    names = [cell.what for cell in cells()]
    assert len(names) == len(set(names))


def test_the_same_seed_is_the_same_stream_and_another_is_not() -> None:
    truth = Truth(always(0.05), always(0.05))
    one, same, other = (stream(truth, rate=10, seconds=100, seed=seed) for seed in ("a", "a", "b"))
    assert one == same
    assert one != other


def test_where_scrapes_fail_no_request_is_lost_and_blocks_stay_in_order() -> None:
    truth = Truth(always(0.05), always(0.05), missing=0.2)
    blocks = stream(truth, rate=10, seconds=5000, seed="c").blocks
    assert near(totals(blocks)[0], share=0.05, requests=50_000)
    assert all(one.end == later.start for one, later in pairwise(blocks))
    assert 0.15 < 1 - len(blocks) / 1000 < 0.25


def of(shares: list[tuple[int, int]], *, stable: tuple[int, int] = (0, 450)) -> Stream:
    blocks = tuple(ArmBlock(start=i * 5.0, end=i * 5.0 + 5, canary=Counts(*one), stable=Counts(*stable)) for i, one in enumerate(shares))
    return Stream(history=(), blocks=blocks)


def test_the_threshold_of_policies_decides_at_once_on_its_requests_or_after_its_seconds() -> None:
    limit = Fraction(1, 100)
    assert Shipped(limit)(of([(0, 50), (1, 50)])) is None  # of its window of 10 s, 1 %
    assert Shipped(limit)(of([(0, 50), (2, 50)])) == 10.0
    assert Shipped(limit)(of([(5, 5)] * 360)) == 20.0
    assert Shipped(limit, for_seconds=30)(of([(50, 50)] * 360)) == 35.0
    assert Shipped(limit, for_seconds=30)(of([(50, 50)] * 4 + [(0, 50)] * 356)) is None


def test_argo_rolls_back_at_the_failure_after_its_limit_and_flagger_a_tick_after_its_threshold() -> None:
    outage = of([(50, 50)] * 360)
    assert Failures(0.01, interval=60, window=60, failures=4)(outage) == 240.0
    assert Failures(0.01, interval=60, window=60, failures=5, late=True)(outage) == 360.0


def test_failures_are_counted_whether_or_not_they_are_in_a_row_and_no_request_is_one() -> None:
    minute = 12
    every_other = of(([(50, 50)] * minute + [(0, 50)] * minute) * 10)
    assert Failures(0.01, interval=60, window=60, failures=4)(every_other) == 420.0
    assert Failures(0.01, interval=60, window=60, failures=4)(of([(0, 0)] * 360)) == 240.0


def test_mann_whitney_sees_a_clear_shift_at_its_first_look_and_none_where_there_is_none() -> None:
    rng = random.Random(1)
    noisy = [(rng.randint(0, 4), 50) for _ in range(360)]
    assert MannWhitney()(of([(10 + bad, n) for bad, n in noisy], stable=(18, 450))) == 600.0
    assert MannWhitney()(of([(2, 50)] * 360, stable=(18, 450))) is None


def test_divergence_and_information_of_known_cases() -> None:
    assert divergence(1.0, q=0.5) == pytest.approx(math.log(2))
    assert divergence(0.3, q=0.3) == 0.0
    # With very many stable requests the null is fixed at stable's share.
    assert information(0.02, b=0.005, ratio=1e9, delta=0.0) == pytest.approx(divergence(0.02, q=0.005), rel=1e-4)


def test_intervals_of_known_cases() -> None:
    assert wilson(0, runs=2000)[1] == pytest.approx(0.00192, abs=1e-5)
    low, high = wilson(10, runs=100)
    assert (low, high) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert median([float(i) for i in range(1, 101)]) == (50.0, 41.0, 61.0)


def outcomes() -> list[Outcome]:
    return [
        Outcome(what=what, judge="Backstop & co", rate=rate, onset=onset, target=None, bound=None, seconds=1800.0, times=(5.0, None, 10.0))
        for what, onset in ((HEALTHY, None), (DETECTED, 0.0))
        for rate in (1, 10)
    ]


def test_the_table_and_the_plot_have_every_judge() -> None:
    text = printed(outcomes(), rates=(1, 10))
    assert "| Backstop & co | 66.7 %" in text
    assert "| Backstop & co | 10 s (5 s…–), 33.3 % missed |" in text
    picture = ET.fromstring(drawn(outcomes(), rates=(1, 10)))
    assert [one.text for one in picture.iter() if one.text == "Backstop & co"]


def test_every_judge_of_the_plot_has_a_colour_of_its_own() -> None:
    judges = next(cell.judges for cell in cells() if cell.what == DETECTED)
    assert len(judges) <= len(set(COLOURS)) == len(COLOURS)
    assert next(iter(cells())).judges.keys() == judges.keys()


@pytest.mark.long
def test_what_is_judged_is_kept_line_by_line_and_read_again(tmp_path: Path) -> None:
    results, part = tmp_path / "results", ("25 s of total failure", 1, 100)
    assert kept(results) == {}
    times = judged(part)
    assert {len(found) for found in times.values()} == {STREAMS}
    keep(results, part=part, times=times)
    keep(results, part=("outage", 10, 0), times={})
    assert kept(results) == {part: times, ("outage", 10, 0): {}}


def test_every_row_has_a_name_of_its_own() -> None:
    names = [cell.what for cell in cells()]
    assert len(names) == len(set(names))
