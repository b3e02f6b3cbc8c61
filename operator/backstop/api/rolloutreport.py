"""RolloutReport: how one rollout went. Shapes and rules only; `reports` knows what is written into it.

`spec` is the record, written once by the operator and immutable; `status` belongs to the person who reviews it, and the operator
has no right to write there.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from .fallbackpolicy import LIST_MAP_BY_NAME, PolicyOwner
from .model import ApiModel, Rule
from .policystatus import RevisionStatus, SLOStatus, Time, TransitionStatus, time_field


class Severity(StrEnum):
    """How much callers felt of it."""

    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"


class RolloutReportSpec(ApiModel):
    """The record of one rollout that has ended. What was not known is left out."""

    policy: str = Field(max_length=63, description="The FallbackPolicy whose rollout it was.")
    revision: str = Field(max_length=63, description="Hash of the revision that was rolled out.")
    promptVersion: str = Field(max_length=253, description="Its PromptVersion.")
    promptDigest: str | None = Field(None, max_length=80, description="Digest of that PromptVersion.")
    stable: RevisionStatus | None = Field(None, description="The stable revision that it ran against.")
    outcome: Literal["Promoted", "RolledBack", "Superseded"] = Field(description="`Promoted`, `RolledBack` or `Superseded`.")
    reason: str = Field(max_length=128, description="Why, in one word.")
    message: str = Field("", max_length=2048, description="Why, with the evidence.")
    severity: Severity = Field(
        description="How much callers felt of it. `P1`: errors, or a breach that stable shares. `P2`: answers that were late. `P3`: lesser "
        "answers, or traffic that had to be taken back for another reason. `P4`: nothing."
    )
    startedAt: Time = Field(max_length=40, description="When the rollout began; of a return after a promotion, when that was complete.")
    detectedAt: Time = Field(
        max_length=40, description="When the end was decided: at a breach, by the evaluation that found it; else when promotion began."
    )
    shiftedAt: Time | None = time_field(
        "When every ready gateway was seen to act on the decision. Unset: that was not seen within a minute."
    )
    endedAt: Time = Field(max_length=40, description="When the rollout was over.")
    startToDetectionSeconds: int | None = Field(None, ge=0, description="From `startedAt` to `detectedAt`, in whole seconds.")
    breachToDetectionSeconds: int | None = Field(
        None,
        ge=0,
        description="From the end of the first bad scrape interval of the breached SLO to `detectedAt`, in whole seconds. The fault may be "
        "older than what was measured of it. Unset: no SLO was breached.",
    )
    detectionToShiftMilliseconds: int | None = Field(
        None, ge=0, description="From `detectedAt` to `shiftedAt`. Unset: the shift was not seen within a minute."
    )
    breachToShiftSeconds: int | None = Field(
        None,
        ge=0,
        description="From the end of the first bad scrape interval of the breached SLO to `shiftedAt`, in whole seconds: for so long, at "
        "least, callers were given what was known to be bad. Unset: no SLO was breached, or the shift was not seen within a minute.",
    )
    peakWeight: int = Field(0, ge=0, le=100, description="The highest percent of requests that the revision was given.")
    canaryRequests: int | None = Field(
        None,
        ge=0,
        description="Requests that the canary served and that were judged, by the last evaluation: all of each step from the end of its "
        "warm-up on; counted anew after a `retry`. Unset: not known.",
    )
    slos: list[SLOStatus] = Field(
        default_factory=list,
        max_length=16,
        description="The last evaluation of each SLO: what the decision was made from.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    transitions: list[TransitionStatus] = Field(
        default_factory=list, max_length=64, description="What happened, oldest first: the first transition, and the newest."
    )
    transitionsOmitted: int = Field(0, ge=0, description="How many transitions after the first were left out.")
    owner: PolicyOwner | None = Field(None, description="Who answered for the policy when the rollout ended.")
    reviewDueAt: Time | None = time_field("By when it is to be reviewed (the owner's `reviewCadence`). Unset: no time is set.")
    rules = (
        Rule(
            cel="self == oldSelf",
            message="`spec` is immutable: it says what happened; a review goes into `status.review`",
            holds=lambda s: True,  # a transition rule: there is no old object in a manifest
        ),
    )


class Review(ApiModel):
    """What a person makes of a report."""

    state: Literal["Open", "Reviewed"] = Field(description="`Open`: somebody is at it. `Reviewed`: it is done.")
    by: str | None = Field(None, min_length=1, max_length=253, description="Who.")
    at: Time | None = time_field("When, RFC 3339.")
    note: str | None = Field(None, max_length=4096, description="What was found, and what follows from it.")
    rules = (
        Rule(
            cel="self.state != 'Reviewed' || has(self.by)",
            message="`status.review`: a review that is `Reviewed` says `by` whom",
            holds=lambda r: r.state != "Reviewed" or r.by is not None,
        ),
    )


class RolloutReportStatus(ApiModel):
    """The review. A person writes it (`kubectl edit --subresource=status`); the operator neither reads nor writes it."""

    review: Review | None = Field(None, description="What a person makes of it. Unset: nobody has looked yet.")
