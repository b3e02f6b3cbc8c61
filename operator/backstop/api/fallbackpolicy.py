"""FallbackPolicy: which prompt runs, the chain that answers, the SLOs that must hold, and how a new revision is rolled out.

Over 400 lines, because it is one kind, read from the top as its reference is: half of it are descriptions and rules with their messages.
"""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic.config import JsonDict

from .access import Access
from .cachetier import CacheTarget
from .feedback import Feedback
from .headersfrom import HEADERS_RULES, HeaderFrom
from .humantier import HumanTarget
from .model import SPACE, ApiModel, Rule
from .probe import Probe
from .promptversion import Name
from .quality import Quality
from .refs import ConfigMapKeyRef, ObjectName, SecretKeyRef
from .residency import RESIDENCY_RULES, Jurisdiction, Residency
from .rulestier import RuleEngineTarget
from .selector import LABEL_NAME, LONGEST_SELECTOR, SELECTOR, is_selector, names_label
from .serving import Serving
from .spend import SPEND_RULES, Spend
from .steering import CanaryTraffic
from .stream import STREAM_RULES, Stream
from .workload import WORKLOAD_RULES

Percent = Annotated[str, Field(max_length=16, pattern=r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,6})?)$")]

Amount = Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,7}(\.[0-9]{1,8})?$")]

WEB_ADDRESS = "^https?://[^ /?#@]+([/?#][^ ]*)?$"

LIST_MAP_BY_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Capability(StrEnum):
    """What a request may ask of a model beyond text."""

    TOOLS = "Tools"
    VISION = "Vision"
    AUDIO = "Audio"
    FILES = "Files"
    JSON_SCHEMA = "JSONSchema"
    LOGPROBS = "Logprobs"
    PREFILL = "Prefill"


class ModelTarget(ApiModel):
    """A model behind an OpenAI-compatible API."""

    baseURL: Annotated[str, Field(max_length=2048, pattern=rf"^https?://[^/?#{SPACE}@]+(/[^?#{SPACE}]*)?$")] = Field(
        description="Base URL of the API, up to and including the version, such as `https://llm.example/v1`."
    )
    name: str = Field(min_length=1, max_length=253, description="Model name sent upstream.")
    apiKeyRef: SecretKeyRef | None = Field(
        None, description="The key sent as bearer token. Unset: none is sent. The caller's own is never forwarded."
    )
    capabilities: list[Capability] | None = Field(
        None,
        max_length=8,
        description="What the model can do beyond text: `Tools`, `Vision` (images in messages), `Audio`, `Files`, `JSONSchema` (answers "
        "that follow one), `Logprobs`, `Prefill` (goes on with a last message that is an assistant's, for `spec.stream`). A request that "
        "needs another one goes to the next tier. Unset: nothing is known, and the model is asked.",
    )
    contextTokens: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="Size of the model's context window, in tokens. A request that a model refuses because it does not fit goes on to "
        "model tiers with a larger window, and to nobody else. Unset: not known; such a tier neither hands on for it nor is handed to.",
    )
    askUsage: bool = Field(
        False,
        description="Whether the model is asked for the `usage` of streams whose callers do not ask for it, so that their tokens are known "
        "too. Callers get no chunk of it; some models put an empty `usage` into the others. A model that does not know "
        "`stream_options` may refuse such requests.",
    )
    embeddingModel: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="Model name for `/v1/embeddings`. Every tier that has one must mean the same model, whatever it is called there: "
        "vectors of different models cannot be compared. Unset: the tier is not asked for embeddings.",
    )
    jurisdiction: Jurisdiction | None = Field(
        None, description="Where the model processes what it is sent, such as `EU`, for `spec.residency`. Unset: it is not known."
    )
    caBundleRef: ConfigMapKeyRef | None = Field(
        None,
        description="With `https://`: the certificates of the authorities that alone may vouch for the server, as PEM "
        "(docs/how-to/private-authorities.md). Its content is part of the revision. Unset: those of the image.",
    )
    headersFrom: list[HeaderFrom] = Field(
        default_factory=list,
        max_length=8,
        description="Further headers of every request to it, such as a key that a provider wants elsewhere than in `Authorization`, or the "
        "name of a project. Their values are in Secrets, read when a gateway starts. Unset: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["header"]},
    )
    rules = (
        Rule(
            cel="!has(self.caBundleRef) || self.baseURL.startsWith('https:')",
            message="`spec.chain`: `model.caBundleRef` is for a `baseURL` that begins with `https://`",
            holds=lambda m: m.caBundleRef is None or m.baseURL.startswith("https:"),
        ),
        *HEADERS_RULES,
    )


class KnowledgeMatch(StrEnum):
    """How a knowledge base is searched."""

    KEYWORD = "Keyword"
    EXACT = "Exact"


class StaticTarget(ApiModel):
    """Fixed answers, always ready."""

    default: str = Field(
        min_length=1, max_length=65536, description="The answer's text; with a knowledge base, where that has no other for a message."
    )
    knowledgeBaseRef: ConfigMapKeyRef | None = Field(
        None,
        description="A knowledge base: answers by keyword and language (docs/how-to/knowledge-base.md). Its content is part of the "
        "revision: another content is another revision.",
    )
    match: KnowledgeMatch = Field(
        KnowledgeMatch.KEYWORD,
        description="How the caller's last message is looked up. `Keyword`: it holds the words of an entry. `Exact`: it is nothing else.",
    )
    rules = (
        Rule(
            cel="has(self.knowledgeBaseRef) || self.match == 'Keyword'",
            message="`spec.chain`: `static.match` needs a knowledge base; set `static.knowledgeBaseRef`, or leave `match` out",
            holds=lambda s: s.knowledgeBaseRef is not None or s.match is KnowledgeMatch.KEYWORD,
        ),
    )


