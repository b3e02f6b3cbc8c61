"""How answers are judged after they were sent: how many, and by which scorers. Knows settings and their digest; judges nothing."""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field
from pydantic.config import JsonDict

from .answerschema import LONGEST_SCHEMA, AnswerSchemaError, compile_schema
from .model import SPACE, ApiModel, Rule
from .promptversion import Name
from .refs import ConfigMapKeyRef, SecretKeyRef
from .residency import Jurisdiction

_LIST_MAP_BY_NAME: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class ScorerType(StrEnum):
    """What a scorer looks for; docs/concepts/quality.md says how."""

    LEXICAL = "Lexical"
    NUMBERS_AND_LINKS = "NumbersAndLinks"
    CONFIDENCE = "Confidence"
    REFUSAL = "Refusal"
    REPETITION = "Repetition"
    TRUNCATION = "Truncation"
    JSON = "JSON"
    JSON_SCHEMA = "JSONSchema"
    PATTERNS = "Patterns"
    HTTP = "HTTP"


# Scorers with a score between 0 and 100 to be below of, and what fails where nothing is said.
FAIL_BELOW: Final = {
    ScorerType.LEXICAL: 40,
    ScorerType.NUMBERS_AND_LINKS: 100,
    ScorerType.CONFIDENCE: 50,
    ScorerType.REPETITION: 50,
    ScorerType.HTTP: 50,
}
_SCORED_CEL: Final = "[" + ", ".join(f"'{kind}'" for kind in FAIL_BELOW) + "]"
# Those that hold an answer against what it was asked with.
_GROUNDING: Final = frozenset({ScorerType.LEXICAL, ScorerType.NUMBERS_AND_LINKS})


class PersonalKind(StrEnum):
    """What is personal, and can be told by its form."""

    EMAIL = "Email"
    PHONE_NUMBER = "PhoneNumber"
    CARD_NUMBER = "CardNumber"
    IBAN = "IBAN"


class Patterns(ApiModel):
    """What an answer must not hold."""

    personal: list[PersonalKind] = Field(
        default_factory=list,
        max_length=4,
        description="Personal data, told by its form: `Email`, `PhoneNumber`, `CardNumber`, `IBAN`. What stands in the request is none.",
    )
    terms: list[Annotated[str, Field(max_length=128, pattern=r"[\p{L}\p{N}]")]] = Field(
        default_factory=list,
        max_length=256,
        description="Words, or several that follow one another, whatever their case and punctuation.",
    )
    rules = (
        Rule(
            cel="(has(self.personal) && self.personal.size() > 0) || (has(self.terms) && self.terms.size() > 0)",
            message="`spec.quality.scorers`: `patterns` must have `personal` or `terms`; set one",
            holds=lambda p: bool(p.personal or p.terms),
        ),
    )


class SchemaScope(StrEnum):
    """Which answers are held against a schema."""

    JSON_REQUESTS = "JSONRequests"
    ALL_REQUESTS = "AllRequests"


class AnswerSchema(ApiModel):
    """What shape an answer must have."""

    definition: str = Field(
        min_length=2,
        max_length=LONGEST_SCHEMA,
        description="A JSON Schema, as JSON (draft 2020-12 where it has no `$schema`; 2019-09 and 7 too). It refers to nothing but itself.",
    )
    appliesTo: SchemaScope = Field(
        SchemaScope.JSON_REQUESTS,
        description="Which answers are judged. `JSONRequests`: those that were asked for as JSON, by `response_format`. `AllRequests`: "
        "all, for a prompt that asks for JSON in its own words.",
    )


class HTTPScorer(ApiModel):
    """A scorer behind an address; docs/how-to/write-a-scorer.md says what it is asked, and what it answers."""

    url: Annotated[str, Field(max_length=2048, pattern=rf"^https?://[^/?#{SPACE}@]+(/[^#{SPACE}]*)?$")] = Field(
        description="Where answers are sent to, with the messages that they answer, such as `http://judge.models:8000/score`."
    )
    timeoutMilliseconds: int = Field(
        5000, ge=10, le=60_000, description="How long it may take for an answer. What is late, or fails, is no verdict."
    )
    apiKeyRef: SecretKeyRef | None = Field(None, description="The key sent as bearer token. Unset: none is sent.")
    jurisdiction: Jurisdiction | None = Field(
        None, description="Where it runs, such as `EU`, for `spec.residency`: answers to requests that may not go there are not sent to it."
    )
    caBundleRef: ConfigMapKeyRef | None = Field(
        None,
        description="With `https://`: the certificates of the authorities that alone may vouch for it, as PEM. Its content is part of the "
        "revision. Unset: those of the image.",
    )
    rules = (
        Rule(
            cel="!has(self.caBundleRef) || self.url.startsWith('https:')",
            message="`spec.quality.scorers`: `http.caBundleRef` is for a `url` that begins with `https://`",
            holds=lambda s: s.caBundleRef is None or s.url.startswith("https:"),
        ),
    )


