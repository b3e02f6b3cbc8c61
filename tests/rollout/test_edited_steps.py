"""Steps that are edited in mid-canary: an edit is no evidence, so it raises no weight while nobody sees what the present one does."""

import pytest

from backstop.analysis.reading import Breaching
from backstop.api.condition import ConditionType
from backstop.api.reasons import Reason
from tests.rollout.world import BREACHED, HEALTHY, START, UNSEEN, World, in_rollout, policy, reading, share, started


def at_5_percent() -> World:
    world = started(policy=policy(steps=((5, 600), (50, 60), (100, 60))))
    world.want("2")
    world.run(10)
    assert world.shares[-1][3] == 50
    return world


def test_edited_steps_raise_no_weight_while_metrics_cannot_be_seen_and_do_when_they_can() -> None:
    world = at_5_percent()
    world.judged = UNSEEN
    world.run(3)
    world.policy = policy(steps=((20, 60), (100, 60)))
    world.run(60)
    assert world.shares[-1][3] == 50
    progressing = next(c for c in world.decide().conditions if c.type is ConditionType.PROGRESSING)
    assert progressing.reason is Reason.METRICS_UNAVAILABLE
    assert progressing.message.startswith("step 1 of 2, 5 %")
    world.judged = HEALTHY
    world.run(3)
    assert world.shares[-1][3] == 200


@pytest.mark.parametrize("mode", ["Automatic", "DryRun"])
def test_edited_steps_raise_no_weight_that_is_over_a_limit_before_it_is_within_again(mode: str) -> None:
    world = at_5_percent()
    world.judged = BREACHED if mode == "DryRun" else reading(Breaching(since=START))
    world.policy = policy(steps=((20, 60), (100, 60)), mode=mode)
    world.run(60)
    assert world.shares[-1][3] == 50
    progressing = next(c for c in world.decide().conditions if c.type is ConditionType.PROGRESSING)
    assert progressing.message.startswith("step 1 of 2, 5 %")
    assert "latency" in progressing.message
    world.judged = HEALTHY
    world.run(3)
    assert world.shares[-1][3] == 200


def test_edited_steps_raise_no_weight_before_anything_was_evaluated() -> None:
    world = at_5_percent()
    world.judged = None  # as after a restart
    world.policy = policy(steps=((20, 60), (100, 60)))
    world.run(60)
    assert world.shares[-1][3] == 50


def test_an_edit_that_keeps_the_weight_a_step_waits_for_nothing() -> None:
    world = at_5_percent()
    world.judged = UNSEEN
    before = world.place.canary
    world.policy = policy(steps=((5, 30), (100, 60)))
    world.run(3)
    assert before is not None
    assert world.place.canary is not None
    assert world.place.canary.step_hash != before.step_hash


def test_a_weight_that_was_not_seen_everywhere_falls_to_one_below_it_though_steps_were_edited() -> None:
    world = started(policy=policy(steps=((5, 20), (50, 60), (100, 60))))
    world.want("2")
    world.run(10)
    world.deaf = True
    world.run(30)
    assert world.shares[-1][3] == 500
    world.policy = policy(steps=((60, 60), (100, 60)))
    world.run(60)
    assert max(share for _, _, _, share in world.shares) == 500, "an edit raises no weight that was not seen to be in effect"
    assert world.shares[-1][3] == 0


def test_a_skipped_step_s_next_begins_no_more_when_there_is_no_such_step() -> None:
    world = started(policy=policy(replicas=10, steps=((5, 60), (100, 60))))
    world.want("2")
    world.run(10)
    world.pace = 0  # the pods of the next step take their time
    world.ask(skip_step="1")
    world.run(5)
    canary = world.place.canary
    assert canary is not None
    assert (canary.weight, canary.step, canary.step_started_at) == (5, 1, None)
    world.judged, world.pace = UNSEEN, 1000
    world.policy = policy(replicas=10, steps=((20, 60), (30, 60), (100, 60)))
    world.run(30)
    assert world.shares[-1][3] == 50


def test_c03_the_plan_that_follows_an_edit_is_told_once() -> None:
    world = at_5_percent()
    world.policy = policy(steps=((2, 10), (5, 600), (60, 60), (100, 60)))
    world.run(30)
    assert world.reasons().count("StepsReplanned") == 1
    message = next(a.message for a in world.told if a.reason is Reason.STEPS_REPLANNED)
    assert "is at 5 %, goes on with step 2 of 4 (5 %)" in message


def test_a05_an_approval_of_steps_that_there_are_no_more_passes_none_of_the_new_ones() -> None:
    world = in_rollout(policy=policy(steps=((5, 20), (20, 20), (50, 20), (100, 20)), approval=(20,)))
    world.run(60)
    world.ask(approve="1")
    world.one_pass()
    assert world.reasons()[-1] == "Approved"
    world.policy = policy(steps=((30, 20), (60, 20), (100, 20)), approval=(30,), paused=True)
    world.ask(skip_step="1")
    world.run(3)
    world.policy = policy(steps=((30, 20), (60, 20), (100, 20)), approval=(30,))
    world.run(60)
    assert share(world) == ("rev2", 300)
    assert world.decide().reason == "WaitingForApproval"
    world.ask(approve="2")
    world.run(5)
    assert share(world) == ("rev2", 600)
