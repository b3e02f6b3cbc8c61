"""Streams whose model breaks off: what becomes of them, and how long their beginning is held back for it."""

from enum import StrEnum

from pydantic import Field

from .model import ApiModel, Rule


class OnInterruption(StrEnum):
    """What becomes of a stream that breaks off after its first content."""

    FAIL = "Fail"
    CONTINUE = "Continue"


class Stream(ApiModel):
    """What becomes of streams that break off. Part of the revision."""

    onInterruption: OnInterruption = Field(
        OnInterruption.FAIL,
        description="After the first content is given. `Fail`: the stream ends with an error event. `Continue`: the next `model` tier that "
        "can finishes the answer. One with the capability `Prefill` is given the text so far as the last message, an assistant's; of any "
        "other one, an answer that begins with exactly the text so far is taken from there on. Only of plain text: not with tools, "
        "`response_format`, several choices or `logprobs`.",
    )
    holdBackMilliseconds: int = Field(
        0,
        ge=0,
        le=10_000,
        description="How long a stream is held back after its first content: one that breaks off meanwhile is handed over, and its caller "
        "does not notice. Each stream begins later by as much, but no later than its tier's time allows.",
    )


# Rules over the whole spec of a policy.
STREAM_RULES = (
    Rule(
        cel="!has(self.stream) || !has(self.chain) || self.stream.onInterruption == 'Fail'"
        " || self.chain.filter(t, has(t.model)).size() > 1",
        message="`spec.stream.onInterruption`: `Continue` needs a second `model` tier in `spec.chain`",
        holds=lambda s: (
            s.stream is None
            or not s.chain
            or s.stream.onInterruption is OnInterruption.FAIL
            or sum(t.model is not None for t in s.chain) > 1
        ),
    ),
    Rule(
        cel="!has(self.stream) || !has(self.latencyBudgetMilliseconds)"
        " || self.stream.holdBackMilliseconds < self.latencyBudgetMilliseconds",
        message="`spec.stream.holdBackMilliseconds`: must be less than `spec.latencyBudgetMilliseconds`",
        holds=lambda s: (
            s.stream is None or s.latencyBudgetMilliseconds is None or s.stream.holdBackMilliseconds < s.latencyBudgetMilliseconds
        ),
    ),
    Rule(
        cel="!has(self.serving.workload) || !has(self.stream)",
        message="`spec.stream`: with `spec.serving.workload` no gateway passes streams on; take it out",
        holds=lambda s: s.serving.workload is None or s.stream is None,
    ),
)
