"""What a gateway serves: one revision, compiled, as the request path needs it. PURE.

Knows what its tiers are and how they are timed; `compilation` makes it of a revision record. Knows no HTTP library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, assert_never

from ..api.cachetier import CacheMatch
from ..api.fallbackpolicy import Capability
from ..api.ruleset import RuleSet
from .allowance import AllowanceSettings
from .breaker import BreakerSettings
from .feedback import FeedbackKeys
from .knowledge import StaticAnswers
from .prompt import Prompt
from .quality.settings import QualitySettings
from .redisaddress import RedisAddress

# Behind a target's base URL.
CHAT: Final = "/chat/completions"
EMBEDDINGS: Final = "/embeddings"


class ConfigurationError(ValueError):
    """The gateway cannot serve this; the text is one sentence for its author."""


@dataclass(frozen=True)
class ModelTier:
    """A model to call. Times are in seconds; None is "not set by the user"."""

    name: str
    url: str
    target: str  # how metrics of its tokens name it
    model: str
    authorization: str | None
    connect: float | None
    headers: float | None
    first_token: float | None
    reserved: float  # seconds of the budget that belong to later model tiers
    stall: float
    total: float
    retries: int
    breaker: BreakerSettings
    able: frozenset[Capability] | None = None
    window: int | None = None  # tokens
    asks_usage: bool = False  # of streams, also for itself
    embedding_model: str | None = None
    hedge_after: float | None = None  # seconds until a later model is asked too
    jurisdiction: str | None = None
    authorities: str | None = None  # PEM of those that alone may vouch for it; None: the system's
    sent: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # further headers of each request, and their values

    def lacks(self, needs: frozenset[Capability]) -> frozenset[Capability]:
        """Which of `needs` it is known not to have."""
        return frozenset() if self.able is None else needs - self.able


@dataclass(frozen=True)
class StaticTier:
    """Fixed answers. `answers`: where there is a knowledge base, which has `text` for what it does not know."""

    name: str
    text: str
    answers: StaticAnswers | None = None


@dataclass(frozen=True)
class WarmTier:
    """A Redis that answers are shared in. `fresh` and `timeout` in seconds."""

    address: RedisAddress
    fresh: float
    timeout: float
    jurisdiction: str | None = None


@dataclass(frozen=True)
class ColdTier:
    """A file that answers are kept in, `bytes` long at most. `fresh` and `timeout` in seconds."""

    bytes: int
    fresh: float
    timeout: float


@dataclass(frozen=True)
class CacheTier:
    """Answers that were given before. `hot_bytes` of memory; `fresh` and then `stale` seconds."""

    name: str
    hot_bytes: int
    fresh: float
    stale: float
    warm: WarmTier | None = None
    cold: ColdTier | None = None
    match: CacheMatch = CacheMatch.EXACT

    @property
    def look_up(self) -> float:
        """Seconds that a request waits for levels below memory at most, before the first model is asked."""
        return sum(level.timeout for level in (self.warm, self.cold) if level is not None)


@dataclass(frozen=True)
class RulesTier:
    """Answers by conditions over the request. `headers`: those that they may read, in small letters."""

    name: str
    rules: RuleSet
    headers: frozenset[str]


@dataclass(frozen=True)
class HumanTier:
    """Hands requests on to people. `limit`: how many tickets may wait."""

    name: str
    url: str
    secret: bytes
    acknowledgement: str
    limit: int
    jurisdiction: str | None = None
    authorities: str | None = None  # as of a model


AnyTier = ModelTier | StaticTier | CacheTier | RulesTier | HumanTier
# What fixed answers are from, in place of a model.
STATIC_MODEL: Final = "backstop/static"
RULES_MODEL: Final = "backstop/rules"
HUMAN_MODEL: Final = "backstop/human"


@dataclass(frozen=True)
class Revision:
    """One revision, ready to serve. `budget` is in seconds; `parameters` are the members of a request body that the prompt sets."""

    namespace: str
    policy: str
    name: str
    prompt_version: str
    prompt_digest: str
    budget: float
    tiers: tuple[AnyTier, ...]
    prompt: Prompt
    parameters: Mapping[str, bytes]
    latency_bounds: tuple[float, ...]
    takes_keys: bool = False  # a caller needs one
    tenant_header: str | None = None
    quality: QualitySettings | None = None
    feedback: FeedbackKeys | None = None
    allowed: frozenset[str] | None = None  # jurisdictions; None: all, and nothing is known of some
    hold_back: float = 0.0  # seconds, of streams
    continues: bool = False  # streams that break off
    allowance: AllowanceSettings | None = None
    trace_authorities: str | None = None  # PEM of those that vouch for a collector of traces; None: the system's
    allowed_to: Mapping[str, frozenset[str]] = field(default_factory=dict)  # tenants that are allowed some of them only

    def allowed_for(self, tenant: str | None) -> frozenset[str] | None:
        """Jurisdictions that a request may be processed in; None: all. `tenant`: None where it is not known which one it is for."""
        if self.allowed is None or not self.allowed_to:
            return self.allowed
        if tenant is None:
            return self.allowed.intersection(*self.allowed_to.values())
        return self.allowed_to.get(tenant, self.allowed)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of what may answer, in the chain's order, each once; those of embeddings last."""
        answering = (tier for tier in self.tiers if not isinstance(tier, CacheTier))
        names = [model_of(tier) for tier in answering]
        return tuple(dict.fromkeys([*names, *(tier.model for tier in self.embedding_tiers)]))

    @property
    def embedding_tiers(self) -> tuple[ModelTier, ...]:
        """The chain of `/v1/embeddings`: the same targets, asked for another thing. Empty: it is not offered."""
        able = [tier for tier in self.tiers if isinstance(tier, ModelTier) and tier.embedding_model is not None]
        return tuple(
            replace(
                tier,
                url=tier.url.removesuffix(CHAT) + EMBEDDINGS,
                model=tier.embedding_model or "",
                reserved=sum(later.first_token or 0 for later in able[position + 1 :]),
                window=None,  # that of the model that chats
            )
            for position, tier in enumerate(able)
        )

    @cached_property
    def cache(self) -> CacheTier | None:
        """The tier of kept answers, where there is one."""
        return next((tier for tier in self.tiers if isinstance(tier, CacheTier)), None)

    @cached_property
    def tells_needs(self) -> bool:
        """Whether what a request needs decides on who is asked."""
        return any(isinstance(t, ModelTier) and t.able is not None for t in self.tiers)

    @cached_property
    def has_knowledge(self) -> bool:
        """Whether what a caller asks decides on an answer here."""
        return any(isinstance(t, RulesTier | HumanTier) or (isinstance(t, StaticTier) and t.answers is not None) for t in self.tiers)

    @cached_property
    def human(self) -> HumanTier | None:
        """The tier of people, where there is one."""
        return next((tier for tier in self.tiers if isinstance(tier, HumanTier)), None)

    @cached_property
    def readable_headers(self) -> frozenset[str]:
        """Names of headers that rules may read, in small letters."""
        return frozenset[str]().union(*(t.headers for t in self.tiers if isinstance(t, RulesTier)))


def model_of(tier: ModelTier | StaticTier | RulesTier | HumanTier) -> str:
    """What answers of a tier say that they are from."""
    match tier:
        case ModelTier():
            return tier.model
        case StaticTier():
            return STATIC_MODEL
        case RulesTier():
            return RULES_MODEL
        case HumanTier():
            return HUMAN_MODEL
        case _:
            assert_never(tier)