class Scorer(ApiModel):
    """One scorer. Each says of an answer that it passes or fails, or that it cannot tell (`skip`)."""

    name: Name = Field(description="Name of the scorer, said in metrics.")
    type: ScorerType = Field(
        description="`Lexical` (words of the answer that stand in the request), `NumbersAndLinks` (figures and links that do), "
        "`Confidence` (the model's own, of answers with `logprobs`), `Refusal`, `Repetition`, `Truncation`, `JSON` (of answers that were "
        "asked for as such), `JSONSchema` (of a shape), `Patterns` (what must not be in an answer), `HTTP` (a scorer of your own, such as "
        "a model).",
    )
    failBelowPercent: int | None = Field(
        None,
        ge=1,
        le=100,
        description="The score, from 0 to 100, below which an answer fails. Unset: `Lexical` 40, `NumbersAndLinks` 100, `Confidence`, "
        "`Repetition` and `HTTP` 50. The other types have none.",
    )
    patterns: Patterns | None = Field(None, description="For `Patterns`: what an answer must not hold.")
    jsonSchema: AnswerSchema | None = Field(None, description="For `JSONSchema`: what shape an answer must have.")
    http: HTTPScorer | None = Field(None, description="For `HTTP`: where the scorer is.")
    grounding: bool | None = Field(
        None,
        description="For `HTTP`: whether it says if an answer is grounded in its request, and so counts for `HallucinationRate`. Unset: it "
        "does. `Lexical` and `NumbersAndLinks` always do, and the other types never.",
    )
    rules = (
        Rule(
            cel="has(self.patterns) == (self.type == 'Patterns') && has(self.jsonSchema) == (self.type == 'JSONSchema')"
            " && has(self.http) == (self.type == 'HTTP')",
            message="`spec.quality.scorers`: `Patterns` takes `patterns`, `JSONSchema` takes `jsonSchema`, `HTTP` takes `http`, and no "
            "other type takes these",
            holds=lambda s: (
                (s.patterns is not None) == (s.type is ScorerType.PATTERNS)
                and (s.jsonSchema is not None) == (s.type is ScorerType.JSON_SCHEMA)
                and (s.http is not None) == (s.type is ScorerType.HTTP)
            ),
        ),
        Rule(
            cel=f"!has(self.failBelowPercent) || self.type in {_SCORED_CEL}",
            message="`spec.quality.scorers`: `Refusal`, `Truncation`, `JSON`, `JSONSchema` and `Patterns` have no score; take "
            "`failBelowPercent` out",
            holds=lambda s: s.failBelowPercent is None or s.type in FAIL_BELOW,
        ),
        Rule(
            cel="!has(self.grounding) || self.type == 'HTTP'",
            message="`spec.quality.scorers`: `grounding` is for `HTTP`; the other types say by themselves what they judge",
            holds=lambda s: s.grounding is None or s.type is ScorerType.HTTP,
        ),
    )

    @property
    def fail_below(self) -> float:
        """The share, from 0 to 1, below which an answer fails; of the types that have none, 1."""
        return (self.failBelowPercent or FAIL_BELOW.get(self.type, 100)) / 100

    @property
    def is_grounding(self) -> bool:
        """Whether its verdicts count for `HallucinationRate`."""
        return self.type in _GROUNDING or (self.type is ScorerType.HTTP and self.grounding is not False)


class Quality(ApiModel):
    """Which answers are judged, and by what. It is part of the revision: other scorers are another revision."""

    samplePercent: int = Field(
        10,
        ge=1,
        le=100,
        description="Of a hundred answers that a model gave, how many are judged, drawn by chance. What a cache or a fixed answer gave is "
        "never judged.",
    )
    scorers: list[Scorer] = Field(
        min_length=1, max_length=8, description="What judges them, after they were sent.", json_schema_extra=_LIST_MAP_BY_NAME
    )


def check_answer_schemas(quality: Quality | None) -> None:
    """Raise AnswerSchemaError, whose text names the field, for the first schema that cannot be used: to the API server it is a string."""
    for position, scorer in enumerate(quality.scorers if quality else ()):
        if scorer.jsonSchema is not None:
            try:
                compile_schema(scorer.jsonSchema.definition)
            except AnswerSchemaError as error:
                field = f"`spec.quality.scorers[{position}].jsonSchema.definition`"
                raise AnswerSchemaError(f"{field} cannot be used: {error}") from None


def grounding_digest(quality: Quality | None) -> str:
    """Eight digits that tell by which scorers `HallucinationRate` is judged, settings included; empty where there are none.

    Counts of other scorers, such as those of a revision that was made before they were edited, are never taken for these.
    """
    scorers = [] if quality is None else [s for s in quality.scorers if s.is_grounding]
    if not scorers:
        return ""
    told = [
        {
            "type": s.type.value,
            "failBelow": s.fail_below,
            # Not how long it may take, nor by which key it is asked: neither makes a verdict another one.
            **({"url": s.http.url} if s.http else {}),
        }
        for s in sorted(scorers, key=lambda s: s.name)
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
