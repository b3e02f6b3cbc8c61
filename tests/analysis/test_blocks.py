"""When blocks are closed, and what is in them."""

from backstop.analysis.blocks import Block, close_blocks
from backstop.analysis.deltas import scrapes_by_target
from backstop.analysis.samples import Counter, Series

COUNTER = Counter("backstop_served_total", "canary", "miss", "success", "answered")


def blocks(
    targets: dict[str, list[tuple[float, float]]],
    *,
    watermarks: dict[str, float],
    block_end: float | None = None,
    since: float = 0.0,
    interval: float = 5.0,
) -> list[tuple[float, float, float]]:
    """(start, end, requests) of each block."""
    return [(b.start, b.end, b.added.get(COUNTER, 0.0)) for b in closed(targets, watermarks, block_end, since, interval)]


def closed(
    targets: dict[str, list[tuple[float, float]]],
    watermarks: dict[str, float],
    block_end: float | None = None,
    since: float = 0.0,
    interval: float = 5.0,
) -> list[Block]:
    series = [Series(target, COUNTER, tuple(points)) for target, points in targets.items()]
    scrapes = scrapes_by_target(series)
    return close_blocks(scrapes, watermarks=watermarks, block_end=block_end, since=since, scrape_interval=interval)


def test_a_block_is_closed_by_the_last_of_the_live_targets_and_ends_at_its_scrape() -> None:
    targets = {"a": [(5.0, 1.0), (10.0, 4.0)], "b": [(7.0, 10.0), (12.0, 12.0)]}
    assert blocks(targets, watermarks={"a": 5.0, "b": 7.0}, block_end=7.0) == [(7.0, 12.0, 5.0)]


def test_a_block_waits_for_a_live_target_without_a_newer_scrape() -> None:
    targets = {"a": [(5.0, 1.0), (10.0, 4.0)], "b": [(7.0, 10.0)]}
    assert blocks(targets, watermarks={"a": 5.0, "b": 7.0}, block_end=7.0) == []


def test_a_target_that_missed_two_scrapes_is_no_longer_waited_for() -> None:
    # b was seen last at 7: its scrapes of 12 and 17 are missing, which a's scrape of 20 is the first to come after.
    targets = {"a": [(5.0, 0.0), (10.0, 1.0), (15.0, 2.0), (20.0, 3.0), (25.0, 4.0)], "b": [(7.0, 10.0)]}
    assert blocks(targets, watermarks={"a": 5.0, "b": 7.0}, block_end=7.0) == [(7.0, 20.0, 3.0), (20.0, 25.0, 1.0)]


def test_a_target_that_comes_back_is_counted_from_where_it_was() -> None:
    targets = {"a": [(5.0, 0.0), (40.0, 0.0), (45.0, 0.0)], "b": [(7.0, 10.0), (42.0, 15.0)]}
    assert blocks(targets, watermarks={"a": 40.0, "b": 7.0}, block_end=40.0) == [(40.0, 45.0, 5.0)]


def test_a_catch_up_gives_the_same_blocks_as_one_scrape_at_a_time() -> None:
    targets = {"a": [(5.0, 0.0), (10.0, 1.0), (15.0, 3.0), (20.0, 6.0)], "b": [(7.0, 0.0), (12.0, 10.0), (17.0, 30.0), (22.0, 60.0)]}
    assert blocks(targets, watermarks={"a": 5.0, "b": 7.0}, block_end=7.0) == [(7.0, 12.0, 11.0), (12.0, 17.0, 22.0), (17.0, 22.0, 33.0)]


def test_a_target_first_seen_after_the_start_counts_from_zero() -> None:
    targets = {"a": [(0.0, 0.0), (5.0, 0.0), (10.0, 0.0), (15.0, 0.0), (20.0, 0.0)], "new": [(18.0, 7.0)]}
    assert blocks(targets, watermarks={"a": 15.0}, block_end=15.0) == [(15.0, 20.0, 7.0)]


def test_a_target_that_the_block_before_did_not_know_is_new_even_where_the_answer_reaches_no_further_back() -> None:
    targets = {"a": [(15.0, 0.0), (20.0, 0.0)], "new": [(18.0, 7.0)]}
    assert blocks(targets, watermarks={"a": 15.0}, block_end=15.0) == [(15.0, 20.0, 7.0)]


def test_a_target_without_known_history_counts_from_its_first_scrape() -> None:
    # Nothing in the answer is older than what is seen of it: it may have been there for long.
    targets = {"a": [(15.0, 0.0), (20.0, 0.0)], "old": [(18.0, 7000.0), (23.0, 7002.0)]}
    assert blocks(targets, watermarks={}) == [(0.0, 23.0, 2.0)]
    # Nor does a watermark that the answer no longer reaches tell anything.
    assert blocks(targets, watermarks={"a": 5.0}, block_end=5.0) == [(5.0, 23.0, 2.0)]


