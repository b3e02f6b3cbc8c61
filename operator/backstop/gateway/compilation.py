"""A revision record, and the Secrets beside it, compiled once, at the start, into what is served. PURE.

Refuses what cannot be served, in one sentence that names the field.
"""

import base64
import binascii
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from ..api.answerschema import AnswerSchemaError
from ..api.authorities import AuthoritiesError, read_authorities
from ..api.cachetier import WarmCache
from ..api.fallbackpolicy import CircuitBreaker, ModelTarget, StaticTarget, Tier, Timeouts
from ..api.humantier import HumanTarget
from ..api.knowledge import KnowledgeError, read_knowledge_base
from ..api.metricnames import target_label
from ..api.names import (
    FEEDBACK_KEY_VARIABLE,
    api_key_variable,
    header_variable,
    redis_address_variable,
    scorer_key_variable,
    webhook_secret_variable,
)
from ..api.promptversion import ModelParameters, Variable
from ..api.quality import check_answer_schemas
from ..api.record import TRACES_CONTENTS, RevisionRecord, scorer_contents
from ..api.refs import ConfigMapKeyRef, SecretKeyRef
from ..api.ruleset import RulesError, RuleSet, read_rules
from ..api.rulestier import RuleEngineTarget
from ..api.spend import OnExhausted, Spend
from ..api.stream import OnInterruption
from ..api.template import compile_prompt
from ..api.templateerror import TemplateError
from .allowance import AllowanceSettings
from .breaker import BreakerSettings
from .feedback import FeedbackKeys
from .forbidden import is_forbidden, refuse_abroad, refuse_forbidden
from .jsontext import quoted
from .knowledge import StaticAnswers
from .prompt import compile_for_json
from .quality.settings import QualitySettings, compile_quality
from .redisaddress import literal_address, read_redis_address
from .revision import (
    CHAT,
    AnyTier,
    CacheTier,
    ColdTier,
    ConfigurationError,
    HumanTier,
    ModelTier,
    Revision,
    RulesTier,
    StaticTier,
    WarmTier,
)

_SECRET_PREFIX: Final = "whsec_"
_SHORTEST_SECRET: Final = 16


def compile_revision(record: RevisionRecord, *, environment: Mapping[str, str]) -> Revision:
    """Compile `record`; API keys come from `environment`. Raises ConfigurationError."""
    try:
        messages = compile_prompt(record.prompt)
    except TemplateError as error:
        raise ConfigurationError(str(error)) from None
    variables: tuple[Variable, ...] = tuple(record.prompt.variables)
    settings = record.prompt.model
    refuse_abroad(record)
    return Revision(
        namespace=record.namespace,
        policy=record.policy,
        name=record.revision,
        prompt_version=record.promptVersion,
        prompt_digest=record.promptDigest,
        budget=record.latencyBudgetMilliseconds / 1000,
        tiers=tuple(
            _compile_tier(record, position=position, override=settings.name if settings else None, environment=environment)
            for position in range(len(record.chain))
        ),
        prompt=compile_for_json(messages, variables=variables),
        parameters=_parameters(settings.parameters) if settings and settings.parameters else {},
        latency_bounds=tuple(record.latencyBounds),
        takes_keys=record.access is not None and record.access.callerKeysRef is not None,
        tenant_header=record.access.tenantHeader.lower() if record.access and record.access.tenantHeader else None,
        quality=_quality(record, environment=environment),
        feedback=_feedback(record, environment=environment),
        allowed=frozenset(record.residency.allowedJurisdictions) if record.residency else None,
        hold_back=record.stream.holdBackMilliseconds / 1000 if record.stream else 0.0,
        continues=record.stream is not None and record.stream.onInterruption is OnInterruption.CONTINUE,
        allowance=_allowance(record.spend, first=record.chain[0].name) if record.spend else None,
        trace_authorities=_trace_authorities(record.contents.get(TRACES_CONTENTS)),
        allowed_to={t.name: frozenset(t.allowedJurisdictions) for t in record.residency.tenants} if record.residency else {},
    )


