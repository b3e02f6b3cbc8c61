"""Where a request goes, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.traffic import PodRole, TrafficState
from backstop.gateway.split import Forward, ServeHere, SplitReason, draw_of, newer, route, route_synthetic

from .harness import state

NO_SHARE = Forward(revision="s", to=PodRole.STABLE, reason=SplitReason.NO_SHARE)
TO_CANARY = Forward(revision="c", to=PodRole.CANARY, reason=SplitReason.SHARE)
TO_STABLE = Forward(revision="s", to=PodRole.STABLE, reason=SplitReason.OLDER_REVISION)


@pytest.mark.parametrize(
    ("me", "known", "draw", "goes"),
    [
        ("s", None, 0.0, ServeHere()),
        ("s", state(1, stable="s"), 0.0, ServeHere()),
        ("s", state(1, stable="s", canary="c", permille=0), 0.0, ServeHere()),
        ("s", state(1, stable="s", canary="c", permille=50), 0.0499, TO_CANARY),
        ("s", state(1, stable="s", canary="c", permille=50), 0.05, ServeHere()),
        ("s", state(1, stable="s", canary="c", permille=1000), 0.999999, TO_CANARY),
        ("s", state(1, stable="s", canary="c", permille=500, aborted="c"), 0.0, ServeHere()),
        ("s", state(1, stable="s", canary="c", permille=500, aborted="b"), 0.0, TO_CANARY),
        ("s", state(1, stable="s", canary="s", permille=500), 0.0, ServeHere()),
        ("c", state(1, stable="s", canary="c", permille=500), 0.9, ServeHere()),
        ("c", state(1, stable="s", canary="c", permille=0, aborted="c"), 0.9, NO_SHARE),
        ("c", state(1, stable="s", canary="c", permille=500, aborted="c"), 0.0, NO_SHARE),
        ("c", state(1, stable="s", canary="c", permille=0), 0.0, NO_SHARE),
        ("o", state(1, stable="s", canary="c", permille=500), 0.0, TO_STABLE),
    ],
)
def test_the_route_follows_from_revision_state_and_chance(
    me: str, known: TrafficState | None, draw: float, goes: ServeHere | Forward
) -> None:
    assert route(me, state=known, draw=draw) == goes


PINNED = Forward(revision="c", to=PodRole.CANARY, reason=SplitReason.PINNED)


@pytest.mark.parametrize(
    ("me", "known", "track", "goes"),
    [
        ("s", state(1, stable="s", canary="c", permille=0), "canary", PINNED),
        ("s", state(1, stable="s", canary="c", permille=1000), "stable", ServeHere(pinned=True)),
        ("s", state(1, stable="s", canary="c", permille=1000), "elsewhere", TO_CANARY),
        ("s", state(1, stable="s", canary="c", permille=0, aborted="c"), "canary", ServeHere()),
        ("s", state(1, stable="s", canary="c", permille=0, aborted="b"), "canary", PINNED),
        ("s", state(1, stable="s"), "canary", ServeHere()),
        ("s", None, "canary", ServeHere()),
        ("o", state(1, stable="s", canary="c", permille=0), "canary", TO_STABLE),
    ],
)
def test_t03_a_pin_reaches_the_canary_unless_it_was_aborted(
    me: str, known: TrafficState | None, track: str, goes: ServeHere | Forward
) -> None:
    assert route(me, state=known, draw=0.999, track=track) == goes


@given(key=st.text(min_size=1), low=st.integers(0, 1000), high=st.integers(0, 1000))
def test_t04_a_key_that_is_on_the_canary_stays_there_when_its_share_grows(key: str, low: int, high: int) -> None:
    low, high = sorted((low, high))
    before = route("s", state=state(1, stable="s", canary="c", permille=low), draw=0.0, sticky=key)
    after = route("s", state=state(2, stable="s", canary="c", permille=high), draw=0.999, sticky=key)
    assert before == ServeHere() or after == TO_CANARY


def test_t04_keys_are_spread_as_chance_would_and_anew_for_each_canary() -> None:
    users = [f"user-{number}" for number in range(20_000)]
    first = {user for user in users if draw_of(user, canary="c1") < 0.05}
    second = {user for user in users if draw_of(user, canary="c2") < 0.05}
    # Four standard deviations of a binomial count: 1,000 ± 124, and 50 ± 29 for those who are in both.
    assert 876 < len(first) < 1124
    assert 876 < len(second) < 1124
    assert 21 < len(first & second) < 79


def test_only_a_newer_generation_replaces_the_known_one() -> None:
    known = state(5, stable="s")
    assert newer(None, read=known) is known
    assert newer(known, read=state(4, stable="x")) is known
    assert newer(known, read=state(5, stable="x")) is known
    assert newer(known, read=state(6, stable="x")).stable == "x"


@pytest.mark.parametrize(
    ("me", "known", "canary", "goes"),
    [
        ("s", state(1, stable="s", canary="c", permille=1), "c", True),
        ("s", state(1, stable="s", canary="c", permille=0), "c", False),
        ("s", state(1, stable="s", canary="c", permille=500, aborted="c"), "c", False),
        ("s", state(1, stable="s", canary="c", permille=500, aborted="b"), "c", True),
        ("s", state(1, stable="s", canary="d", permille=500), "c", False),
        ("s", state(1, stable="s"), "c", False),
        ("s", None, "c", False),
        ("c", state(1, stable="s", canary="c", permille=500), "c", False),
        ("o", state(1, stable="s", canary="c", permille=500), "c", False),
    ],
)
def test_a_probes_request_goes_to_its_canary_from_a_stable_pod_or_nowhere(
    me: str, known: TrafficState | None, canary: str, goes: bool
) -> None:
    found = route_synthetic(me, state=known, canary=canary)
    assert found == (Forward(revision="c", to=PodRole.CANARY, reason=SplitReason.SYNTHETIC) if goes else None)
