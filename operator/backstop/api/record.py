"""The revision record: everything one revision's gateways run on, and the hash that names the revision.

Written once into an immutable ConfigMap and never rendered again. The hash covers what the author declared, with defaults
left out, under a scheme version: an operator upgrade that adds a defaulted field keeps every hash.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple, assert_never

from pydantic import AfterValidator, Field

from .access import Access
from .authorities import AuthoritiesError, read_authorities
from .fallbackpolicy import FallbackPolicySpec, Tier
from .feedback import Feedback
from .knowledge import KnowledgeError, read_knowledge_base
from .metricnames import latency_bounds
from .model import ApiModel
from .names import (
    FEEDBACK_KEY_VARIABLE,
    api_key_variable,
    header_variable,
    redis_address_variable,
    scorer_key_variable,
    webhook_secret_variable,
)
from .promptversion import PromptVersionSpec
from .quality import Quality
from .refs import ConfigMapKeyRef, SecretKeyRef
from .residency import Residency
from .ruleset import RulesError, read_rules
from .spend import Spend
from .stream import Stream
from .workload import Workload

SCHEME: Final = 1
HASH_LENGTH: Final = 10
# What a record's `contents` call the authorities of a collector of traces; no tier has such a name.
TRACES_CONTENTS: Final = "serving/traces"
# What of a policy decides on answers, or on who gets them.
_DECIDING: Final = {"chain", "latencyBudgetMilliseconds", "serving", "access", "residency", "quality", "feedback", "stream", "spend"}


def _rising(bounds: list[float]) -> list[float]:
    """What is not above its predecessor would be counted in the wrong bucket. Raises ValueError."""
    if not all(low < high < math.inf for low, high in itertools.pairwise((0.0, *bounds))):
        raise ValueError("must be finite, above 0 and rising, each above the one before")
    return bounds


class RevisionRecord(ApiModel):
    """The gateway's whole configuration, as in `/etc/backstop/revision.json`."""

    scheme: int = Field(SCHEME, ge=1, le=SCHEME, description="Version of this format.")
    namespace: str = Field(max_length=63, description="Namespace of the policy.")
    policy: str = Field(max_length=63, description="Name of the policy.")
    revision: str = Field(max_length=63, description="Hash that names the revision.")
    promptVersion: str = Field(max_length=253, description="Name of the PromptVersion.")
    promptDigest: str = Field(max_length=80, description="Digest of the PromptVersion.")
    prompt: PromptVersionSpec = Field(description="The PromptVersion's spec.")
    latencyBudgetMilliseconds: int = Field(ge=1, description="Time to the first byte of some answer.")
    chain: list[Tier] = Field(min_length=1, description="Who answers, in order.")
    latencyBounds: Annotated[list[float], AfterValidator(_rising)] = Field(
        min_length=1, description="Bucket bounds of latency histograms, in seconds, rising."
    )
    contents: dict[str, str] = Field(
        default_factory=dict,
        description="By tier, by `scorers/` and a scorer, or `serving/traces`: the text of the ConfigMap's key that it refers to.",
    )
    access: Access | None = Field(None, description="Who may call, and who shares kept answers with whom.")
    residency: Residency | None = Field(None, description="Where requests may be processed.")
    stream: Stream | None = Field(None, description="What becomes of streams that break off.")
    spend: Spend | None = Field(None, description="How many tokens models may take in a period.")
    quality: Quality | None = Field(None, description="Which answers are judged, and by what.")
    feedback: Feedback | None = Field(None, description="How callers say what they thought of an answer.")


class ContentKind(StrEnum):
    """What stands in a key of a ConfigMap, as messages call it."""

    KNOWLEDGE_BASE = "a knowledge base"
    RULES = "rules"
    CA_BUNDLE = "a CA bundle"


class ContentError(ValueError):
    """The text is not of its kind; the text is one sentence for its author, without a full stop."""


class Reference(NamedTuple):
    """What a part of a policy refers to. `path`: the field that says so."""

    path: str
    key: ConfigMapKeyRef
    kind: ContentKind


