"""PromptVersion: one immutable version of a prompt. Shapes and rules only; `template` knows what a template is."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .condition import Condition
from .model import ApiModel, Rule, StatusModel

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class Role(StrEnum):
    """Who speaks in a message, as in the OpenAI chat API."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"


class Placeholder(StrEnum):
    """What can be inserted whole among the messages."""

    HISTORY = "history"


class Message(ApiModel):
    """A templated message, or the place where the caller's messages go."""

    role: Role | None = Field(None, description="Who speaks: `system`, `developer`, `user` or `assistant`. Set together with `content`.")
    content: str | None = Field(
        None,
        max_length=262144,
        description="Text of the message. `{{name}}` is replaced by the value of the declared variable "
        "`name`; `template.engine` says what else there is.",
    )
    placeholder: Placeholder | None = Field(
        None, description="`history`: the caller's messages go here. At most one; without any, the caller's messages follow at the end."
    )
    rules = (
        Rule(
            cel="has(self.placeholder) ? !has(self.role) && !has(self.content) : has(self.role) && has(self.content)",
            message="`spec.messages`: a message has either `placeholder`, or `role` and `content`",
            holds=lambda m: (m.role is None and m.content is None) if m.placeholder else (m.role is not None and m.content is not None),
        ),
    )


class VariableType(StrEnum):
    """Types a variable's value is checked against."""

    STRING = "String"
    INTEGER = "Integer"
    NUMBER = "Number"
    BOOLEAN = "Boolean"


class Variable(ApiModel):
    """A value that the caller gives (in `metadata` or an `x-backstop-var-*` header) and the template uses."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]*$")] = Field(
        description="Name used in the template: lower-case letters, digits and underscores."
    )
    type: VariableType = Field(VariableType.STRING, description="`String`, `Integer`, `Number` or `Boolean`.")
    required: bool = Field(True, description="Whether a request without this variable is refused (400). Ignored when `default` is set.")
    default: str | None = Field(None, max_length=4096, description="Value used when the caller gives none, written as a string.")
    maxLength: int = Field(4096, ge=1, le=262144, description="Longest accepted value, in characters.")
    enum: list[Annotated[str, Field(max_length=256)]] | None = Field(
        None, min_length=1, max_length=64, description="The accepted values. Unset: any value of the type."
    )
    description: str | None = Field(None, max_length=1024, description="What the variable means, for people.")
    rules = (
        Rule(
            cel="!has(self.enum) || !has(self.default) || self.default in self.enum",
            message="`spec.variables`: `default` is one of `enum`",
            holds=lambda v: v.enum is None or v.default is None or v.default in v.enum,
        ),
    )


class ModelParameters(ApiModel):
    """Sampling parameters, sent upstream as they are; the caller's values for the same fields give way."""

    temperature: Annotated[str, Field(max_length=16, pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = Field(
        None, description='`temperature`, a decimal as a string, such as "0.2".'
    )
    topP: Annotated[str, Field(max_length=16, pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = Field(
        None, description='`top_p`, a decimal as a string, such as "0.95".'
    )
    maxTokens: int | None = Field(None, ge=1, le=10_000_000, description="`max_tokens`: the longest answer, in tokens.")
    seed: int | None = Field(None, ge=-(2**53), le=2**53, description="`seed` for repeatable sampling, where the model offers it.")
    stop: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        None, min_length=1, max_length=4, description="`stop`: sequences that end the answer."
    )


class ModelSettings(ApiModel):
    """What the prompt asks of the model."""

    name: str | None = Field(
        None, min_length=1, max_length=253, description="Model name sent to the first tier. Unset: the tier's own `model.name`."
    )
    parameters: ModelParameters | None = Field(None, description="Sampling parameters, sent to every model tier.")


class TemplateEngine(StrEnum):
    """The language of templates."""

    MUSTACHE = "Mustache"
    JINJA2 = "Jinja2"


class TemplateSettings(ApiModel):
    """How the messages' templates are read."""

    engine: TemplateEngine = Field(
        TemplateEngine.MUSTACHE,
        description="`Mustache`: `{{name}}` alone. `Jinja2`: also `if`, comparisons and some filters, in a sandbox "
        "(docs/how-to/prompt-templates.md).",
    )


class PromptVersionSpec(ApiModel):
    """What a prompt says. Immutable as a whole: a change is a new PromptVersion."""

    prompt: Name = Field(description="Logical name of the prompt, shared by its versions.")
    version: Annotated[str, Field(min_length=5, max_length=64, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$")] = Field(
        description="SemVer of this version, such as `1.4.0`."
    )
    messages: list[Message] = Field(min_length=1, max_length=64, description="The messages, in order, around the caller's.")
    variables: list[Variable] = Field(
        default_factory=list,
        max_length=64,
        description="Variables of the template. Each is used, and each that is used is declared.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    model: ModelSettings | None = Field(None, description="Model name and parameters that belong to this prompt.")
    template: TemplateSettings = Field(default=TemplateSettings(), description="How the messages' templates are read.")
    rules = (
        Rule(
            cel="self.messages.filter(m, has(m.placeholder)).size() <= 1",
            message="`spec.messages`: at most one message is a `placeholder`",
            holds=lambda s: sum(m.placeholder is not None for m in s.messages) <= 1,
        ),
        Rule(
            cel="self == oldSelf",
            message="`spec` is immutable: create a new PromptVersion instead",
            holds=lambda s: True,  # a transition rule: there is no old object in a manifest
        ),
    )


class PromptRejection(StatusModel):
    """That a policy rolled this version back."""

    policy: str = Field(max_length=63, description="The policy that rolled it back.")
    revision: str = Field(max_length=63, description="The policy's revision that carried this prompt.")
    at: str = Field(max_length=40, description="When, RFC 3339.")
    reason: str = Field(max_length=128, description="Why, in one word.")
    message: str = Field(max_length=2048, description="The evidence: metric, value, limit, counts.")


class PromptRole(StrEnum):
    """What a version is to a policy."""

    WANTED = "Wanted"
    STABLE = "Stable"
    CANARY = "Canary"
    PREVIOUS = "Previous"


class PromptUse(StatusModel):
    """That a policy uses this version."""

    policy: str = Field(max_length=63, description="The policy.")
    role: str = Field(
        max_length=16,
        description="`Wanted`: its spec names it. `Stable`, `Canary`, `Previous`: a revision with this text is what the policy calls so.",
    )


class PromptVersionStatus(StatusModel):
    """What the operator knows of a version."""

    observedGeneration: int | None = Field(None, description="Generation of the spec that this status speaks of.")
    digest: str | None = Field(None, max_length=80, description="sha256 of the canonical spec.")
    rejections: list[PromptRejection] = Field(
        default_factory=list, max_length=20, description="Policies that rolled this version back, newest last."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=8,
        description="`Accepted`: the template compiles, its variables are declared, and no older object holds another text under the "
        "same `prompt` and `version`. `Rejected`: a policy rolled it back. `Stalled` only while it is not accepted.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    usedBy: list[PromptUse] = Field(
        default_factory=list,
        max_length=32,
        description="Policies that use it, by name; the first 32.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["policy", "role"]},
    )
    users: int = Field(0, description="How many policies use it.")
