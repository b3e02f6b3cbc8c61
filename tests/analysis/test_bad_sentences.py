"""What people read in status when a source answers nonsense: each kind from the bytes of an answer to the whole sentence."""

import json

import pytest

from backstop.analysis.answers import read_answer, sort_answer
from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import Objective, objective_of
from backstop.analysis.reading import Breached, Healthy, SLOReading, Unknown
from backstop.analysis.samples import Partial, ProviderError
from backstop.api.fallbackpolicy import SLO
from tests.analysis.history import live_policy

INTERVAL = 5.0
NOW = 1_763_000_015.0
Values = list[str]


def errors(percent: str) -> Objective:
    return objective_of(SLO(name="errors", indicator="ErrorRate", maxPercent=percent))


ERRORS, SLOW = errors("1"), objective_of(SLO(name="slow", indicator="Latency", quantilePercent=95, maxMilliseconds=150))


def series(name: str, values: Values, *, ahead: float = 0.0, **labels: str) -> dict[str, object]:
    metric = {"__name__": name, "namespace": "shop", "policy": "support", "revision": "canary", "pod": "a", "cache": "miss"} | labels
    start = NOW - INTERVAL * (len(values) - 1) + ahead
    return {"metric": metric, "values": [[start + INTERVAL * index, value] for index, value in enumerate(values)]}


def served(*values: str, outcome: str = "success", ahead: float = 0.0, **labels: str) -> dict[str, object]:
    return series("backstop_served_total", list(values), ahead=ahead, outcome=outcome, first_tier="answered", **labels)


def beside(*values: str, outcome: str = "success") -> dict[str, object]:
    return served(*values, outcome=outcome, revision="stable")


def histogram(count: Values, buckets: dict[str, Values]) -> list[dict[str, object]]:
    ends = [series("backstop_served_seconds_bucket", values, le=le, first_tier="answered") for le, values in buckets.items()]
    return [series("backstop_served_seconds_count", count, first_tier="answered"), *ends]


def reading(result: object, objective: Objective = ERRORS, *, now: float = NOW) -> SLOReading:
    body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
    policy = live_policy(objective, since=NOW - 30)
    answer = read_answer(body, source="default")
    fetched = (
        answer
        if isinstance(answer, Partial | ProviderError)
        else sort_answer(answer, policies=[policy], source="default")[policy.namespace, policy.name]
    )
    (one,) = evaluate(fetched, policy=policy, now=now, scrape_interval=INTERVAL).readings
    return one


NO_COUNT = (
    "`backstop_served_total` of revision canary is {}, which is not a count (scrape target a); "
    "it is judged again when the pod exports counts."
)


def labels_of(job: str = "") -> str:
    """Of a series of `served`, as a sentence tells them."""
    of = f"job='{job}', " if job else ""
    return (
        f"{{__name__='backstop_served_total', cache='miss', first_tier='answered', {of}namespace='shop', outcome='success', pod='a', "
        "policy='support', revision='canary'}"
    )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([served("10", "20", "NaN")], NO_COUNT.format("nan")),
        ([served("10", "20", "+Inf")], NO_COUNT.format("inf")),
        ([served("10", "20", "-Inf")], NO_COUNT.format("-inf")),
        ([served("10", "20", "-7")], NO_COUNT.format("-7.0")),
        ([served("10", "20", "1e300")], NO_COUNT.format("1e+300")),
        (
            [served("10", "20", "many")],
            f"Metrics source `default` answered with a value or bound that is not a number, or a time that is none: {labels_of()}.",
        ),
        ([], "Metrics source `default` has no samples of this policy's gateways; are their pods scraped?"),
        (
            [served("10", "20", job="one"), served("10", "20", job="two")],
            (
                f"Metrics source `default` has several series where one is expected: {labels_of('one')} and {labels_of('two')}; "
                "scrape each gateway pod once."
            ),
        ),
        (
            [served("10", "20", ahead=-3600)],
            "The newest sample of this policy's gateways is 3600 s old, at a scrape interval of 5 s.",
        ),
        (
            [served("10", "20", ahead=3600)],
            "The newest sample of this policy's gateways is of 3600 s from now by the operator's clock; set that and the metrics source's.",
        ),
    ],
)
def test_what_cannot_be_counted_with_is_said_in_one_sentence_and_judged_neither_way(result: object, said: str) -> None:
    one = reading(result)
    assert one.state == Unknown(said)
    assert one.evidence == said


def test_buckets_that_are_not_cumulative_are_said_so() -> None:
    one = reading(histogram(["0", "40"], {"0.1": ["0", "30"], "0.15": ["0", "20"]}), SLOW)
    assert one.state == Unknown(
        "`backstop_served_seconds_bucket` of revision canary has buckets that are not cumulative (scrape target a); it is judged again "
        "when the pod exports counts."
    )


def told(one: SLOReading) -> str:
    return one.evidence.partition(". Query: ")[0]


def test_counters_that_fall_began_again_and_each_request_is_told_once() -> None:
    one = reading([served("1000", "1010", "40"), served("70", "70", "0", outcome="error"), beside("1", "91", "360")])
    assert told(one).startswith(
        "errors: 0 of 50 canary requests failed, or failed at the first tier (0 %, allowed 1 %) against 0 of 450 on stable (0 %);"
    )
    assert isinstance(one.state, Healthy)


def test_a_clock_that_jumps_back_brings_samples_that_are_there_already_and_counts_none_twice() -> None:
    back = served("0", "30", "60")
    back["values"] = [*back["values"], [NOW - 2 * INTERVAL, "0"], [NOW - INTERVAL, "30"]]  # type: ignore[misc]  # a list of pairs
    one = reading([back, beside("0", "90", "180")])
    assert told(one).startswith("errors: 0 of 60 canary requests failed")
    assert isinstance(one.state, Healthy)


def test_counts_of_ten_to_the_eighteenth_are_told_and_judged_by_their_shares() -> None:
    fine = reading([served("0", "1e18"), beside("0", "1e18")])
    assert told(fine).startswith(
        "errors: 0 of 1,000,000,000,000,000,000 canary requests failed, or failed at the first tier (0 %, allowed 1 %) against "
        "0 of 1,000,000,000,000,000,000 on stable (0 %);"
    )
    assert isinstance(fine.state, Healthy)
    broken = reading([served("0", "0", outcome="success"), served("0", "1e18", outcome="error"), beside("0", "1e18")])
    assert isinstance(broken.state, Breached)


def test_a_limit_of_nothing_is_broken_by_failures_and_never_by_good_requests() -> None:
    good = reading([served("0", "500"), beside("0", "4500")], errors("0"))
    assert isinstance(good.state, Healthy)
    assert told(good).startswith(
        "errors: 0 of 500 canary requests failed, or failed at the first tier (0 %, allowed 0 %) against 0 of 4,500 on stable"
    )
    bad = reading([served("0", "0"), served("0", "500", outcome="error"), beside("0", "4500")], errors("0"))
    assert isinstance(bad.state, Breached)
    assert told(bad).startswith("errors: 500 of 500 canary requests failed, or failed at the first tier (100 %, allowed 0 %)")


def test_a_limit_of_everything_is_never_broken() -> None:
    one = reading([served("0", "0"), served("0", "500", outcome="error"), beside("0", "4500")], errors("100"))
    assert isinstance(one.state, Healthy)
    assert told(one).startswith("errors: 500 of 500 canary requests failed, or failed at the first tier (100 %, allowed 100 %)")