def references_of(policy: FallbackPolicySpec) -> dict[str, Reference]:
    """What the policy refers to: by tier, each of which refers to one thing at most, by scorer, as `scorer_contents` calls it, and as
    TRACES_CONTENTS.
    """
    found: dict[str, Reference] = {}
    for position, tier in enumerate(policy.chain):
        for path, key, kind in _references_of_tier(tier):
            if key is not None:
                found[tier.name] = Reference(f"spec.chain[{position}].{path}", key, kind)
    for position, scorer in enumerate(policy.quality.scorers if policy.quality else ()):
        if scorer.http is not None and scorer.http.caBundleRef is not None:
            path = f"spec.quality.scorers[{position}].http.caBundleRef"
            found[scorer_contents(scorer.name)] = Reference(path, scorer.http.caBundleRef, ContentKind.CA_BUNDLE)
    if policy.serving.traces is not None:
        found[TRACES_CONTENTS] = Reference("spec.serving.traces.caBundleRef", policy.serving.traces.caBundleRef, ContentKind.CA_BUNDLE)
    return found


def _references_of_tier(tier: Tier) -> Iterator[tuple[str, ConfigMapKeyRef | None, ContentKind]]:
    if tier.static is not None:
        yield "static.knowledgeBaseRef", tier.static.knowledgeBaseRef, ContentKind.KNOWLEDGE_BASE
    if tier.ruleEngine is not None:
        yield "ruleEngine.rulesRef", tier.ruleEngine.rulesRef, ContentKind.RULES
    if tier.model is not None:
        yield "model.caBundleRef", tier.model.caBundleRef, ContentKind.CA_BUNDLE
    if tier.cache is not None and tier.cache.warm is not None:
        yield "cache.warm.redis.caBundleRef", tier.cache.warm.redis.caBundleRef, ContentKind.CA_BUNDLE
    if tier.human is not None:
        yield "human.webhook.caBundleRef", tier.human.webhook.caBundleRef, ContentKind.CA_BUNDLE


def scorer_contents(scorer: str) -> str:
    """What a record's `contents` call that of a scorer; no tier has such a name."""
    return f"scorers/{scorer}"


def check_content(text: str, *, kind: ContentKind) -> None:
    """Raise ContentError unless `text` can serve as what it is referred to as. It may take half a second."""
    try:
        match kind:
            case ContentKind.KNOWLEDGE_BASE:
                read_knowledge_base(text)
            case ContentKind.RULES:
                read_rules(text)
            case ContentKind.CA_BUNDLE:
                read_authorities(text)
            case _:
                assert_never(kind)
    except (KnowledgeError, RulesError, AuthoritiesError) as error:
        raise ContentError(str(error)) from None


def secrets_of(chain: Sequence[Tier]) -> dict[str, SecretKeyRef]:
    """Which keys of Secrets the gateways of a chain are given, by environment variable."""
    found: dict[str, SecretKeyRef | None] = {}
    for position, tier in enumerate(chain):
        if tier.model is not None:
            found[api_key_variable(position)] = tier.model.apiKeyRef
            found |= {header_variable(position, header=index): h.secretRef for index, h in enumerate(tier.model.headersFrom)}
        if tier.cache is not None and tier.cache.warm is not None:
            found[redis_address_variable(position)] = tier.cache.warm.redis.addressRef
        if tier.human is not None:
            found[webhook_secret_variable(position)] = tier.human.webhook.secretRef
    return {variable: reference for variable, reference in found.items() if reference is not None}


def secrets_of_record(record: RevisionRecord) -> dict[str, SecretKeyRef]:
    """The same of everything that a revision's gateways run on."""
    scorers = record.quality.scorers if record.quality else []
    keys = {scorer_key_variable(position): s.http.apiKeyRef for position, s in enumerate(scorers) if s.http and s.http.apiKeyRef}
    return secrets_of(record.chain) | keys | ({FEEDBACK_KEY_VARIABLE: record.feedback.keyRef} if record.feedback else {})


class WorkloadRecord(ApiModel):
    """What is recorded of a revision that is a workload of its author's own; its pod template beside it is all that runs."""

    scheme: int = Field(SCHEME, ge=1, le=SCHEME, description="Version of this format.")
    namespace: str = Field(max_length=63, description="Namespace of the policy.")
    policy: str = Field(max_length=63, description="Name of the policy.")
    revision: str = Field(max_length=63, description="Hash that names the revision.")
    promptVersion: str = Field(max_length=253, description="What the revision is called in messages: its image, without the registry.")
    promptDigest: str = Field(max_length=80, description="Empty: no PromptVersion is part of it.")
    workload: Workload = Field(description="The container, as declared.")


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def prompt_digest(spec: PromptVersionSpec) -> str:
    """`sha256:…` of the canonical spec, defaults left out."""
    return "sha256:" + hashlib.sha256(canonical(spec.model_dump(mode="json", exclude_defaults=True))).hexdigest()