class Timeouts(ApiModel):
    """The timers of one attempt. All of them end inside the policy's latency budget, until the first content is there."""

    connectMilliseconds: int | None = Field(
        None, ge=1, le=600_000, description="To a connection. Unset: bounded by `firstTokenMilliseconds`."
    )
    headersMilliseconds: int | None = Field(
        None, ge=1, le=600_000, description="To the response headers. Unset: bounded by `firstTokenMilliseconds`."
    )
    firstTokenMilliseconds: int | None = Field(
        None,
        ge=1,
        le=600_000,
        description="To the first content of a stream, or to the whole answer when not streaming. "
        "Unset: what the budget leaves after the later tiers' times.",
    )
    stallMilliseconds: int = Field(10_000, ge=1, le=600_000, description="Longest silence between two pieces of content of a stream.")
    totalSeconds: int = Field(300, ge=1, le=3600, description="The whole attempt, to the end of the stream.")


class CircuitBreaker(ApiModel):
    """When a target that fails is left alone, and for how long. Every gateway pod goes by what it sees itself."""

    windowSeconds: int = Field(10, ge=1, le=600, description="How far back attempts count.")
    minRequests: int = Field(20, ge=1, le=10_000, description="Fewest attempts of that time by which a target is left alone.")
    failurePercent: int = Field(
        50,
        ge=1,
        le=100,
        description="Share of them that failed or were late, from which on it is left alone. The caller's own mistakes, and callers who "
        "left, do not count.",
    )
    openSeconds: int = Field(
        5, ge=1, le=600, description="How long nobody asks it. Then one request at a time does, until one is answered."
    )


class Price(ApiModel):
    """What a model costs. Not part of the revision: another price begins no rollout, and counts for the pods that serve already."""

    inputPerMillionTokens: Amount = Field(description='Price of a million tokens of requests, a decimal as a string, such as "2.50".')
    outputPerMillionTokens: Amount = Field(description='Price of a million tokens of answers, a decimal as a string, such as "10.00".')
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", max_length=3)] = Field(
        description="Currency, by its three letters, such as `USD`; the same one for all tiers."
    )


class Tier(ApiModel):
    """One step of the chain: exactly one kind of target."""

    name: Name = Field(description="Name of the tier, said in headers and metrics.")
    model: ModelTarget | None = Field(None, description="A model behind an OpenAI-compatible API.")
    cache: CacheTarget | None = Field(
        None,
        description="Answers that were given before. At most one, behind a model tier. All callers of the policy share it "
        "(docs/concepts/gateway.md says what is kept, and for which requests).",
    )
    static: StaticTarget | None = Field(None, description="A fixed answer. Only as the last tier.")
    timeouts: Timeouts | None = Field(None, description="Timers of an attempt; for model tiers.")
    retries: int = Field(
        0,
        ge=0,
        le=3,
        description="How often a model that failed at once is asked again, within the tier's time: a connection that was refused or reset "
        "before the response headers, 429, 500, 502, 503, 504. Never one that was late, nor one that says `Retry-After`.",
    )
    circuitBreaker: CircuitBreaker | None = Field(
        None, description="When a model that fails is left alone, so that callers do not wait for it. Unset: by the defaults of its fields."
    )
    price: Price | None = Field(None, description="What the model costs, for `CostPerRequest`. Unset: it is not known.")
    ruleEngine: RuleEngineTarget | None = Field(
        None,
        description="Answers by conditions over the request: the first one that holds. Where none does, the next tier is. Never first.",
    )
    human: HumanTarget | None = Field(
        None,
        description="Opens a ticket for a person, and answers with its id. At most one, never first; the next tier is for when it cannot.",
    )
    hedgeAfterMilliseconds: int | None = Field(
        None,
        ge=1,
        le=600_000,
        description="When the model has not answered after so long, the next model tier is asked as well: the first good answer is given, "
        "and the other attempt is broken off. Such requests take tokens of both. Unset: one is asked after the other.",
    )
    rules = (
        Rule(
            cel="[has(self.model), has(self.cache), has(self.ruleEngine), has(self.human), has(self.static)].filter(x, x).size() == 1",
            message="`spec.chain`: each tier has exactly one of `model`, `cache`, `ruleEngine`, `human` and `static`",
            holds=lambda t: [t.model, t.cache, t.ruleEngine, t.human, t.static].count(None) == 4,
        ),
        Rule(
            cel="has(self.model) || !has(self.timeouts)",
            message="`spec.chain`: `timeouts` belong to `model` tiers; a cache and a static answer need none",
            holds=lambda t: t.model is not None or t.timeouts is None,
        ),
        Rule(
            cel="has(self.model) || (self.retries == 0 && !has(self.circuitBreaker))",
            message="`spec.chain`: `retries` and `circuitBreaker` belong to `model` tiers; a cache and a static answer do not fail",
            holds=lambda t: t.model is not None or (t.retries == 0 and t.circuitBreaker is None),
        ),
        Rule(
            cel="has(self.model) || !has(self.price)",
            message="`spec.chain`: `price` belongs to `model` tiers; only a model takes tokens",
            holds=lambda t: t.model is not None or t.price is None,
        ),
        Rule(
            cel="!has(self.hedgeAfterMilliseconds) || (has(self.model) && !(has(self.timeouts)"
            " && has(self.timeouts.firstTokenMilliseconds) && self.timeouts.firstTokenMilliseconds <= self.hedgeAfterMilliseconds))",
            message="`spec.chain`: `hedgeAfterMilliseconds` belongs to `model` tiers, and is less than the tier's "
            "`timeouts.firstTokenMilliseconds`",
            holds=lambda t: t.hedgeAfterMilliseconds is None or (t.model is not None and _is_within_its_time(t)),
        ),
    )


