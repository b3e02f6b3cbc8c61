"""Status of a FallbackPolicy: the place of a rollout, in the form users read and the operator resumes from.

Times are RFC 3339 in UTC with milliseconds. `phase` and `reason` are summaries for people; code never branches on them.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from .condition import Condition
from .model import StatusModel

LIST_MAP_BY_TYPE: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
LIST_MAP_BY_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

Time = str


class Phase(StrEnum):
    """What a rollout is about, in one word."""

    STARTING = "Starting"
    IDLE = "Idle"
    GUARDING = "Guarding"
    PROGRESSING = "Progressing"
    PROMOTING = "Promoting"
    HALTED = "Halted"
    ROLLED_BACK = "RolledBack"
    BLOCKED = "Blocked"
    LEAVING = "Leaving"


class Router(StrEnum):
    """What makes weights true."""

    BUILTIN = "Builtin"
    REPLICAS = "Replicas"


def time_field(description: str) -> Time | None:
    """An optional timestamp field."""
    field: Time | None = Field(None, max_length=40, description=description)
    return field


class StableStatus(StatusModel):
    """The revision that serves."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="PromptVersion of the revision; of an own workload its image.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    since: Time | None = time_field("When it became stable.")
    readyReplicas: int = Field(0, description="Gateway pods of it that are ready.")
    fullSize: int | None = Field(
        None, description="With an autoscaler: how many pods it had when all of them were ready. As many it gets if its Deployment is lost."
    )


class HaltedStatus(StatusModel):
    """A breach after which a person decides (`rollback.mode: Pause`)."""

    at: Time = Field(max_length=40, description="When.")
    reason: str = Field(max_length=128, description="Why, in one word.")
    message: str = Field("", max_length=2048, description="The evidence.")
    takenAt: Time | None = time_field("When its traffic was taken away, where that is not when it was decided.")
    trafficGeneration: int | None = Field(
        None, description="Generation of the traffic object that took its traffic away, until every gateway acts on it."
    )
    shiftedAt: Time | None = time_field("When every ready gateway was seen to act on it.")


