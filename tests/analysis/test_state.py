"""The packed state: the same after a round trip, bounded, and damage is said instead of raised."""

import base64
import json
import random
import zlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstop.analysis.reading import Breached, Breaching, Counts, Healthy
from backstop.analysis.rule import ArmBlock, BoundCounts
from backstop.analysis.rules import RuleState
from backstop.analysis.sequential.mean import Mean, MeanBlock, MeanState, Sum
from backstop.analysis.sequential.risk import Risk
from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable, Sequential
from backstop.analysis.sequential.state import SequentialState
from backstop.analysis.silence import Silence
from backstop.analysis.state import (
    MAX_TARGETS,
    PACKED_BYTES,
    AnalysisState,
    DisplayQuantile,
    ObjectiveState,
    UnreadableState,
    WantedHistory,
    pack,
    target_key,
    unpack,
    with_source,
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
    measure=st.text(max_size=6),
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
    source=st.text(max_size=12),
)


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
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


# -- sequential tests

NOW = 1_763_000_000.123
LONG = 250  # blocks, so that there is a generation that is remembered beside the newest


def evidence_after(draw: random.Random, *, rule: Sequential, blocks: int, worse: float = 1.0) -> SequentialState:
    """What a rule remembers after so many blocks of five seconds, until NOW."""

    def counts_of(total: int, share: float) -> Counts:
        return Counts(sum(draw.random() < share for _ in range(total)), total)

    state = rule.start()
    for index in range(blocks):
        end = NOW - 5 * (blocks - 1 - index) - round(draw.random(), 3)
        canary, stable = draw.randrange(60), draw.randrange(50, 400)
        further = tuple(
            BoundCounts(counts_of(canary, 0.02 / (position + 2)), counts_of(stable, 0.02 / (position + 2)))
            for position in range(rule.comparisons - 1)
        )
        pods = counts_of(stable // 2, 0.02), counts_of(stable - stable // 2, 0.02)
        block = ArmBlock(end - 5, end, counts_of(canary, 0.02 * worse), pods[0] + pods[1], bounds=further, stable_pods=pods)
        state = rule.observe(state, block=block)
    return state


def remembered(states_of: Sequence[RuleState], *, targets: int = 20) -> AnalysisState:
    return AnalysisState(
        canary="7f9c0d1e2b",
        stable="6b8f1a2c3d",
        since=NOW - 600,
        block_end=NOW,
        watermarks={target_key(f"support-{i} 10.0.0.{i}:9090"): round(NOW - i / 1000, 3) for i in range(targets)},
        objectives={
            f"{index:010x}": ObjectiveState(
                rule=one,
                step_requests=1_234_567,
                canary_quantile=DisplayQuantile(412, "≈"),
                stable_quantile=DisplayQuantile(95, "≤"),
                planned_blocks=360,
            )
            for index, one in enumerate(states_of)
        },
    )


def rules(*, comparisons: int) -> list[Sequential]:
    limits = (AtMost(0.03), NoMoreThanStable(0.01))
    times_waited = (0, 30)
    return [Sequential(limit, seconds, Risk(0.01, tests=6), 360, comparisons) for limit in limits for seconds in times_waited]


@pytest.mark.long
def test_six_objectives_with_eight_bounds_fit_after_a_long_run_with_all_their_digits() -> None:
    draw = random.Random(3)
    state = remembered([evidence_after(draw, rule=rule, blocks=LONG) for rule in (2 * rules(comparisons=8))[:6]])
    assert len(pack(state)) <= PACKED_BYTES
    kept = unpack(pack(state))
    assert isinstance(kept, AnalysisState)
    assert replace(kept, objectives={}) == replace(state, objectives={})
    for fingerprint, one in state.objectives.items():
        assert_the_same(kept.objectives[fingerprint], one, digits=7)
    assert unpack(pack(kept)) == kept, "nothing is lost from one restart to the next"


def assert_the_same(kept: ObjectiveState, one: ObjectiveState, *, digits: int) -> None:
    assert isinstance(kept.rule, SequentialState)
    assert isinstance(one.rule, SequentialState)
    assert replace(kept, rule=one.rule) == one
    assert kept.rule.older is not None
    assert one.rule.older is not None
    assert kept.rule.older.succession.blocks == one.rule.older.succession.blocks
    assert kept.rule.absolute.ln_capital == pytest.approx(one.rule.absolute.ln_capital, rel=10.0 ** (1 - digits))
    for mine, theirs in zip(kept.rule.relatives, one.rule.relatives, strict=True):
        assert mine.restarts.ln_capital == pytest.approx(theirs.restarts.ln_capital, rel=10.0 ** (1 - digits))
        assert mine.seen.canary_total == pytest.approx(theirs.seen.canary_total, rel=1e-6)
    assert (kept.rule.history, [span.canary for span in kept.rule.window]) == (one.rule.history, [span.canary for span in one.rule.window])


@pytest.mark.long
def test_on_the_most_targets_evidence_has_fewer_digits_and_counts_have_all() -> None:
    draw = random.Random(4)
    six = (2 * rules(comparisons=8))[:6]
    state = remembered([evidence_after(draw, rule=rule, blocks=LONG) for rule in six], targets=MAX_TARGETS)
    kept = unpack(pack(state))
    assert len(pack(state)) <= PACKED_BYTES
    assert isinstance(kept, AnalysisState)
    for fingerprint, one in state.objectives.items():
        assert_the_same(kept.objectives[fingerprint], one, digits=3)


@pytest.mark.long
def test_six_objectives_of_any_kind_fit_whole_with_the_longest_names_on_the_most_targets() -> None:
    draw = random.Random(6)
    limit = Sequential(AtMost(0.03), 30, Risk(0.01, tests=6), 360, 8, weighs_promotion=True)
    increase = replace(limit, limit=NoMoreThanStable(0.01), for_seconds=0)
    worst = [evidence_after(draw, rule=rule, blocks=LONG, worse=3.0) for rule in (limit, increase)]
    dear = mean_after(draw, rule=Mean(target=900.0, for_seconds=30, risk=Risk(0.01, tests=6), planned_blocks=360), blocks=LONG)
    plain = next(iter(largest(count=10**19).objectives.values())).rule
    for kinds in (3 * worst, [*worst, dear, dear, plain, plain], 6 * [dear], 6 * [plain]):
        state = replace(remembered(kinds, targets=MAX_TARGETS), source="s" * 63, silence=Silence(since=NOW - 7.003, sent=10**19))
        packed = pack(state)
        kept = unpack(packed)
        assert len(packed) <= PACKED_BYTES
        assert isinstance(kept, AnalysisState)
        assert replace(kept, objectives={}) == replace(state, objectives={})
        assert kept.objectives.keys() == state.objectives.keys()


def mean_after(draw: random.Random, *, rule: Mean, blocks: int) -> MeanState:
    """What the rule of means remembers after so many blocks of five seconds, until NOW."""
    state = rule.start()
    for index in range(blocks):
        end = NOW - 5 * (blocks - 1 - index) - round(draw.random(), 3)
        canary, stable = (Sum(round(1000 * n * draw.random(), 6), requests=n) for n in (draw.randrange(60), draw.randrange(400)))
        state = rule.observe(state, block=MeanBlock(end - 5, end, canary, stable, unknown=draw.randrange(9)))
    return state


@pytest.mark.long
def test_of_more_evidence_than_fits_some_is_left_out_and_counting_goes_on() -> None:
    draw = random.Random(5)
    state = remembered([evidence_after(draw, rule=rule, blocks=50) for rule in 4 * rules(comparisons=8)], targets=MAX_TARGETS)
    kept = unpack(pack(state))
    assert len(pack(state)) <= PACKED_BYTES
    assert isinstance(kept, AnalysisState)
    assert replace(kept, objectives={}) == replace(state, objectives={})
    assert 6 <= len(kept.objectives) < len(state.objectives)


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(seed=st.integers(0, 10**6), blocks=st.integers(0, 60), worse=st.sampled_from([1.0, 3.0, 30.0]), comparisons=st.sampled_from([1, 6]))
def test_a_restart_changes_no_verdict(seed: int, blocks: int, worse: float, comparisons: int) -> None:
    draw = random.Random(seed)
    for rule in rules(comparisons=comparisons):
        before = evidence_after(draw, rule=rule, blocks=blocks, worse=worse)
        kept = unpack(pack(remembered([before])))
        assert isinstance(kept, AnalysisState)
        (resumed,) = (one.rule for one in kept.objectives.values())
        assert isinstance(resumed, SequentialState)
        plain, after = rule.evidence(before), rule.evidence(resumed)
        assert after.decisive == pytest.approx(plain.decisive, rel=1e-5, abs=1e-5)
        near = any(abs(plain.decisive - level) < 1e-3 for level in (rule.risk.ln_threshold, rule.risk.ln_pass))
        one, other = rule.judge(before), rule.judge(resumed)
        assert near or type(one) is type(other)
        match one, other:
            case (Breached() | Breaching(), Breached() | Breaching()):
                assert other.since == pytest.approx(one.since, abs=0.002)
            case _:
                assert near or isinstance(one, Healthy)


def test_a_state_of_the_version_before_is_read_and_goes_on() -> None:
    # As it was written: revisions, origin, start, end of the block, the step's figures, watermarks, and one threshold with an episode.
    text = (
        b'["canary","stable",1763000000000,60000,0,[120,125,400,null,900],[["AbCdEfGh",0],["IjKlMnOp",1500]],'
        b'[["0123456789",[77,[[412,"\\u2248"],[]],[[10000,5000,[3,40],[1,360],0],[5000,0,[9,41],[],0]],[5000,0,[9,41],[]]]]]]'
    )
    kept = unpack(_packed(text))
    assert isinstance(kept, AnalysisState)
    assert (kept.step_requests, kept.step_sent, kept.requests, kept.step_beside) == (120, 125, 400, 900)
    assert kept.watermarks == {"AbCdEfGh": 1763000000.0, "IjKlMnOp": 1762999998.5}
    one = kept.objectives["0123456789"]
    assert one.rule == ThresholdState(
        window=(
            ArmBlock(1762999990.0, 1762999995.0, Counts(3, 40), Counts(1, 360)),
            ArmBlock(1762999995.0, 1763000000.0, Counts(9, 41), None),
        ),
        episode=Episode(1762999995.0, 1763000000.0, Counts(9, 41), None),
    )
    assert (one.step_requests, one.planned_blocks, one.history) == (77, 1, None)


def test_what_is_still_wanted_of_stables_history_is_kept_and_one_that_does_not_say_so_wants_none() -> None:
    rule = rules(comparisons=1)[0]
    tried = [WantedHistory(before=NOW - 60), WantedHistory(before=NOW - 60, failed=2, again=NOW + 30), None]
    plain = remembered([rule.start()] * len(tried))
    state = replace(
        plain, objectives={key: replace(one, history=history) for (key, one), history in zip(plain.objectives.items(), tried, strict=True)}
    )
    kept = unpack(pack(state))
    assert isinstance(kept, AnalysisState)
    assert [kept.objectives[key].history for key in state.objectives] == tried
    # As it was written before: of no objective by itself, whether it is read.
    version, _, body = pack(state).partition(".")
    document = json.loads(zlib.decompress(base64.b85decode(body)))
    document[5] = [*document[5][:5], 1, "default"]
    before = unpack(f"{version}.{base64.b85encode(zlib.compress(json.dumps(document).encode())).decode()}")
    assert isinstance(before, AnalysisState)
    assert {key: one.history for key, one in before.objectives.items()} == dict.fromkeys(state.objectives)
    assert {one.measure for one in before.objectives.values()} == {""}


def test_a_state_that_names_no_source_goes_on_with_any_and_then_with_that_one_alone() -> None:
    kept = unpack(_packed(b'["canary","stable",1763000000000,60000,0,[120,125,400,null,900,1],[["AbCdEfGh",0]],[]]'))
    assert isinstance(kept, AnalysisState)
    assert kept.source == ""
    known = with_source(kept, source="default")
    assert known == replace(kept, source="default")
    assert with_source(known, source="default") == known
    # Of the requests those of earlier steps are left: the other source is asked for this one's again.
    assert with_source(known, source="other") == AnalysisState("canary", "stable", source="other", requests=280)


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
        (_packed(b'["c","s",0,null,null,[1,2,3,null,5,1,6],[],[]]'), "is damaged"),
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
