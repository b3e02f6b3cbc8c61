"""Which revision a policy's spec asks for, or in one sentence why that cannot be told. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from ..api.answerschema import AnswerSchemaError
from ..api.fallbackpolicy import FallbackPolicySpec
from ..api.problems import InputError, UnknownFieldError, parse_strictly
from ..api.promptversion import PromptVersionSpec
from ..api.quality import check_answer_schemas
from ..api.reasons import Reason
from ..api.record import ContentKind, Reference, prompt_digest, references_of, revision_hash, short_image
from ..api.template import compile_prompt
from ..api.templateerror import TemplateError
from ..rollout.observed import Known, Unresolved
from ..rollout.place import Revision
from .contents import Bad, Content, Found, MapKey, NoKey, NoMap, Unread
from .references import MapName
from .seen import Declared

# The least that is valid, of which nothing is ever made.
NO_CHAIN: Final = {
    "promptVersion": "unknown",
    "latencyBudgetMilliseconds": 1,
    "chain": [{"name": "unknown", "static": {"default": "unknown"}}],
}
NO_WORKLOAD: Final = {"image": "unknown", "port": 1}


MOST_NAMED: Final = 4
# What a policy says of content that cannot be used.
INVALID: Final = {
    ContentKind.KNOWLEDGE_BASE: Reason.KNOWLEDGE_BASE_INVALID,
    ContentKind.RULES: Reason.RULES_INVALID,
    ContentKind.CA_BUNDLE: Reason.CA_BUNDLE_INVALID,
}


@dataclass(frozen=True)
class Wish:
    """A valid spec, and what it asks for. `prompt` is set where `revision` is known and has gateways; `refresh`: what the spec was made
    anew with.

    `digests`: of what it refers to, called as `references_of` does; `texts`: the same as text, only while there is no record of the
    revision. `unread`: what it refers to could not be read, and is to be tried again.
    """

    spec: FallbackPolicySpec
    revision: Known[Revision] | Unresolved
    prompt: PromptVersionSpec | None
    refresh: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    unread: bool = False


def wish_of(
    policy: Declared,
    *,
    prompt: Declared | None,
    sources: frozenset[str],
    refresh: str = "",
    contents: Mapping[MapKey, Content] | None = None,
) -> Wish | Unresolved:
    """What the policy asks for; Unresolved where its spec is not valid.

    `sources`: names of the metric sources that are configured. `refresh`: the token with which the spec was last made anew.
    `contents`: what stands in ConfigMaps; needed for all that it refers to, where there is a prompt.
    """
    try:
        spec = parse_strictly(FallbackPolicySpec, policy.spec, prefix="spec")
    except InputError as error:
        return _unreadable(error)
    sendable, unsent = _sendable(spec)
    wish = _resolved(sendable, policy=policy, prompt=prompt, sources=sources, refresh=refresh, contents=contents or {})
    return _without_unsent(wish, unsent=unsent) if unsent else wish


def _resolved(
    spec: FallbackPolicySpec,
    *,
    policy: Declared,
    prompt: Declared | None,
    sources: frozenset[str],
    refresh: str,
    contents: Mapping[MapKey, Content],
) -> Wish:
    """What a valid spec asks for, with what it refers to."""
    if spec.slos and spec.metricsSource not in sources:
        return Wish(spec, Unresolved(Reason.METRICS_SOURCE_NOT_FOUND, source_not_found(spec.metricsSource, sources=sources)), None)
    if spec.serving.workload is not None:
        name = revision_hash(spec, prompt=None, refresh=refresh)
        return Wish(spec, Known(Revision(name, prompt_version=short_image(spec.serving.workload.image), prompt_digest="")), None, refresh)
    if prompt is None or prompt.deleting:
        message = f"`spec.promptVersion` names `{spec.promptVersion}`, which does not exist in namespace `{policy.namespace}`; create it"
        return Wish(spec, Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, message), None)
    accepted = accepted_prompt(prompt)
    if isinstance(accepted, Unresolved):
        message = f"PromptVersion `{prompt.name}` cannot be used: {accepted.message}"
        return Wish(spec, Unresolved(Reason.PROMPT_VERSION_INVALID, message), None)
    try:
        check_answer_schemas(spec.quality)
    except AnswerSchemaError as error:
        return Wish(spec, Unresolved(Reason.INVALID, str(error)), None)
    digests = _digests(spec, namespace=policy.namespace, contents=contents)
    if isinstance(digests, Wish):
        return digests
    name = revision_hash(spec, prompt=accepted, refresh=refresh, digests=digests)
    revision = Revision(name, prompt_version=prompt.name, prompt_digest=prompt_digest(accepted))
    return Wish(spec, Known(revision), accepted, refresh, digests)


def _sendable(spec: FallbackPolicySpec) -> tuple[FallbackPolicySpec, tuple[int, ...]]:
    """The spec without the probes whose requests cannot be sent, and which those are: what the API server cannot tell."""
    probes = spec.canary.probes
    unsent = tuple(index for index, probe in enumerate(probes) if not probe.can_be_sent)
    canary = spec.canary.model_copy(update={"probes": [probe for probe in probes if probe.can_be_sent]})
    return spec.model_copy(update={"canary": canary}) if unsent else spec, unsent


def _without_unsent(wish: Wish, *, unsent: tuple[int, ...]) -> Wish:
    """The wish without a revision, for want of these probes; and for whatever else it lacks."""
    names = ", ".join(f"`spec.canary.probes[{index}].request`" for index in unsent[:MOST_NAMED])
    names += f" and {len(unsent) - MOST_NAMED} more" if len(unsent) > MOST_NAMED else ""
    correct = "correct it" if len(unsent) == 1 else "correct them"
    message = f"{names} must be a JSON object with a list `messages`; {correct}"
    if isinstance(wish.revision, Unresolved):
        message += f"; besides, {wish.revision.message}"
    return replace(wish, revision=Unresolved(Reason.INVALID, message), prompt=None)


def source_not_found(name: str, *, sources: frozenset[str]) -> str:
    """That no metric source of this name is configured, what is, and what to do about it."""
    known = ", ".join(sorted(sources)) or "none"
    return (
        f"`spec.metricsSource` names `{name}`, which the operator's `metrics.sources` do not have (they have: {known}); "
        "correct the name, or add the source to them"
    )


def _digests(spec: FallbackPolicySpec, *, namespace: str, contents: Mapping[MapKey, Content]) -> dict[str, str] | Wish:
    """By tier, of what it refers to; a wish without a revision for the first that is not there or cannot be used."""
    digests: dict[str, str] = {}
    for tier, reference in references_of(spec).items():
        content = contents[MapKey(MapName(namespace, reference.key.name), reference.key.key, reference.kind)]
        if not isinstance(content, Found):
            return without_content(spec, reference=reference, content=content, namespace=namespace)
        digests[tier] = content.digest
    return digests


def without_content(spec: FallbackPolicySpec, *, reference: Reference, content: NoMap | NoKey | Bad | Unread, namespace: str) -> Wish:
    """What is wished for, where it cannot be told for want of what it refers to."""
    path, (name, key) = reference.path, (reference.key.name, reference.key.key)
    reason = Reason.CONFIG_MAP_NOT_FOUND
    named = f"`{path}` names the ConfigMap `{name}`"
    match content:
        case NoMap():
            message = f"{named}, which does not exist in namespace `{namespace}`; create it"
        case NoKey():
            message = f"`{path}` names the key `{key}`, which ConfigMap `{name}` has no text under; correct one of them"
        case Unread(why):
            message = f"{named}, which cannot be read ({why}); it is tried again"
        case Bad(why):
            reason = INVALID[reference.kind]
            message = f"ConfigMap `{name}`, `{key}`, cannot be used as {reference.kind}: {why}"
        case never:
            assert_never(never)
    return Wish(spec, Unresolved(reason, message), None, unread=isinstance(content, Unread))


def without_spec(policy: Declared, *, why: Unresolved) -> Wish:
    """What stands for a spec that cannot be read while its policy is deleted: it says which kind of route there is, and nothing else."""
    serving = policy.spec.get("serving")
    own = isinstance(serving, Mapping) and serving.get("workload") is not None
    spec = {"serving": {"workload": NO_WORKLOAD}} if own else NO_CHAIN
    return Wish(FallbackPolicySpec.model_validate(spec), why, None)


def unambiguous(wish: Wish, *, conflict: Unresolved | None, stable: str | None) -> Wish:
    """The wish, unless its prompt version conflicts with an older one. `stable`: the revision that serves, which is none to be begun."""
    if conflict is None or not isinstance(wish.revision, Known) or wish.revision.value.name == stable:
        return wish
    message = f"PromptVersion `{wish.spec.promptVersion}` cannot be used: {conflict.message}"
    return replace(wish, revision=Unresolved(conflict.reason, message), prompt=None)


def conflict_of(prompt: Declared, *, older: Iterable[Declared]) -> Unresolved | None:
    """Why this prompt version is not the one that its `prompt` and `version` name: the oldest that can be used is.

    `older`: those of the same prompt and version that were there before it, oldest first.
    """
    first = next(((other, spec) for other in older if not isinstance(spec := accepted_prompt(other), Unresolved)), None)
    if first is None:
        return None
    mine = accepted_prompt(prompt)
    if isinstance(mine, Unresolved) or prompt_digest(first[1]) == prompt_digest(mine):
        return None
    message = (
        f"version {mine.version} of prompt `{mine.prompt}` is PromptVersion `{first[0].name}`, which says something else; "
        "create this one anew with another `spec.version`"
    )
    return Unresolved(Reason.VERSION_CONFLICT, message)


def _unreadable(error: InputError) -> Unresolved:
    """Why a spec that the API server has taken is not valid here."""
    if not isinstance(error, UnknownFieldError):
        return Unresolved(Reason.INVALID, str(error))
    message = f"`{error.path}` is not known to this operator, which is older than the definition that has it"
    return Unresolved(Reason.INVALID, f"{message}; upgrade the operator, or take the field out")


def accepted_prompt(prompt: Declared) -> PromptVersionSpec | Unresolved:
    """The prompt version's spec; Unresolved where it is not valid or does not compile."""
    try:
        spec = parse_strictly(PromptVersionSpec, prompt.spec, prefix="spec")
    except InputError as error:
        return _unreadable(error)
    try:
        compile_prompt(spec)
    except TemplateError as error:
        return Unresolved(Reason.TEMPLATE_INVALID, str(error))
    return spec
