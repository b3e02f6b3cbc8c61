"""How many tokens the models of a policy may take in a period."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from .model import ApiModel, Rule
from .promptversion import Name


class OnExhausted(StrEnum):
    """What becomes of requests when the allowance is used up."""

    HAND_OFF = "HandOff"
    REFUSE = "Refuse"


class Spend(ApiModel):
    """An allowance of tokens, shared by all gateways of the policy through the Redis of `cache.warm`. Part of the revision."""

    periodDays: int = Field(
        30, ge=1, le=366, description="Length of a period. Periods follow one another from 1 January 1970, 00:00 UTC, on."
    )
    tokenAllowance: int = Field(
        ge=1,
        le=1_000_000_000_000_000,
        description="Tokens of requests and answers together, as the models say them, that may be taken in a period.",
    )
    tiers: list[Name] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="`model` tiers whose tokens count, each with `askUsage: true`. Unset: the first tier.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    onExhausted: OnExhausted = Field(
        OnExhausted.HAND_OFF,
        description="When the allowance is used up, until the period ends. `HandOff`: those tiers are passed over, and the next one "
        "answers. `Refuse`: a request that comes to one of them is a 429.",
    )


def counted_tiers(spec: Any) -> list[str]:
    """Names of the tiers whose tokens count; of a policy with `spend` and a chain."""
    return list(spec.spend.tiers or [spec.chain[0].name])


def _tell(spec: Any) -> bool:
    telling = {t.name for t in spec.chain if t.model is not None and t.model.askUsage}
    return set(counted_tiers(spec)) <= telling


# Rules over the whole spec of a policy.
SPEND_RULES = (
    Rule(
        cel="!has(self.spend) || !has(self.chain) || self.chain.exists(t, has(t.cache) && has(t.cache.warm))",
        message="`spec.spend`: needs a Redis, in which the gateways count together; give the chain a `cache` tier with `warm`",
        holds=lambda s: s.spend is None or not s.chain or any(t.cache is not None and t.cache.warm is not None for t in s.chain),
    ),
    Rule(
        cel="!has(self.spend) || !has(self.chain) || (has(self.spend.tiers)"
        " ? self.spend.tiers.all(n, self.chain.exists(t, t.name == n && has(t.model) && t.model.askUsage))"
        " : has(self.chain[0].model) && self.chain[0].model.askUsage)",
        message="`spec.spend.tiers`: each is the name of a `model` tier with `askUsage: true`, or streams would count for nothing; the "
        "first tier too, where `tiers` is unset",
        holds=lambda s: s.spend is None or not s.chain or _tell(s),
    ),
    Rule(
        cel="!has(self.serving.workload) || !has(self.spend)",
        message="`spec.spend`: with `spec.serving.workload` no gateway counts tokens; take it out",
        holds=lambda s: s.serving.workload is None or s.spend is None,
    ),
)