class CanaryStatus(StatusModel):
    """The revision under judgement."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="PromptVersion of the revision; of an own workload its image.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    startedAt: Time | None = time_field("When its rollout began.")
    unreadySince: Time | None = time_field(
        "Since when it is short of the ready pods that its weight needs; the progress deadline counts from here."
    )
    exitsBefore: int | None = Field(
        None, description="Failed exits of its containers before callers first could reach it; later ones count against it."
    )
    step: int = Field(0, description="Step in effect, counted from 0.")
    stepHash: str = Field("", max_length=16, description="Hash of the declared steps, to notice an edit.")
    stepStartedAt: Time | None = time_field("When the weight of this step was written. Unset: not yet.")
    weight: int = Field(0, description="Percent of requests that the gateways are told to send to it; from `routedAt` on all of them.")
    weightBefore: int | None = Field(None, description="Its weight until `routedAt`, where that was another one.")
    trafficGeneration: int | None = Field(None, description="Generation of the traffic object that carries the weight.")
    weightVerifiedAt: Time | None = time_field("When every ready gateway was seen to act on it.")
    blindSince: Time | None = time_field("Since when metrics cannot be seen. Unset: they can.")
    blindMilliseconds: int = Field(
        0, description="Milliseconds of this step in which metrics could not be seen; they do not count towards its hold."
    )
    podsForWeight: int = Field(
        0,
        description="Percent of requests that its pods are made for while it holds at less; a step passes when they are ready. 0: none.",
    )
    awaitsPods: bool = Field(
        False, description="Whether nothing but the pods for that keeps the step from passing; then they count as lacking."
    )
    podsEndedAt: Time | None = time_field(
        "When pods for that which were not ready yet ended, because something else kept the step from passing. Unset: not, or made at once."
    )
    waitingSince: Time | None = time_field(
        "Since when it waits for pods of its own, or for others' to go, without a moment between; it ends after three progress deadlines."
    )
    approvedStep: int | None = Field(None, description="The last step, counted from 0, that a person has approved of.")
    byHand: bool = Field(
        False,
        description="Whether it is promoted without steps: a person had it promoted, or the spec asks for the former stable again.",
    )
    # An operator of an earlier version has written one reason, as text.
    reported: Annotated[list[Annotated[str, Field(max_length=64)]], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = Field(
        default_factory=list,
        max_length=32,
        description="What was told once of this step: each reason for which `DryRun` would have rolled it back, a breach or a lack of "
        "pods that stable shares; `Returning`; and `WaitingForReady` while it waits for other revisions' pods to go.",
    )
    halted: HaltedStatus | None = Field(None, description="The breach after which it waits, without traffic, for a person.")
    promotingSince: Time | None = time_field("When promotion began. Unset: still judged.")
    routedAt: Time | None = time_field("When promotion made it the stable of the traffic object.")
    probesAt: Time | None = time_field("When its probes were begun. Unset: not yet, or there are none.")
    probesPassed: list[Annotated[str, Field(max_length=80)]] = Field(
        default_factory=list, max_length=32, description="The probes that it has passed: name, and hash of what they were."
    )
    probesFailed: list[Annotated[str, Field(max_length=80)]] = Field(
        default_factory=list, max_length=32, description="The probes that it has not passed, where that was only told: name, and hash."
    )
    heldSince: Time | None = time_field("Since when the present step would have ended, and does not pass. Unset: it holds, or passes.")
    heldMilliseconds: int = Field(0, description="Milliseconds before that in which the present step would have ended and did not pass.")
    heldTold: bool = Field(False, description="Whether it was told that the present step has not passed for an hour.")
    probesSilent: list[Annotated[str, Field(max_length=80)]] = Field(
        default_factory=list, max_length=32, description="Probes that sent requests beside callers' and have ended: name, and hash."
    )
    sharePercent: str | None = Field(
        None,
        max_length=16,
        description="With an own workload: percent of new connections that the ready pods really give to it. Unset: `weight` is exact.",
    )
    blindTold: bool = Field(False, description="Whether it was told that metrics cannot be seen, and not yet that they can again.")
    seeingSince: Time | None = time_field("Since when metrics can be seen again, where that is still to be told.")


class WaitingStatus(StatusModel):
    """A first revision without a ready pod."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    since: Time = Field(max_length=40, description="Since when.")
    told: bool = Field(False, description="Whether it was told that this is longer than `spec.canary.progressDeadlineSeconds`.")


class FirstStatus(StatusModel):
    """A first revision that has to pass its probes before it is stable."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="PromptVersion of the revision.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    startedAt: Time = Field(max_length=40, description="When its probes were begun.")
    probesPassed: list[Annotated[str, Field(max_length=80)]] = Field(
        default_factory=list, max_length=32, description="The probes that it has passed: name, and hash of what they were."
    )
    failed: HaltedStatus | None = Field(None, description="The probe that failed, so that it is not made stable.")
    failedOn: str = Field("", max_length=80, description="Name and hash of that probe.")


class PreviousStatus(StatusModel):
    """The stable revision before this one, kept in order to return to it."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="PromptVersion of the revision.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    until: Time = Field(max_length=40, description="Until when its pods are kept.")