def _compile_tier(record: RevisionRecord, *, position: int, override: str | None, environment: Mapping[str, str]) -> AnyTier:
    chain = record.chain
    tier = chain[position]
    content = record.contents.get(tier.name)
    if tier.static is not None:
        return StaticTier(name=tier.name, text=tier.static.default, answers=_answers(tier.static, text=content))
    if tier.cache is not None:
        return _cache_tier(tier, position=position, content=content, environment=environment)
    if tier.ruleEngine is not None:
        headers = frozenset(header.lower() for header in tier.ruleEngine.headers)
        return RulesTier(tier.name, rules=_rules(tier.ruleEngine, text=content), headers=headers)
    if tier.human is not None:
        return _human_tier(tier.name, human=tier.human, position=position, content=content, environment=environment)
    model = tier.model
    if model is None:
        raise ConfigurationError(f"`spec.chain[{position}]` has none of `model`, `cache`, `ruleEngine`, `human` and `static`; set one")
    timeouts = tier.timeouts or Timeouts()
    refuse_forbidden(model.baseURL, field=f"`spec.chain[{position}].model.baseURL`", whose="the model's")
    later = [t.timeouts for t in chain[position + 1 :] if t.model is not None]
    return ModelTier(
        name=tier.name,
        url=model.baseURL.rstrip("/") + CHAT,
        model=override if override and position == 0 else model.name,
        authorization=_authorization(tier, position=position, environment=environment),
        connect=_seconds(timeouts.connectMilliseconds),
        headers=_seconds(timeouts.headersMilliseconds),
        target=target_label(tier.name, base_url=model.baseURL, model=model.name),
        first_token=_seconds(timeouts.firstTokenMilliseconds),
        reserved=sum((t.firstTokenMilliseconds or 0) / 1000 for t in later if t is not None),
        stall=timeouts.stallMilliseconds / 1000,
        total=float(timeouts.totalSeconds),
        retries=tier.retries,
        breaker=_breaker(tier.circuitBreaker or CircuitBreaker()),
        able=None if model.capabilities is None else frozenset(model.capabilities),
        window=model.contextTokens,
        asks_usage=model.askUsage,
        embedding_model=model.embeddingModel,
        hedge_after=_seconds(tier.hedgeAfterMilliseconds),
        jurisdiction=model.jurisdiction,
        authorities=_authorities(model.caBundleRef, text=content),
        sent=_headers(model, position=position, environment=environment),
    )


def _allowance(spend: Spend, *, first: str) -> AllowanceSettings:
    return AllowanceSettings(
        tokens=spend.tokenAllowance,
        period=spend.periodDays * 86_400.0,
        tiers=frozenset(spend.tiers or [first]),
        refuses=spend.onExhausted is OnExhausted.REFUSE,
    )


def _breaker(declared: CircuitBreaker) -> BreakerSettings:
    return BreakerSettings(
        window=float(declared.windowSeconds),
        min_requests=declared.minRequests,
        failure_percent=declared.failurePercent,
        open=float(declared.openSeconds),
    )


def _cache_tier(tier: Tier, *, position: int, content: str | None, environment: Mapping[str, str]) -> CacheTier:
    assert tier.cache is not None
    hot, cold, stale = tier.cache.hot, tier.cache.cold, float(tier.cache.staleIfErrorSeconds)
    declared = tier.cache.warm
    warm = None if declared is None else _warm_tier(declared, position=position, content=content, environment=environment)
    return CacheTier(
        name=tier.name,
        hot_bytes=hot.maxMebibytes << 20,
        fresh=float(hot.ttlSeconds),
        stale=stale,
        warm=warm,
        cold=None if cold is None else ColdTier(cold.maxMebibytes << 20, float(cold.ttlSeconds), cold.timeoutMilliseconds / 1000),
        match=tier.cache.match,
    )


