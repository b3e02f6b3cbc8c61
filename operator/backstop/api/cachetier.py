"""The cache tier of a chain: what is kept of answers, where, how much of it, and for how long."""

from enum import StrEnum

from pydantic import Field

from .model import ApiModel
from .refs import ConfigMapKeyRef, ObjectName, SecretKeyRef
from .residency import Jurisdiction


class HotCache(ApiModel):
    """Answers in each gateway's own memory."""

    maxMebibytes: int = Field(
        32,
        ge=1,
        le=4096,
        description="How much memory it may take. At most a quarter of the container's limit: a gateway that has less does not start.",
    )
    ttlSeconds: int = Field(300, ge=1, le=604_800, description="How long an answer is given at once, without a model being asked.")


class RedisServer(ApiModel):
    """A Redis or Valkey, one server or a proxy in front of several."""

    addressRef: SecretKeyRef = Field(
        description="Its address: `redis://[user:password@]host[:port][/database]`, or `rediss://…` for TLS. Policies and clusters that "
        "share a server do not see each other's answers; clusters with a policy of the same name take a database each."
    )
    caBundleRef: ConfigMapKeyRef | None = Field(
        None,
        description="With `rediss://`: the certificates of the authorities that alone may vouch for it, as PEM. Its content is part of the "
        "revision. Unset: those of the image.",
    )


class WarmCache(ApiModel):
    """Answers in a Redis, which the gateways of a policy share."""

    redis: RedisServer = Field(description="The server.")
    ttlSeconds: int = Field(3600, ge=1, le=2_592_000, description="How long an answer is given at once, without a model being asked.")
    timeoutMilliseconds: int = Field(
        10,
        ge=1,
        le=1000,
        description="How long a request waits for it before the first model is asked. It is part of `spec.latencyBudgetMilliseconds`.",
    )
    jurisdiction: Jurisdiction | None = Field(
        None, description="Where the server keeps what it is given, such as `EU`, for `spec.residency`. Unset: it is not known."
    )


class ColdVolume(ApiModel):
    """A volume that outlives the gateways' pods."""

    claimName: ObjectName = Field(
        description="Name of a PersistentVolumeClaim in the policy's namespace that all pods of the policy can mount, stable's and "
        "canary's: `ReadWriteMany`, or `ReadWriteOnce` where they all run on one node. A pod that cannot mount it never becomes ready."
    )


class ColdCache(ApiModel):
    """Answers in a file of each gateway's own."""

    volume: ColdVolume | None = Field(
        None,
        description="Where the file is. A gateway takes one that no other holds, so that a new pod goes on with what an old one has left, "
        "and takes over what is left later. "
        "Unset: a volume of each pod, which outlives its container and is gone with the pod.",
    )
    maxMebibytes: int = Field(
        512,
        ge=1,
        le=1_048_576,
        description="How large the file of one gateway may be. What was written first goes first; 8 MiB come on top.",
    )
    ttlSeconds: int = Field(604_800, ge=1, le=31_536_000, description="How long an answer is given at once, without a model being asked.")
    timeoutMilliseconds: int = Field(
        20,
        ge=1,
        le=1000,
        description="How long a request waits for it before the first model is asked. It is part of `spec.latencyBudgetMilliseconds`.",
    )


class CacheMatch(StrEnum):
    """Which requests are the same."""

    EXACT = "Exact"
    NORMALIZED = "Normalized"


class CacheTarget(ApiModel):
    """Answers of the first tier, given again to the same request: at once while they are fresh, and later when no tier before has one."""

    hot: HotCache = Field(description="Answers in each gateway's own memory: gone with its pod. `{}` takes the defaults.")
    warm: WarmCache | None = Field(
        None, description="Answers that all gateways of the policy share, looked up when memory has none. A server that fails is a miss."
    )
    cold: ColdCache | None = Field(
        None, description="Answers on a volume, looked up when no other level has any. A volume that fails is a miss."
    )
    staleIfErrorSeconds: int = Field(
        86_400,
        ge=0,
        le=604_800,
        description="For how long after its level's `ttlSeconds` an answer is still kept, for when the tiers before have failed. "
        "0: not at all.",
    )
    match: CacheMatch = Field(
        CacheMatch.EXACT,
        description="Which requests are the same. `Exact`: those of which the model gets the same body. `Normalized`: also where "
        "messages of the role `user` differ in case, in spaces, or in `.`, `!`, `?` and `…` at their end; everything else must be the "
        "same in either.",
    )
