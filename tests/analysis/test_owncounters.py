"""SLOs with counters of their own: from the series of an answer to readings. Counts are computed by hand."""

from dataclasses import replace

import pytest

from backstop.analysis.answers import MatrixSeries
from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective, OwnCounters
from backstop.analysis.owncounters import OwnAnswer, by_policy, with_own
from backstop.analysis.ownseries import ArmSeries
from backstop.analysis.policy import Evaluation, LivePolicy
from backstop.analysis.queries import OwnSelector
from backstop.analysis.reading import Breached, Counts, Healthy, Unknown, Waiting
from backstop.analysis.samples import Fetched, NoData, Partial, ProviderError, Sample
from backstop.analysis.state import AnalysisState
from backstop.api.reasons import Reason
from tests.analysis.history import Pod, errors_objective, live_policy, own_objective, scraped, steady, visible

INTERVAL = 5.0
CANARY = "support-canary-7f9c5d8b6-x2x4z"
STABLE = "support-stable-6b8f4c7d5-q9w8k"


def series(values: dict[float, float], *, pod: str = CANARY, **labels: str) -> MatrixSeries:
    metric = {"__name__": "jobs_total", "namespace": "shop", "pod": pod, "instance": "10.0.0.7:80"} | labels
    return MatrixSeries(metric=metric, values=[(at, str(value)) for at, value in values.items()])


def steps(*values: float, start: float = 0.0) -> dict[float, float]:
    """One value every scrape."""
    return {start + INTERVAL * i: value for i, value in enumerate(values)}


def read(
    objective: Objective, *, total: list[MatrixSeries] | OwnAnswer, bad: list[MatrixSeries] | OwnAnswer, gateways: Fetched | None = None
) -> Fetched:
    """What is known of the policy `support` when these are the answers."""
    policy = live_policy(objective, *([] if gateways is None else [errors_objective()]))
    counters = objective.counters
    assert isinstance(counters, OwnCounters)
    answers = {
        OwnSelector(text, counters.revision_label, bad=is_bad): answer
        if isinstance(answer, Partial | ProviderError)
        else by_policy(answer, policies=[policy], revision_label=counters.revision_label)["shop", "support"]  # type: ignore[arg-type]
        for text, is_bad, answer in ((counters.total, False, total), (counters.bad, True, bad))
    }
    return with_own(gateways, policy=policy, answers=answers, source="default")


def judged(fetched: Fetched, *objectives: Objective, now: float, since: float = 0.0, state: AnalysisState | None = None) -> Evaluation:
    return evaluate(fetched, policy=live_policy(*objectives, since=since, state=state), now=now, scrape_interval=INTERVAL)


def counts(fetched: Fetched, *, now: float, since: float = 0.0) -> tuple[Counts, int]:
    """Counts of the trailing window, and of the whole step."""
    (reading,) = judged(fetched, own_objective(percent="100"), now=now, since=since).readings
    return reading.canary, reading.step_requests


@pytest.mark.parametrize(
    ("pod", "revision"),
    [
        ("support-canary-7f9c5d8b6-x2x4z", "canary"),
        ("support-stable-7f9c5d8b6-x2x4z", "stable"),
        # Kubernetes cuts what would be too long before the last five characters.
        ("support-canary-7f9c5x2x4z", "canary"),
        # Of another policy, of another workload, of another revision.
        ("support-canary-2-7f9c5d8b6-x2x4z", None),
        ("support-chat-canary-7f9c5d8b6-x2x4z", None),
        ("support-older-7f9c5d8b6-x2x4z", None),
        ("support-canary", None),
        ("", None),
    ],
)
def test_a_series_is_of_the_revision_whose_pod_it_names(pod: str, revision: str | None) -> None:
    found = by_policy([series(steps(1), pod=pod)], policies=[live_policy(own_objective())], revision_label="")
    assert [one.revision for one in found["shop", "support"]] == ([] if revision is None else [revision])


def test_a_series_of_the_same_pod_in_another_namespace_is_nobody_s() -> None:
    found = by_policy([series(steps(1), namespace="other")], policies=[live_policy(own_objective())], revision_label="")
    assert found == {("shop", "support"): []}


def test_with_a_label_for_the_revision_the_pod_may_be_anybody_s_and_two_policies_may_share_a_series() -> None:
    policies = [live_policy(own_objective(revision_label="version")), replace(live_policy(own_objective()), name="other")]
    one = series(steps(1), pod="scorer-0", version="stable")
    found = by_policy([one, series(steps(1), version="older")], policies=policies, revision_label="version")
    assert found == {("shop", "support"): [ArmSeries("stable", one)], ("shop", "other"): [ArmSeries("stable", one)]}


def test_what_came_in_is_counted_per_series_and_summed() -> None:
    fetched = read(
        own_objective(),
        total=[series(steps(100, 110, 130), state="done"), series(steps(5, 6, 9), state="failed")],
        bad=[series(steps(5, 6, 9), state="failed")],
    )
    assert counts(fetched, now=10.0) == (Counts(bad=4, total=34), 34)


