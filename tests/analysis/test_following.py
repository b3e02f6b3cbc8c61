"""An allowed increase of latency, where a slow-down shows at another bound than the limit: which bound a breach is dated and told by."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from backstop.analysis.evaluation import evaluate
from backstop.analysis.objective import objective_of
from backstop.analysis.reading import Breached, Breaching, Counts, Healthy, SLOReading
from backstop.analysis.rule import ArmBlock, BoundCounts, Verdict
from backstop.analysis.sequential.explanation import explained
from backstop.analysis.sequential.following import evidence_at_bounds, following
from backstop.analysis.sequential.risk import Risk
from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable, Sequential
from backstop.analysis.sequential.state import SequentialState, from_numbers, to_numbers
from backstop.analysis.sequential.window import canary_of
from backstop.analysis.state import AnalysisState
from backstop.api.fallbackpolicy import SLO
from tests.analysis.history import Pod, live_policy, scraped, steady, visible

INTERVAL = 5.0
# Requests over the limit, over a lower bound and over a higher one, of the canary; stable has nine times as many.
STABLE = (Counts(9, 450), Counts(45, 450), Counts(2, 450))
FINE, SLOWER, OUTAGE = (1, 5, 0), (1, 15, 0), (50, 50, 50)
GONE = None


def rule(*, for_seconds: int = 0, comparisons: int = 3) -> Sequential:
    return Sequential(
        NoMoreThanStable(0.005), for_seconds=for_seconds, risk=Risk(share=0.01, tests=1), planned_blocks=360, comparisons=comparisons
    )


def blocks(canary: Iterable[tuple[int, int | None, int]], *, gaps: tuple[int, ...] = (), seconds: float = INTERVAL) -> list[ArmBlock]:
    """Blocks of fifty requests of the canary; a bound that is missing is None."""
    found = []
    for index, (of_limit, *further) in enumerate(canary):
        bounds = tuple(
            BoundCounts(Counts(), stable=None) if bad is None else BoundCounts(Counts(bad, 50), stable=beside)
            for bad, beside in zip(further, STABLE[1:], strict=True)
        )
        start = seconds * index
        counts = Counts(of_limit, 50)
        found.append(ArmBlock(start, start + seconds, counts, stable=STABLE[0], bounds=bounds, after_gap=index in gaps))
    return found


def known(judge: Sequential) -> SequentialState:
    """Ten minutes of stable."""
    before = [replace(one, start=one.start - 600.0, end=one.end - 600.0, canary=Counts()) for one in blocks([FINE] * 120)]
    return judge.seeded(judge.start(), history=before)


def states(judge: Sequential, stream: Iterable[ArmBlock]) -> list[SequentialState]:
    found = [known(judge)]
    for block in stream:
        found.append(judge.observe(found[-1], block=block))
    return found[1:]


def verdicts(judge: Sequential, stream: Iterable[ArmBlock]) -> list[Verdict]:
    return [judge.judge(state) for state in states(judge, stream)]


def breached_at(judge: Sequential, stream: list[ArmBlock]) -> float | None:
    return next((b.end for b, v in zip(stream, verdicts(judge, stream), strict=True) if isinstance(v, Breached)), None)


def test_a_slow_down_at_another_bound_is_told_by_the_counts_there_and_dated() -> None:
    judge = rule()
    state = next(state for state in states(judge, blocks([FINE] * 20 + [SLOWER] * 12)) if isinstance(judge.judge(state), Breached))
    verdict = judge.judge(state)
    words = explained("latency", bad="over 100 ms", rule=judge, state=state, verdict=verdict, now=state.seen_until)
    assert (state.followed, state.newest_is_bad) == (1, True)
    assert " canary requests over 100 ms (30 %, allowed stable + 0.5 points) against " in words
    assert words.partition(" on stable ")[2].startswith("(10 %); evidence e = ")
    assert "; began ≈ " in words
    assert "won by requests before these" not in words


def test_with_seconds_a_slow_down_at_another_bound_is_rolled_back_once_it_has_lasted() -> None:
    found = verdicts(rule(for_seconds=30), blocks([FINE] * 20 + [SLOWER] * 12))
    first = next(index for index, one in enumerate(found) if isinstance(one, Breached))
    assert 26 <= first <= 28, "six scrapes after a first bad block, which is the first that is noticed"
    since = found[first].since  # type: ignore[union-attr]  # it is a breach
    assert since == 5.0 * (first + 1) - 30.0
    assert all(isinstance(one, Breaching) for one in found[first - 6 : first])


@pytest.mark.parametrize("limit", [NoMoreThanStable(0.005), AtMost(0.05)])
def test_no_step_is_passed_with_evidence_over_the_square_root_whether_there_is_an_episode_or_not(limit: AtMost | NoMoreThanStable) -> None:
    judge = replace(rule(for_seconds=30), limit=limit)
    state = replace(states(judge, blocks([OUTAGE] * 2))[-1], episode=None)
    assert judge.evidence(state).decisive > judge.risk.ln_pass
    assert judge.judge(state) == Breaching(since=10.0)


def test_with_seconds_twenty_five_seconds_at_another_bound_never_fire() -> None:
    for stream in ([FINE] * 20 + [SLOWER] * 5 + [FINE] * 20, [FINE] * 20 + [SLOWER] * 4 + [FINE] * 6 + [SLOWER] * 4 + [FINE] * 20):
        found = verdicts(rule(for_seconds=30), blocks(stream))
        assert not any(isinstance(one, Breached) for one in found)
        assert any(isinstance(one, Breaching) for one in found[20:])
        assert found[-1] == Healthy()


@pytest.mark.parametrize("for_seconds", [0, 30])
def test_what_shows_at_the_limit_is_dated_and_told_there(for_seconds: int) -> None:
    several, one = rule(for_seconds=for_seconds), rule(for_seconds=for_seconds, comparisons=1)
    stream = blocks([FINE] * 20 + [OUTAGE] * 8)
    assert breached_at(several, stream) == breached_at(one, stream) == 105.0 + for_seconds
    assert {state.followed for state in states(several, stream)} == {0}


def test_with_seconds_what_another_bound_shows_has_not_lasted_since_stray_slow_requests_at_the_limit() -> None:
    judge = rule(for_seconds=30)
    found = states(judge, blocks([FINE] * 20 + [(3, 5, 0)] * 2 + [SLOWER] * 5 + [FINE] * 10))
    assert [state.episode.first_bad for state in found[20:22] if state.episode is not None] == [105.0] * 2
    assert not any(isinstance(judge.judge(state), Breached) for state in found)


def test_stray_slow_requests_at_the_limit_do_not_end_what_another_bound_shows() -> None:
    slower = [(bad, 15, 0) for bad in (1, 3, 0, 0, 2, 0, 0, 3, 0, 0)]
    assert breached_at(rule(for_seconds=30), blocks([FINE] * 20 + slower)) is not None


def test_when_it_is_over_the_limit_is_followed_again_and_what_comes_later_is_dated_anew() -> None:
    judge = rule(for_seconds=30)
    stream = blocks([FINE] * 20 + [SLOWER] * 5 + [FINE] * 20 + [OUTAGE] * 8)
    found = states(judge, stream)
    assert [state.followed for state in found][-30:] == [1] * 3 + [0] * 27
    assert breached_at(judge, stream) == 5.0 * 46 + 30.0


def test_a_bound_that_is_no_longer_there_hides_no_outage() -> None:
    stream = blocks([FINE] * 20 + [SLOWER] * 4 + [(1, GONE, 1)] * 3 + [(50, GONE, 50)] * 8)
    assert [state.followed for state in states(rule(for_seconds=30), stream)[23:27]] == [1, 0, 0, 0]
    at = breached_at(rule(for_seconds=30), stream)
    assert at is not None
    assert at <= 5.0 * 28 + 30.0


@pytest.mark.parametrize("for_seconds", [0, 30])
def test_what_was_won_at_a_bound_that_comes_no_more_holds_until_a_window_is_good_and_says_so(for_seconds: int) -> None:
    judge = rule(for_seconds=for_seconds)
    found = states(judge, blocks([FINE] * 20 + [(1, 15, 0), (1, 15, 0)] + [(1, GONE, 0)] * 4))
    judged = [judge.judge(state) for state in found]
    assert [isinstance(one, Breaching) for one in judged[20:]] == [False, True, True, False, False, False]
    held = found[22]
    assert held.followed == 0
    words = explained("latency", bad="over 150 ms", rule=judge, state=held, verdict=judged[22], now=held.seen_until)
    assert words.startswith("latency: 1 of 50 canary requests over 150 ms (2 %, allowed stable + 0.5 points) against ")
    assert words.endswith("; won by requests before these, and counts until e ≤ 10")
    assert judged[-1] == Healthy()


@pytest.mark.parametrize("for_seconds", [0, 30])
def test_nor_does_it_hold_longer_where_the_limit_has_a_little_evidence_of_its_own(for_seconds: int) -> None:
    judge = rule(for_seconds=for_seconds)
    found = states(judge, blocks([FINE] * 20 + [(6, 15, 0)] * 3 + [(1, GONE, 0)] * 4))
    assert 0 < evidence_at_bounds(found[23], planned=judge.planned_blocks)[0] < judge.risk.ln_pass
    assert [judge.judge(state) == Healthy() for state in found[23:]] == [False, True, True, True], "a window is two blocks"


@pytest.mark.parametrize("seconds", [5.0, 15.0])
@pytest.mark.parametrize("for_seconds", [0, 30])
def test_a_bound_that_is_missing_in_one_scrape_loses_nothing(for_seconds: int, seconds: float) -> None:
    judge = rule(for_seconds=for_seconds)
    found = states(judge, blocks([FINE] * 20 + [(1, 15, 0), (1, 15, 0), (1, GONE, 0), (1, 9, 0)], seconds=seconds))
    assert [judge.evidence(state).decisive > judge.risk.ln_pass for state in found[21:]] == [True] * 3
    assert found[-1].followed == 1


def test_without_seconds_evidence_at_a_bound_that_comes_is_lost_to_good_requests_there_alone() -> None:
    judge = rule()
    found = states(judge, blocks([FINE] * 20 + [SLOWER] * 6 + [FINE] * 6, gaps=(26,)))
    good = found[26:]
    assert {(state.followed, state.episode) for state in good} == {(1, None)}
    assert all(isinstance(judge.judge(state), Breached) for state in good), "as where it is only told of"
    evidence = [judge.evidence(state).decisive for state in good]
    assert evidence == sorted(evidence, reverse=True)
    assert evidence[0] > evidence[-1]
    words = explained("latency", bad="over 100 ms", rule=judge, state=good[0], verdict=judge.judge(good[0]), now=0.0)
    assert words.endswith("; won by requests before these")


def slower_tail() -> tuple[list[ArmBlock], list[ArmBlock]]:
    """A canary whose slowest requests are slower for twenty seconds, and one block later all over the limit; and that outage alone."""
    beside = (Counts(90, 450), Counts(120, 450), Counts(9, 450))

    def block(index: int, *, bad: tuple[int, int, int]) -> ArmBlock:
        bounds = tuple(BoundCounts(Counts(one, 50), stable=stable) for one, stable in zip(bad[1:], beside[1:], strict=True))
        return ArmBlock(5.0 * index, 5.0 * index + 5.0, Counts(bad[0], 50), stable=beside[0], bounds=bounds)

    fine, tail, outage = (10, 13, 1), (10, 13, 9), (50, 50, 0)
    both = [block(index, bad=bad) for index, bad in enumerate([fine] * 20 + [tail] * 4 + [fine] + [outage] * 10)]
    alone = [block(index, bad=bad) for index, bad in enumerate([fine] * 25 + [outage] * 10)]
    return both, alone


def test_an_outage_at_the_limit_is_told_there_at_once_although_another_bound_is_followed() -> None:
    judge = rule(for_seconds=30)
    both, alone = slower_tail()
    found = states_of(judge, both)
    assert [state.followed for state in found[23:26]] == [2, 2, 0]
    judged = judge.judge(found[25])
    assert judged == Breaching(since=130.0)
    words = explained("latency", bad="over 150 ms", rule=judge, state=found[25], verdict=judged, now=130.0)
    assert words.startswith("latency: 50 of 50 canary requests over 150 ms (100 %")
    first, by_itself = (
        next(state.seen_until for state in states_of(judge, stream) if isinstance(judge.judge(state), Breached)) for stream in (both, alone)
    )
    assert first == by_itself == 160.0


def test_a_block_is_bad_by_what_stable_does_meanwhile_and_not_by_what_it_did_before() -> None:
    judge = rule(for_seconds=30)
    # For ten minutes three times as many over 100 ms as now.
    slow = [
        replace(
            one,
            start=one.start - 600.0,
            end=one.end - 600.0,
            canary=Counts(),
            bounds=(BoundCounts(Counts(), Counts(135, 450)), one.bounds[1]),
        )
        for one in blocks([FINE] * 120)
    ]
    state = judge.seeded(judge.start(), history=slow)
    stream = blocks([(1, 10, 0)] * 40)
    found = list[SequentialState]()
    for block in stream:
        state = judge.observe(state, block=block)
        found.append(state)
    first = next(state for state in found if isinstance(judge.judge(state), Breached))
    assert first.seen_until <= 60.0, "twice as many as stable has"
    assert first.followed == 1


def test_a_bad_scrape_of_stables_ends_nothing_that_stable_did_not_do_all_the_while() -> None:
    judge = rule(for_seconds=120, comparisons=1)
    # 15 % beside 1 %, and beside 30 % in one scrape of each 100 s, before it came too.
    stable = [Counts(135 if index % 20 == 10 else 4, 450) for index in range(200)]
    before = [ArmBlock(5.0 * index - 1000.0, 5.0 * index - 995.0, Counts(), stable=one) for index, one in enumerate(stable)]
    state = judge.seeded(judge.start(), history=before[80:])
    found = []
    for index, one in enumerate(stable[:40]):
        state = judge.observe(state, block=ArmBlock(5.0 * index, 5.0 * index + 5.0, Counts(7 + index % 2, 50), stable=one))
        found.append(judge.judge(state))
    assert any(isinstance(one, Breached) for one in found), "within 200 s"


@pytest.mark.parametrize("for_seconds", [0, 30])
def test_a_scrape_without_a_request_of_the_canarys_at_a_bound_that_few_pods_have_loses_nothing(for_seconds: int) -> None:
    judge = rule(for_seconds=for_seconds)
    state = states(judge, blocks([FINE] * 20 + [SLOWER] * 3))[-1]
    assert state.followed == 1
    evidence, episode = judge.evidence(state).decisive, state.episode
    for index in (23, 24, 25):
        none = (BoundCounts(Counts(), stable=Counts(5, 45)), BoundCounts(Counts(), stable=Counts(0, 45)))
        state = judge.observe(state, block=ArmBlock(5.0 * index, 5.0 * index + 5.0, Counts(1, 50), stable=STABLE[0], bounds=none))
    assert (state.followed, state.episode) == (1, episode)
    assert judge.evidence(state).decisive == pytest.approx(evidence, abs=0.5)


@pytest.mark.parametrize(("more", "bad", "then"), [(2.5, 5, 1), (3.5, 5, 2), (3.5, 15, 1)])
def test_a_bound_is_left_for_one_that_clearly_says_more_and_only_where_nothing_that_comes_is_bad(more: float, bad: int, then: int) -> None:
    judge = rule()
    state = states(judge, blocks([FINE] * 20 + [(1, 15, 0)] * 6))[-1]
    at_limit, one, _ = state.relatives
    # All of the evidence is the plug-in's, or nearly: ln 20 is 3.0.
    one = replace(one, ln_plug_in=30.0)
    state = replace(state, relatives=(at_limit, one, replace(one, ln_plug_in=30.0 + more)))
    (block,) = blocks([(1, bad, 0)])
    found = following(state, block=block, planned=judge.planned_blocks, ln_pass=judge.risk.ln_pass, level=0.105, sustained=False)
    assert (state.followed, found.followed) == (1, then)


@pytest.mark.parametrize(("of_stable", "then"), [(45, 1), (135, 2)])
def test_what_is_bad_at_the_bound_that_is_followed_is_told_by_what_stable_does_in_the_same_block(of_stable: int, then: int) -> None:
    judge = rule()
    state = states(judge, blocks([FINE] * 20 + [(1, 15, 0)] * 6))[-1]
    at_limit, one, _ = state.relatives
    state = replace(state, relatives=(at_limit, replace(one, ln_plug_in=30.0), replace(one, ln_plug_in=36.0)))
    # 16 %: over stable's 10 %, and not over twice as much.
    (block,) = blocks([(1, 8, 0)])
    block = replace(block, start=130.0, end=135.0, bounds=(replace(block.bounds[0], stable=Counts(of_stable, 450)), block.bounds[1]))
    assert (state.followed, judge.observe(state, block=block).followed) == (1, then)


def test_without_seconds_what_began_at_the_limit_goes_on_at_the_bound_that_has_the_evidence() -> None:
    judge = rule()
    found = states(judge, blocks([FINE] * 20 + [(4, 5, 0), (4, 9, 0), *[(4, 12, 0)] * 10]))
    before, after = next((one, other) for one, other in pairwise(found) if other.followed != one.followed)
    assert before.episode is not None
    assert after.episode is not None
    assert after.episode.first_bad == before.episode.first_bad
    assert after.episode.canary == canary_of(after.window) == Counts(12, 50), "what is told is of the one bound alone"


def test_without_seconds_stray_slow_requests_at_the_limit_date_nothing_that_another_bound_shows() -> None:
    judge = rule()
    # One block of a few, long before: the running sum is above 0 still, and speaks of nothing.
    stream = blocks([FINE] * 20 + [(4, 5, 0)] + [FINE] * 2 + [SLOWER] * 12)
    found = states(judge, stream)
    strays = next(state for state, other in pairwise(found) if other.followed)
    assert strays.episode is not None
    assert strays.episode.first_bad == stream[20].end
    assert evidence_at_bounds(strays, planned=judge.planned_blocks)[0] < 0
    verdict = next(v for v in verdicts(judge, stream) if isinstance(v, Breached))
    assert verdict.since > stream[22].end


@pytest.mark.parametrize(("bad", "then"), [(12, [FINE] * 8), (12, [FINE, FINE, *[(1, 7, 0)] * 8, *[FINE] * 3]), (3, [FINE] * 8)])
def test_with_seconds_what_a_glitch_won_is_given_up_once_a_window_is_good_whichever_bound_is_followed(
    bad: int, then: list[tuple[int, int, int]]
) -> None:
    judge = rule(for_seconds=30)
    found = verdicts(judge, blocks([FINE] * 20 + [(bad, 40, 0), *then]))
    assert isinstance(found[20], Breaching)
    assert not any(isinstance(verdict, Breached) for verdict in found)
    assert isinstance(found[22], Healthy), "two blocks later"
    assert isinstance(found[-1], Healthy)


@pytest.mark.parametrize("bad", [12, 3])
def test_with_seconds_what_a_glitch_won_is_given_up_at_a_gap_whichever_bound_is_followed(bad: int) -> None:
    judge = rule(for_seconds=30)
    found = states(judge, blocks([FINE] * 20 + [(bad, 40, 0), FINE, FINE], gaps=(22,)))
    assert judge.evidence(found[-1]).decisive < 0


def test_the_block_that_ends_it_is_told_at_the_limit_again() -> None:
    judge = rule(for_seconds=30)
    found = states(judge, blocks([FINE] * 20 + [SLOWER] * 5 + [FINE] * 5))
    first = next(state for before, state in pairwise(found) if before.followed and not state.followed)
    assert canary_of(first.window) == Counts(1, 50), "of the limit alone"
    assert isinstance(judge.judge(first), Healthy)


def test_another_bound_is_followed_while_the_mean_of_all_is_over_the_square_root_and_no_longer() -> None:
    judge = rule()
    found = states(judge, blocks([FINE] * 5 + [(1, 11, 0)] * 6 + [FINE] * 60))
    of_one = [evidence_at_bounds(state, planned=judge.planned_blocks)[1] > judge.risk.ln_pass for state in found]
    of_all = [judge.evidence(state).decisive > judge.risk.ln_pass for state in found]
    assert [state.followed == 1 for state in found] == of_all
    assert sum(of_one) > sum(of_all) > 0
    assert not of_one[-1]


def test_blocks_without_a_request_and_gaps_change_nothing_that_is_followed() -> None:
    judge = rule()
    followed = states(judge, blocks([FINE] * 5 + [SLOWER] * 6))[-1]
    empty = ArmBlock(55.0, 60.0, canary=Counts(), stable=STABLE[0])
    assert judge.observe(followed, block=empty).followed == followed.followed == 1
    assert judge.observe(followed, block=replace(empty, after_gap=True)).window == ()


def test_which_bound_is_followed_is_kept_in_a_figure_that_older_versions_read_too() -> None:
    state = states(rule(for_seconds=30), blocks([FINE] * 5 + [SLOWER] * 6))[-1]
    assert (state.followed, state.newest_is_bad) == (1, True)
    numbers = to_numbers(state, origin=0.0)
    kept = from_numbers(numbers, origin=0.0)
    assert (kept.followed, kept.newest_is_bad, kept.window, kept.episode) == (1, True, state.window, state.episode)
    for flags, newest_is_bad in ((0.0, False), (1.0, True)):
        old = from_numbers([*numbers[:2], flags, *numbers[3:]], origin=0.0)
        assert (old.followed, old.newest_is_bad) == (0, newest_is_bad)
    for flags in (6.0, -1.0):  # of three bounds there is no fourth
        with pytest.raises(ValueError):
            from_numbers([*numbers[:2], flags, *numbers[3:]], origin=0.0)


def test_beside_a_limit_the_bound_is_said_that_makes_the_canary_worse_than_stable() -> None:
    judge = replace(rule(comparisons=2), limit=AtMost(0.01))
    both = [
        ArmBlock(5.0 * i, 5.0 * i + 5, Counts(1, 50), Counts(9, 450), bounds=(BoundCounts(Counts(10, 50), Counts(9, 450)),))
        for i in range(200)
    ]
    worse = [replace(one, canary=Counts(50, 50)) for one in both[:3]]

    def words(stream: list[ArmBlock]) -> str:
        state = next(state for state in states_of(judge, stream) if isinstance(judge.judge(state), Breached))
        verdict = judge.judge(state)
        return explained("latency", bad="over 150 ms", rule=judge, state=state, verdict=verdict, now=0.0, bounds=["over 200 ms"])

    assert "; canary is worse than stable over 200 ms, 20 % against 2 %; began ≈ " in words(both)
    assert "is worse than stable" not in words(worse), "it is at the limit"


def test_beside_a_limit_no_share_is_said_that_speaks_against_what_is_said_of_it() -> None:
    judge = replace(rule(comparisons=2), limit=AtMost(0.01))
    # For 20 minutes it was better than stable; what it was then outvotes what it is.
    shares = [(0, 0)] * 240 + [(11, 11)] * 60
    stream = [
        ArmBlock(5.0 * i, 5.0 * i + 5, Counts(of_limit, 50), Counts(90, 450), bounds=(BoundCounts(Counts(further, 50), Counts(9, 450)),))
        for i, (of_limit, further) in enumerate(shares)
    ]
    state = next(state for state in states_of(judge, stream) if isinstance(judge.judge(state), Breached))
    text = explained("latency", bad="over 150 ms", rule=judge, state=state, verdict=judge.judge(state), now=0.0, bounds=["over 200 ms"])
    assert "; canary is worse than stable over 200 ms; began ≈ " in text


def states_of(judge: Sequential, stream: Iterable[ArmBlock]) -> list[SequentialState]:
    found = [judge.start()]
    for block in stream:
        found.append(judge.observe(found[-1], block=block))
    return found[1:]


@pytest.mark.parametrize("for_seconds", [0, 30])
def test_the_reading_of_samples_names_the_bound_its_shares_and_where_to_look_them_up(for_seconds: int) -> None:
    objective = objective_of(
        SLO(name="latency", indicator="Latency", maxMilliseconds=150, maxIncreasePercent="0.5", forSeconds=for_seconds)
    )

    def arm(revision: str, *, per_second: float, slower: float, start: float) -> tuple[object, ...]:
        return (
            *steady(start, 300.0, per_second=per_second * (0.98 - slower), revision=revision),
            *steady(start, 300.0, per_second=per_second * slower, seconds=0.12, revision=revision),
            *steady(start, 300.0, per_second=per_second * 0.02, seconds=0.17, revision=revision),
        )

    requests = (*arm("canary", per_second=10, slower=0.28, start=200.0), *arm("stable", per_second=90, slower=0.08, start=0.0))
    samples = scraped([Pod(name="a", requests=requests)], interval=INTERVAL, until=300.0)  # type: ignore[arg-type]  # requests, all of them
    state, readings = AnalysisState(), list[SLOReading]()
    for now in range(205, 301, 5):
        policy = live_policy(objective, since=200.0, state=state)
        result = evaluate(visible(samples, until=now), policy=policy, now=float(now), scrape_interval=INTERVAL)
        state = result.state
        readings.append(result.readings[0])
    reading = next(one for one in readings if isinstance(one.state, Breached))
    assert reading.value is not None
    assert reading.stable is not None
    assert 28.0 <= float(reading.value) <= 32.0
    assert reading.evidence.startswith(
        f"latency: {reading.canary.bad} of {reading.canary.total} canary requests over 100 ms, beside its limit of 150 ms, "
        f"or handed over as late ({reading.value} %, allowed stable + 0.5 points) against {reading.stable.bad} of "
    )
    assert ',le=~"|0.1"}' in reading.evidence
    assert "won by requests before these" not in reading.evidence