def content_digest(text: str) -> str:
    """`sha256:…` of what stands in a ConfigMap's key."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def revision_hash(
    policy: FallbackPolicySpec, *, prompt: PromptVersionSpec | None, refresh: str = "", digests: Mapping[str, str] | None = None
) -> str:
    """The revision's name: a hash of prompt, chain, budget and serving; of nothing that can change without changing an answer.

    `prompt`: None for a workload of its author's own. `refresh`: what a person asked the same spec to be made anew with; empty:
    nothing. `digests`: of what it refers to, called as `references_of` does; they count in place of the references, so that the same
    content under another name is the same revision.
    """
    declared = policy.model_dump(mode="json", exclude_defaults=True, include=_DECIDING)
    serving = declared.get("serving", {})
    serving.pop("replicas", None)
    serving.pop("autoscaling", None)
    serving.pop("traces", None)  # nothing but a reference
    if not serving.get("podTemplate"):
        serving.pop("podTemplate", None)
    if not serving:
        declared.pop("serving", None)
    declared["scheme"] = SCHEME
    if prompt is not None:
        declared["prompt"] = prompt.model_dump(mode="json", exclude_defaults=True)
    for tier in declared.get("chain", ()):
        tier.pop("price", None)
    for refers, field in _referring(declared):
        refers.pop(field, None)
    if digests:
        declared["contents"] = dict(digests)
    if refresh:
        declared["refresh"] = refresh
    return hashlib.sha256(canonical(declared)).hexdigest()[:HASH_LENGTH]


def _referring(declared: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a spec that refer to a ConfigMap, and by which field."""
    for tier in declared.get("chain", ()):
        yield tier.get("static", {}), "knowledgeBaseRef"
        yield tier.get("ruleEngine", {}), "rulesRef"
        yield tier.get("model", {}), "caBundleRef"
        yield tier.get("cache", {}).get("warm", {}).get("redis", {}), "caBundleRef"
        yield tier.get("human", {}).get("webhook", {}), "caBundleRef"
    for scorer in declared.get("quality", {}).get("scorers", ()):
        yield scorer.get("http", {}), "caBundleRef"


def build_record(
    *,
    namespace: str,
    name: str,
    policy: FallbackPolicySpec,
    prompt: PromptVersionSpec,
    refresh: str = "",
    contents: Mapping[str, str] | None = None,
) -> RevisionRecord:
    """The record of the revision that `policy` with `prompt` asks for. `contents`: the texts of what it refers to, called as
    `references_of` does.
    """
    texts = dict(contents or {})
    digests = {name: content_digest(text) for name, text in texts.items()}
    assert policy.promptVersion is not None
    assert policy.latencyBudgetMilliseconds is not None
    limits = [slo.maxMilliseconds / 1000 for slo in policy.slos if slo.maxMilliseconds is not None]
    return RevisionRecord(
        namespace=namespace,
        policy=name,
        revision=revision_hash(policy, prompt=prompt, refresh=refresh, digests=digests),
        promptVersion=policy.promptVersion,
        promptDigest=prompt_digest(prompt),
        prompt=prompt,
        latencyBudgetMilliseconds=policy.latencyBudgetMilliseconds,
        chain=[tier.model_copy(update={"price": None}) for tier in policy.chain],
        latencyBounds=list(latency_bounds(limits)),
        contents=texts,
        access=policy.access,
        residency=policy.residency,
        stream=policy.stream,
        spend=policy.spend,
        quality=policy.quality,
        feedback=policy.feedback,
    )


def build_workload_record(*, namespace: str, name: str, policy: FallbackPolicySpec, refresh: str = "") -> WorkloadRecord:
    """The record of the revision that `policy` asks for. `policy.serving.workload` must be set."""
    assert policy.serving.workload is not None
    return WorkloadRecord(
        namespace=namespace,
        policy=name,
        revision=revision_hash(policy, prompt=None, refresh=refresh),
        promptVersion=short_image(policy.serving.workload.image),
        promptDigest="",
        workload=policy.serving.workload,
    )


def short_image(image: str) -> str:
    """What an image is called: without registry and folders, and with the first twelve digits of a digest."""
    name, _, digest = image.rsplit("/", 1)[-1].partition("@")
    algorithm, _, digits = digest.partition(":")
    return (f"{name}@{algorithm}:{digits[:12]}" if digest else name)[:253]
