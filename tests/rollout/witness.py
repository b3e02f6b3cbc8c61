"""What is asserted of every pass in the small world, over what can be seen of it: the traffic object, status, pods, gateways, metrics.

Numbers are those of the invariants. It knows the plan that the policy declares and what befell each weight, and nothing of how a
decision is come to.
"""

import math
from dataclasses import dataclass, field

from backstop.analysis.reading import state_name
from backstop.api.fallbackpolicy import FallbackPolicySpec, RollbackMode
from backstop.api.reasons import Reason
from backstop.api.traffic import TrafficState
from backstop.rollout.observed import Arm, Known
from backstop.rollout.place import Place, Tokens
from backstop.rollout.plan import Plan
from backstop.rollout.route import SWITCH_SECONDS, share_of
from tests.rollout.world import World


@dataclass
class Held:
    """A weight that the traffic object gives a canary: since when, how long of that metrics were away, whether it was held well."""

    canary: str
    permille: int
    since: float
    acknowledged: Tokens  # what had been asked for by hand until then
    blind: float = 0.0
    well: bool = False


@dataclass(frozen=True)
class Seen:
    """What there was when a pass began."""

    now: float
    place: Place
    route: TrafficState | None
    readable: bool
    arms: dict[str, Arm]
    metrics: str | None  # the state of the SLO; None: nothing was read. Without an SLO nothing can be wrong


