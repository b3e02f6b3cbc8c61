"""The threshold rule over blocks of five seconds, unless said otherwise. Blocks are (bad, total) canary requests."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backstop.analysis.reading import Breached, Breaching, Counts, Healthy
from backstop.analysis.rule import ArmBlock, Verdict
from backstop.analysis.rules import counts_in
from backstop.analysis.threshold import WINDOW_BLOCKS, Threshold

FIVE_PERCENT = Fraction(5, 100)
FINE, BAD = (0, 50), (50, 50)


def verdicts(rule: Threshold, blocks: list[tuple[int, int]], *, every: float = 5.0, gap_before: tuple[int, ...] = ()) -> list[Verdict]:
    """The verdict after each block; block 0 ends at `every`."""
    state = rule.start()
    result = []
    for index, (bad, total) in enumerate(blocks):
        block = ArmBlock(
            start=index * every, end=(index + 1) * every, canary=Counts(bad, total), stable=None, after_gap=index in gap_before
        )
        state = rule.observe(state, block=block)
        result.append(rule.judge(state))
    return result


def breached_at(rule: Threshold, blocks: list[tuple[int, int]], *, every: float = 5.0, gap_before: tuple[int, ...] = ()) -> float | None:
    """End of the first block with a verdict."""
    found = verdicts(rule, blocks, every=every, gap_before=gap_before)
    return next(((index + 1) * every for index, verdict in enumerate(found) if isinstance(verdict, Breached)), None)


def thirty_seconds(*, min_requests: int = 20, allowed: Fraction = FIVE_PERCENT) -> Threshold:
    return Threshold(allowed=allowed, for_seconds=30, min_requests=min_requests)


def test_b01_an_outage_is_a_breach_thirty_seconds_after_its_first_bad_block() -> None:
    # First bad block ends at 15, so the verdict is at 45.
    assert breached_at(thirty_seconds(), [FINE, FINE] + [BAD] * 8) == 45.0


def test_b02_over_the_limit_for_less_than_the_time_never_fires_and_the_clock_starts_again() -> None:
    # 24 s over the limit: five bad blocks, the first with four bad seconds of five.
    almost = [(40, 50), BAD, BAD, BAD, BAD]
    assert breached_at(thirty_seconds(), [FINE, *almost, FINE, FINE, FINE, FINE]) is None
    # Fine for three blocks, then over it again: the second episode needs its own thirty seconds.
    again = [FINE, *almost, FINE, FINE, FINE, *[BAD] * 8]
    assert verdicts(thirty_seconds(), again)[-3:] == [Breaching(since=50.0), Breached(since=50.0), Breached(since=50.0)]


def test_two_blips_of_twenty_seconds_never_fire() -> None:
    blip = [BAD] * 4
    assert breached_at(thirty_seconds(), [FINE, *blip, FINE, FINE, *blip, FINE, FINE]) is None


def test_the_duration_may_be_a_tenth_of_a_second_short_for_scrapes_are_not_exact() -> None:
    assert breached_at(thirty_seconds(), [BAD] * 8, every=4.99) == pytest.approx(34.93)  # six intervals are 29.94 s
    assert breached_at(thirty_seconds(), [BAD] * 7, every=4.98) is None  # six intervals are 29.88 s


def test_no_verdict_while_the_newest_block_is_fine() -> None:
    blocks = [BAD] * 6 + [FINE]
    assert verdicts(thirty_seconds(), blocks)[-1] == Breaching(since=5.0)


def test_the_episode_reaches_to_the_newest_bad_block() -> None:
    rule = thirty_seconds()
    state = rule.start()
    for index, (bad, total) in enumerate([BAD, BAD, FINE]):
        state = rule.observe(state, block=ArmBlock(start=index * 5.0, end=index * 5.0 + 5.0, canary=Counts(bad, total), stable=None))
    assert state.episode is not None
    assert (state.episode.first_bad, state.episode.newest_bad) == (5.0, 10.0)


def test_at_few_requests_the_window_reaches_back_for_twenty_of_them() -> None:
    # One request a second: two fine blocks hold ten requests, which do not end the episode yet; four do.
    bad, fine = (5, 5), (0, 5)
    one_in_three = thirty_seconds(allowed=Fraction(1, 3))
    assert verdicts(one_in_three, [bad, bad, fine, fine])[-1] == Breaching(since=5.0)
    assert verdicts(one_in_three, [bad, bad, fine, fine, fine])[-1] == Healthy()


def test_a_block_without_requests_changes_nothing() -> None:
    empty = (0, 0)
    assert breached_at(thirty_seconds(), [BAD, empty, BAD, empty, empty, BAD, BAD]) == 35.0


def test_an_episode_ends_at_a_gap_in_the_scrapes() -> None:
    assert breached_at(thirty_seconds(), [BAD] * 9) == 35.0
    assert breached_at(thirty_seconds(), [BAD] * 11, gap_before=(4,)) == 55.0  # anew from the block that ends at 25


def test_m05_no_verdict_before_the_episode_has_enough_requests() -> None:
    # Four requests a block: after 35 s 28, of which 30 are wanted.
    assert breached_at(thirty_seconds(min_requests=30), [(4, 4)] * 9) == 40.0


def test_exactly_at_the_limit_is_within_it() -> None:
    assert set(map(type, verdicts(thirty_seconds(), [(5, 100)] * 20))) == {Healthy}
    assert breached_at(thirty_seconds(), [(6, 100)] * 20) == 35.0


def test_one_bad_request_of_twenty_among_fine_ones_does_not_fire() -> None:
    one_percent = thirty_seconds(allowed=Fraction(1, 100))
    assert breached_at(one_percent, [(1, 20)] + [(0, 20)] * 20) is None
    # At one request a second it stays in the window of twenty requests for long; no second bad one, no verdict.
    assert breached_at(one_percent, [(1, 5)] + [(0, 5)] * 20) is None


def test_a_tenth_slow_at_ten_requests_a_second_is_found_through_the_window() -> None:
    assert breached_at(thirty_seconds(), [(5, 50)] * 8) == 35.0


def test_without_a_duration_the_window_decides_as_soon_as_it_has_enough_requests() -> None:
    rule = Threshold(allowed=FIVE_PERCENT, for_seconds=0, min_requests=20)
    assert breached_at(rule, [FINE, FINE, BAD]) == 15.0
    assert verdicts(rule, [(8, 8), (8, 8), (8, 8)]) == [Breaching(since=5.0), Breaching(since=5.0), Breached(since=5.0)]
    assert breached_at(rule, [(2, 50)] * 10) is None


def test_without_a_duration_the_window_reaches_back_for_as_many_requests_as_the_objective_asks() -> None:
    rule = Threshold(allowed=FIVE_PERCENT, for_seconds=0, min_requests=100)
    assert breached_at(rule, [(1, 10)] * 12) == 50.0


@given(st.lists(st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, min(n, 3)), st.just(n))), max_size=40))
@example([(0, 100), (3, 50), (3, 40), (3, 20), (0, 50)])  # of its last two blocks 3 of 70 are bad, of its last three 6 of 110
def test_without_a_duration_what_is_told_of_a_breach_is_over_the_limit(blocks: list[tuple[int, int]]) -> None:
    rule = Threshold(allowed=FIVE_PERCENT, for_seconds=0, min_requests=100)
    state = rule.start()
    for index, (bad, total) in enumerate(blocks):
        state = rule.observe(state, block=ArmBlock(start=index * 5.0, end=index * 5.0 + 5.0, canary=Counts(bad, total), stable=None))
        told, _ = counts_in(state)
        assert isinstance(rule.judge(state), Breaching | Breached) == (told.bad > FIVE_PERCENT * told.total)


def test_the_state_is_bounded_and_loses_no_request_of_the_window() -> None:
    rule = Threshold(allowed=FIVE_PERCENT, for_seconds=0, min_requests=1000)
    state = rule.start()
    for index in range(500):
        state = rule.observe(state, block=ArmBlock(start=float(index), end=index + 1.0, canary=Counts(1, 1), stable=Counts(0, 2)))
    assert len(state.window) <= WINDOW_BLOCKS
    assert sum(block.canary.total for block in state.window) == 500
    assert state.window[0].start == 0.0