def _is_within_its_time(tier: Tier) -> bool:
    longest = tier.timeouts.firstTokenMilliseconds if tier.timeouts else None
    return longest is None or (tier.hedgeAfterMilliseconds or 0) < longest


class Indicator(StrEnum):
    """What an SLO counts as bad; defined in docs/concepts/indicators.md."""

    LATENCY = "Latency"
    ERROR_RATE = "ErrorRate"
    FALLBACK_RATE = "FallbackRate"
    TOKENS_PER_REQUEST = "TokensPerRequest"
    COST_PER_REQUEST = "CostPerRequest"
    HALLUCINATION_RATE = "HallucinationRate"
    NEGATIVE_FEEDBACK_RATE = "NegativeFeedbackRate"


# Those that are no share of bad requests, but what a request comes to on average.
MEANS = (Indicator.TOKENS_PER_REQUEST, Indicator.COST_PER_REQUEST)


class NoTrafficAction(StrEnum):
    """What requests that are sent to the canary and never answered lead to."""

    HOLD = "Hold"
    ROLLBACK = "Rollback"


class EvaluationRule(StrEnum):
    """By which rule an SLO is judged; explained in docs/concepts/analysis.md."""

    SEQUENTIAL = "Sequential"
    THRESHOLD = "Threshold"


SeriesSelector = Annotated[str, Field(min_length=1, max_length=LONGEST_SELECTOR)]
# Those of a `PromQL` that there are.
_SELECTORS = "(has(self.histogram) ? [self.histogram] : has(self.bad) && has(self.total) ? [self.bad, self.total] : [])"
_BEFORE_LABEL, _, _AFTER_LABEL = names_label("@").partition("@")


class PromQL(ApiModel):
    """Counters of the author's own, or a histogram. The matchers that tell namespace and revision are added to each selector."""

    bad: SeriesSelector | None = Field(
        None,
        description='Counter of what is bad, a series selector such as `http_requests_total{code=~"5.."}`. No such series beside one '
        "of `total`: nothing is bad.",
    )
    total: SeriesSelector | None = Field(
        None, description="Counter of all of it, the bad included. It is best counted by the same process."
    )
    revisionLabel: Annotated[str, Field(min_length=1, max_length=63, pattern=f"^{LABEL_NAME}$")] | None = Field(
        None,
        description="Label that holds the revision's name on all of them. Unset: a series is of the revision whose pod its label "
        "`pod` names.",
    )
    histogram: SeriesSelector | None = Field(
        None,
        description="Instead of `bad` and `total`: a histogram, classic or native, by its name without `_bucket` and with matchers; what "
        "it observed over `over` is bad.",
    )
    over: Annotated[str, Field(max_length=24, pattern=r"^[0-9]{1,9}(\.[0-9]{1,14})?$")] | None = Field(
        None,
        description='For `histogram`: the bound in its own unit, a decimal as a string, such as "0.25". A bucket must end there, as '
        "native ones do at 0.25, 0.5, 1 and 2.",
    )
    rules = (
        Rule(
            cel="has(self.histogram) ? has(self.over) && !has(self.bad) && !has(self.total)"
            " : has(self.bad) && has(self.total) && !has(self.over)",
            message="`spec.slos`: `promQL` takes either `bad` and `total`, or `histogram` and `over`",
            holds=lambda q: (
                (q.over is not None and q.bad is None and q.total is None)
                if q.histogram is not None
                else (q.bad is not None and q.total is not None and q.over is None)
            ),
        ),
        Rule(
            cel=f"{_SELECTORS}.all(s, s.matches(r'{SELECTOR}'))",
            message="`spec.slos`: `promQL.bad`, `promQL.total` and `promQL.histogram` are each a metric's name with label matchers, such "
            'as `http_requests_total{code=~"5.."}`; take out functions, ranges and offsets, and write strings in double quotes',
            holds=lambda q: all(map(is_selector, _selectors(q))),
        ),
        Rule(
            cel=f"!{_SELECTORS}.exists(s, s.matches(r'{names_label('namespace|__name__')}')"
            f" || (!has(self.revisionLabel) && s.matches(r'{names_label('pod')}')))",
            message="`spec.slos`: matchers of `promQL` for `namespace` and, without `revisionLabel`, for `pod` are set for each revision, "
            "and a metric's name stands before the brace; take such matchers out",
            holds=lambda q: not _names(q, label="namespace|__name__" if q.revisionLabel else "namespace|__name__|pod"),
        ),
        Rule(
            cel="!has(self.revisionLabel) || (!(self.revisionLabel in ['namespace', 'pod', '__name__'])"
            f" && !{_SELECTORS}.exists(s, s.matches(r'{_BEFORE_LABEL}' + self.revisionLabel + r'{_AFTER_LABEL}')))",
            message="`spec.slos`: `promQL.revisionLabel` is a label other than `namespace` and `pod`, and no matcher of `promQL` names it",
            holds=lambda q: (
                q.revisionLabel is None
                or (q.revisionLabel not in ("namespace", "pod", "__name__") and not _names(q, label=q.revisionLabel))
            ),
        ),
    )


def _names(counters: PromQL, *, label: str) -> bool:
    return any(re.match(names_label(label), selector) is not None for selector in _selectors(counters))


def _selectors(counters: PromQL) -> list[str]:
    return [selector for selector in (counters.bad, counters.total, counters.histogram) if selector is not None]


