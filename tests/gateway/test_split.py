"""Where a request goes, as a table."""

import pytest

from backstop.api.traffic import PodRole, TrafficState
from backstop.gateway.split import Forward, ServeHere, SplitReason, newer, route

from .harness import state

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
        ("c", state(1, stable="s", canary="c", permille=0, aborted="c"), 0.9, ServeHere()),
        ("o", state(1, stable="s", canary="c", permille=500), 0.0, TO_STABLE),
    ],
)
def test_the_route_follows_from_revision_state_and_chance(
    me: str, known: TrafficState | None, draw: float, goes: ServeHere | Forward
) -> None:
    assert route(me, state=known, draw=draw) == goes


def test_only_a_newer_generation_replaces_the_known_one() -> None:
    known = state(5, stable="s")
    assert newer(None, read=known) is known
    assert newer(known, read=state(4, stable="x")) is known
    assert newer(known, read=state(5, stable="x")) is known
    assert newer(known, read=state(6, stable="x")).stable == "x"
