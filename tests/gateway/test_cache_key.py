"""Which requests are the same for the cache, and what a caller's `Cache-Control` means."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.cachetier import CacheMatch
from backstop.gateway.body import ChatRequest, parse_chat
from backstop.gateway.cachekey import LONGEST_BODY, CacheControl, key_of, normalized, read_cache_control
from backstop.gateway.compilation import compile_revision
from backstop.gateway.revision import ModelTier, Revision

from .harness import make_record, model_tier

VARIABLES = [{"name": "tone", "default": "kind"}, {"name": "place", "default": "here"}]
BODY: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "user", "content": "When are you open?"}],
    "temperature": 0.2,
    "metadata": {"tone": "brisk", "place": "Ulm"},
}


def revision(prompt: str = "Be {{tone}}. You are in {{place}}.") -> Revision:
    return compile_revision(make_record([model_tier("models:8000")], prompt=prompt, variables=VARIABLES), environment={})


def target() -> ModelTier:
    first = revision().tiers[0]
    assert isinstance(first, ModelTier)
    return first


def request(body: dict[str, Any] | str, *, headers: dict[str, str] | None = None) -> ChatRequest:
    text = body if isinstance(body, str) else json.dumps(body)
    return parse_chat(text.encode(), revision=revision(), header_variables=headers or {})


def key(body: dict[str, Any] | str, *, headers: dict[str, str] | None = None) -> bytes | None:
    return key_of(request(body, headers=headers), target=target(), prompt_digest="sha256:1")


@pytest.mark.parametrize(
    "same",
    [
        BODY | {"user": "u-1", "safety_identifier": "s-1", "prompt_cache_key": "p-1"},
        BODY | {"metadata": {"tone": "brisk", "place": "Ulm", "trace": "7f9c"}},
        BODY | {"stream": True, "stream_options": {"include_usage": True}},
        """{"metadata": {"place": "Ulm", "tone": "brisk"}, "temperature": 0.20,
            "messages": [{"content": "When are you open\\u003f", "role": "user"}], "model": "another"}""",
    ],
    ids=["user", "undeclared metadata", "stream", "order and spelling"],
)
def test_w35_what_decides_on_no_answer_is_no_part_of_the_key(same: dict[str, Any] | str) -> None:
    assert key(same) == key(BODY) is not None


@pytest.mark.parametrize(
    "other",
    [
        BODY | {"temperature": 0.3},
        BODY | {"messages": [{"role": "user", "content": "When are you closed?"}]},
        BODY | {"messages": [{"role": "system", "content": "When are you open?"}]},
        BODY | {"metadata": {"tone": "brisk", "place": "Bonn"}},
        BODY | {"tools": [{"type": "function", "function": {"name": "f"}}]},
        BODY | {"response_format": {"type": "json_object"}},
        BODY | {"seed": 10**30},
    ],
)
def test_w35_another_parameter_message_or_declared_variable_is_another_key(other: dict[str, Any]) -> None:
    assert key(other) not in (key(BODY), None)


def test_w35_another_prompt_or_target_is_another_key() -> None:
    asked = request(BODY)
    keys = {
        key_of(asked, target=target(), prompt_digest="sha256:1"),
        key_of(asked, target=target(), prompt_digest="sha256:2"),
        key_of(asked, target=replace(target(), model="m2"), prompt_digest="sha256:1"),
        key_of(asked, target=replace(target(), url="http://others:8000/v1"), prompt_digest="sha256:1"),
    }
    assert len(keys - {None}) == 4


def test_w35_values_that_render_alike_are_still_told_apart() -> None:
    prompt = revision("{{tone}}{{place}}")
    texts = [json.dumps(BODY | {"metadata": {"tone": tone, "place": place}}) for tone, place in (("a", "bc"), ("ab", "c"))]
    asked = [parse_chat(text.encode(), revision=prompt, header_variables={}) for text in texts]
    assert asked[0].members["messages"] == asked[1].members["messages"]
    assert len({key_of(one, target=target(), prompt_digest="sha256:1") for one in asked}) == 2


ASKED = "When are you open?"
SAME = ["when are you open", "  When  are\tyou\nopen ?", "WHEN ARE YOU OPEN!!", "When are you open...", "When are you open ?…"]
OTHER = [
    "When are you open, -5",
    "When are you open, 5",
    "When are you open x²",
    "When are you open x2",
    "Whenare you open",
    "? When are you open",
    "",
]


def normal(text: str | list[Any], *, role: str = "user", match: CacheMatch = CacheMatch.NORMALIZED, **more: Any) -> bytes | None:
    asked = request(BODY | {"messages": [{"role": role, "content": text}]} | more)
    return key_of(asked, target=target(), prompt_digest="sha256:1", match=match)


def parts(text: str) -> list[Any]:
    return [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "https://example/A.png"}}]


@pytest.mark.parametrize("same", SAME)
def test_w35_normalized_requests_of_another_spelling_are_the_same(same: str) -> None:
    assert normal(same) == normal(ASKED) is not None
    assert normal(parts(same)) == normal(parts(ASKED)) is not None
    assert normal(same, match=CacheMatch.EXACT) != normal(ASKED, match=CacheMatch.EXACT)


def test_w35_normalized_requests_of_another_meaning_are_not() -> None:
    texts = [ASKED, *OTHER]
    assert len({normal(text) for text in texts} - {None}) == len(texts)
    assert normal(SAME[0], role="assistant") != normal(ASKED, role="assistant"), "what users wrote, and nothing else"
    assert normal(SAME[0], seed=1) != normal(ASKED, seed=2)
    assert normal(parts(ASKED)) != normal([parts(ASKED)[0], {"type": "image_url", "image_url": {"url": "https://example/a.png"}}])
    exact = normal(normalized(ASKED), match=CacheMatch.EXACT)
    assert exact != normal(ASKED), "a revision that wants exact answers takes none that another one thought close enough"


@given(st.text(max_size=30))
def test_normalizing_twice_is_normalizing_once(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_a_header_and_metadata_that_say_the_same_are_the_same() -> None:
    without = BODY | {"metadata": {"place": "Ulm"}}
    assert key(without, headers={"tone": "brisk"}) == key(BODY)


@pytest.mark.parametrize(
    "body",
    [
        BODY | {"n": 2},
        BODY | {"logprobs": True},
        BODY | {"store": True},
        BODY | {"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}},
        BODY | {"messages": [{"role": "user", "content": "x" * LONGEST_BODY}]},
        '{"messages":[{"role":"user","content":"harmful","content":"harmless"}]}',
        '{"messages":[{"role":"user","content":"Hi"}],"x":1e999}',
    ],
    ids=["n", "logprobs", "store", "audio", "long", "a member twice", "no number"],
)
def test_what_cannot_be_given_to_others_has_no_key(body: dict[str, Any] | str) -> None:
    assert key(body) is None


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("", CacheControl()),
        ("no-store", CacheControl(may_keep=False, max_age=0)),
        ("No-Cache", CacheControl(max_age=0)),
        ("max-age=30", CacheControl(max_age=30)),
        ('max-age="30" , max-age=60', CacheControl(max_age=30)),
        ("max-age=soon", CacheControl(max_age=0)),
        ("max-age=-1", CacheControl(max_age=0)),
        ("max-age=60, no-store", CacheControl(may_keep=False, max_age=0)),
        ("only-if-cached, max-stale=60", CacheControl(max_age=math.inf)),
    ],
)
def test_cache_control_is_read_as_rfc_9111_has_it(text: str, control: CacheControl) -> None:
    assert read_cache_control(text) == control
