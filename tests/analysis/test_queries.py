"""Queries: few, short, and only for what is needed."""

from dataclasses import replace
from urllib.parse import quote

import pytest

from backstop.analysis.policy import LivePolicy
from backstop.analysis.prometheus import DEADLINE_SECONDS
from backstop.analysis.queries import (
    APART_SECONDS,
    POLICIES_PER_QUERY,
    MetricsSourceConfig,
    Range,
    needed_bounds,
    plan_queries,
    poll_seconds,
    selector,
    window_seconds,
)
from backstop.analysis.state import AnalysisState
from tests.analysis.history import errors_objective, latency_objective, live_policy, own_objective

DEFAULT = MetricsSourceConfig(name="default", url="http://prometheus:9090", scrape_interval_seconds=5.0)


def policies(count: int, *, since: float = 1000.0, source: str = "default") -> list[LivePolicy]:
    return [
        replace(live_policy(latency_objective(), since=since, canary=f"c{i:09d}", stable=f"s{i:09d}"), name=f"policy-{i}", source=source)
        for i in range(count)
    ]


def test_one_selector_reads_all_metrics_of_a_policy_at_once() -> None:
    assert selector([live_policy(errors_objective())], window=Range(32)) == (
        '{__name__=~"backstop_served_total|backstop_sent_total",namespace=~"shop",revision=~"canary|stable"}[32s]'
    )


def test_a_latency_objective_adds_the_histogram_at_the_bounds_that_are_needed() -> None:
    text = selector([live_policy(latency_objective(milliseconds=20_000))], window=Range(32))
    assert "|backstop_served_seconds_count|backstop_served_seconds_bucket" in text
    # Both spellings of a bound; the empty one is for series that have none.
    assert ',le=~"|10|' in text
    assert "|20|20\\\\.0|" in text


def test_the_bounds_are_the_limit_its_multiples_and_its_neighbours_in_the_grid() -> None:
    assert needed_bounds([0.15]) == (0.05, 0.075, 0.1, 0.15, 0.1755, 0.1995, 0.2, 0.255, 0.3, 0.45)
    assert needed_bounds([]) == ()


def test_labels_cannot_break_out_of_the_selector() -> None:
    text = selector([live_policy(errors_objective(), canary='a"} or vector(1) #', stable="b|.*")], window=Range(32))
    assert 'revision=~"a\\"' in text
    assert "b\\\\|\\\\.\\\\*" in text


@pytest.mark.parametrize(
    ("since", "watermarks", "window"),
    [
        # Four intervals of margin, always.
        (None, {}, 20.0),
        (1000.0, {}, 100.0 - 0 + 20.0),
        # To the oldest watermark of the step …
        (900.0, {"a": 1092.0, "b": 1095.0}, 8.0 + 20.0),
        # … and not to those of the step before.
        (1090.0, {"a": 1000.0}, 10.0 + 20.0),
        # A pod that is gone for longer than the lookback is not waited for; one that is gone for less is.
        (100.0, {"a": 1095.0, "gone": 800.0}, 5.0 + 20.0),
        (100.0, {"a": 1095.0, "gone": 1040.0}, 60.0 + 20.0),
        # After a long absence the lookback is the limit.
        (100.0, {"a": 500.0}, 120.0 + 20.0),
        # A step that begins in the future (warm-up).
        (1105.0, {}, 20.0),
    ],
)
def test_the_window_reaches_back_to_what_is_not_yet_counted(since: float | None, watermarks: dict[str, float], window: float) -> None:
    policy = live_policy(errors_objective(), since=since, state=AnalysisState(watermarks=watermarks))
    assert window_seconds(policy, now=1100.0, scrape_interval=5.0) == window


def test_many_policies_take_few_queries_and_each_policy_is_in_one() -> None:
    live = policies(1000)
    planned = plan_queries(live, sources={"default": DEFAULT}, now=1010.0)
    assert len(planned) == 1000 / POLICIES_PER_QUERY
    assert sorted(p.name for query in planned for p in query.policies) == sorted(p.name for p in live)
    assert max(len(query.promql) for query in planned) < 6000


