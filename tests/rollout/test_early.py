"""`promoteEarly`: a step ends before its hold does, when there is evidence for every SLO that the canary is good enough."""

from dataclasses import replace

import pytest

from backstop.analysis.reading import Breaching, SLOReading, Waiting
from backstop.api.fallbackpolicy import FallbackPolicySpec
from tests.rollout.world import HEALTHY, START, UNSEEN, World, policy, reading, started

HOLD = 300
GOOD = replace(HEALTHY, promotable=True)


def hurried(*, early: bool = True, approval: tuple[int, ...] = ()) -> FallbackPolicySpec:
    declared = policy(steps=((50, HOLD), (100, HOLD)), approval=approval)
    analysis = declared.canary.analysis.model_copy(update={"promoteEarly": early})
    return declared.model_copy(update={"canary": declared.canary.model_copy(update={"analysis": analysis})})


def after_a_minute(judged: SLOReading, *, spec: FallbackPolicySpec) -> World:
    world = started(policy=spec)
    world.judged = judged
    world.want("2")
    world.run(60)
    return world


def test_steps_end_early_one_after_the_other_and_it_is_told() -> None:
    world = after_a_minute(GOOD, spec=hurried())
    assert world.place.stable is not None
    assert world.place.stable.revision.name == "rev2"
    assert world.reasons().count("StepPassedEarly") == 2
    assert [permille for _, _, canary, permille in world.shares if canary == "rev2" and permille] == [500, 1000]


@pytest.mark.parametrize(
    "judged",
    [HEALTHY, UNSEEN, reading(Waiting(more=3)), replace(reading(Breaching(since=START)), promotable=True)],
    ids=["no-evidence-for-it", "unknown", "too-few-requests", "evidence-against-it"],
)
def test_a_step_is_held_for_its_time_where_an_slo_is_not_known_to_be_good_enough(judged: SLOReading) -> None:
    world = after_a_minute(judged, spec=hurried())
    assert world.route is not None
    assert world.route.permille == 500
    assert "StepPassedEarly" not in world.reasons()


def test_a_step_is_held_for_its_time_where_nobody_asked_for_less() -> None:
    world = after_a_minute(GOOD, spec=hurried(early=False))
    assert world.route is not None
    assert world.route.permille == 500


def test_a_person_s_approval_is_waited_for_however_good_the_canary_is() -> None:
    world = after_a_minute(GOOD, spec=hurried(approval=(50,)))
    assert world.route is not None
    assert world.route.permille == 500