class SLO(ApiModel):
    """One objective that the canary must hold."""

    name: Name = Field(description="Name of the objective, said in status and events.")
    indicator: Indicator | None = Field(
        None,
        description="`Latency` (first byte later than the limit, or handed over because the first tier was late), "
        "`ErrorRate` (errors, cut streams, and failed first attempts), `FallbackRate` (answered by a later tier), `TokensPerRequest` (of "
        "requests and answers together, on average), `CostPerRequest` (the same by the `price` of the tier that answered), "
        "`HallucinationRate` (judged answers that are not grounded in their requests, by `spec.quality`), `NegativeFeedbackRate` (of what "
        "callers said of answers, by `spec.feedback`). "
        "Unset: `promQL` says what is counted.",
    )
    quantilePercent: int | None = Field(
        None,
        ge=1,
        le=99,
        description="For `Latency`: the share of requests that must be within `maxMilliseconds`. Left out with `maxIncreasePercent`.",
    )
    maxMilliseconds: int | None = Field(
        None,
        ge=1,
        le=120_000,
        description="For `Latency`: the limit. Take a bound of the gateways' grid (docs/concepts/indicators.md); "
        "another limit can be judged once stable was made with it too.",
    )
    maxPercent: Percent | None = Field(
        None, description='For rates: the allowed share of bad requests, a decimal as a string, such as "1" or "0.5".'
    )
    forSeconds: int = Field(
        0,
        ge=0,
        le=86_400,
        description="How long the limit must be exceeded without a break. 0: enough evidence decides at once.",
    )
    minRequests: int = Field(
        20,
        ge=1,
        le=1_000_000,
        description="Fewest canary requests behind passing a step; with `evaluation: Threshold` behind a breach, too.",
    )
    promQL: PromQL | None = Field(
        None, description="Counters of the author's own, instead of an `indicator`; with `maxPercent` or `maxIncreasePercent`."
    )
    required: bool = Field(
        True, description="Whether a step waits for `minRequests` of it. A breach counts in any case, and what cannot be seen holds."
    )
    noTrafficSeconds: int = Field(
        300, ge=1, le=604_800, description="For an `indicator`: how long requests may be sent to the canary and none be answered."
    )
    noTrafficAction: NoTrafficAction = Field(
        NoTrafficAction.HOLD,
        description="For an `indicator`, when 20 or more requests were sent to the canary and none was answered. `Hold`: the step holds. "
        "`Rollback`: after `noTrafficSeconds` that is a breach.",
    )
    evaluation: EvaluationRule = Field(
        EvaluationRule.SEQUENTIAL,
        description="The rule. `Sequential`: evidence that is counted up from request to request, against the limit and against stable at "
        "the same time; a healthy canary is rolled back in `falseRollbackPercent` of rollouts at most. `Threshold`: the share of bad "
        "requests over the limit for `forSeconds`, whatever stable does.",
    )
    maxIncreasePercent: Percent | None = Field(
        None,
        description="Instead of a limit: how many percentage points the canary's share of bad requests may be above stable's at the same "
        'time, a decimal as a string. With `Latency`, of requests later than `maxMilliseconds`. "0": no worse than stable. Says nothing '
        "while stable has no requests.",
    )
    maxTokensPerRequest: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="For `TokensPerRequest`: the limit, of requests that a model answered and said the `usage` of.",
    )
    maxCostPerRequest: Amount | None = Field(
        None,
        description='For `CostPerRequest`: the limit, in the currency of the tiers\' `price`, a decimal as a string, such as "0.02". Every '
        "`model` tier of the chain has a `price` then.",
    )
    waitForSustained: bool | None = Field(
        None,
        description="For `Sequential`: whether a breach must also have lasted for `forSeconds`, or evidence decides at once. "
        "Unset: it must, where `forSeconds` is given.",
    )
    marginPercent: Percent | None = Field(
        None,
        description="With `promoteEarly`: a step may end early once there is evidence that the canary's share of bad requests is above "
        'stable\'s by less than so many percentage points, a decimal as a string. Less takes more requests; "0": a canary that is as good '
        "as stable never ends a step early, one that is better does. At most what is allowed. Unset: half of `maxPercent`, or of 100 less "
        "`quantilePercent`; with `maxIncreasePercent` all of that. Evidence begins anew where it is edited.",
    )
    rules = (
        Rule(
            cel="has(self.indicator) != has(self.promQL)",
            message="`spec.slos`: each has exactly one of `indicator` and `promQL`",
            holds=lambda s: (s.indicator is None) != (s.promQL is None),
        ),
        Rule(
            cel="has(self.indicator) && self.indicator == 'Latency'"
            " ? has(self.maxMilliseconds) && has(self.quantilePercent) != has(self.maxIncreasePercent) && !has(self.maxPercent)"
            " : (has(self.indicator) && self.indicator in ['TokensPerRequest', 'CostPerRequest'])"
            " || (has(self.maxPercent) != has(self.maxIncreasePercent) && !has(self.maxMilliseconds) && !has(self.quantilePercent))",
            message="`spec.slos`: `Latency` takes `maxMilliseconds` and one of `quantilePercent` and `maxIncreasePercent`; "
            "other rates and `promQL` take one of `maxPercent` and `maxIncreasePercent`",
            holds=lambda s: (
                s.maxMilliseconds is not None and (s.quantilePercent is None) != (s.maxIncreasePercent is None) and s.maxPercent is None
                if s.indicator is Indicator.LATENCY
                else s.indicator in MEANS
                or ((s.maxPercent is None) != (s.maxIncreasePercent is None) and s.maxMilliseconds is None and s.quantilePercent is None)
            ),
        ),
        Rule(
            cel="has(self.maxTokensPerRequest) == (has(self.indicator) && self.indicator == 'TokensPerRequest')"
            " && has(self.maxCostPerRequest) == (has(self.indicator) && self.indicator == 'CostPerRequest')"
            " && (!(has(self.maxTokensPerRequest) || has(self.maxCostPerRequest))"
            " || !(has(self.maxPercent) || has(self.maxIncreasePercent) || has(self.maxMilliseconds) || has(self.quantilePercent)))",
            message="`spec.slos`: `TokensPerRequest` takes `maxTokensPerRequest` and `CostPerRequest` takes `maxCostPerRequest`, and they "
            "take no other limit; nothing else takes these",
            holds=lambda s: (
                (s.maxTokensPerRequest is not None) == (s.indicator is Indicator.TOKENS_PER_REQUEST)
                and (s.maxCostPerRequest is not None) == (s.indicator is Indicator.COST_PER_REQUEST)
                and not (s.indicator in MEANS and any((s.maxPercent, s.maxIncreasePercent, s.maxMilliseconds, s.quantilePercent)))
            ),
        ),
        Rule(
            cel="self.evaluation == 'Sequential' || !(has(self.maxTokensPerRequest) || has(self.maxCostPerRequest))",
            message="`spec.slos`: `evaluation: Threshold` judges shares of bad requests; for `TokensPerRequest` and `CostPerRequest`, "
            "which are averages, take `Sequential`",
            holds=lambda s: s.evaluation is EvaluationRule.SEQUENTIAL or s.indicator not in MEANS,
        ),
        Rule(
            cel="self.evaluation == 'Sequential' || !(has(self.maxIncreasePercent) || has(self.waitForSustained))",
            message="`spec.slos`: `evaluation: Threshold` compares with no stable and always waits for `forSeconds`; take out "
            "`maxIncreasePercent` and `waitForSustained`, or take `Sequential`",
            holds=lambda s: s.evaluation is EvaluationRule.SEQUENTIAL or (s.maxIncreasePercent is None and s.waitForSustained is None),
        ),
        Rule(
            cel="!has(self.waitForSustained) || self.forSeconds > 0",
            message="`spec.slos`: `waitForSustained` says whether `forSeconds` is waited for; give `forSeconds` too",
            holds=lambda s: s.waitForSustained is None or s.forSeconds > 0,
        ),
        Rule(
            cel="!has(self.marginPercent) || (self.evaluation == 'Sequential' && !has(self.maxTokensPerRequest)"
            " && !has(self.maxCostPerRequest))",
            message="`spec.slos`: `marginPercent` is for shares of bad requests that are judged as `Sequential`; averages and "
            "`evaluation: Threshold` have no evidence that ends a step early, so take it out there",
            holds=lambda s: s.marginPercent is None or (s.evaluation is EvaluationRule.SEQUENTIAL and s.indicator not in MEANS),
        ),
        Rule(
            cel="!has(self.marginPercent) || double(self.marginPercent) <= (has(self.maxIncreasePercent) ? double(self.maxIncreasePercent)"
            " : has(self.maxPercent) ? double(self.maxPercent) : has(self.quantilePercent) ? double(100 - self.quantilePercent) : 100.0)",
            message="`spec.slos`: `marginPercent` is at most what is allowed, which is `maxIncreasePercent`, `maxPercent` or 100 less "
            "`quantilePercent`; a canary that is further above stable breaks that, so give less",
            holds=lambda s: s.marginPercent is None or float(s.marginPercent) <= _most_allowed(s),
        ),
        Rule(
            cel="!has(self.promQL) || self.noTrafficAction == 'Hold'",
            message="`spec.slos`: `noTrafficAction: Rollback` needs an `indicator`; of counters in `promQL`, what was sent is not known",
            holds=lambda s: s.promQL is None or s.noTrafficAction is NoTrafficAction.HOLD,
        ),
    )


