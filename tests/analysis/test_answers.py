"""Answers of Prometheus-compatible servers, from bytes to each policy's samples."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from backstop.analysis.answers import MatrixSeries, read_answer, sort_answer
from backstop.analysis.samples import Counter, NoData, Partial, ProviderError, Sample, Series
from tests.analysis.history import latency_objective, live_policy

LABELS = {
    "__name__": "backstop_served_seconds_bucket",
    "namespace": "shop",
    "policy": "support",
    "revision": "canary",
    "cache": "miss",
    "first_tier": "late",
    "le": "20",
    "pod": "support-abc",
    "instance": "10.0.0.7:9090",
    "job": "gateways",
}


def body(**changes: Any) -> bytes:
    result = [{"metric": LABELS, "values": [[5.25, "3"], [10.25, "NaN"]]}]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}} | changes).encode()


def test_a_range_vector_is_read_as_series_of_times_and_values() -> None:
    assert read_answer(body(), source="default") == [MatrixSeries(metric=LABELS, values=[(5.25, "3"), (10.25, "NaN")])]


def test_infos_are_remarks_on_the_query_and_hide_nothing() -> None:
    assert isinstance(read_answer(body(infos=["PromQL info: metric might not be a counter"]), source="default"), list)


@pytest.mark.parametrize(
    "changes", [{"warnings": ["2 of 3 stores are down"]}, {"isPartial": True}, {"warnings": ["x" * 5000], "infos": ["y"]}]
)
def test_an_answer_with_warnings_is_partial_whatever_it_holds(changes: dict[str, Any]) -> None:
    result = read_answer(body(**changes), source="default")
    assert isinstance(result, Partial)
    assert result.sentence.startswith("Metrics source `default` answered in part, so nothing of it is used: ")
    assert len(result.sentence) < 400


SERIES = [{"metric": LABELS, "values": [[5, "3"], [10.25, "4"]]}]
WHOLE: dict[str, dict[str, Any]] = {
    "Prometheus": {"data": {"resultType": "matrix", "result": SERIES}},
    "Thanos": {"data": {"resultType": "matrix", "result": SERIES, "analysis": {}}},
    "Mimir": {"data": {"resultType": "matrix", "result": SERIES}, "infos": ["PromQL info: metric might not be a counter"]},
    "VictoriaMetrics": {
        "isPartial": False,
        "data": {"resultType": "matrix", "result": SERIES},
        "stats": {"seriesFetched": "1", "executionTimeMsec": 3},
    },
}
IN_PART: dict[str, dict[str, Any]] = {
    "Thanos": {**WHOLE["Thanos"], "warnings": ["fetch series for {cluster=b}: rpc error: code = Unavailable desc = connection refused"]},
    "Thanos without a store": {"data": {"resultType": "matrix", "result": []}, "warnings": ["No StoreAPIs matched for this query"]},
    "Mimir": {**WHOLE["Mimir"], "warnings": ["the query touched blocks that are not yet loaded"]},
    "VictoriaMetrics": {**WHOLE["VictoriaMetrics"], "isPartial": True},
}


@pytest.mark.parametrize("store", WHOLE)
def test_a_whole_answer_of_each_store_is_read_whatever_else_it_tells(store: str) -> None:
    assert read_answer(body(**WHOLE[store]), source="default") == [MatrixSeries(metric=LABELS, values=[(5, "3"), (10.25, "4")])]


@pytest.mark.parametrize("store", IN_PART)
def test_an_answer_in_part_of_each_store_is_partial_and_no_data(store: str) -> None:
    assert isinstance(read_answer(body(**IN_PART[store]), source="default"), Partial)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>Sign in</html>", "something that is not a Prometheus answer"),
        (b"", "something that is not a Prometheus answer"),
        (b"\xff\xfe\x00", "something that is not a Prometheus answer"),
        (b"[]", "something that is not a Prometheus answer"),
        (body()[:-10], "something that is not a Prometheus answer"),
        (body(status="error", data=None), "status 'error' instead of data"),
        (body(data={"resultType": "vector", "result": []}), "a 'vector' where a range vector was asked for"),
        (body(data={"resultType": "scalar", "result": [1, "2"]}), "a 'scalar' where a range vector was asked for"),
        (body(data={"resultType": "matrix", "result": {}}), "series that cannot be read"),
        (body(data={"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]}), "series that cannot be read"),
        (body(data={"resultType": "matrix", "result": [{"metric": {"a": 1}, "values": []}]}), "series that cannot be read"),
    ],
)
def test_garbage_is_an_error_of_the_provider_with_one_sentence(answer: bytes, said: str) -> None:
    result = read_answer(answer, source="default")
    assert isinstance(result, ProviderError)
    assert said in result.sentence
    assert result.sentence.startswith("Metrics source `default` answered with ")


def series(value: str = "3", **labels: str) -> MatrixSeries:
    return MatrixSeries(metric=LABELS | labels, values=[(5.0, value)])


def test_series_go_to_the_policy_and_revision_that_they_belong_to() -> None:
    support = live_policy(latency_objective())
    other = replace(support, name="other")
    lonely = replace(support, name="lonely")
    answer = [series(), series(policy="other", revision="stable"), series(policy="strange"), series(revision="older")]

    found = sort_answer(answer, policies=[support, other, lonely], source="default")

    target = "support-abc 10.0.0.7:9090"
    bucket = Counter("backstop_served_seconds_bucket", "canary", "miss", "", "late", 20.0)
    assert found["shop", "support"] == Sample((Series(target, bucket, ((5.0, 3.0),)),))
    assert found["shop", "other"] == Sample((Series(target, bucket._replace(revision="stable"), ((5.0, 3.0),)),))
    assert found["shop", "lonely"] == NoData("Metrics source `default` has no samples of this policy's gateways; are their pods scraped?")


@pytest.mark.parametrize("odd", [series("three"), series(le="wide")])
def test_a_value_or_bound_that_is_no_number_is_an_error_of_the_provider(odd: MatrixSeries) -> None:
    found = sort_answer([odd], policies=[live_policy(latency_objective())], source="default")["shop", "support"]
    assert isinstance(found, ProviderError)
    assert "is not a number" in found.sentence


# LABELS less `pod`, as a job gives them that keeps the pod's name elsewhere.
NAMELESS = {name: value for name, value in LABELS.items() if name != "pod"} | {"kubernetes_pod_name": "support-abc"}
AT, A_MOMENT_LATER, AFTERWARDS = ((at, at + 5.0, at + 10.0) for at in (5.0, 6.3, 20.0))


def at_times(times: Iterable[float], labels: Mapping[str, str]) -> MatrixSeries:
    return MatrixSeries(metric=dict(labels), values=[(at, "3") for at in times])


@pytest.mark.parametrize("again", [LABELS | {"instance": "support-abc:metrics"}, NAMELESS])
@pytest.mark.parametrize("turned", [False, True])
def test_a_pod_that_two_jobs_scrape_under_other_labels_is_refused_and_not_counted_twice(again: dict[str, str], turned: bool) -> None:
    twice = [at_times(AT, LABELS), at_times(A_MOMENT_LATER, again)]
    found = sort_answer(twice[::-1] if turned else twice, policies=[live_policy(latency_objective())], source="default")["shop", "support"]
    assert isinstance(found, ProviderError)
    assert "several series where one is expected" in found.sentence
    assert found.sentence.endswith("scrape each gateway pod once.")


@pytest.mark.parametrize("later", [LABELS | {"instance": "10.0.0.8:9090"}, NAMELESS, LABELS | {"pod": "support-def"}])
def test_a_pod_with_another_address_and_an_address_with_another_pod_are_no_second_scrape(later: dict[str, str]) -> None:
    found = sort_answer([at_times(AT, LABELS), at_times(AFTERWARDS, later)], policies=[live_policy(latency_objective())], source="default")
    assert isinstance(found["shop", "support"], Sample)


def test_pods_whose_job_names_their_node_for_an_instance_are_told_apart_by_their_names() -> None:
    pods = [at_times(times, LABELS | {"pod": pod}) for pod, times in (("a", AT), ("b", A_MOMENT_LATER))]
    found = sort_answer(pods, policies=[live_policy(latency_objective())], source="default")["shop", "support"]
    assert isinstance(found, Sample)
    assert len({series.target for series in found.series}) == 2


def test_a_pod_that_is_scraped_twice_is_refused_with_both_label_sets() -> None:
    twice = [series(), series(job="everything")]
    found = sort_answer(twice, policies=[live_policy(latency_objective())], source="default")["shop", "support"]
    assert isinstance(found, ProviderError)
    assert "several series where one is expected" in found.sentence
