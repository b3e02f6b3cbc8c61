"""The scorers of a revision, ready to judge: declared settings → functions over what was written. PURE.

A scorer of the policy's own runs elsewhere; its settings are here, its calls in `remote`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from ...api.answerschema import compile_schema
from ...api.quality import Quality, SchemaScope, Scorer, ScorerType, grounding_digest
from .grounds import Grounds
from .patterns import PatternScorer
from .remote import RemoteSettings
from .scorers import confidence, follows_schema, is_json, lexical, numbers_and_links, refusal, repetition, truncation
from .verdict import Verdict
from .written import Written

Judge = Callable[[Written, Grounds | None], Verdict]


@dataclass(frozen=True)
class BuiltIn:
    """A scorer that is a function."""

    name: str
    judge: Judge
    grounding: bool


@dataclass(frozen=True)
class Remote:
    """One that is asked."""

    name: str
    settings: RemoteSettings
    grounding: bool


@dataclass(frozen=True)
class QualitySettings:
    """Of `share` (0 to 1) of the answers, what judges them. `digest`: names the grounding ones, as the analysis does; empty: none is."""

    share: float
    scorers: tuple[BuiltIn | Remote, ...]
    digest: str


def compile_quality(
    quality: Quality, *, authorizations: Mapping[str, str], authorities: Mapping[str, str], about: Mapping[str, str]
) -> QualitySettings:
    """By scorer, `authorizations`: the header that it is asked with; `authorities`: PEM of those that may vouch for it. `about`: what
    a scorer is told of the revision.
    """
    return QualitySettings(
        share=quality.samplePercent / 100,
        scorers=tuple(
            _compiled(one, authorization=authorizations.get(one.name), authorities=authorities.get(one.name), about=about)
            for one in quality.scorers
        ),
        digest=grounding_digest(quality),
    )


def _compiled(scorer: Scorer, *, authorization: str | None, authorities: str | None, about: Mapping[str, str]) -> BuiltIn | Remote:
    if scorer.http is not None:
        settings = RemoteSettings(
            name=scorer.name,
            url=scorer.http.url,
            timeout=scorer.http.timeoutMilliseconds / 1000,
            fail_below=scorer.fail_below,
            authorization=authorization,
            about=dict(about),
            jurisdiction=scorer.http.jurisdiction,
            authorities=authorities,
        )
        return Remote(scorer.name, settings, grounding=scorer.is_grounding)
    return BuiltIn(scorer.name, _judge(scorer), grounding=scorer.is_grounding)


def _judge(scorer: Scorer) -> Judge:
    below = scorer.fail_below
    match scorer.type:
        case ScorerType.LEXICAL:
            return lambda written, grounds: lexical(written, grounds=grounds, fail_below=below)
        case ScorerType.NUMBERS_AND_LINKS:
            return lambda written, grounds: numbers_and_links(written, grounds=grounds, fail_below=below)
        case ScorerType.CONFIDENCE:
            return lambda written, _: confidence(written, fail_below=below)
        case ScorerType.REFUSAL:
            return lambda written, _: refusal(written)
        case ScorerType.REPETITION:
            return lambda written, _: repetition(written, fail_below=below)
        case ScorerType.TRUNCATION:
            return lambda written, _: truncation(written)
        case ScorerType.JSON:
            return lambda written, _: is_json(written)
        case ScorerType.JSON_SCHEMA:
            assert scorer.jsonSchema is not None, "a scorer of the type JSONSchema has `jsonSchema`"
            accepts, asked_only = compile_schema(scorer.jsonSchema.definition), scorer.jsonSchema.appliesTo is SchemaScope.JSON_REQUESTS
            return lambda written, _: follows_schema(written, accepts=accepts, asked_only=asked_only)
        case ScorerType.PATTERNS:
            assert scorer.patterns is not None, "a scorer of the type Patterns has `patterns`"
            declared = scorer.patterns
            patterns = PatternScorer(personal=declared.personal, terms=declared.terms)
            return lambda written, _: patterns.judge(written)
        case ScorerType.HTTP:
            raise AssertionError("a scorer of the type HTTP has `http`")
    assert_never(scorer.type)