def test_a_target_that_came_before_the_start_of_the_step_is_not_counted_from_zero() -> None:
    targets = {"a": [(0.0, 0.0), (5.0, 0.0), (10.0, 0.0), (15.0, 0.0), (20.0, 0.0), (25.0, 0.0)], "b": [(17.0, 500.0), (22.0, 503.0)]}
    # The start is 18: b is counted from its scrape of 22, and the next is not there yet.
    assert blocks(targets, watermarks={}, since=18.0) == []
    targets["b"].append((27.0, 504.0))
    assert blocks(targets, watermarks={}, since=18.0) == [(18.0, 27.0, 1.0)]


def test_a_late_sample_from_before_the_watermark_is_not_counted_again() -> None:
    # The scrape of the watermark itself, 12, is no longer there.
    targets = {"a": [(10.0, 100.0), (15.0, 105.0), (20.0, 106.0)]}
    assert blocks(targets, watermarks={"a": 12.0}, block_end=12.0) == [(12.0, 20.0, 1.0)]


def test_a_target_that_was_seen_but_never_counted_is_remembered() -> None:
    # b was scraped once and then missed two scrapes: when it comes back it is counted from there, not from zero.
    targets = {"a": [(0.0, 0.0), (5.0, 0.0), (10.0, 0.0), (15.0, 0.0)], "b": [(2.0, 500.0)]}
    (first, *_) = closed(targets, {})
    assert first.watermarks == {"a": 15.0, "b": 2.0}


def test_a_target_whose_watermark_is_out_of_reach_is_not_counted_twice() -> None:
    targets = {"a": [(500.0, 100.0), (505.0, 103.0)]}
    assert blocks(targets, watermarks={"a": 5.0}, block_end=5.0) == [(5.0, 505.0, 3.0)]


def test_m06_only_what_came_after_the_start_of_the_step_is_counted() -> None:
    targets = {"a": [(5.0, 0.0), (10.0, 100.0), (15.0, 200.0), (20.0, 203.0)]}
    # 12 is the start: the scrape of 15 holds requests from before it, so counting begins there.
    assert blocks(targets, watermarks={"a": 5.0}, block_end=5.0, since=12.0) == [(12.0, 20.0, 3.0)]


def test_what_is_skipped_between_steps_is_no_gap() -> None:
    targets = {"a": [(5.0, 0.0), (50.0, 1.0), (55.0, 2.0)]}
    assert [b.after_gap for b in closed(targets, {"a": 5.0}, block_end=5.0, since=48.0)] == [False]


def test_more_than_two_missing_scrapes_on_every_target_are_a_gap() -> None:
    short = {"a": [(5.0, 0.0), (15.0, 1.0), (20.0, 2.0)]}
    assert [b.after_gap for b in closed(short, {"a": 5.0}, block_end=5.0)] == [False, False]
    long = {"a": [(5.0, 0.0), (20.0, 1.0), (25.0, 2.0)]}
    assert [b.after_gap for b in closed(long, {"a": 5.0}, block_end=5.0)] == [True, False]


def test_one_dead_target_beside_a_live_one_is_no_gap() -> None:
    targets = {"a": [(5.0, 0.0), (10.0, 0.0), (15.0, 0.0), (20.0, 0.0)], "b": [(7.0, 0.0)]}
    assert [b.after_gap for b in closed(targets, {"a": 5.0, "b": 7.0}, block_end=7.0)] == [False]


def test_the_first_block_of_a_canary_that_had_no_traffic_counts_from_the_scrape_before_its_start() -> None:
    series = [Series("a", COUNTER, ((4.0, 0.0), (9.0, 0.0), (14.0, 6.0))), Series("b", COUNTER, ((6.0, 0.0), (11.0, 2.0), (16.0, 9.0)))]
    scrapes = scrapes_by_target(series)
    found = close_blocks(scrapes, watermarks={}, block_end=None, since=10.0, from_zero=True, scrape_interval=5.0)
    assert [(b.start, b.end, b.added[COUNTER]) for b in found] == [(10.0, 14.0, 8.0)]
    # Otherwise what came in between the scrape before the start and the start would be counted too.
    assert close_blocks(scrapes, watermarks={}, block_end=None, since=10.0, scrape_interval=5.0) == []


def test_counting_from_zero_is_for_the_very_first_block_only() -> None:
    scrapes = scrapes_by_target([Series("a", COUNTER, ((4.0, 0.0), (9.0, 3.0), (14.0, 6.0), (19.0, 7.0)))])
    found = close_blocks(scrapes, watermarks={"a": 4.0}, block_end=4.0, since=10.0, from_zero=True, scrape_interval=5.0)
    assert [(b.end, b.added[COUNTER]) for b in found] == [(19.0, 1.0)]


def test_a_target_first_scraped_after_the_start_of_a_canary_that_had_no_traffic_counts_from_zero() -> None:
    # c came up with the canary, and its scrapes do not reach back far enough to tell by themselves.
    series = [Series("a", COUNTER, ((8.0, 0.0), (13.0, 4.0))), Series("c", COUNTER, ((12.0, 3.0), (17.0, 5.0)))]
    found = close_blocks(scrapes_by_target(series), watermarks={}, block_end=None, since=10.0, from_zero=True, scrape_interval=5.0)
    assert [(b.end, b.added[COUNTER]) for b in found] == [(13.0, 7.0)]
