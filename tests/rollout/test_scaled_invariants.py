"""The invariants where an autoscaler sizes what serves, its Deployment is lost now and then, and no SLO is required."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from backstop.analysis.reading import Waiting
from tests.rollout.test_invariants import GUARD, THOROUGH, Rollouts
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN, policy, reading

WAITING = reading(Waiting(more=20))
MOST = 12


class RolloutsScaled(Rollouts):
    """A policy that lives through everything at once, and whose SLO may wait for requests."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        declared = policy(steps=((5, 20), (50, 20), (100, 20)), deadline=60, guard=GUARD, autoscaling={"maxReplicas": MOST})
        slos = [slo.model_copy(update={"required": False}) for slo in declared.slos]
        self.world.policy = declared.model_copy(update={"slos": slos})
        self.carrying: tuple[str, int] | None = None  # the canary that had a share at the last look, and its pods

    @rule(judged=st.sampled_from((HEALTHY, WAITING, BREACHED, UNSEEN, None)))
    def metrics_say(self, judged) -> None:  # type: ignore[no-untyped-def]
        self.world.judged = judged

    @precondition(lambda self: self.world.serving in self.world.arms)
    @rule(replicas=st.integers(2, MOST))
    def the_autoscaler_scales(self, replicas: int) -> None:
        """Only upwards while a canary has a share, unless a person does."""
        assert self.world.serving is not None
        self.world.scale(self.world.serving.removeprefix("rev"), replicas=replicas)

    @precondition(lambda self: self._stable() in self.world.arms)
    @rule(comes_back=st.booleans())
    def the_deployment_of_stable_is_lost(self, comes_back: bool) -> None:
        del self.world.arms[self._stable()]
        if not comes_back:
            self.world.broken.add(self._stable())

    @precondition(lambda self: self.world.exists and self._stable() in self.world.arms and self.world.place.canary is not None)
    @rule(judged=st.sampled_from((HEALTHY, WAITING)))
    def a_canary_is_left_alone_with_a_stable_that_has_no_pod(self, judged) -> None:  # type: ignore[no-untyped-def]
        """3: no step is passed that was not passed before."""
        self.the_deployment_of_stable_is_lost(False)
        self.world.judged, self.world.deaf, self.world.unread = judged, False, False
        self.world.run(9, tick=3)  # what was decided before is carried out
        canary = self.world.place.canary
        before = None if canary is None or canary.promoting_since is not None else (canary.revision, canary.step)
        self.world.run(90, tick=9)
        canary = self.world.place.canary
        if before is not None and canary is not None:
            assert (canary.revision, canary.step, canary.promoting_since) == (*before, None)
        if before is not None:
            assert self.world.place.stable is None or self.world.place.stable.revision != before[0], "3: it is stable"
        self.world.broken.discard(self._stable())

    def _stable(self) -> str:
        stable = self.world.place.stable
        return stable.revision.name if stable is not None else ""

    @invariant()
    def no_canary_that_has_a_share_is_cut(self) -> None:
        route = self.world.route
        carries = route is not None and route.canary is not None and route.permille > 0 and route.canary in self.world.arms
        now = (str(route.canary), self.world.arms[str(route.canary)].desired) if route is not None and carries else None
        if now is not None and self.carrying is not None and now[0] == self.carrying[0] == self._canary_with_weight():
            assert now[1] >= self.carrying[1], f"{now[0]} had {self.carrying[1]} pods and a share, and has {now[1]}"
        self.carrying = now

    def _canary_with_weight(self) -> str | None:
        canary = self.world.place.canary
        return canary.revision.name if canary is not None and canary.weight > 0 else None

    @invariant()
    def the_stable_revision_always_has_its_pods(self) -> None:
        """12: beside a switch it has what is declared, wherever it has a Deployment."""
        place = self.world.place
        if place.stable is not None and place.stable.revision.name in self.world.arms and place.canary and place.canary.routed_at:
            assert self.world.arms[place.stable.revision.name].desired >= self.world.policy.serving.replicas


TestRolloutsScaled = RolloutsScaled.TestCase
TestRolloutsScaled.settings = settings(max_examples=80 if THOROUGH else 6, stateful_step_count=40)