def test_no_series_of_what_is_bad_beside_a_total_is_nothing_bad() -> None:
    fetched = read(own_objective(), total=[series(steps(100, 110, 130))], bad=[])
    assert counts(fetched, now=10.0) == (Counts(bad=0, total=30), 30)
    assert isinstance(judged(fetched, own_objective(), now=10.0).readings[0].state, Healthy)


def test_a_first_failure_begins_a_series_and_is_counted() -> None:
    fetched = read(own_objective(), total=[series(steps(100, 110, 130))], bad=[series(steps(7, start=10.0), state="failed")])
    assert counts(fetched, now=10.0)[0] == Counts(bad=7, total=30)


def test_failures_that_the_other_replica_of_the_source_shows_are_counted_as_of_the_scrapes_of_the_total() -> None:
    bad = [series(steps(7, 9, 12, start=7.0), state="failed")]
    fetched = read(own_objective(), total=[series(steps(100, 110, 130, 150))], bad=bad)
    assert counts(fetched, now=15.0)[0] == Counts(bad=9, total=40)  # of the last 10 s


def test_what_is_bad_on_another_target_reaches_no_further_back_than_the_total() -> None:
    judge = series(steps(*[7.0] * 12, start=80.0), pod="support-canary-7f9c5d8b6-judge", instance="10.0.0.8:80")
    app = [series(steps(*(50_000.0 + 10 * i for i in range(8)), start=100.0))]
    assert counts(read(own_objective(), total=app, bad=[judge]), now=135.0, since=90.0) == (Counts(bad=0, total=20), 70)


def test_counters_that_are_asked_for_at_another_time_make_those_of_the_gateways_no_newer() -> None:
    gateways = scraped([Pod("gateway", steady(0.0, 60.0, per_second=10))], interval=INTERVAL, until=60.0)
    seen = visible(gateways, until=60.0, after=22.0)
    total = [series(steps(*(50_000.0 + i for i in range(12)), start=5.0))]
    fetched = read(own_objective(), total=total, bad=[], gateways=seen)
    assert judged(fetched, errors_objective(), own_objective(), now=60.0, since=3.0).canary_requests == 350


def test_no_series_of_the_total_is_no_data_whatever_is_bad() -> None:
    fetched = read(own_objective(), total=[], bad=[series(steps(1, 900, 9000))])
    assert isinstance(fetched, NoData)
    (reading,) = judged(fetched, own_objective(), now=10.0).readings
    assert reading.state == Unknown(
        "Metrics source `default` has no samples of `promQL.total` (jobs_total) for this policy's revisions; is it scraped, with the "
        "revision in label `pod` and its namespace in label `namespace`?"
    )


def test_a_total_of_stable_alone_says_nothing_of_the_canary() -> None:
    fetched = read(own_objective(), total=[series(steps(100, 200, 300), pod=STABLE)], bad=[series(steps(1, 50, 90))])
    (reading,) = judged(fetched, own_objective(), now=10.0).readings
    assert (reading.state, reading.canary) == (Waiting(20), Counts(0, 0))


def test_a_series_that_falls_began_again_and_takes_no_other_with_it() -> None:
    fetched = read(own_objective(), total=[series(steps(100, 3, 5), path="/a"), series(steps(1000, 1001, 1002), path="/b")], bad=[])
    assert counts(fetched, now=10.0)[0] == Counts(bad=0, total=5 + 2)


def test_a_series_that_is_not_exported_for_a_scrape_goes_on_where_it_was() -> None:
    fetched = read(own_objective(), total=[series({0.0: 100, 10.0: 130}, path="/a"), series(steps(1, 2, 3), path="/b")], bad=[])
    assert counts(fetched, now=10.0)[0] == Counts(bad=0, total=30 + 2)


def test_what_is_bad_counts_at_the_scrapes_of_the_total_and_a_scrape_that_it_has_not_seen_waits() -> None:
    objective = own_objective()
    bad = [series(steps(0, 2, 9), state="failed")]
    early = read(objective, total=[series(steps(100, 110))], bad=bad)
    assert counts(early, now=10.0)[0] == Counts(bad=2, total=10)
    first = judged(early, objective, now=10.0)
    later = read(objective, total=[series(steps(100, 110, 130))], bad=bad)
    assert judged(later, objective, now=11.0, state=first.state).readings[0].canary == Counts(bad=9, total=30)


def test_what_another_process_counts_as_bad_is_never_more_than_the_total() -> None:
    fetched = read(
        own_objective(revision_label="version"),
        total=[series(steps(100, 105, 110), version="canary")],
        bad=[series(steps(1, 90, 200), pod="scorer-0", version="canary")],
    )
    (reading,) = judged(fetched, own_objective(percent="100", revision_label="version"), now=10.0).readings
    assert reading.canary == Counts(bad=10, total=10)
    assert reading.state == Waiting(10)


