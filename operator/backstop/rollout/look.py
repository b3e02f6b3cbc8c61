"""One look: what was observed, beside what the policy asks for, at one moment. The questions that several gates ask of it."""

import hashlib
import math
from dataclasses import dataclass

from backstop.analysis.reading import SLOReading, StateName, state_name
from backstop.api.clock import parse_time
from backstop.api.fallbackpolicy import FallbackPolicySpec, Step
from backstop.api.record import canonical
from backstop.api.traffic import Abort

from .observed import Known, Observed
from .place import CanaryPlace, Place, Revision


@dataclass(frozen=True)
class Look:
    """Observed, policy and moment (seconds since the epoch)."""

    observed: Observed
    policy: FallbackPolicySpec
    now: float

    @property
    def place(self) -> Place:
        """Where the rollout is."""
        return self.observed.place

    @property
    def wanted(self) -> Revision | None:
        """The revision that the spec asks for; None when it cannot be told."""
        return self.observed.wanted.value if isinstance(self.observed.wanted, Known) else None

    @property
    def replicas(self) -> int:
        """Full size: as declared, or with an autoscaler what stable has now; what it had, where its Deployment is gone or has no pods."""
        serving, stable = self.policy.serving, self.place.stable
        if serving.autoscaling is None or stable is None:
            return serving.replicas
        lost = min(stable.size, serving.autoscaling.maxReplicas) if stable.size is not None else serving.replicas
        return max(self.observed.arm(stable.revision.name).desired or lost, serving.least)

    def step_of(self, canary: CanaryPlace) -> Step:
        """The step that the canary is at, or is being prepared for; the last where an edit left fewer steps than that."""
        steps = self.policy.canary.steps
        return steps[min(canary.step, len(steps) - 1)]

    @property
    def is_held(self) -> bool:
        """Whether no canary's weight may rise now, whatever is found of it: in a pause, or where spec or route cannot be followed."""
        return self.policy.canary.paused or self.wanted is None or not isinstance(self.observed.route, Known)

    def pods_needed(self, canary: CanaryPlace) -> int:
        """Ready pods that the canary must have now: for its weight, or for the next one where nothing but these is waited for."""
        if canary.promoting_since is not None:
            return self.replicas
        weight = canary.weight if canary.weight > 0 and self.is_held else self._weight(canary)
        return self.pods_for(max(weight, canary.pods_for if canary.awaits_pods else 0))

    def pods_made(self, canary: CanaryPlace) -> int:
        """Pods that it is given; those for the next weight stay, also while something else keeps the step from passing.

        Where pods make the share, only those of them that serve already: one more would be a greater share.
        """
        needed = self.pods_needed(canary)
        most = max(needed, self.pods_for(max(self._weight(canary), canary.pods_for)))
        if not self.by_replicas or canary.weight == 0 or canary.promoting_since is not None:
            return most
        arm = self.observed.arm(canary.revision.name)
        return max(needed, min(most, arm.ready, arm.desired))

    def _weight(self, canary: CanaryPlace) -> int:
        """The greatest that it has, or is prepared for: that of its step, unless the steps were edited since and it has one already."""
        begins = canary.step_started_at is None and (canary.weight == 0 or canary.step_hash == steps_hash(self.policy))
        return max(canary.weight, self.step_of(canary).weight if begins else 0)

    def pods_for(self, weight: int) -> int:
        """Ready pods that carry this weight: its share of full size, at least one."""
        if self.by_replicas:
            return pods_for_share(weight, beside=self.replicas)
        return max(1, math.ceil(self.replicas * weight / 100))

    @property
    def by_replicas(self) -> bool:
        """Whether numbers of ready pods are what weights are made of: there are no gateways that could split requests."""
        return self.policy.serving.workload is not None

    def ready(self, canary: CanaryPlace) -> int:
        """Ready pods of the canary."""
        return self.observed.arm(canary.revision.name).ready

    def acts_on(self, generation: int | None) -> bool:
        """Whether every ready gateway was seen to act on this traffic generation or a later one of the object that is there."""
        acting = self.observed.acting
        return generation is not None and isinstance(acting, Known) and acting.value >= generation and self.ahead is None

    def acting_since(self, watched_since: float) -> float:
        """When gateways that are watched since then were seen to act as they do. A pass that had much to write comes later than that.

        Now, where that is not known, or the clock was set.
        """
        since = self.observed.acting_since
        return since if since is not None and watched_since <= since <= self.now else self.now

    @property
    def ahead(self) -> int | None:
        """The generation that a gateway acts on, where that is a later one than the traffic object has: somebody has put an older one back,
        and it takes nothing that this says for news.
        """
        newest, route = self.observed.newest, self.observed.route
        if newest is None or not isinstance(route, Known) or route.value is None:
            return None
        return newest if newest > route.value.generation else None

    def verdict(self, *, since: float) -> Abort | None:
        """The verdict that the traffic object carries on what has begun at `since`. Not a former one on an object older than what status
        knows to be decided: a cache that lags behind shows it, and it has been withdrawn since.
        """
        route = self.observed.route
        if not isinstance(route, Known) or route.value is None or route.value.aborted is None:
            return None
        aborted = route.value.aborted
        is_former = route.value.generation < self.place.generation and parse_time(aborted.time) < since
        return None if is_former else aborted

    def readings_in(self, state: StateName) -> tuple[SLOReading, ...]:
        """The SLO readings in this state, in the policy's order."""
        return tuple(reading for reading in self.observed.readings if state_name(reading.state) == state)

    def breach(self, *, of: str | None = None) -> SLOReading | None:
        """The breach that decides: a certain one, whatever else is only suspected. `of`: for this reason alone."""
        breached = [reading for reading in self.readings_in("Breached") if of is None or reading.reason == of]
        return next((reading for reading in breached if not reading.suspected), breached[0] if breached else None)


def pods_for_share(weight: int, *, beside: int) -> int:
    """Pods of a canary that get as near to `weight` percent of connections as they can without more, beside so many of stable.

    At least one, whose share may be more than that; never more than stable has. At 100 nothing is beside it.
    """
    if weight >= 100:
        return beside
    return max(1, min(beside, beside * weight // (100 - weight)))


def steps_hash(policy: FallbackPolicySpec) -> str:
    """Hash of the declared steps: a rollout re-plans when it changes."""
    return hashlib.sha256(canonical([step.model_dump(exclude_defaults=True) for step in policy.canary.steps])).hexdigest()[:8]
