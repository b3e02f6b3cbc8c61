"""Conditions, as the Kubernetes API conventions shape them, and the types that Backstop sets."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from .model import StatusModel


class ConditionType(StrEnum):
    """Every condition type that Backstop writes."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    RESOLVED_REFS = "ResolvedRefs"
    PROGRESSING = "Progressing"
    METRICS_AVAILABLE = "MetricsAvailable"
    ROLLED_BACK = "RolledBack"
    RECONCILING = "Reconciling"  # present only while true (kstatus)
    STALLED = "Stalled"  # present only while true (kstatus)
    REJECTED = "Rejected"  # of a PromptVersion


class Condition(StatusModel):
    """One observed aspect. `lastTransitionTime` moves only when `status` does."""

    type: str = Field(max_length=316, description="What is said.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observedGeneration: int | None = Field(None, description="Generation of the spec it speaks of.")
    lastTransitionTime: str = Field(max_length=40, description="When `status` last changed, RFC 3339.")
    reason: str = Field(max_length=1024, description="One word for programs.")
    message: str = Field(max_length=8192, description="One sentence for people.")
