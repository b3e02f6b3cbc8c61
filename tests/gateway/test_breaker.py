"""The circuit breaker by itself, on a clock that only the test moves."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backstop.api.metricnames import FailureMode
from backstop.gateway.breaker import Breaker, BreakerSettings, BreakerState, Broke, LeftAlone, Lesson, Permit, Unclear, Worked
from backstop.gateway.retryafter import LONGEST_SECONDS, seconds_to_wait

FAILED = Broke(FailureMode.DEPENDENCY_FAILURE)
LATE = Broke(FailureMode.LATENCY_BREACH)
SETTINGS = BreakerSettings(window=10.0, min_requests=4, failure_percent=50, open=5.0)


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A breaker, its clock, and what tests do with it."""

    def __init__(self, breaker_settings: BreakerSettings = SETTINGS) -> None:
        self.clock = Clock()
        self.breaker = Breaker(breaker_settings, clock=self.clock)

    def permit(self) -> Permit:
        """Of an attempt that is let through."""
        permit = self.breaker.enter()
        assert isinstance(permit, Permit)
        return permit

    def attempts(self, *lessons: Lesson) -> None:
        """One after the other."""
        for lesson in lessons:
            self.breaker.leave(self.permit(), lesson=lesson)

    def state(self) -> BreakerState:
        """Of the breaker, now."""
        return self.breaker.state


def opened() -> World:
    """A breaker that has just opened, for 5 s."""
    world = World()
    world.attempts(FAILED, FAILED, FAILED, FAILED)
    assert world.state() is BreakerState.OPEN
    return world


def half_open() -> World:
    """A breaker that waits for a probe."""
    world = opened()
    world.clock.now += 5
    assert world.state() is BreakerState.HALF_OPEN
    return world


def test_w26_it_opens_on_the_rate_and_not_before_the_fewest_requests() -> None:
    world = World()
    world.attempts(FAILED, FAILED, FAILED)
    assert world.state() is BreakerState.CLOSED, "three are fewer than the fewest"
    world.attempts(FAILED)
    assert world.state() is BreakerState.OPEN
    assert world.breaker.enter() == LeftAlone(FailureMode.DEPENDENCY_FAILURE)

    world = World()
    world.attempts(Worked(), Worked(), Worked(), FAILED, FAILED)
    assert world.state() is BreakerState.CLOSED, "two of five are less than half"
    world.attempts(FAILED)
    assert world.state() is BreakerState.OPEN


def test_w26_what_is_older_than_the_window_does_not_count() -> None:
    world = World()
    world.attempts(FAILED, FAILED, FAILED)
    world.clock.now += 10
    world.attempts(FAILED)
    assert world.state() is BreakerState.CLOSED
    world.clock.now += 8
    world.attempts(FAILED, FAILED)
    assert world.state() is BreakerState.CLOSED
    world.attempts(FAILED)
    assert world.state() is BreakerState.OPEN


def test_w26_callers_errors_and_cancellations_count_for_nothing() -> None:
    world = World()
    world.attempts(*[Unclear()] * 20, FAILED, FAILED, FAILED)
    assert world.state() is BreakerState.CLOSED
    world.attempts(*[Unclear()] * 20, FAILED)
    assert world.state() is BreakerState.OPEN, "they do not thin out what failed either"


def test_w27_a_half_open_breaker_lets_one_probe_through() -> None:
    world = half_open()
    permits = [world.breaker.enter() for _ in range(100)]
    (probe,) = (permit for permit in permits if isinstance(permit, Permit))
    world.breaker.leave(probe, lesson=Worked())
    assert world.state() is BreakerState.CLOSED
    world.attempts(FAILED, FAILED, FAILED)
    assert world.state() is BreakerState.CLOSED, "it begins to count anew"


def test_w27_a_probe_that_fails_opens_it_again() -> None:
    world = half_open()
    world.attempts(LATE)
    assert (world.state(), world.breaker.open_for, world.breaker.mode) == (BreakerState.OPEN, 5, FailureMode.LATENCY_BREACH)


def test_w27_a_probe_that_taught_nothing_gives_its_permit_back() -> None:
    world = half_open()
    world.attempts(Unclear())
    assert world.state() is BreakerState.HALF_OPEN
    world.attempts(Worked())
    assert world.state() is BreakerState.CLOSED


@pytest.mark.parametrize("moved", [0.0, 5.0])
def test_w28_a_late_success_from_before_does_not_close_it(moved: float) -> None:
    world = World()
    early = world.permit()
    world.attempts(FAILED, FAILED, FAILED, FAILED)
    world.clock.now += moved
    before = world.state()
    world.breaker.leave(early, lesson=Worked())
    assert world.state() is before is not BreakerState.CLOSED


def test_w28_a_late_failure_from_before_neither_counts_nor_opens_it() -> None:
    world = World()
    early = [world.permit() for _ in range(4)]
    world.attempts(FAILED, FAILED, FAILED, FAILED)
    world.clock.now += 5
    world.attempts(Worked())
    for permit in early:
        world.breaker.leave(permit, lesson=FAILED)
    assert world.state() is BreakerState.CLOSED


def test_w29_of_two_ends_the_later_one_stays() -> None:
    world = World()
    first, second, third = world.permit(), world.permit(), world.permit()
    world.breaker.leave(first, lesson=Broke(FailureMode.RESOURCE_EXHAUSTION, leave_alone=30))
    world.breaker.leave(second, lesson=Broke(FailureMode.DEPENDENCY_FAILURE, leave_alone=2))
    assert (world.breaker.open_for, world.breaker.mode) == (30, FailureMode.RESOURCE_EXHAUSTION)
    world.breaker.leave(third, lesson=Broke(FailureMode.DEPENDENCY_FAILURE, leave_alone=40))
    assert (world.breaker.open_for, world.breaker.mode) == (40, FailureMode.DEPENDENCY_FAILURE)


