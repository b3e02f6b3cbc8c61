"""The headers that callers are told apart by: they reach the gateways at once, and change nothing else."""

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.steering import CanaryTraffic
from backstop.api.traffic import NO_STEERING, Steering, parse
from backstop.rollout.observed import Known

from .world import World, policy, revision, started


def with_headers(spec: FallbackPolicySpec, **headers: str) -> FallbackPolicySpec:
    return spec.model_copy(update={"canary": spec.canary.model_copy(update={"traffic": CanaryTraffic(**headers)})})


def steering_of(world: World) -> Steering:
    assert world.traffic is not None
    return parse(world.traffic).steering


def test_headers_reach_the_gateways_in_lower_case_and_leave_them_again() -> None:
    world = started()
    assert steering_of(world) == NO_STEERING
    assert set(world.traffic or {}) == {"generation", "stable", "canary", "permille", "aborted"}
    calm = world.policy
    world.policy = with_headers(calm, stickyHeader="X-User-Id", pinHeader="x-backstop-track")
    world.run(2)
    assert steering_of(world) == Steering(sticky="x-user-id", pin="x-backstop-track")
    world.policy = calm
    world.run(2)
    assert steering_of(world) == NO_STEERING
    assert world.place.canary is None


def test_a_header_that_is_declared_in_mid_step_starts_no_step_anew() -> None:
    world = started(policy=policy(steps=((5, 600), (100, 60))))
    world.want("2")
    world.run(60)
    before, told = world.place.canary, list(world.told)
    assert before is not None
    assert before.verified_at is not None
    world.policy = with_headers(world.policy, stickyHeader="x-user-id")
    world.run(60)
    assert world.place.canary == before
    assert world.told == told
    assert world.route is not None
    assert (world.route.permille, world.route.steering) == (50, Steering(sticky="x-user-id"))


def test_a_header_that_is_declared_while_a_weight_is_verified_does_not_stop_that() -> None:
    world = started(policy=policy(steps=((5, 600), (100, 60))))
    world.want("2")
    world.deaf = True
    world.run(10)
    assert world.place.canary is not None
    assert world.place.canary.verified_at is None
    world.policy = with_headers(world.policy, stickyHeader="x-user-id")
    world.run(3)
    world.deaf = False
    world.run(3)
    assert world.place.canary is not None
    assert (world.place.canary.weight, world.place.canary.verified_at is not None) == (5, True)


def test_the_revision_that_is_prepared_is_named_at_weight_0_so_that_it_can_be_pinned() -> None:
    world = started(policy=with_headers(policy(), pinHeader="x-track"))
    world.broken.add("rev2")
    world.want("2")
    world.run(5)
    assert world.route is not None
    assert (world.route.canary, world.route.permille, world.route.aborted) == ("rev2", 0, None)
    assert world.wanted == Known(revision("2"))