def _most_allowed(slo: SLO) -> float:
    """Percentage points; of a mean, which takes none, all."""
    if slo.quantilePercent is not None:
        return float(100 - slo.quantilePercent)
    return float(slo.maxIncreasePercent or slo.maxPercent or "100")


class Step(ApiModel):
    """One weight, and how long it is held."""

    weight: int = Field(ge=1, le=100, description="Percent of requests that go to the canary.")
    holdSeconds: int = Field(
        120, ge=0, le=604_800, description="How long the weight is held, from when every gateway is seen to act on it."
    )
    approval: bool = Field(
        False, description="Whether the step, once it is passed, waits for a person: a new value of the annotation `backstop.dev/approve`."
    )


class Analysis(ApiModel):
    """How the canary is judged."""

    warmUpSeconds: int = Field(10, ge=0, le=3600, description="Requests of the first seconds after a step is in effect are not judged.")
    maxHoldSeconds: int | None = Field(
        None,
        ge=1,
        le=2_592_000,
        description="How long a step whose hold is over may wait for its SLOs to be healthy before the canary is rolled back. "
        "A pause, an approval that is waited for, an incident that stable shares, time in which metrics cannot be seen and time without a "
        "ready pod do not count. "
        "Unset: for ever; an event tells it after an hour.",
    )
    falseRollbackPercent: Annotated[str, Field(max_length=16, pattern=r"^(50(\.0+)?|[1-4]?[0-9](\.[0-9]{1,6})?)$")] = Field(
        "1",
        description="Of a hundred rollouts of a healthy canary, how many are rolled back by mistake at most: divided among the SLOs that "
        'are judged as `Sequential`. A decimal as a string, above 0, at most "50". Less asks for more evidence, so that a breach takes '
        "longer to be seen.",
    )
    promoteEarly: bool = Field(
        False,
        description="Whether a step ends before its hold does, as soon as there is evidence for every SLO that the canary is good enough: "
        "within its limit, and no worse than stable by its `marginPercent`, which is half of the limit where it is unset (and all of "
        "`maxIncreasePercent`, where that is what is declared). It may be wrong in one of twenty. SLOs with `evaluation: Threshold`, and "
        "those on `CostPerRequest` and `TokensPerRequest`, have no such evidence, and no step ends early beside one.",
    )
    rules = (
        Rule(
            cel="double(self.falseRollbackPercent) > 0.0",
            message="`spec.canary.analysis.falseRollbackPercent`: must be above 0; no finite number of requests is proof",
            holds=lambda a: float(a.falseRollbackPercent) > 0,
        ),
    )


