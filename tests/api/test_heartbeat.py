"""When a loop counts as stuck."""

from backstop.api.heartbeat import BEAT_SECONDS, REMEMBERED_SECONDS, STUCK_SECONDS, Heartbeat


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_beats_in_time_has_no_problem() -> None:
    clock = _Clock()
    heartbeat = Heartbeat(clock=clock)
    for _ in range(100):
        clock.now += BEAT_SECONDS + STUCK_SECONDS - 0.1
        assert heartbeat.problem() is None
        heartbeat.beat()
        assert heartbeat.problem() is None


def test_a_pause_is_seen_before_and_after_the_late_beat_and_then_forgotten() -> None:
    clock = _Clock()
    heartbeat = Heartbeat(clock=clock)
    clock.now += BEAT_SECONDS + 7
    assert heartbeat.problem() == "the event loop has been stuck for 7.0 s"
    heartbeat.beat()
    assert heartbeat.problem() == "the event loop was stuck for 7.0 s"
    while clock.now < 100 + BEAT_SECONDS + 7 + REMEMBERED_SECONDS - BEAT_SECONDS:
        clock.now += BEAT_SECONDS
        heartbeat.beat()
        assert heartbeat.problem() == "the event loop was stuck for 7.0 s"
    clock.now += BEAT_SECONDS
    heartbeat.beat()
    assert heartbeat.problem() is None


def test_a_loop_that_beats_no_more_is_stuck_for_good() -> None:
    clock = _Clock()
    heartbeat = Heartbeat(clock=clock)
    heartbeat.beat()
    clock.now += 3600
    assert heartbeat.problem() == f"the event loop has been stuck for {3600 - BEAT_SECONDS:.1f} s"
