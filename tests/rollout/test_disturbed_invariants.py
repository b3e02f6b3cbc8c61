"""The invariants where the operator's clock is set back, and what there is to judge by is taken away."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.rollout.test_invariants import THOROUGH, Rollouts
from tests.rollout.world import BREACHED, HEALTHY, UNSEEN


class RolloutsDisturbed(Rollouts):
    """A policy that lives through everything at once, on a clock that nobody keeps."""

    steps = 0

    @rule(seconds=st.sampled_from((61.0, 3600.0)))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.world.set_back(seconds)

    @precondition(lambda self: self.world.exists)
    @rule(seconds=st.sampled_from((9, 300)))
    def somebody_takes_the_slos_out_while_metrics_are_away(self, seconds: int) -> None:
        """And puts them back later. What there is nothing to see of is not waited for."""
        declared, self.world.judged = self.world.policy, UNSEEN
        self.world.run(9, tick=3)
        self.world.policy = declared.model_copy(update={"slos": []})
        self.world.run(seconds, tick=3)
        canary = self.world.place.canary
        assert canary is None or canary.verified_at is None or canary.blind_since is None, "there is nothing to see"
        self.world.policy, self.world.judged = declared, HEALTHY

    @precondition(lambda self: self.world.exists and not self.world.deleting)
    @rule(version=st.sampled_from("234"), seconds=st.sampled_from((21, 200)), back=st.sampled_from((61.0, 3600.0)))
    def the_clock_is_set_back_after_a_breach(self, version: str, seconds: int, back: float) -> None:
        """8: nothing is kept, or waited for, for longer than it would have been."""
        self._nothing_is_wrong()
        self.world.want(version)
        self.world.run(seconds, tick=3)
        self.world.judged = BREACHED
        self.world.run(6, tick=3)
        self.world.set_back(back)
        self._nothing_is_wrong()
        self.world.run(1200, tick=15)  # a comparison may be open for ten minutes
        place = self.world.place
        assert (place.retiring, place.guard, place.previous, place.waiting) == ((), None, None, None)


TestRolloutsDisturbed = RolloutsDisturbed.TestCase
TestRolloutsDisturbed.settings = settings(stateful_step_count=40, max_examples=100 if THOROUGH else 6)
