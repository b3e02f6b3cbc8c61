"""What the tests remember of stable: long enough to know its bursts, and not for ever."""

import base64
import json
import math
import random
import zlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import comb

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstop.analysis.reading import Breached, Counts
from backstop.analysis.rule import ArmBlock
from backstop.analysis.sequential.bursts import ENOUGH_BLOCKS
from backstop.analysis.sequential.memory import GENERATION_BLOCKS, GENERATION_SECONDS, burst_correlation, bursts_are_known
from backstop.analysis.sequential.relative import log_relative
from backstop.analysis.sequential.risk import Risk
from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable, Sequential
from backstop.analysis.sequential.state import SequentialState, with_memory
from backstop.analysis.state import AnalysisState, ObjectiveState, pack, unpack

EVERY = GENERATION_SECONDS / GENERATION_BLOCKS
RULES = [Sequential(limit, for_seconds=0, risk=Risk(0.005, tests=1), planned_blocks=360) for limit in (AtMost(0.01), NoMoreThanStable(0.0))]
FINE, INCIDENT = ((0, 50), (2, 450)), ((5, 50), (45, 450))


def after(judge: Sequential, arms: Iterable[tuple[tuple[int, int], tuple[int, int]]], state: SequentialState) -> SequentialState:
    for canary, stable in arms:
        start = state.seen_until
        block = ArmBlock(start=start, end=start + EVERY, canary=Counts(*canary), stable=Counts(*stable))
        state = judge.observe(state, block=block)
    return state