class Canary(ApiModel):
    """How a new revision is rolled out."""

    steps: list[Step] = Field(
        default=[Step(weight=5), Step(weight=25), Step(weight=50), Step(weight=100, holdSeconds=60)],
        min_length=1,
        max_length=32,
        description="The weights in order; they increase and end at 100.",
    )
    analysis: Analysis = Field(default=Analysis(), description="How the canary is judged.")
    progressDeadlineSeconds: int = Field(
        600, ge=10, le=86_400, description="How long a canary may be short of ready pods before it is rolled back."
    )
    paused: bool = Field(False, description="Hold the canary at its weight. A breach still takes its traffic away.")
    probes: list[Probe] = Field(
        default_factory=list,
        max_length=8,
        description="What is run against the canary itself. They are no part of the revision.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    traffic: CanaryTraffic = Field(
        default=CanaryTraffic(), description="How callers are told apart. Changing it takes effect at once, and starts no rollout."
    )
    rules = (
        Rule(
            cel="self.steps.size() < 2 || self.steps.all(s, self.steps.filter(o, o.weight == s.weight).size() == 1)"
            " && self.steps.map(s, s.weight).isSorted()",
            message="`spec.canary.steps`: weights must increase",
            holds=lambda c: all(a.weight < b.weight for a, b in zip(c.steps, c.steps[1:], strict=False)),
        ),
        Rule(
            cel="self.steps[self.steps.size() - 1].weight == 100",
            message="`spec.canary.steps`: the last weight must be 100",
            holds=lambda c: c.steps[-1].weight == 100,
        ),
    )


class RollbackMode(StrEnum):
    """What a breach leads to."""

    AUTOMATIC = "Automatic"
    PAUSE = "Pause"
    DRY_RUN = "DryRun"


class UnavailableAction(StrEnum):
    """What metrics that cannot be seen for long lead to."""

    HOLD = "Hold"
    ROLLBACK = "Rollback"


class OnMetricsUnavailable(ApiModel):
    """What happens when the canary cannot be judged for long."""

    afterSeconds: int = Field(300, ge=1, le=604_800, description="After how long without metrics.")
    action: UnavailableAction = Field(
        UnavailableAction.HOLD, description="`Hold` goes on holding the step; `Rollback` takes the canary back."
    )


class Rollback(ApiModel):
    """How a canary is taken back, and what is kept for it."""

    mode: RollbackMode = Field(
        RollbackMode.AUTOMATIC,
        description="What a breach leads to. `Automatic`: traffic to stable, and the revision is rejected. `Pause`: traffic to stable, "
        "then a person decides (annotation `backstop.dev/retry` or `backstop.dev/abort`). `DryRun`: it is only told; the step holds.",
    )
    onMetricsUnavailable: OnMetricsUnavailable = Field(
        default=OnMetricsUnavailable(), description="What happens when the canary cannot be judged for long."
    )
    guardSeconds: int = Field(
        1800,
        ge=0,
        le=604_800,
        description="How long after a promotion the SLOs of stable are still watched: a breach goes back to the revision before, and a "
        "spec that asks for that one again has it at once. 0: not at all.",
    )
    revisionHistoryLimit: int = Field(5, ge=0, le=50, description="How many records of former revisions are kept.")
    keepPreviousSeconds: int = Field(
        1800,
        ge=15,
        le=604_800,
        description="How long the previous stable revision stays scaled up after a promotion. "
        "Shorter than `guardSeconds`: a way back waits for its pods.",
    )
    reportHistoryLimit: int = Field(
        10,
        ge=0,
        le=100,
        description="How many RolloutReports are kept; when one is written beyond them, the oldest go. 0: none is written.",
    )


class ReviewCadence(StrEnum):
    """How soon after a rollout its report is to be reviewed."""

    DAILY = "Daily"
    WEEKLY = "Weekly"
    MONTHLY = "Monthly"
    QUARTERLY = "Quarterly"


class PolicyOwner(ApiModel):
    """Who answers for a policy."""

    team: str = Field(min_length=1, max_length=63, description="The team that answers for the policy, such as `ml-platform`.")
    contact: str | None = Field(
        None, min_length=1, max_length=128, description="Where the team is reached: a chat channel, an address, a rota."
    )
    runbookURL: str | None = Field(None, max_length=512, description="What to do when a rollout goes wrong; said with every warning.")
    reviewCadence: ReviewCadence | None = Field(
        None,
        description="How soon after the end of a rollout its report is to be reviewed: the report's `reviewDueAt` is 1, 7, 30 or 90 "
        "days on. Unset: no time is set.",
    )
    rules = (
        Rule(
            cel=f"!has(self.runbookURL) || self.runbookURL.matches('{WEB_ADDRESS}')",
            message="`spec.owner.runbookURL`: must be an address that begins with `https://` or `http://`, without a password in it",
            holds=lambda o: o.runbookURL is None or re.search(WEB_ADDRESS, o.runbookURL) is not None,
        ),
    )


def _currencies(spec: "FallbackPolicySpec") -> set[str]:
    return {t.price.currency for t in spec.chain if t.price is not None}


def _is_priced(spec: "FallbackPolicySpec") -> bool:
    return all(t.price is not None for t in spec.chain if t.model is not None)


def _declared_first_token_times(spec: "FallbackPolicySpec") -> list[int | None]:
    return [t.timeouts.firstTokenMilliseconds if t.timeouts else None for t in spec.chain if t.model]


def _look_up_time(spec: "FallbackPolicySpec") -> int:
    levels = [level for t in spec.chain if t.cache for level in (t.cache.warm, t.cache.cold) if level is not None]
    return sum(level.timeoutMilliseconds for level in levels)