@dataclass
class WatchedWorld(World):
    """The small world, with a look at all that a pass did."""

    reached: dict[str, int] = field(default_factory=dict)  # the greatest share of the canary, in thousandths
    skipped: set[int] = field(default_factory=set)  # shares of the canary whose step a person had passed
    held: Held | None = None
    resting: Seen | None = None  # the pass before, where it found nothing to do

    def one_pass(self, *, stop_after: int | None = None) -> Plan:
        observed = self.observe()
        readings = observed.readings
        before = Seen(
            self.now,
            self.place,
            self.route,
            isinstance(observed.route, Known),
            observed.arms if isinstance(observed.arms, dict) else dict(observed.arms),
            state_name(readings[0].state) if readings else None if self.policy.slos else "Healthy",
        )
        self._metrics_were(before)
        asked = before.place.acknowledged
        plan = super().one_pass(stop_after=stop_after)
        if self.exists and not self.deleting:
            self._look(before, asked=asked, skips=any(said.reason is Reason.STEP_SKIPPED for said in plan.announcements))
        rests = self.place == before.place and self.route == before.route
        self.resting = before if rests and stop_after is None else None
        if self.exists and stop_after != 0:
            self._breach_has_left(before)
            if self.resting is not None and not plan.report:
                self._at_rest(before)
        return plan

    def set_back(self, seconds: float) -> None:
        """What began at a time to come has begun now."""
        super().set_back(seconds)
        self.resting = None
        if self.held is not None:
            self.held.since, self.held.blind = min(self.held.since, self.now), 0.0

    def _gone(self) -> None:
        super()._gone()
        self.reached, self.skipped, self.held, self.resting = {}, set(), None, None

    def _metrics_were(self, seen: Seen) -> None:
        """How the weight in effect is doing. Time counts as blind from a pass that saw that, and had nothing else to do."""
        held = self.held
        if held is None:
            return
        if self.resting is not None and self.resting.metrics == "Unknown":
            held.blind += seen.now - self.resting.now
        step = next((step for step in self.policy.canary.steps if step.weight * 10 == held.permille), None)
        # A weight that is no step's any more is not held: the plan goes on at the next one, as soon as metrics can be seen.
        over = step is None or seen.now - held.since - held.blind >= step.holdSeconds - 0.001
        required = any(slo.required for slo in self.policy.slos)
        stable = seen.place.stable
        beside = stable is not None and seen.arms.get(stable.revision.name, Arm(0, 0)).ready > 0
        held.well |= over and beside and (seen.metrics == "Healthy" or ((step is None or not required) and seen.metrics == "Waiting"))

    def _look(self, before: Seen, *, asked: Tokens, skips: bool) -> None:
        after, place = self.route, self.place
        self._unread(before)
        # Not before status says so: an operator may have died in between, and what it wrote into the route may be lost.
        if place.canary is None:
            self.reached, self.skipped, self.held = {}, set(), None
        if skips and self.held is not None and place.acknowledged.skip_step != asked.skip_step:
            self.skipped.add(self.held.permille)
        self._went_on(before)  # by what was asked for since the weight before began
        if after is not None and after != before.route:
            self._switch(before, after=after)
            self._share(after, acknowledged=asked)
        if before.place.stable is not None and place.stable is not None and place.stable.revision != before.place.stable.revision:
            self._promoted(before)

    def _share(self, after: TrafficState, *, acknowledged: Tokens) -> None:
        """1, 2 and 3: along one step of the plan, with its pods, and never without having seen that all is well."""
        if after.canary is None:
            return
        name, most = after.canary, self.reached.get(after.canary, 0)
        further = next((weight for weight in weights_of(self.policy) if weight > most), most)
        assert after.permille <= most or after.permille == further, f"1: {name} goes from {most} ‰ to {after.permille} ‰, past {further}"
        if after.permille > most:
            ready = self.arms.get(name, Arm(0, 0)).ready
            assert ready >= pods_of(self.policy, permille=after.permille), f"2: {name} has {ready} pods ready at {after.permille} ‰"
            wanted = self.observe().wanted
            assert isinstance(wanted, Known), f"3: {name} gets {after.permille} ‰, and nobody knows what is wanted"
            assert wanted.value.name == name, f"1: {name} gets {after.permille} ‰, and {wanted.value.name} is wanted"
            if most > 0:
                self._went_well(name, permille=most)
        self.reached = {name: max(most, after.permille)}
        if self.held is None or (self.held.canary, self.held.permille) != (name, after.permille):
            self.held = Held(name, after.permille, self.now, acknowledged)

    def _went_well(self, name: str, *, permille: int) -> None:
        """3: the weight before was held for its time with healthy metrics, or a person had it passed; 1: and approved where it must be."""
        held, place = self.held, self.place
        if held is None or held.canary != name or (place.canary is not None and place.canary.by_hand):
            return
        known, then = place.acknowledged, held.acknowledged
        if (known.skip_step, known.promote, known.retry) != (then.skip_step, then.promote, then.retry):
            return
        if held.permille == permille:  # not where pods had gone in between, and the same step began anew
            assert held.well, f"3: {name} goes on from {permille} ‰, which it did not hold with healthy metrics: {held}"
        step = next((step for step in self.policy.canary.steps if step.weight * 10 == permille), None)
        if step is not None and step.approval and permille not in self.skipped:
            assert known.approve is not None, f"1: {name} goes on from {permille} ‰, and nobody approved"

    def _went_on(self, before: Seen) -> None:
        """3: status decides for a greater share only where metrics are healthy at that moment, unless a person has asked for it."""
        then, now, held = before.place.canary, self.place.canary, self.held
        if then is None or now is None or then.revision != now.revision or then.weight == 0 or now.by_hand or held is None:
            return
        if (now.weight, now.routed_at is not None) <= (then.weight, then.routed_at is not None):
            return
        assert not self.policy.canary.paused, f"1: {now.revision.name} goes on from {then.weight} % in a pause"
        assert isinstance(self.observe().wanted, Known), f"3: {now.revision.name} goes on, and nobody knows what is wanted"
        known, asked = self.place.acknowledged, held.acknowledged
        if (known.skip_step, known.promote, known.retry) != (asked.skip_step, asked.promote, asked.retry):
            return
        required = any(slo.required for slo in self.policy.slos)
        edited = then.step_hash != now.step_hash  # which asks only that something can be seen
        good = {"Healthy"} | ({"Waiting"} if not required or edited else set()) | ({"Breaching"} if edited else set())
        assert before.metrics in good, f"3: {now.revision.name} goes on from {then.weight} % where metrics are {before.metrics}"

    def _switch(self, before: Seen, *, after: TrafficState) -> None:
        """12: whoever is called stable can serve; 1: and has come there along the steps, or back."""
        route = before.route
        if route is None or route.stable == after.stable:
            return
        name, ready = after.stable, before.arms.get(after.stable, Arm(0, 0)).ready
        assert ready > 0, f"12: {name} becomes stable without a ready pod"
        if after.aborted is not None and after.aborted.revision == route.stable:
            return  # away from what breached, with the pods that there are
        left = before.place.canary
        if left is not None and left.revision.name == route.stable and before.arms.get(route.stable, Arm(0, 0)).ready == 0:
            return  # back from a switched canary without a ready pod, to what has one
        assert ready >= self.policy.serving.replicas, f"12: {name} becomes stable with {ready} pods ready"
        canary = before.place.canary
        if canary is None or canary.by_hand or canary.revision.name != name:
            return
        assert self.reached.get(name) == 1000, f"1: {name} becomes stable after {self.reached} ‰"
        self._went_well(name, permille=1000)

    def _promoted(self, before: Seen) -> None:
        """12: a promotion is over when every gateway acts on it, or has had its time; 4: and a breach meanwhile is not forgotten."""
        place, canary = self.place, before.place.canary
        assert place.stable is not None
        if canary is None or canary.revision != place.stable.revision:
            return
        name = canary.revision.name
        if before.metrics == "Breached" and not canary.by_hand and self.policy.rollback.mode is not RollbackMode.DRY_RUN:
            assert place.guard is not None, f"4: {name} breached, is stable, and nobody watches it"
            assert place.guard.returning is not None, f"4: {name} breached, is stable, and nobody goes back"
        seen = self.acted is not None and self.acted.stable == name
        # An operator may have died between status and the write of the switch: its time runs from status.
        waited = self.now - (canary.routed_at if canary.routed_at is not None else self.now)
        assert seen or waited >= SWITCH_SECONDS - 0.001, f"12: {name} is stable after {waited} s, and gateways do not know"

    def _unread(self, before: Seen) -> None:
        """3: nothing goes on while it cannot be seen what gateways are told."""
        now, then = self.place.canary, before.place.canary
        if before.readable or now is None or then is None or now.revision != then.revision:
            return
        assert (now.weight, now.routed_at is not None) <= (then.weight, then.routed_at is not None), (
            "3: it goes on, and the route is unread"
        )

    def _breach_has_left(self, before: Seen) -> None:
        """4: whatever else there is to do; with the first write."""
        canary = before.place.canary
        if canary is None or before.metrics != "Breached" or self.policy.rollback.mode is RollbackMode.DRY_RUN:
            return
        if self.has_nobody_else(before.place, arms=before.arms):
            return
        route = self.route
        assert route is not None, f"4: {canary.revision.name} breached, and gateways do not know"
        share = share_of(canary.revision.name, state=route)
        assert share == 0, f"4: {canary.revision.name} breached and has {share} ‰"

    def has_nobody_else(self, place: Place, *, arms: dict[str, Arm]) -> bool:
        """Whether callers reach an own workload's canary alone, as no pod is ready that they could be led back to."""
        canary, stable = place.canary, place.stable
        if self.policy.serving.workload is None or canary is None or canary.weight == 0 or stable is None:
            return False
        return arms.get(stable.revision.name, Arm(0, 0)).ready == 0

    def _at_rest(self, before: Seen) -> None:
        """What a pass that found nothing to do must find."""
        route, canary = self.route, self.place.canary
        # An own workload's keeps what it has where nobody serves: whoever has a pod first does.
        kept = self.has_nobody_else(self.place, arms=before.arms)
        if route is not None and route.canary is not None and route.permille > 0 and not kept:
            assert before.arms.get(route.canary, Arm(0, 0)).ready > 0, f"2: {route.canary} has {route.permille} ‰ and no ready pod"
        wanted = self.observe().wanted
        if canary is not None and isinstance(wanted, Known) and route is not None and before.readable:
            share, stable = share_of(canary.revision.name, state=route), self.place.stable
            beside = before.arms.get(stable.revision.name, Arm(0, 0)).ready if stable is not None else 0
            # A promotion that is switched already has left stable, which has to be able to serve to be gone back to.
            alone = self.has_nobody_else(self.place, arms=before.arms)
            leaves = (canary.routed_at is None and not alone) or beside >= self.policy.serving.replicas
            assert wanted.value == canary.revision or share == 0 or not leaves, (
                f"1: {wanted.value.name} is wanted, {canary.revision.name} has {share} ‰"
            )


def weights_of(policy: FallbackPolicySpec) -> list[int]:
    """The shares of the plan, in thousandths."""
    return [step.weight * 10 for step in policy.canary.steps]


def pods_of(policy: FallbackPolicySpec, *, permille: int) -> int:
    """Ready pods that carry this share; where pods make the share, it takes fewer."""
    if policy.serving.workload is not None and permille < 1000:
        return 1
    return max(1, math.ceil(policy.serving.replicas * permille / 1000))