def test_policies_with_the_same_limits_share_a_query_so_that_few_bounds_are_read_of_each() -> None:
    limits = (150, 1000)
    live = [
        replace(one, objectives=(latency_objective(milliseconds=limits[number % 2]),))
        for number, one in enumerate(policies(2 * POLICIES_PER_QUERY))
    ]
    planned = plan_queries(live, sources={"default": DEFAULT}, now=1010.0)
    asked = [{o.latency.seconds for p in query.policies for o in p.objectives if o.latency is not None} for query in planned]
    assert asked == [{0.15}, {1.0}]


def test_a_policy_that_must_read_far_back_does_not_make_the_others_do_so() -> None:
    near, far = policies(2)
    far = replace(far, since=900.0)
    planned = plan_queries([near, far], sources={"default": DEFAULT}, now=1010.0)
    assert [([p.name for p in query.policies], query.promql[-6:]) for query in planned] == [
        (["policy-0"], "}[32s]"),
        (["policy-1"], "[256s]"),
    ]


def test_each_source_has_its_own_queries_and_an_unknown_source_none() -> None:
    live = [*policies(1), *policies(1, source="other"), *policies(1, source="unheard-of")]
    other = replace(DEFAULT, name="other")
    planned = plan_queries(live, sources={"default": DEFAULT, "other": other}, now=1010.0)
    assert [(query.source, len(query.policies)) for query in planned] == [("default", 1), ("other", 1)]


def test_own_counters_are_read_by_their_selectors_and_by_nothing_else() -> None:
    live = replace(live_policy(own_objective()), since=1000.0)
    planned = plan_queries([live], sources={"default": DEFAULT}, now=1010.0)
    arms = 'namespace=~"shop",pod=~"(support-canary|support-stable)-[a-z0-9]+(-[a-z0-9]+)?"}'
    assert [query.promql for query in planned] == [f"jobs_total{{{arms}[32s]", f'jobs_total{{state="failed",{arms}[42s]']


def test_own_counters_with_a_label_for_the_revision_are_read_by_that() -> None:
    planned = plan_queries([live_policy(own_objective(revision_label="version"))], sources={"default": DEFAULT}, now=10.0)
    assert planned[0].promql == 'jobs_total{namespace=~"shop",version=~"canary|stable"}[32s]'


def test_the_same_selectors_of_many_policies_are_read_together_and_beside_the_gateways_own_metrics() -> None:
    live = [
        replace(one, objectives=(latency_objective(), own_objective(), own_objective(name="strict", percent="0.1")))
        for one in policies(POLICIES_PER_QUERY)
    ]
    planned = plan_queries(live, sources={"default": DEFAULT}, now=1010.0)
    assert [(query.own is None, len(query.policies)) for query in planned] == [(own, POLICIES_PER_QUERY) for own in (True, False, False)]


def test_names_of_pods_keep_a_query_short_enough_for_a_url() -> None:
    live = [replace(one, name=f"{one.name:x<40}", objectives=(own_objective(),)) for one in policies(POLICIES_PER_QUERY)]
    planned = plan_queries(live, sources={"default": DEFAULT}, now=1010.0)
    assert max(len(quote(query.promql)) for query in planned) < 8000
    assert sum(len(query.policies) for query in planned) == 2 * len(live)


def test_what_is_bad_is_read_from_before_the_total_however_late_it_is_asked() -> None:
    assert APART_SECONDS >= 2 * DEADLINE_SECONDS


def test_polls_come_five_times_a_scrape_but_not_more_often_than_every_second() -> None:
    assert [poll_seconds(interval) for interval in (1.0, 5.0, 15.0)] == [1.0, 1.0, 3.0]


@pytest.mark.parametrize(
    "url", ["http://p:9090", "https://p", "https://user:pw@p.example/prom/", "http://10.0.0.1:9090", "http://[::1]:9090"]
)
def test_a_source_may_be_any_http_server(url: str) -> None:
    assert MetricsSourceConfig(name="default", url=url, scrape_interval_seconds=5.0).url == url


@pytest.mark.parametrize(
    "url", ["", "prometheus:9090", "ftp://p", "http://", "http://user:s3cret@", "http://user:s3cret@[127", "http://p/?q=s3cret"]
)
def test_a_url_that_cannot_be_asked_is_refused_with_the_field_and_without_the_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"`url` of metrics source `default` must look like") as refused:
        MetricsSourceConfig(name="default", url=url, scrape_interval_seconds=5.0)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scrape_interval_that_is_none_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match=r"`scrapeIntervalSeconds` of metrics source `default` must be between"):
        MetricsSourceConfig(name="default", url="http://p", scrape_interval_seconds=interval)
