"""Which requests are bad, of which."""

import pytest

from backstop.analysis.deltas import by_metric
from backstop.analysis.indicators import counts_of, judged_requests, missing_bound, sent_requests
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.quantile import display_quantile
from backstop.analysis.reading import Counts
from backstop.analysis.samples import Counter
from backstop.analysis.state import DisplayQuantile
from backstop.api.fallbackpolicy import SLO
from tests.analysis.history import errors_objective, latency_objective


def served(outcome: str, first_tier: str = "answered", *, cache: str = "miss", revision: str = "canary") -> Counter:
    return Counter("backstop_served_total", revision, cache, outcome, first_tier)


def seconds(first_tier: str, *, le: float | None = None, revision: str = "canary") -> Counter:
    metric = "backstop_served_seconds_count" if le is None else "backstop_served_seconds_bucket"
    return Counter(metric, revision, "miss", "", first_tier, le)


def errors_above_stable() -> Objective:
    return objective_of(SLO(name="more-errors", indicator="ErrorRate", maxIncreasePercent="1"))


def fallback_objective() -> Objective:
    return objective_of(SLO(name="fallbacks", indicator="FallbackRate", maxPercent="10"))


OUTCOMES = {
    served("success"): 100.0,
    served("success", "late"): 7.0,
    served("success", "failed"): 3.0,
    served("success", "skipped"): 2.0,
    served("error"): 4.0,
    served("error", "failed"): 1.0,
    served("truncated"): 5.0,
    served("caller_error", "failed"): 50.0,
    served("cancelled"): 60.0,
    served("success", "skipped", cache="hit"): 20.0,
    served("success", "late", cache="stale"): 8.0,
    served("success", "failed", cache="stale"): 6.0,
    served("error", revision="stable"): 9.0,
}


@pytest.mark.parametrize(
    ("objective", "revision", "counts"),
    [
        # error 4 + 1, truncated 5, success with a failed first tier 3 + 6; of 100+7+3+2+4+1+5+20+8+6.
        (errors_objective(), "canary", Counts(bad=19, total=156)),
        # Beside stable alone without what a cache gave at once: a canary begins with a cold one.
        (errors_above_stable(), "canary", Counts(bad=19, total=136)),
        (errors_objective(), "stable", Counts(bad=9, total=9)),
        # late 7 + 8, failed 3 + 6, skipped 2; of the successes that a model was asked for, 126.
        (fallback_objective(), "canary", Counts(bad=26, total=126)),
        (errors_objective(), "unheard-of", None),
        (latency_objective(), "canary", None),
    ],
)
def test_rates_count_outcomes(objective: Objective, revision: str, counts: Counts | None) -> None:
    assert counts_of(objective, counted=by_metric(OUTCOMES), revision=revision) == counts


def test_latency_counts_what_is_over_the_limit_and_all_that_was_handed_over_as_late() -> None:
    added = {
        seconds("answered"): 100.0,
        seconds("answered", le=0.15): 90.0,
        seconds("answered", le=0.3): 99.0,
        seconds("failed"): 10.0,
        seconds("failed", le=0.15): 8.0,
        # A fast second tier hides a slow first one from the caller, not from the objective.
        seconds("late"): 6.0,
        seconds("late", le=0.15): 6.0,
        seconds("answered", revision="stable"): 50.0,
        seconds("answered", le=0.15, revision="stable"): 50.0,
    }
    assert counts_of(latency_objective(), counted=by_metric(added), revision="canary") == Counts(bad=10 + 2 + 6, total=116)
    assert counts_of(latency_objective(), counted=by_metric(added), revision="stable") == Counts(bad=0, total=50)


def test_judged_and_sent_requests_leave_out_what_is_the_callers() -> None:
    counted = by_metric(OUTCOMES | {Counter("backstop_sent_total", "canary"): 300.0})
    assert judged_requests(counted, revision="canary") == 156
    assert sent_requests(counted, revision="canary") == 300


@pytest.mark.parametrize(
    ("targets", "bounds"),
    [
        ([[seconds("answered"), seconds("answered", le=0.15)]], None),
        ([[seconds("answered"), seconds("answered", le=0.2), seconds("answered", le=0.1)]], (0.1, 0.2)),
        ([[seconds("answered")]], ()),
        ([[served("success")]], ()),
        ([[served("error")]], None),
        ([[seconds("answered", revision="stable")]], None),
        ([[seconds("answered"), seconds("answered", le=0.15)], [seconds("answered"), seconds("answered", le=0.2)]], (0.2,)),
    ],
)
def test_m10_a_histogram_without_a_bucket_at_the_limit_is_noticed(targets: list[list[Counter]], bounds: tuple[float, ...] | None) -> None:
    limit = latency_objective().latency
    assert limit is not None
    counting = [dict.fromkeys(target, 7.0) for target in targets]
    assert missing_bound(limit, targets=counting, revision="canary") == bounds
    idle = [dict.fromkeys(target, 0.0) for target in targets]
    assert missing_bound(limit, targets=idle, revision="canary") is None


def test_the_display_quantile_says_when_it_is_out_of_the_bounds_that_were_read() -> None:
    counted = by_metric({seconds("answered"): 100.0, seconds("answered", le=0.15): 90.0, seconds("answered", le=0.3): 94.0})
    assert display_quantile(counted, revision="canary", percent=95) == DisplayQuantile(milliseconds=300, sign=">")
    assert display_quantile(counted, revision="canary", percent=50) == DisplayQuantile(milliseconds=150, sign="≤")
    assert display_quantile(counted, revision="canary", percent=92) == DisplayQuantile(milliseconds=225, sign="≈")
    assert display_quantile(counted, revision="stable", percent=95) is None