def test_one_process_that_is_scraped_by_two_jobs_is_refused_with_both_series() -> None:
    two = [series(steps(1, 2, 3), job="a"), series(steps(1, 2, 3, start=2.0), job="b")]
    fetched = read(own_objective(), total=two, bad=[])
    assert isinstance(fetched, ProviderError)
    assert "several series where one is expected" in fetched.sentence
    assert "job='a'" in fetched.sentence
    assert "job='b'" in fetched.sentence


def test_series_of_one_process_that_follow_on_each_other_are_not_two_scrapers() -> None:
    follow = [series(steps(1, 2), path="/a"), series(steps(1, 2, start=10.0), path="/b")]
    assert isinstance(read(own_objective(), total=follow, bad=[]), Sample)


def test_b03_a_breach_says_by_which_counters_it_is_one() -> None:
    fetched = read(
        own_objective(),
        total=[series(steps(100, 150)), series(steps(1000, 3000), pod=STABLE)],
        bad=[series(steps(0, 10), state="failed"), series(steps(7, 9), pod=STABLE, state="failed")],
    )
    (reading,) = judged(fetched, own_objective(), now=5.0).readings
    assert (reading.state, reading.reason) == (Breached(since=5.0), Reason.PROMQL_BREACH)
    arms = 'namespace=~"shop",pod=~"(support-canary|support-stable)-[a-z0-9]+(-[a-z0-9]+)?"}'
    assert reading.evidence == (
        "own: 10 of 50 canary requests bad by `promQL` (20 %, allowed 1 %) against 2 of 2,000 on stable (0.1 %); "
        f'over the limit since 1970-01-01T00:00:05.000Z. Query: jobs_total{{state="failed",{arms} / jobs_total{{{arms}'
    )


GATEWAYS = scraped([Pod("gateway", steady(0.0, 30.0, per_second=10, outcome="error"))], interval=INTERVAL, until=30.0)


@pytest.mark.parametrize("failed", [ProviderError("The query is refused."), Partial("A store is down.")])
def test_b04_own_counters_that_cannot_be_read_hide_no_breach_of_another_slo(failed: ProviderError | Partial) -> None:
    own = own_objective()
    fetched = read(own, total=failed, bad=[], gateways=GATEWAYS)
    unknown, breached = judged(fetched, own, errors_objective(), now=30.0).readings
    assert unknown.state == Unknown(failed.sentence)
    assert isinstance(breached.state, Breached)


def test_gateways_that_cannot_be_read_hide_no_breach_of_own_counters() -> None:
    own = own_objective()
    fetched = read(
        own, total=[series(steps(100, 150))], bad=[series(steps(0, 10), state="failed")], gateways=NoData("No gateway is scraped.")
    )
    breached, unknown = judged(fetched, own, errors_objective(), now=5.0).readings
    assert isinstance(breached.state, Breached)
    assert unknown.state == Unknown("No gateway is scraped.")


def test_own_counters_that_are_scraped_no_more_are_unknown_and_the_others_are_judged() -> None:
    own = own_objective()
    fetched = read(own, total=[series(steps(100, 150))], bad=[], gateways=GATEWAYS)
    stale, breached = judged(fetched, own, errors_objective(), now=30.0).readings
    assert stale.state == Unknown("The newest sample of this policy's own counters is 25 s old, at a scrape interval of 5 s.")
    assert isinstance(breached.state, Breached)


def test_own_counters_that_are_scraped_too_seldom_hold_up_no_block_of_the_gateways() -> None:
    own = own_objective()
    seldom = [series({0.0: 1, 15.0: 2, 30.0: 3})]
    unknown, breached = judged(read(own, total=seldom, bad=[], gateways=GATEWAYS), own, errors_objective(), now=30.0).readings
    assert isinstance(unknown.state, Unknown)
    assert "15 s apart" in unknown.state.why
    assert breached.step_requests == 250


def test_a_gap_in_own_counters_ends_their_episode_whatever_the_gateways_show() -> None:
    own = own_objective(for_seconds=20)
    bad = {at: at * 10 for at in (0.0, 5.0, 25.0, 30.0)}
    fetched = read(own, total=[series(bad)], bad=[series(bad, state="failed")], gateways=GATEWAYS)
    state = judged(fetched, own, errors_objective(percent="100"), now=30.0).state.objectives[own.fingerprint]
    assert state.rule.episode is not None
    assert state.rule.episode.first_bad == 30.0  # the scrape of 25 s came after the gateways' own had closed a block


def test_an_objective_with_other_selectors_is_judged_anew() -> None:
    assert own_objective().fingerprint != own_objective(revision_label="version").fingerprint


def test_a_policy_with_own_counters_alone_needs_nothing_of_the_gateways() -> None:
    policy: LivePolicy = live_policy(own_objective())
    assert policy.parts == (own_objective().part,)