@pytest.mark.parametrize("judge", RULES)
def test_of_an_incident_two_generations_ago_nothing_is_left_but_the_evidence(judge: Sequential) -> None:
    varied = [FINE, FINE, ((1, 50), (3, 450)), FINE, ((0, 50), (0, 450))] * (2 * GENERATION_BLOCKS // 5)
    plain = after(judge, varied, after(judge, [FINE] * GENERATION_BLOCKS, judge.start()))
    spoiled = after(judge, varied, after(judge, [FINE, INCIDENT, INCIDENT] * (GENERATION_BLOCKS // 3), judge.start()))
    assert burst_correlation(spoiled, seconds=EVERY) == burst_correlation(plain, seconds=EVERY)
    assert judge.expected(spoiled) == judge.expected(plain)
    assert (spoiled.bursts, spoiled.succession, spoiled.older) == (plain.bursts, plain.succession, plain.older)


def history(shares: Iterable[tuple[int, int]]) -> list[ArmBlock]:
    """Blocks of stable's, one after the other, up to 0."""
    blocks = list(shares)
    return [
        ArmBlock(start=EVERY * (i - len(blocks)), end=EVERY * (i + 1 - len(blocks)), canary=Counts(), stable=Counts(*stable))
        for i, stable in enumerate(blocks)
    ]


def bernoulli(rng: random.Random, *, share: float, requests: int = 90) -> tuple[int, int]:
    return sum(rng.random() < share for _ in range(requests)), requests


@pytest.mark.parametrize("judge", RULES)
@pytest.mark.parametrize("before", [0.05, 0.0])
def test_what_stable_was_before_it_changed_is_forgotten_as_soon_as_its_bursts_are_known_anew(judge: Sequential, before: float) -> None:
    rng = random.Random(7)
    state = judge.seeded(judge.start(), history=history(bernoulli(rng, share=before) for _ in range(120)))
    arms = [((0, 10), bernoulli(rng, share=0.01 if before else 0.05)) for _ in range(ENOUGH_BLOCKS)]
    state = after(judge, arms[:-1], state)
    assert state.older is not None
    assert abs(judge.expected(state) - before) < 0.02
    assert burst_correlation(state, seconds=EVERY) > 0.02, "two shares look like bursts that last"
    state = after(judge, arms[-1:], state)
    assert state.older is None
    assert judge.expected(state) == pytest.approx(0.01 if before else 0.05, rel=0.3)
    assert burst_correlation(state, seconds=EVERY) < 0.01
    assert bursts_are_known(state)


@pytest.mark.parametrize("judge", RULES)
@pytest.mark.parametrize(("cut", "at_once"), [(36, True), (60, True), (84, False)])
def test_a_change_in_stables_history_is_found_where_it_was(judge: Sequential, cut: int, at_once: bool) -> None:
    rng = random.Random(7)
    shares = [0.05] * cut + [0.01] * (120 - cut)
    state = judge.seeded(judge.start(), history=history(bernoulli(rng, share=share, requests=450) for share in shares))
    if not at_once:
        assert state.older is not None
        assert (state.older.succession.blocks, state.succession.blocks) == (cut, 120 - cut)
        state = after(judge, (((0, 10), bernoulli(rng, share=0.01)) for _ in range(ENOUGH_BLOCKS - (120 - cut))), state)
    assert state.older is None
    assert state.succession.blocks >= ENOUGH_BLOCKS
    assert judge.expected(state) == pytest.approx(0.01, rel=0.2)
    assert state.remembered == state.succession.blocks * EVERY


@pytest.mark.parametrize(
    ("blocks", "burst", "share"),
    [
        (120, range(0), 0.0),
        (120, range(100, 102), 0.3),
        (120, range(20, 50), 0.3),
        (120, range(108, 120), 1.0),
        (120, range(60, 84), 1.0),
        (12, range(4, 7), 1.0),
        (36, range(10, 16), 1.0),
        (59, range(20, 32), 1.0),
    ],
)
@pytest.mark.parametrize("pods", [1, 10])
def test_a_burst_of_before_is_not_forgotten_because_there_was_none_since(blocks: int, burst: range, share: float, pods: int) -> None:
    """Also where there are hardly blocks enough to tell how long a burst lasts, where pods share it, and after a block of a minute."""
    judge, rng, seconds = RULES[0], random.Random(7), 5.0
    state = judge.seeded(
        judge.start(),
        history=[block(rng, index=i - blocks, share=share if i in burst else 0.01, seconds=seconds, pods=pods) for i in range(blocks)],
    )
    assert state.older is not None
    before = state.older
    for index in range(GENERATION_BLOCKS - 1):
        one = block(rng, index=index, share=0.01, seconds=seconds, pods=pods)
        state = judge.observe(state, block=replace(one, end=one.start + 60.0) if index == 71 else one)
    assert state.older == before


@pytest.mark.parametrize("pods", [1, 10])
@pytest.mark.parametrize("seed", range(5))
def test_bursts_that_go_on_are_no_change_of_stable(pods: int, seed: int) -> None:
    """An intra-block correlation of 0.1, shared by all pods, of which four in five go on for another block."""
    judge, rng, seconds, now = RULES[0], random.Random(seed), 5.0, 0.01

    def drawn(index: int) -> ArmBlock:
        nonlocal now
        now = rng.betavariate(0.09, 8.91) if rng.random() < 0.2 else now
        return block(rng, index=index, share=now, seconds=seconds, pods=pods)

    state = judge.seeded(judge.start(), history=[drawn(index) for index in range(-120, 0)])
    for index in range(GENERATION_BLOCKS):
        state = judge.observe(state, block=drawn(index))
    assert state.older is not None


def block(rng: random.Random, *, index: int, share: float, seconds: float, pods: int) -> ArmBlock:
    """Ninety requests of stable's, and ten of a canary without errors."""
    each = tuple(Counts(*bernoulli(rng, share=share, requests=90 // pods)) for _ in range(pods))
    stable = sum(each, Counts())
    return ArmBlock(start=seconds * index, end=seconds * (index + 1), canary=Counts(0, 10), stable=stable, stable_pods=each)


@pytest.mark.parametrize("judge", RULES)
def test_an_outage_an_hour_after_an_incident_is_decided_by_one_block(judge: Sequential) -> None:
    state = after(judge, [FINE] * 100 + [INCIDENT] * 50 + [FINE] * round(3600 / EVERY), judge.start())
    assert not isinstance(judge.judge(state), Breached)
    assert isinstance(judge.judge(after(judge, [((50, 50), (2, 450))], state)), Breached)


def test_what_is_known_is_of_one_generation_at_least_and_of_two_at_most() -> None:
    state, judge, known = RULES[0].start(), RULES[0], []
    for _ in range(5 * GENERATION_BLOCKS):
        state = after(judge, [FINE], state)
        known.append(state.bursts.total / 450 + (state.older.bursts.total / 450 if state.older else 0))
    assert known[: 2 * GENERATION_BLOCKS - 1] == list(range(1, 2 * GENERATION_BLOCKS))
    assert min(known[GENERATION_BLOCKS:]) >= GENERATION_BLOCKS
    assert max(known) < 2 * GENERATION_BLOCKS


def test_without_stable_nothing_is_forgotten() -> None:
    judge = RULES[0]
    state = after(judge, [FINE] * (GENERATION_BLOCKS + 5), judge.start())
    alone = after(judge, [((0, 50), (0, 0))] * (3 * GENERATION_BLOCKS), state)
    assert (alone.bursts, alone.older, alone.remembered) == (state.bursts, state.older, state.remembered)


@pytest.mark.parametrize("seconds", [1.0, 60.0])
def test_a_generation_is_long_enough_in_blocks_and_in_time(seconds: float) -> None:
    judge, blocks = RULES[0], 0
    state = judge.start()
    while state.older is None:
        block = ArmBlock(start=blocks * seconds, end=(blocks + 1) * seconds, canary=Counts(), stable=Counts(1, 90))
        state, blocks = judge.observe(state, block=block), blocks + 1
    assert blocks >= GENERATION_BLOCKS
    assert blocks * seconds >= GENERATION_SECONDS - 1


def binomial(n: int, k: int, *, share: float) -> float:
    return comb(n, k) * share**k * (1 - share) ** (n - k)


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.005, 0.05, 0.4]),
    incident=st.booleans(),
    before=st.sampled_from([None, 0.01, 0.9]),
    length=st.sampled_from([ENOUGH_BLOCKS, GENERATION_BLOCKS - 1, GENERATION_BLOCKS, 2 * GENERATION_BLOCKS - 1, 2 * GENERATION_BLOCKS + 7]),
    judge=st.sampled_from(RULES),
)
def test_whatever_was_remembered_and_forgotten_a_fair_block_is_expected_to_win_nothing(
    seed: int, share: float, incident: bool, before: float | None, length: int, judge: Sequential
) -> None:
    rng = random.Random(seed)

    def arms(share: float) -> tuple[tuple[int, int], tuple[int, int]]:
        return (sum(rng.random() < share for _ in range(5)), 5), (sum(rng.random() < share for _ in range(9)), 9)

    state = judge.start()
    if before is not None:
        state = judge.seeded(state, history=history(bernoulli(rng, share=before) for _ in range(ENOUGH_BLOCKS)))
    state = after(judge, [arms(0.9 if incident and 40 <= i < 80 else share) for i in range(length)], state)
    planned = judge.planned_blocks
    won = math.exp(log_relative(state.relatives[0], planned=planned))
    mean = 0.0
    for k_c, k_s in product(range(6), range(10)):
        one = after(judge, [((k_c, 5), (k_s, 9))], state)
        e = math.exp(log_relative(one.relatives[0], planned=planned))
        mean += binomial(5, k_c, share=share) * binomial(9, k_s, share=share) * e
    assert mean <= won * (1 + 1e-6)


def test_what_is_remembered_survives_a_restart() -> None:
    judge = RULES[0]
    state = after(judge, [FINE, ((1, 50), (7, 450))] * GENERATION_BLOCKS, replace(judge.start(), seen_until=1_763_000_000.0))
    assert state.older is not None
    packed = unpack(pack(AnalysisState(canary="c", stable="s", block_end=state.seen_until, objectives={"o": ObjectiveState(rule=state)})))
    assert isinstance(packed, AnalysisState)
    kept = packed.objectives["o"].rule
    assert isinstance(kept, SequentialState)
    assert kept.older is not None
    assert kept.older.bursts == state.older.bursts
    assert kept.older.seen[0].stable_total == pytest.approx(state.older.seen[0].stable_total, rel=1e-6)
    assert kept.remembered == state.remembered
    assert burst_correlation(kept, seconds=EVERY) == pytest.approx(burst_correlation(state, seconds=EVERY), rel=1e-4)


def test_a_state_that_was_written_before_there_was_a_memory_goes_on() -> None:
    judge = RULES[0]
    state = after(judge, [FINE] * 5, replace(judge.start(), seen_until=1_763_000_000.0))
    text = pack(AnalysisState(canary="c", stable="s", block_end=state.seen_until, objectives={"o": ObjectiveState(rule=state)}))
    document = json.loads(zlib.decompress(base64.b85decode(text.removeprefix("2."))))
    *rest, memory = document[7][0][1]
    assert memory == [5 * EVERY]
    document[7][0][1] = rest
    before = unpack("2." + base64.b85encode(zlib.compress(json.dumps(document).encode())).decode())
    assert isinstance(before, AnalysisState)
    kept = before.objectives["o"].rule
    assert isinstance(kept, SequentialState)
    assert (kept.older, kept.remembered, kept.succession.blocks) == (None, 0.0, 5)


@pytest.mark.parametrize("memory", [[], [1.0, 2.0], [float("inf")], [1.0] * 17])
def test_what_no_memory_can_be_is_refused(memory: list[float]) -> None:
    with pytest.raises(ValueError, match="remembers"):
        with_memory(RULES[0].start(), numbers=memory)
