"""The witness itself, where it lets something pass."""

import pytest

from tests.rollout.witness import WatchedWorld
from tests.rollout.world import policy, share


@pytest.mark.parametrize("seen", [False, True])
def test_only_a_step_that_was_really_skipped_needs_no_approval_when_it_begins_again(seen: bool) -> None:
    world = WatchedWorld(policy=policy(approval=(5,)))
    world.run(3)
    world.want("2")
    world.deaf = not seen
    while share(world)[1] == 0:
        world.run(1)
    world.run(2)
    world.ask(skip_step="now")
    world.run(2)
    assert ("StepSkipped" in world.reasons()) == seen
    assert world.skipped == ({50} if seen else set())
