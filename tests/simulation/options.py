"""The whole pass with what a policy may declare besides: a dry run, a longest hold, an autoscaler; and what is asked for anew by `refresh`.

Apart from `machine`, whose runs stay as they are.
"""

import math

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from backstop.api.reasons import Reason
from backstop.kube.resources import Body
from backstop.rollout.place import Place, Revision
from backstop.rollout.route import share_of

from .machine import AT_ONCE_SECONDS, RECOVERY_SECONDS, SECONDS, VERSIONS, WholePasses
from .wishes import MOST_PODS, REPLICAS, spec

HOLD_SECONDS = 8.0  # of each step
LONGEST_HOLD = 30
# For a step to be verified, and for whatever was under way before.
BEGIN_SECONDS = 40.0


class WholePassesWithOptions(WholePasses):
    """A policy that asks for more than the others do."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.most: int | None = None
        self.scaled = False

    @initialize(
        mode=st.sampled_from(("DryRun", "DryRun", "Automatic", "Automatic", "Pause")),
        own=st.sampled_from((False, False, True)),
        most=st.sampled_from((None, LONGEST_HOLD, LONGEST_HOLD)),
        scaled=st.booleans(),
    )
    def version_1_is_stable(self, mode: str, own: bool, most: int | None, scaled: bool) -> None:
        self.most, self.scaled = most, scaled
        self.witness.dry, self.witness.most = mode == "DryRun", most
        super().version_1_is_stable(mode, (), None, own)

    @precondition(lambda self: self.cluster.exists)
    @rule()
    def somebody_refreshes(self) -> None:
        self.asked += 1
        self.cluster.ask("refresh", str(self.asked))

    @rule(version=st.sampled_from(VERSIONS))
    def requests_are_few(self, version: str) -> None:
        self.cluster.judge(version, "waiting")

    @rule(pods=st.integers(REPLICAS, MOST_PODS))
    def the_load_is(self, pods: int) -> None:
        self.cluster.load = pods

    @precondition(lambda self: self.cluster.exists and self.mode == "DryRun")
    @rule(seconds=SECONDS, waiting=st.booleans())
    def a_dry_run_only_reports(self, seconds: float, waiting: bool) -> None:
        """What speaks against the canary is told, and neither its share nor its future is another."""
        canary = self._under_way(seconds)
        if canary is None or (waiting and self.most is None):
            return
        self.paused = False
        self._apply()
        self._pass_time(12.0)
        place, before = self.cluster.place.canary, self.cluster.traffic
        if place is None or before is None or place.promoting_since is not None or not self._canary_has_traffic():
            return
        self.cluster.judge(self.cluster.prompts[canary], "waiting" if waiting else "breached")
        self._pass_time(BEGIN_SECONDS + HOLD_SECONDS + LONGEST_HOLD if waiting else AT_ONCE_SECONDS)
        after, told = self.cluster.traffic, self.cluster.place.canary
        assert told is not None, f"a dry run ends the rollout: {self.cluster.place.last}"
        assert after is not None
        given = share_of(canary, state=after)
        # A step that was passed before begins when its pods are there, but not beside a breach.
        assert given == share_of(canary, state=before) or (waiting and given > 0), f"a dry run moves traffic: {after} after {before}"
        reason = Reason.HELD_TOO_LONG if waiting else Reason.LATENCY_BREACH
        assert reason in told.reported or told.promoting_since is not None, f"a dry run says nothing of {reason}: {told}"
        assert self.cluster.place.rejection_of(canary) is None

    @precondition(lambda self: self.cluster.exists and self.mode == "Automatic" and self.most is not None)
    @rule(seconds=SECONDS, seen=st.booleans())
    def a_step_is_held_for_as_long_as_it_may(self, seconds: float, seen: bool) -> None:
        """Where it can be seen that nothing comes of it; time without metrics does not count."""
        canary = self._under_way(seconds)
        if canary is None:
            return
        self.paused = False
        self._apply()
        self.cluster.judge(self.cluster.prompts[canary], "waiting" if seen else "unseen")
        self._pass_time(AT_ONCE_SECONDS)
        before = self.cluster.place
        if before.canary is None or before.canary.revision.name != canary or _goes_on(before):
            return
        self._pass_time(BEGIN_SECONDS + HOLD_SECONDS + LONGEST_HOLD)
        rejection = self.cluster.place.rejection_of(canary)
        if seen:
            assert rejection is not None, f"{canary} is held for ever: {self.cluster.place.canary}"
            assert rejection.reason == Reason.HELD_TOO_LONG
            assert self.cluster.share(canary) == 0
        else:
            assert rejection is None, f"3: {canary} is rejected, and nothing was seen of it: {rejection}"

    @precondition(lambda self: self.cluster.exists and self.scaled and not self.cluster.own)
    @rule(seconds=SECONDS)
    def the_load_changes_under_a_canary(self, seconds: float) -> None:
        """12: stable can take everything back, and the canary carries its share of what has come."""
        canary = self._under_way(seconds)
        place, before = self.cluster.place.canary, self.cluster.traffic
        if canary is None or before is None or place is None or place.promoting_since is not None:
            return
        self.cluster.load = MOST_PODS
        self._pass_time(12.0)
        after = self.cluster.traffic
        assert after is not None
        assert self._is_as(canary, before.stable), "nothing has happened to it"
        assert self.cluster.replicas(after.stable) == MOST_PODS
        needed = math.ceil(MOST_PODS * share_of(canary, state=after) / 1000)
        assert (self.cluster.replicas(canary) or 0) >= needed, f"12: {canary} has {self.cluster.replicas(canary)} pods of {needed}"
        self.cluster.load = REPLICAS
        self._pass_time(12.0)
        assert self._is_as(canary, before.stable), "nothing has happened to it"
        assert self.cluster.replicas(before.stable) == MOST_PODS, f"12: the autoscaler has taken pods from {before.stable}"

    @precondition(lambda self: self.cluster.exists and self.cluster.place.stable is not None)
    @rule(seconds=SECONDS)
    def the_status_is_lost_while_nobody_can_read_the_route(self, seconds: float) -> None:
        """10, 12: nothing becomes stable that the route does not call so."""
        if self._under_way(seconds) is None or (before := self.cluster.traffic) is None:
            return
        place = self.cluster.place.canary
        if place is None or place.promoting_since is not None:
            return
        self.cluster.take_route()
        self._pass_time(1.0)
        if not self.cluster.is_foreign(self.cluster.api.objects.get(self.cluster.traffic_id)):
            return
        self.cluster.lose_status()
        self._pass_time(65.0)
        stable = self.cluster.place.stable
        assert stable is None, f"12: {stable} has become stable, and nobody knows what serves"
        assert self.cluster.replicas(before.stable), f"12: {before.stable} serves, and has gone"
        self.cluster.give_route_back()
        self._pass_time(RECOVERY_SECONDS)
        stable = self.cluster.place.stable
        assert stable is not None, f"7: nothing serves: {self.cluster.status.reason}"

    def _is_as(self, canary: str, stable: str) -> bool:
        place = self.cluster.place
        names = [p.revision.name if p is not None else None for p in (place.canary, place.stable)]
        return names == [canary, stable]

    def _spec(self) -> Body:
        own, mode, source = self.cluster.own, self.mode, self.source
        wanted = self.wanted
        return spec(wanted, own=own, mode=mode, paused=self.paused, bar=self.bar, source=source, most=self.most, scaled=self.scaled)

    def _full_size(self) -> int:
        return min(max(self.cluster.load, REPLICAS), MOST_PODS) if self.scaled else REPLICAS

    def _is_wanted(self, stable: Revision) -> bool:
        """Of one version there may be several revisions: what is rejected of it is wanted, or was before the last `refresh`."""
        if not super()._is_wanted(stable):
            return False
        return "RolledBack" not in {c.type for c in self.cluster.status.conditions if c.status == "True"}

    def _end(self) -> None:
        self.witness.dry = False
        super()._end()


def _goes_on(place: Place) -> bool:
    """Whether the canary has passed its step already, or is sent on by a person."""
    canary = place.canary
    return canary is not None and (canary.promoting_since is not None or canary.by_hand)
