"""More rejections than status keeps: none of them is forgotten for that."""

import pytest

from backstop.api.clock import render_time
from backstop.rollout.move import REJECTED_KEPT
from tests.rollout.world import BREACHED, HEALTHY, World, is_stable, policy, started


def rejecting(versions: range) -> World:
    """Version 2 was rolled back, and then these, as status says."""
    world = started(policy=policy(steps=((5, 5), (100, 5)), keep=15))
    world.want("2")
    world.run(3)
    world.judged = BREACHED
    world.run(20)
    world.judged = HEALTHY
    (second,) = world.status.rejected
    later = [second.model_copy(update={"revision": f"rev{v}", "promptVersion": str(v), "at": render_time(world.now + v)}) for v in versions]
    world.status = world.status.model_copy(update={"rejected": [second, *later][-REJECTED_KEPT:]})
    return world


def test_b09_the_oldest_of_many_rejected_versions_gets_no_traffic_before_a_person_asks() -> None:
    world = rejecting(range(3, REJECTED_KEPT + 3))
    assert len(world.place.rejected) == REJECTED_KEPT
    assert world.place.rejection_of("rev2") is None, "it was the first of them"
    before = len(world.shares)
    world.run(300, tick=5)
    assert world.shares[before:] == []
    assert world.place.rejection_of("rev2") is not None
    assert len(world.place.rejected) == REJECTED_KEPT
    assert world.reasons().count("RejectedBefore") == 1
    world.ask(retry="1")
    world.run(100)
    assert is_stable(world, "2")
    assert "rev2" not in {verdict.revision.name for verdict in world.verdicts}


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_retry_that_dies_anywhere_frees_the_version_all_the_same(stop_after: int) -> None:
    world = rejecting(range(0))
    world.ask(retry="1")
    for _ in range(3):
        world.one_pass(stop_after=stop_after)
    world.run(100)
    assert is_stable(world, "2")
    assert world.verdicts == []


def test_the_oldest_rejection_is_kept_while_the_spec_names_it() -> None:
    """The spec names it again in the very moment in which one more is rolled back."""
    world = rejecting(range(3, REJECTED_KEPT + 2))
    world.verdicts.clear()  # its prompt version is another one by now
    world.want("99")
    while world.place.canary is None or not world.place.canary.weight:
        world.run(1)
    world.judged = BREACHED
    world.want("2")
    world.one_pass()
    assert [r.revision.name for r in world.place.rejected][0 :: REJECTED_KEPT - 1] == ["rev2", "rev99"]
    assert world.place.rejection_of("rev3") is None