def _warm_tier(warm: WarmCache, *, position: int, content: str | None, environment: Mapping[str, str]) -> WarmTier:
    field = f"`spec.chain[{position}].cache.warm.redis"
    server = warm.redis
    text = _from_secret(server.addressRef, variable=redis_address_variable(position), field=f"{field}.addressRef`", environment=environment)
    authorities = _authorities(server.caBundleRef, text=content)
    where = f"{field}.addressRef`: Secret `{server.addressRef.name}`, `{server.addressRef.key}`"
    try:
        address = read_redis_address(text, authorities=authorities)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}; correct it") from None
    literal = literal_address(address.host)
    if literal is not None and is_forbidden(literal):
        raise ConfigurationError(f"{where}: a link-local or metadata address is never called; name the server's own host")
    timeout = warm.timeoutMilliseconds / 1000
    return WarmTier(address=address, fresh=float(warm.ttlSeconds), timeout=timeout, jurisdiction=warm.jurisdiction)


def _from_secret(reference: SecretKeyRef, *, variable: str, field: str, environment: Mapping[str, str]) -> str:
    text = environment.get(variable, "").strip()
    if not text:
        raise ConfigurationError(f"{field}: it is empty; give the Secret `{reference.name}` with `{reference.key}`, or set `{variable}`")
    return text


def _authorities(reference: ConfigMapKeyRef | None, *, text: str | None) -> str | None:
    if reference is None:
        return None
    where = f"the CA bundle `{reference.key}` of ConfigMap `{reference.name}`"
    if text is None:
        raise ConfigurationError(f"{where} is not in the record's `contents`; let the operator write the record")
    try:
        return read_authorities(text)
    except AuthoritiesError as error:
        raise ConfigurationError(f"{where} cannot be used: {error}") from None


def _trace_authorities(text: str | None) -> str | None:
    try:
        return None if text is None else read_authorities(text)
    except AuthoritiesError as error:
        raise ConfigurationError(f"the CA bundle of `spec.serving.traces.caBundleRef` cannot be used: {error}") from None


def _answers(static: StaticTarget, *, text: str | None) -> StaticAnswers | None:
    reference = static.knowledgeBaseRef
    if reference is None:
        return None
    where = f"the knowledge base `{reference.key}` of ConfigMap `{reference.name}`"
    if text is None:
        raise ConfigurationError(f"{where} is not in the record's `contents`; let the operator write the record")
    try:
        return StaticAnswers(read_knowledge_base(text), match=static.match, default=static.default)
    except KnowledgeError as error:
        raise ConfigurationError(f"{where} cannot be used: {error}") from None


def _human_tier(name: str, *, human: HumanTarget, position: int, content: str | None, environment: Mapping[str, str]) -> HumanTier:
    field, reference = f"`spec.chain[{position}].human.webhook", human.webhook.secretRef
    refuse_forbidden(human.webhook.url, field=f"{field}.url`", whose="the desk's")
    variable = webhook_secret_variable(position)
    text = _from_secret(reference, variable=variable, field=f"{field}.secretRef`", environment=environment)
    try:
        secret = read_secret(text)
    except ValueError as error:
        raise ConfigurationError(f"{field}.secretRef`: Secret `{reference.name}`, `{reference.key}`: {error}; give another") from None
    return HumanTier(
        name,
        url=human.webhook.url,
        secret=secret,
        acknowledgement=human.acknowledgement,
        limit=human.queueLimit,
        jurisdiction=human.webhook.jurisdiction,
        authorities=_authorities(human.webhook.caBundleRef, text=content),
    )


def read_secret(text: str) -> bytes:
    """The key that tickets are signed with: `whsec_` and base64, or a text. Raises ValueError with a sentence."""
    if text.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("what follows `whsec_` is not base64") from None
    else:
        key = text.encode()
    if len(key) < _SHORTEST_SECRET:
        raise ValueError(f"it is shorter than {_SHORTEST_SECRET} bytes")
    return key


def _rules(engine: RuleEngineTarget, *, text: str | None) -> RuleSet:
    where = f"the rules `{engine.rulesRef.key}` of ConfigMap `{engine.rulesRef.name}`"
    if text is None:
        raise ConfigurationError(f"{where} are not in the record's `contents`; let the operator write the record")
    try:
        return read_rules(text)
    except RulesError as error:
        raise ConfigurationError(f"{where} cannot be used: {error}") from None


