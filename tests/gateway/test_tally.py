"""What the event loop counts reads as if the library's own counters had counted it."""

from collections.abc import Iterator

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from backstop.gateway.tally import LoopCounter, LoopHistogram

BOUNDS = (0.005, 0.1, 1.0, 2.5)
LABELS = ("policy", "tier")
OF = st.sampled_from([("support", "primary"), ("support", 'quoted "\\\n'), ("other", "")])
SECONDS = st.sampled_from(BOUNDS) | st.floats(0, 10) | st.just(float("inf"))


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_gateway() -> Iterator[None]:
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    yield
    prometheus_client.enable_created_metrics()  # type: ignore[no-untyped-call]  # as above


@given(st.lists(st.tuples(OF, st.integers(0, 1000))), st.lists(st.tuples(OF, SECONDS)))
def test_it_reads_as_the_library_s_own(counted: list[tuple[tuple[str, str], int]], observed: list[tuple[tuple[str, str], float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters = LoopCounter("some_total", "Some.", LABELS, registry=ours), Counter("some_total", "Some.", LABELS, registry=theirs)
    histograms = (
        LoopHistogram("some_seconds", "Seconds.", LABELS, buckets=BOUNDS, registry=ours),
        Histogram("some_seconds", "Seconds.", LABELS, buckets=BOUNDS, registry=theirs),
    )
    for labels, amount in counted:
        for counter in counters:
            counter.labels(*labels).inc(amount)
    for labels, seconds in observed:
        for histogram in histograms:
            histogram.labels(*labels).observe(seconds)
    assert generate_latest(ours) == generate_latest(theirs)


def test_what_is_dropped_is_gone_and_begins_at_0() -> None:
    registry = CollectorRegistry()
    counter = LoopCounter("some_total", "Some.", LABELS, registry=registry)
    for policy, tier in (("a", "x"), ("a", "y"), ("b", "x")):
        counter.labels(policy, tier).inc(3)
    counter.drop("policy", value="a")
    assert [sample.labels for family in registry.collect() for sample in family.samples] == [{"policy": "b", "tier": "x"}]
    assert counter.labels("a", "x").value == 0


def test_two_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    LoopCounter("some_total", "Some.", LABELS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("some_total", "Some.", LABELS, registry=registry)