def test_w29_a_probe_that_worked_does_not_cut_a_later_end_short() -> None:
    world = World()
    early = world.permit()
    world.attempts(FAILED, FAILED, FAILED, FAILED)
    world.clock.now += 5
    probe = world.permit()
    world.breaker.leave(early, lesson=Broke(FailureMode.RESOURCE_EXHAUSTION, leave_alone=7))
    world.breaker.leave(probe, lesson=Worked())
    assert (world.state(), world.breaker.open_for) == (BreakerState.OPEN, 7)


def test_w29_a_probe_that_is_told_to_wait_less_waits_as_any_other_that_failed() -> None:
    world = half_open()
    world.attempts(Broke(FailureMode.RESOURCE_EXHAUSTION, leave_alone=1))
    assert world.breaker.open_for == 5


def test_it_says_how_most_of_what_failed_did() -> None:
    world = World()
    world.attempts(LATE, LATE, LATE, FAILED)
    assert world.breaker.enter() == LeftAlone(FailureMode.LATENCY_BREACH)


def test_w30_a_minute_of_failures_costs_few_attempts_and_recovery_is_soon() -> None:
    world = World(BreakerSettings(window=10.0, min_requests=2, failure_percent=50, open=5.0))
    started, attempted = world.clock.now, []
    while world.clock.now < started + 60:
        permit = world.breaker.enter()
        attempted.append(isinstance(permit, Permit))
        if isinstance(permit, Permit):
            world.breaker.leave(permit, lesson=FAILED)
        world.clock.now += 1
    assert max(sum(attempted[n : n + 15]) for n in range(45)) <= 4
    assert min(sum(attempted[n : n + 15]) for n in range(45)) >= 2, "and it is not forgotten"
    healed = world.clock.now
    while not isinstance(permit := world.breaker.enter(), Permit):
        world.clock.now += 1
    world.breaker.leave(permit, lesson=Worked())
    assert world.state() is BreakerState.CLOSED
    assert world.clock.now - healed <= 30


LESSONS = st.one_of(
    st.just(Worked()),
    st.just(Unclear()),
    st.builds(Broke, mode=st.sampled_from(FailureMode), leave_alone=st.sampled_from([0.0, 0.0, 1.0, 7.0, 30.0])),
)


class AnyOrder(RuleBasedStateMachine):
    """Permits, results and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(BreakerSettings(window=4.0, min_requests=2, failure_percent=50, open=3.0))
        self.out: list[Permit] = []
        self.until = 0.0  # the latest moment until which nobody is to ask

    @rule()
    def enter(self) -> None:
        """Another request."""
        before = self.world.state()
        permit = self.world.breaker.enter()
        assert isinstance(permit, Permit) or before is not BreakerState.CLOSED
        if isinstance(permit, Permit):
            assert before is not BreakerState.OPEN
            assert self.world.clock.now >= self.until
            assert permit.probe == (before is BreakerState.HALF_OPEN)
            self.out.append(permit)

    @precondition(lambda self: self.out)
    @rule(position=st.integers(min_value=0, max_value=1000), lesson=LESSONS)
    def leave(self, position: int, lesson: Lesson) -> None:
        """Any attempt ends, however old it is."""
        permit = self.out.pop(position % len(self.out))
        before = self.world.state()
        self.world.breaker.leave(permit, lesson=lesson)
        if isinstance(lesson, Broke):
            self.until = max(self.until, self.world.clock.now + lesson.leave_alone)
        if before is not BreakerState.CLOSED and self.world.state() is BreakerState.CLOSED:
            assert permit.probe
            assert isinstance(lesson, Worked)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.world.clock.now += seconds

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        """Whatever came before."""
        assert sum(permit.probe for permit in self.out) <= 1

    def teardown(self) -> None:
        """When all attempts have ended and enough time is over, somebody may try it again."""
        for permit in self.out:
            self.world.breaker.leave(permit, lesson=Unclear())
        self.world.clock.now += 60
        assert isinstance(self.world.breaker.enter(), Permit)


TestW27AtMostOneProbeAtATimeInAnyOrder = AnyOrder.TestCase
TestW27AtMostOneProbeAtATimeInAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, 0),
        ("2", 2),
        (" 1.5 ", 1.5),
        ("0", 0),
        ("-3", 0),
        ("86400", LONGEST_SECONDS),
        ("soon", 0),
        ("٣", 0),
        ("Sat, 31 Jan 2026 09:30:07 GMT", 7),
        ("Sat, 31 Jan 2026 09:29:00 GMT", 0),
        ("Sun, 31 Jan 2027 09:30:00 GMT", LONGEST_SECONDS),
        ("Sat, 41 Jan 2026 09:30:07 GMT", 0),
    ],
)
def test_a_retry_after_is_read_as_seconds_or_as_a_date_and_is_bounded(said: str | None, seconds: float) -> None:
    assert seconds_to_wait(said, date="Sat, 31 Jan 2026 09:30:00 GMT") == seconds


def test_a_date_without_the_answers_own_says_nothing() -> None:
    assert seconds_to_wait("Sat, 31 Jan 2026 09:30:07 GMT", date=None) == 0


HEADERS = st.text(alphabet="0129.,:- GMTSatJan", max_size=40)


@given(said=HEADERS, date=st.none() | HEADERS)
@settings(max_examples=50)
def test_any_retry_after_is_a_bounded_time(said: str, date: str | None) -> None:
    assert 0 <= seconds_to_wait(said, date=date) <= LONGEST_SECONDS
