"""The cache tier of a chain: what is kept of answers, how much of it, and for how long."""

from pydantic import Field

from .model import ApiModel


class HotCache(ApiModel):
    """Answers in each gateway's own memory."""

    maxMebibytes: int = Field(
        32,
        ge=1,
        le=4096,
        description="How much memory it may take. At most a quarter of the container's limit: a gateway that has less does not start.",
    )
    ttlSeconds: int = Field(300, ge=1, le=604_800, description="How long an answer is given at once, without a model being asked.")


class CacheTarget(ApiModel):
    """Answers of the first tier, given again to the same request: at once while they are fresh, and later when no tier before has one."""

    hot: HotCache = Field(description="Answers in each gateway's own memory: gone with its pod. `{}` takes the defaults.")
    staleIfErrorSeconds: int = Field(
        86_400,
        ge=0,
        le=604_800,
        description="For how long after `ttlSeconds` an answer is still kept, for when the tiers before have failed. 0: not at all.",
    )