class RetiringStatus(StatusModel):
    """A former canary whose pods finish what they have."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    until: Time = Field(max_length=40, description="When its pods are scaled away.")


class ArmStatus(StatusModel):
    """Counts of one arm in the evaluated window."""

    bad: int | None = Field(None, description="Bad requests; unset for a mean, of which none is bad.")
    total: int = Field(description="Judged requests.")
    mean: str | None = Field(None, max_length=32, description="For a mean: what they came to per request.")


class SLOStatus(StatusModel):
    """The latest evaluation of one SLO."""

    name: str = Field(max_length=63, description="Name of the SLO.")
    state: Literal["Healthy", "Breaching", "Breached", "Waiting", "Unknown"] = Field(
        description="`Breaching`: there is evidence against the canary, not yet enough or not yet for long enough, or stable breaks the "
        "limit too. `Waiting`: too few requests so far. `Unknown`: it could not be seen."
    )
    value: str | None = Field(
        None, max_length=32, description="Measured share of bad requests, in percent; or the measured mean per request."
    )
    limit: str = Field(
        max_length=32,
        description="Allowed share of bad requests, in percent; `stable + 5` where an increase of so many points over stable is allowed; "
        "or the allowed mean per request.",
    )
    canary: ArmStatus | None = Field(None, description="Counts of the canary.")
    stable: ArmStatus | None = Field(None, description="Counts of stable over the same time.")
    breachedSince: Time | None = time_field("End of the first bad block of the present episode.")
    evidence: str = Field("", max_length=2048, description="In words: metric, value, limit, counts of both arms, evidence, query.")


class LastRolloutStatus(StatusModel):
    """How the latest rollout ended."""

    outcome: Literal["Promoted", "RolledBack", "Superseded"] = Field(description="`Promoted`, `RolledBack` or `Superseded`.")
    revision: str = Field(max_length=63, description="The revision that was rolled out.")
    promptVersion: str = Field(max_length=253, description="Its PromptVersion.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    reason: str = Field(max_length=128, description="Why, in one word.")
    message: str = Field(max_length=2048, description="Why, with the evidence.")
    detectedAt: Time | None = time_field("When it was decided.")
    shiftedAt: Time | None = time_field("When every ready gateway was seen to act on the decision.")
    trafficGeneration: int | None = Field(None, description="Generation of the traffic object that carries the decision.")
    report: str | None = Field(None, max_length=253, description="Its RolloutReport, once that is written.")
    endedAt: Time | None = time_field(
        "When traffic was told to go, where that is not when it was decided: it had to wait for pods, or for a person."
    )


class RevisionStatus(StatusModel):
    """A revision, and the prompt that it carries."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="Its PromptVersion.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")


class TransitionStatus(StatusModel):
    """One transition of a rollout, as it was told."""

    time: Time = Field(max_length=40, description="When.")
    reason: str = Field(max_length=128, description="Why, in one word.")
    message: str = Field("", max_length=256, description="Why, in one sentence; a long one is cut.")
    weight: int = Field(description="Percent of requests that the gateways were told to send to the revision from then on.")


