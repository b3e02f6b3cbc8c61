"""Counter deltas, with values computed by hand and from the shared fixtures."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.analysis.deltas import increases, scrapes_by_target, whole
from backstop.analysis.samples import Counter, NotANumber, Series
from backstop.analysis.screening import screened

ONE = Counter("backstop_served_total", "canary", "miss", "success", "answered")
OTHER = Counter("backstop_served_total", "canary", "miss", "error", "failed")


def added(*series: Series, base: float | None) -> list[tuple[float, dict[Counter, float]]]:
    scrapes = scrapes_by_target(series)["pod"]
    return [(increase.at, dict(increase.added)) for increase in increases(scrapes, target="pod", base=base)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        fixtures = json.loads(metafunc.config.getoption("--analysis-fixtures").read_text())
        metafunc.parametrize("case", fixtures["counter_deltas"])


def test_raw_deltas_are_the_events_that_happened(case: dict[str, Any]) -> None:
    points = tuple(zip(case["t"], case["v"], strict=True))
    base = points[0][0]
    companion: tuple[Series, ...] = ()
    if case.get("new_series_on_known_target"):
        base = case["t"][0] - 15
        companion = (Series("pod", OTHER, tuple((at, 1.0) for at in (base, *case["t"]))),)

    total = sum(counts.get(ONE, 0.0) for _, counts in added(Series("pod", ONE, points), *companion, base=base))

    assert total == case["raw"]


def test_a_sample_that_is_there_twice_is_taken_once() -> None:
    series = Series("pod", ONE, ((10.0, 4.0), (5.0, 1.0), (10.0, 4.0)))
    assert added(series, base=5.0) == [(10.0, {ONE: 3.0})]


def test_all_counters_of_a_target_began_again_when_one_of_them_fell() -> None:
    one = Series("pod", ONE, ((5.0, 7.0), (10.0, 9.0)))
    other = Series("pod", OTHER, ((5.0, 3.0), (10.0, 1.0)))
    assert added(one, other, base=5.0) == [(10.0, {ONE: 9.0, OTHER: 1.0})]


def kept(*series: Series) -> list[float]:
    return [scrape.at for scrape in whole(scrapes_by_target(series)["pod"])]


def test_a_scrape_of_which_a_counter_is_not_visible_yet_is_left_out() -> None:
    one = Series("pod", ONE, ((5.0, 7.0), (10.0, 8.0), (15.0, 9.0)))
    assert kept(one, Series("pod", OTHER, ((5.0, 3.0), (10.0, 3.0)))) == [5.0, 10.0]
    assert kept(one, Series("pod", OTHER, ((5.0, 3.0), (15.0, 3.0)))) == [5.0, 15.0]


def test_a_counter_that_two_scrapes_lack_has_ended_and_keeps_none_from_being_counted() -> None:
    one = Series("pod", ONE, ((5.0, 7.0), (10.0, 8.0), (15.0, 9.0)))
    other = Series("pod", OTHER, ((5.0, 3.0),))
    assert kept(one, other) == [5.0, 10.0, 15.0]
    assert added(one, other, base=5.0) == [(10.0, {ONE: 1.0}), (15.0, {ONE: 1.0})]


def test_a_scrape_in_which_a_counter_fell_is_counted_whatever_it_lacks() -> None:
    one = Series("pod", ONE, ((5.0, 7.0), (10.0, 2.0)))
    other = Series("pod", OTHER, ((5.0, 3.0),))
    assert kept(one, other) == [5.0, 10.0]
    assert added(one, other, base=5.0) == [(10.0, {ONE: 2.0})]


def test_a_counter_that_comes_back_lower_after_others_were_counted_begins_again_alone() -> None:
    third = ONE._replace(outcome="truncated")
    one = Series("pod", ONE, ((5.0, 900.0), (20.0, 2.0)))
    new = Series("pod", third, ((10.0, 4.0), (15.0, 5.0), (20.0, 6.0)))
    assert added(one, new, base=5.0) == [(10.0, {third: 4.0}), (15.0, {third: 1.0}), (20.0, {ONE: 2.0, third: 1.0})]


def test_on_a_new_target_everything_is_counted() -> None:
    assert added(Series("pod", ONE, ((5.0, 7.0), (10.0, 9.0))), base=None) == [(5.0, {ONE: 7.0}), (10.0, {ONE: 2.0})]


def test_of_scrapes_before_one_that_is_counted_the_times_are_kept_and_no_values() -> None:
    one = Series("pod", ONE, ((5.0, 7.0), (10.0, 9.0), (15.0, 11.0)))
    other = Series("pod", OTHER, ((5.0, 3.0), (10.0, 4.0), (15.0, 4.0)))
    new = Series("pod", ONE._replace(outcome="truncated"), ((15.0, 2.0),))
    scrapes = scrapes_by_target([one, other, new], counted={"pod": 10.0})["pod"]
    assert [(scrape.at, len(scrape.values)) for scrape in scrapes] == [(5.0, 0), (10.0, 2), (15.0, 3)]


def test_where_the_one_that_is_counted_lacks_a_counter_those_before_it_are_read_too() -> None:
    one = Series("pod", ONE, ((5.0, 7.0), (10.0, 9.0), (15.0, 11.0)))
    other = Series("pod", OTHER, ((5.0, 3.0), (15.0, 4.0)))
    scrapes = scrapes_by_target([one, other], counted={"pod": 10.0})["pod"]
    assert [(scrape.at, len(scrape.values)) for scrape in scrapes] == [(5.0, 2), (10.0, 1), (15.0, 2)]
    assert [(i.at, dict(i.added)) for i in increases(scrapes, target="pod", base=10.0)] == [(15.0, {ONE: 2.0, OTHER: 1.0})]


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Series], dict[str, float]]:
    """Two targets whose counters come, end, fall, and miss scrapes; and a scrape of each that is counted already, or none."""
    times = [5.0 * index for index in range(1, 8)]
    series, marks = [], {}
    for target in ("a", "b"):
        for counter in (ONE, OTHER, ONE._replace(outcome="truncated")):
            seen = [at for at in times if draw(st.booleans())]
            series.append(Series(target, counter, tuple((at, float(draw(st.integers(0, 9)))) for at in seen)))
        if (mark := draw(st.sampled_from([None, 4.0, *times]))) is not None:
            marks[target] = mark
    return [one for one in series if one.points], marks


@given(answer=answers())
def test_what_is_counted_is_the_same_whether_or_not_what_was_counted_before_is_read(answer: tuple[list[Series], dict[str, float]]) -> None:
    series, marks = answer

    def counted(known: dict[str, float]) -> dict[str, list[tuple[float, dict[Counter, float]]]]:
        scrapes = screened(series, counted=known)
        assert not isinstance(scrapes, NotANumber)
        found = {}
        for target, seen in scrapes.items():
            base = marks.get(target)
            if base is not None and any(scrape.at == base for scrape in seen):
                found[target] = [(i.at, dict(i.added)) for i in increases(seen, target=target, base=base)]
        return found

    assert counted(marks) == counted({})