def _authorization(tier: Tier, *, position: int, environment: Mapping[str, str]) -> str | None:
    reference = tier.model.apiKeyRef if tier.model else None
    if reference is None:
        return None
    field, variable = f"`spec.chain[{position}].model.apiKeyRef`", api_key_variable(position)
    key = environment.get(variable, "").strip()
    if not key:
        raise ConfigurationError(f"{field}: no key; give the Secret `{reference.name}` with `{reference.key}`, or set `{variable}`")
    return f"Bearer {_carried(key, reference=reference, field=field)}"


def _headers(model: ModelTarget, *, position: int, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = []
    for index, declared in enumerate(model.headersFrom):
        field, variable = f"`spec.chain[{position}].model.headersFrom[{index}].secretRef`", header_variable(position, header=index)
        value = _from_secret(declared.secretRef, variable=variable, field=field, environment=environment)
        found.append((declared.header, _carried(value, reference=declared.secretRef, field=field)))
    return tuple(found)


def _carried(value: str, *, reference: SecretKeyRef, field: str) -> str:
    """`value`, which a header can carry. Raises ConfigurationError, which does not repeat it."""
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(f"{field}: the key in Secret `{reference.name}` holds characters that a header cannot carry")
    return value


def _quality(record: RevisionRecord, *, environment: Mapping[str, str]) -> QualitySettings | None:
    if record.quality is None:
        return None
    try:
        check_answer_schemas(record.quality)
    except AnswerSchemaError as error:
        raise ConfigurationError(str(error)) from None
    authorizations: dict[str, str] = {}
    authorities: dict[str, str] = {}
    for position, scorer in enumerate(record.quality.scorers):
        if scorer.http is None:
            continue
        field = f"`spec.quality.scorers[{position}].http"
        refuse_forbidden(scorer.http.url, field=f"{field}.url`", whose="the scorer's")
        bundle = _authorities(scorer.http.caBundleRef, text=record.contents.get(scorer_contents(scorer.name)))
        if bundle is not None:
            authorities[scorer.name] = bundle
        if scorer.http.apiKeyRef is not None:
            key = _from_secret(
                scorer.http.apiKeyRef, variable=scorer_key_variable(position), field=f"{field}.apiKeyRef`", environment=environment
            )
            authorizations[scorer.name] = f"Bearer {_carried(key, reference=scorer.http.apiKeyRef, field=f'{field}.apiKeyRef`')}"
    about = {"policy": record.policy, "revision": record.revision, "prompt_version": record.promptVersion}
    return compile_quality(record.quality, authorizations=authorizations, authorities=authorities, about=about)


def _feedback(record: RevisionRecord, *, environment: Mapping[str, str]) -> FeedbackKeys | None:
    if record.feedback is None:
        return None
    reference, field = record.feedback.keyRef, "`spec.feedback.keyRef`"
    text = _from_secret(reference, variable=FEEDBACK_KEY_VARIABLE, field=field, environment=environment)
    try:
        return FeedbackKeys(text, scope=f"{record.namespace}/{record.policy}", longest=float(record.feedback.maxAgeSeconds))
    except ValueError as error:
        raise ConfigurationError(f"{field}: Secret `{reference.name}`, `{reference.key}`: {error}") from None


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _parameters(parameters: ModelParameters) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    if parameters.temperature is not None:
        members["temperature"] = str(Decimal(parameters.temperature)).encode()
    if parameters.topP is not None:
        members["top_p"] = str(Decimal(parameters.topP)).encode()
    if parameters.maxTokens is not None:
        members["max_tokens"] = str(parameters.maxTokens).encode()
    if parameters.seed is not None:
        members["seed"] = str(parameters.seed).encode()
    if parameters.stop is not None:
        members["stop"] = b"[" + b",".join(quoted(text) for text in parameters.stop) + b"]"
    return members