class TimelineStatus(StatusModel):
    """What has happened in the running rollout, until its report is written."""

    revision: str = Field(max_length=63, description="Hash of the revision that is rolled out.")
    against: RevisionStatus | None = Field(None, description="The stable revision that it runs against.")
    startedAt: Time = Field(max_length=40, description="When the rollout began; of a return after a promotion, when that was complete.")
    endedAt: Time | None = time_field("When it ended. Unset: it runs.")
    peakWeight: int = Field(0, description="The highest percent of requests that it was given.")
    canaryRequests: int | None = Field(
        None,
        description="Requests that the canary served and that were judged, by the last evaluation: all of each step from the end of its "
        "warm-up on; counted anew after a `retry`. Unset: not known.",
    )
    transitions: list[TransitionStatus] = Field(
        default_factory=list, max_length=64, description="The first transition and the newest, oldest first."
    )
    omitted: int = Field(0, description="How many transitions after the first were left out.")
    slos: list[SLOStatus] = Field(
        default_factory=list,
        max_length=16,
        description="Once it has ended: the evaluation of each SLO that the end was decided from.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )


class RejectedStatus(StatusModel):
    """A revision that this policy will not run again."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="Its PromptVersion.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    reason: str = Field(max_length=128, description="Why, in one word.")
    message: str = Field("", max_length=2048, description="The evidence.")
    at: Time = Field(max_length=40, description="When.")
    suspected: bool = Field(
        False, description="Whether nothing served beside it to compare with, and stable was not seen to do better afterwards."
    )


class GuardStatus(StatusModel):
    """The watch over stable: after it began to serve, or after traffic went back to it."""

    until: Time = Field(max_length=40, description="End of the watch.")
    suspect: str | None = Field(None, max_length=63, description="The rejected revision whose verdict waits for what stable does.")
    returning: HaltedStatus | None = Field(
        None, description="The breach after which traffic goes back to the revision before, as soon as that has its pods."
    )
    byHand: bool = Field(False, description="Whether a person had it promoted, so that a breach is only told.")
    reported: str | None = Field(None, max_length=128, description="Why it would have gone back, where that was only told: what came last.")
    reportedBefore: list[Annotated[str, Field(max_length=128)]] = Field(
        default_factory=list, max_length=16, description="Why else, where that was told before it in this watch, oldest first."
    )
    blindTold: bool = Field(False, description="Whether it was told that metrics cannot be seen, and not yet that they can again.")
    seeingSince: Time | None = time_field("Since when metrics can be seen again, where that is still to be told.")
    judged: bool = Field(False, description="Whether every SLO could be judged at least once in this watch.")
    unreadySince: Time | None = time_field("Since when stable has no ready pod, where the revision before it has one.")


class IncidentStatus(StatusModel):
    """A breach that the revision before shares: it is not rolled out again before a person asks."""

    revision: str = Field(max_length=63, description="Hash of the revision.")
    promptVersion: str = Field(max_length=253, description="Its PromptVersion.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    at: Time = Field(max_length=40, description="When both were seen to breach.")
    message: str = Field("", max_length=2048, description="The evidence.")


def token_field(name: str) -> str | None:
    """The value of an annotation that was acted on."""
    field: str | None = Field(None, max_length=256, description=f"Of `backstop.dev/{name}`.")
    return field


class AcknowledgedStatus(StatusModel):
    """What was asked for by hand, and has been seen to. Another value of the annotation asks again."""

    approve: str | None = token_field("approve")
    promote: str | None = token_field("promote")
    abort: str | None = token_field("abort")
    retry: str | None = token_field("retry")
    skipStep: str | None = token_field("skip-step")
    refresh: str | None = token_field("refresh")


class FallbackPolicyStatus(StatusModel):
    """The place of the rollout; all that the operator needs to continue."""

    observedGeneration: int | None = Field(None, description="Generation of the spec that this status speaks of.")
    phase: str | None = Field(None, max_length=32, description=f"Summary: {', '.join(f'`{phase}`' for phase in Phase)}.")
    reason: str | None = Field(None, max_length=128, description="Why it is in this phase, in one word.")
    stable: StableStatus | None = Field(None, description="The revision that serves.")
    canary: CanaryStatus | None = Field(None, description="The revision under judgement.")
    previous: PreviousStatus | None = Field(None, description="The stable revision before this one.")
    retiring: list[RetiringStatus] = Field(default_factory=list, max_length=8, description="Former canaries that finish what they have.")
    slos: list[SLOStatus] = Field(
        default_factory=list, max_length=16, description="The latest evaluation of each SLO.", json_schema_extra=LIST_MAP_BY_NAME
    )
    decidingSLO: str | None = Field(
        None,
        max_length=63,
        description="Of `slos`, the name of the one that decided, or that is nearest to it: breached, else breaching, else unknown, else "
        "waited for. Unset: all are healthy.",
    )
    trafficGeneration: int | None = Field(
        None, description="The latest generation of the traffic object that was decided: an object with an older one is written again."
    )
    lastRollout: LastRolloutStatus | None = Field(None, description="How the latest rollout ended.")
    rejected: list[RejectedStatus] = Field(default_factory=list, max_length=20, description="Revisions that were rolled back, newest last.")
    analysis: str | None = Field(None, max_length=8192, description="Packed state of the evaluation.")
    acknowledged: AcknowledgedStatus | None = Field(None, description="The last value of each annotation that was acted on.")
    guard: GuardStatus | None = Field(None, description="The watch over stable, while it lasts.")
    incident: IncidentStatus | None = Field(
        None, description="A breach that no rollback helps against, until a person or the spec goes on."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="`Ready` when and only when the wanted revision is stable; `Accepted`, `ResolvedRefs`, `Progressing`, "
        "`MetricsAvailable`, "
        "`RolledBack`; `Reconciling` and `Stalled` only while true.",
        json_schema_extra=LIST_MAP_BY_TYPE,
    )
    timeline: TimelineStatus | None = Field(None, description="What has happened in the running rollout, until its report is written.")
    retried: str | None = Field(
        None, max_length=63, description="The revision that a person has freed from its rejection, until it is a canary or stable."
    )
    waiting: WaitingStatus | None = Field(None, description="The first revision, while no pod of it is ready.")
    first: FirstStatus | None = Field(None, description="The first revision, while it has probes to pass before it is stable.")
    router: Router | None = Field(
        None,
        description="What makes weights true: `Builtin`, the gateways, which split requests; `Replicas`, numbers of ready pods, over which "
        "Kubernetes shares connections out.",
    )
