"""What a decision asks for. `controller.apply` carries it out in this order: a falling route, status, children and other routes, events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from backstop.api.condition import ConditionType
from backstop.api.policystatus import Phase, Router
from backstop.api.reasons import Reason
from backstop.api.traffic import TrafficState

from .place import Place


@dataclass(frozen=True)
class RouteWrite:
    """The traffic object as it shall be. `falling`: the share of the revision under judgement falls, so this is the first write."""

    state: TrafficState
    falling: bool


@dataclass(frozen=True)
class Announcement:
    """One transition: becomes one event, one log line and one metric."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class ConditionState:
    """A condition without its times."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str


@dataclass(frozen=True)
class Plan:
    """The next place, and what must be true in the cluster for it.

    `sizes`: replicas per live revision; a revision that is not named has no Deployment and no Service of its own.
    `serving`: the revision that the Services `p` and `p-stable` select; `canary`: the one of `p-canary`.
    `probes`: names of the probes of the canary that must run, or have ended; of others none is left running.
    `conditions`: all that hold now; a type that is missing is taken off.
    `autoscaled`: the revision whose replicas an autoscaler sets, so that its size is only what it has where it does not exist;
    `may_shrink`: whether the autoscaler may take pods away.
    `finalizer`: the policy must not vanish before gateways were seen to act on the end of its rollout.
    `wake_at`: when to look again even if nothing changes (seconds since the epoch).
    `report`: whether the report of the rollout that ended, as status was read, is to be written.
    `router`: what makes weights true; `share`: percent of connections that the canary really gets, where that is not its weight.
    """

    place: Place
    route: RouteWrite | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    serving: str | None = None
    canary: str | None = None
    announcements: tuple[Announcement, ...] = ()
    conditions: tuple[ConditionState, ...] = ()
    phase: Phase = Phase.IDLE
    reason: Reason = Reason.STABLE
    wake_at: float | None = None
    probes: tuple[str, ...] = ()
    autoscaled: str | None = None
    may_shrink: bool = True
    finalizer: bool = False
    report: bool = False
    router: Router = Router.BUILTIN
    share: str | None = None