def _can_hedge(spec: "FallbackPolicySpec") -> bool:
    models = [t for t in spec.chain if t.model is not None]
    times = [t.hedgeAfterMilliseconds for t in models if t.hedgeAfterMilliseconds is not None]
    behind_the_last = models and models[-1].hedgeAfterMilliseconds is not None
    return not behind_the_last and all(spec.latencyBudgetMilliseconds is None or ms < spec.latencyBudgetMilliseconds for ms in times)


class FallbackPolicySpec(ApiModel):
    """What a service runs, and what must hold."""

    promptVersion: ObjectName | None = Field(
        None,
        description="Name of the wanted PromptVersion. With `chain` and `serving` it defines the wanted revision. Required, but not with "
        "`serving.workload`.",
    )
    latencyBudgetMilliseconds: int | None = Field(
        None,
        ge=1,
        le=600_000,
        description="Time to the first byte of some answer. When it is spent, the next tier that can answer at once does. Required, but "
        "not with `serving.workload`.",
    )
    chain: list[Tier] = Field(
        default_factory=list,
        min_length=1,
        max_length=16,
        description="Who answers, in order: the first tier, and on lateness or failure the next. Required, but not with "
        "`serving.workload`.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    metricsSource: Name = Field("default", description="Name of one of the operator's `metrics.sources`.")
    slos: list[SLO] = Field(
        default_factory=list,
        max_length=16,
        description="What the canary must hold. None: only readiness is judged.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    canary: Canary = Field(default=Canary(), description="How a new revision is rolled out.")
    rollback: Rollback = Field(default=Rollback(), description="How a canary is taken back, and what is kept for it.")
    serving: Serving = Field(default=Serving(), description="How the gateways run.")
    owner: PolicyOwner | None = Field(
        None, description="Who answers for this policy: said in its RolloutReports, and in the events that warn of something."
    )
    access: Access | None = Field(None, description="Who may call, and who shares kept answers with whom. Unset: everybody, and all do.")
    residency: Residency | None = Field(None, description="Where requests may be processed. Unset: by every tier of the chain.")
    stream: Stream | None = Field(None, description="What becomes of streams that break off. Unset: they end with an error event.")
    spend: Spend | None = Field(None, description="How many tokens models may take in a period. Unset: as many as callers ask for.")
    quality: Quality | None = Field(None, description="Which answers are judged after they were sent, and by what. Unset: none is.")
    feedback: Feedback | None = Field(None, description="How callers say what they thought of an answer. Unset: they cannot.")
    rules = (
        Rule(
            cel="!has(self.chain) || self.chain.filter(t, has(t.static)).size() == 0 || (has(self.chain[self.chain.size() - 1].static)"
            " && self.chain.filter(t, has(t.static)).size() == 1)",
            message="`spec.chain`: a `static` tier is only allowed as the last tier",
            holds=lambda s: all(t.static is None for t in s.chain[:-1]),
        ),
        Rule(
            cel="!has(self.chain) || self.chain.filter(t, has(t.cache)).size() == 0 || (!has(self.chain[0].cache)"
            " && self.chain.filter(t, has(t.cache)).size() == 1)",
            message="`spec.chain`: at most one tier is a `cache`, and never the first, whose answers it keeps",
            holds=lambda s: [t.cache is None for t in s.chain[1:]].count(False) <= 1 and all(t.cache is None for t in s.chain[:1]),
        ),
        Rule(
            cel="!has(self.chain) || self.chain.filter(t, has(t.model)"
            " && !(has(t.timeouts) && has(t.timeouts.firstTokenMilliseconds))).size() <= 1",
            message="`spec.chain`: with more than one `model` tier, at most one may leave `timeouts.firstTokenMilliseconds` unset",
            holds=lambda s: _declared_first_token_times(s).count(None) <= 1,
        ),
        Rule(
            cel="!has(self.chain) || !has(self.latencyBudgetMilliseconds) || self.chain.map(t, has(t.timeouts)"
            " && has(t.timeouts.firstTokenMilliseconds) ? t.timeouts.firstTokenMilliseconds"
            " : has(t.cache) ? (has(t.cache.warm) ? t.cache.warm.timeoutMilliseconds : 0)"
            " + (has(t.cache.cold) ? t.cache.cold.timeoutMilliseconds : 0) : 0).sum() <= self.latencyBudgetMilliseconds",
            message="`spec.chain`: the tiers' `timeouts.firstTokenMilliseconds`, and `timeoutMilliseconds` of `cache.warm` and "
            "`cache.cold`, must fit into `spec.latencyBudgetMilliseconds`",
            holds=lambda s: (
                s.latencyBudgetMilliseconds is None
                or sum(ms or 0 for ms in _declared_first_token_times(s)) + _look_up_time(s) <= s.latencyBudgetMilliseconds
            ),
        ),
        Rule(
            cel="!has(self.chain) || !has(self.latencyBudgetMilliseconds) || !has(self.chain[0].model)"
            " || (has(self.chain[0].timeouts) && has(self.chain[0].timeouts.firstTokenMilliseconds))"
            " || self.chain.map(t, has(t.timeouts) && has(t.timeouts.firstTokenMilliseconds) ? t.timeouts.firstTokenMilliseconds : 0)"
            ".sum() < self.latencyBudgetMilliseconds",
            message="`spec.chain`: the later tiers' `timeouts.firstTokenMilliseconds` take all of `spec.latencyBudgetMilliseconds`, and "
            "the first tier would never be asked; give them less, or it a time of its own",
            holds=lambda s: (
                s.latencyBudgetMilliseconds is None
                or _declared_first_token_times(s)[:1] != [None]
                or sum(ms or 0 for ms in _declared_first_token_times(s)) < s.latencyBudgetMilliseconds
            ),
        ),
        Rule(
            cel="!has(self.access) || !has(self.access.callerKeysRef) || !has(self.canary) || !has(self.canary.probes)"
            " || self.canary.probes.all(p, p.when == 'BeforeTraffic' || has(p.apiKeyRef))",
            message="`spec.canary.probes`: with `spec.access.callerKeysRef`, `DuringTraffic` needs a caller's key; set `apiKeyRef`",
            holds=lambda s: (
                s.access is None
                or s.access.callerKeysRef is None
                or all(p.job is not None or p.apiKeyRef is not None for p in s.canary.probes)
            ),
        ),
        Rule(
            cel="!has(self.chain) || self.chain.all(t, !has(t.price) || self.chain.all(u, !has(u.price) || u.price.currency =="
            " t.price.currency))",
            message="`spec.chain`: `price.currency` is the same for all tiers; give every `price` in one currency",
            holds=lambda s: len(_currencies(s)) <= 1,
        ),
        Rule(
            cel="!has(self.chain) || !has(self.slos) || self.slos.all(s, !has(s.maxCostPerRequest))"
            " || self.chain.all(t, has(t.price) || !has(t.model))",
            message="`spec.slos`: `CostPerRequest` needs the `price` of every `model` tier; give the ones that are missing in `spec.chain`",
            holds=lambda s: _is_priced(s) or all(slo.maxCostPerRequest is None for slo in s.slos),
        ),
        Rule(
            cel="!has(self.chain) || self.chain.size() == 0 || !has(self.chain[0].ruleEngine)",
            message="`spec.chain`: a `ruleEngine` is never the first tier; it answers where those before it have failed",
            holds=lambda s: all(t.ruleEngine is None for t in s.chain[:1]),
        ),
        Rule(
            cel="!has(self.chain) || self.chain.filter(t, has(t.human)).size() == 0 || (!has(self.chain[0].human)"
            " && self.chain.filter(t, has(t.human)).size() == 1)",
            message="`spec.chain`: at most one tier is `human`, and never the first; people answer where those before it have failed",
            holds=lambda s: [t.human is None for t in s.chain[1:]].count(False) <= 1 and all(t.human is None for t in s.chain[:1]),
        ),
        Rule(
            cel="!has(self.chain) || (self.chain.filter(t, has(t.model)).size() == 0"
            " || !has(self.chain.filter(t, has(t.model))[self.chain.filter(t, has(t.model)).size() - 1].hedgeAfterMilliseconds))"
            " && self.chain.all(t, !has(t.hedgeAfterMilliseconds) || !has(self.latencyBudgetMilliseconds)"
            " || t.hedgeAfterMilliseconds < self.latencyBudgetMilliseconds)",
            message="`spec.chain`: `hedgeAfterMilliseconds` needs a `model` tier behind it, and is less than "
            "`spec.latencyBudgetMilliseconds`",
            holds=_can_hedge,
        ),
        Rule(
            cel="!has(self.slos) || self.slos.all(s, !has(s.indicator) || s.indicator != 'HallucinationRate') || (has(self.quality)"
            " && self.quality.scorers.exists(c, c.type in ['Lexical', 'NumbersAndLinks'] || (c.type == 'HTTP' && !(has(c.grounding)"
            " && !c.grounding))))",
            message="`spec.slos`: `HallucinationRate` needs a scorer that judges grounding; give `spec.quality.scorers` one of the type "
            "`Lexical`, `NumbersAndLinks` or `HTTP`",
            holds=lambda s: (
                all(slo.indicator is not Indicator.HALLUCINATION_RATE for slo in s.slos)
                or (s.quality is not None and any(scorer.is_grounding for scorer in s.quality.scorers))
            ),
        ),
        Rule(
            cel="!has(self.slos) || has(self.feedback) || self.slos.all(s, !has(s.indicator) || s.indicator != 'NegativeFeedbackRate')",
            message="`spec.slos`: `NegativeFeedbackRate` needs callers who can say something; set `spec.feedback`",
            holds=lambda s: s.feedback is not None or all(slo.indicator is not Indicator.NEGATIVE_FEEDBACK_RATE for slo in s.slos),
        ),
        Rule(
            cel="!has(self.slos) || self.slos.all(s, !has(s.marginPercent)) || (has(self.canary) && has(self.canary.analysis)"
            " && self.canary.analysis.promoteEarly)",
            message="`spec.slos`: `marginPercent` says how good a canary is whose steps end early; set "
            "`spec.canary.analysis.promoteEarly: true`, or take it out",
            holds=lambda s: s.canary.analysis.promoteEarly or all(slo.marginPercent is None for slo in s.slos),
        ),
        *RESIDENCY_RULES,
        *STREAM_RULES,
        *SPEND_RULES,
        *WORKLOAD_RULES,
    )


# Rules over the whole object: the name is part of every child's name.
POLICY_RULES = (
    Rule(
        cel="self.metadata.name.size() <= 40",
        message="`metadata.name`: at most 40 characters, because the names of the policy's objects are built from it",
        holds=lambda name: len(name) <= 40,
    ),
    Rule(
        cel="!self.metadata.name.contains('.') && !self.metadata.name.matches('^[0-9]')",
        message="`metadata.name`: must start with a letter and hold no dots, because Services are named after it",
        holds=lambda name: "." not in name and not name[:1].isdigit(),
    ),
    Rule(
        cel="!['-stable', '-canary', '-traffic', '-gateway'].exists(s, self.metadata.name.endsWith(s))",
        message="`metadata.name`: must not end in `-stable`, `-canary`, `-traffic` or `-gateway`, which name the policy's own objects",
        holds=lambda name: not name.endswith(("-stable", "-canary", "-traffic", "-gateway")),
    ),
)
