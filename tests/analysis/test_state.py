"""The packed state: the same after a round trip, bounded, and damage is said instead of raised."""

import base64
import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstop.analysis.reading import Counts
from backstop.analysis.rule import ArmBlock
from backstop.analysis.silence import Silence
from backstop.analysis.state import (
    MAX_TARGETS,
    PACKED_BYTES,
    AnalysisState,
    DisplayQuantile,
    ObjectiveState,
    UnreadableState,
    pack,
    target_key,
    unpack,
)
from backstop.analysis.threshold import WINDOW_BLOCKS, Episode, ThresholdState, stable_of, total_of

times = st.integers(1_600_000_000_000, 2_000_000_000_000).map(lambda ms: ms / 1000)
counts = st.builds(Counts, bad=st.integers(0, 10**18), total=st.integers(0, 10**18))
arm_blocks = st.builds(ArmBlock, start=times, end=times, canary=counts, stable=st.none() | counts, after_gap=st.booleans())
episodes = st.builds(Episode, first_bad=times, newest_bad=times, canary=counts, stable=st.none() | counts)
quantiles = st.none() | st.builds(DisplayQuantile, milliseconds=st.integers(0, 10**6), sign=st.sampled_from(["≈", ">", "≤"]))
objective_states = st.builds(
    ObjectiveState,
    rule=st.builds(ThresholdState, window=st.lists(arm_blocks, max_size=5).map(tuple), episode=st.none() | episodes),
    step_requests=st.integers(0, 10**12),
    canary_quantile=quantiles,
    stable_quantile=quantiles,
)
states = st.builds(
    AnalysisState,
    canary=st.text(max_size=12),
    stable=st.text(max_size=12),
    since=st.none() | times,
    block_end=st.none() | times,
    watermarks=st.dictionaries(st.text(min_size=1, max_size=12).map(target_key), times, max_size=8),
    step_requests=st.integers(0, 10**12),
    step_sent=st.integers(0, 10**12),
    silence=st.none() | st.builds(Silence, since=times, sent=st.integers(0, 10**18)),
    step_beside=st.integers(0, 10**12),
    objectives=st.dictionaries(st.text(max_size=8), objective_states, max_size=3),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(state=states)
def test_packing_and_unpacking_gives_the_same_state(state: AnalysisState) -> None:
    assert unpack(pack(state)) == state


def test_six_objectives_and_the_most_targets_fit_into_eight_kibibytes() -> None:
    draw = random.Random(7)
    now = 1_763_000_000.0

    def arm_block(index: int) -> ArmBlock:
        end = now - 5 * index - round(draw.random(), 3)
        total = draw.randrange(5000)
        return ArmBlock(start=end - 5, end=end, canary=Counts(draw.randrange(total + 1), total), stable=Counts(draw.randrange(999), 99_999))

    window = [arm_block(index) for index in range(WINDOW_BLOCKS)]
    objectives = {
        f"{draw.randrange(16**10):010x}": ObjectiveState(
            rule=ThresholdState(
                window=tuple(
                    ArmBlock(b.start, b.end, Counts(draw.randrange(b.canary.total + 1), b.canary.total), b.stable) for b in window
                ),
                episode=Episode(now - 100, now, Counts(12_345, 67_890), Counts(123, 1_234_567)),
            ),
            step_requests=1_234_567,
            canary_quantile=DisplayQuantile(412, "≈"),
            stable_quantile=DisplayQuantile(95, "≤"),
        )
        for _ in range(6)
    }
    state = AnalysisState(
        canary="7f9c0d1e2b",
        stable="6b8f1a2c3d",
        since=now - 600,
        block_end=now,
        watermarks={target_key(f"support-{i} 10.0.0.{i}:9090"): now - round(5 * draw.random(), 3) for i in range(MAX_TARGETS)},
        step_requests=1_234_567,
        step_sent=1_234_999,
        objectives=objectives,
    )

    assert len(pack(state).encode()) <= PACKED_BYTES
    assert unpack(pack(state)) == state


def largest(*, count: int) -> AnalysisState:
    """Whole windows with counts below `count`, and as many targets as there may be."""
    draw = random.Random(7)
    now = 1_763_000_000.0

    def counts_below() -> Counts:
        total = draw.randrange(count)
        return Counts(draw.randrange(total + 1), total)

    def arm_block(end: float) -> ArmBlock:
        return ArmBlock(start=end - 5, end=end, canary=counts_below(), stable=counts_below(), after_gap=draw.random() < 0.5)

    ends = [now - 5 * index - round(draw.random(), 3) for index in reversed(range(WINDOW_BLOCKS))]
    return AnalysisState(
        canary="7f9c0d1e2b",
        stable="6b8f1a2c3d",
        since=now - 600,
        block_end=now,
        watermarks={target_key(f"support-{i} 10.0.0.{i}:9090"): now - round(5 * draw.random(), 3) for i in range(MAX_TARGETS)},
        step_requests=draw.randrange(count),
        step_sent=draw.randrange(count),
        requests=draw.randrange(count),
        silence=Silence(since=now - 7.003, sent=draw.randrange(count)),
        step_beside=draw.randrange(count),
        objectives={
            f"{draw.randrange(16**10):010x}": ObjectiveState(
                rule=ThresholdState(
                    window=tuple(arm_block(end) for end in ends), episode=Episode(now - 100, now, counts_below(), counts_below())
                ),
                step_requests=draw.randrange(count),
                canary_quantile=DisplayQuantile(draw.randrange(120_000), "≈"),
                stable_quantile=DisplayQuantile(draw.randrange(120_000), "≤"),
            )
            for _ in range(16)
        },
    )


@pytest.mark.parametrize("count", [1000, 10**6, 10**19])
def test_the_most_objectives_fit_with_windows_that_are_coarser_at_their_far_ends(count: int) -> None:
    state = largest(count=count)
    assert len(pack(state)) <= PACKED_BYTES
    kept = unpack(pack(state))
    assert isinstance(kept, AnalysisState)
    assert replace(kept, objectives={}) == replace(state, objectives={})
    for fingerprint, one in state.objectives.items():
        rule = kept.objectives[fingerprint].rule
        assert isinstance(rule, ThresholdState)
        assert isinstance(one.rule, ThresholdState)
        assert rule.episode == one.rule.episode
        assert (total_of(rule.window), stable_of(rule.window)) == (total_of(one.rule.window), stable_of(one.rule.window))
        assert rule.window[-1] == one.rule.window[-1]


def _packed(text: bytes) -> str:
    return "1." + base64.b85encode(zlib.compress(text)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is of version ''"),
        ("9.abc", "is of version '9'"),
        ("no dot at all", "is of version 'no dot at all'"),
        ("1.", "is damaged"),
        ("1.\u2026", "is damaged"),
        ("1.zzzzzz", "is damaged"),
        (_packed(b"not json"), "is damaged"),
        (_packed(b"{}"), "is damaged"),
        (_packed(b'["c","s",1,2,3]'), "is damaged"),
        (_packed(b'["c","s","x",null,null,[1,2],[["t",1]],[]]'), "is damaged"),
        (_packed(b'["c","s",0,null,null,[1,2],[],[["o",[1,[[],[]],[[1,2]],[]]]]]'), "is damaged"),
        (_packed(b'["c","s",0,null,null,[1e999,2],[],[]]'), "is damaged"),
        (_packed(b"[" * 100_000), "is damaged"),
        (_packed(b" " * 50_000_000), "is damaged"),
        (pack(AnalysisState(canary="c", stable="s"))[:-4], "is damaged"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(text: str, said: str) -> None:
    result = unpack(text)
    assert isinstance(result, UnreadableState)
    assert result.sentence.startswith(f"`status.analysis` {said}")
    assert result.sentence.endswith("the analysis starts anew.")
