"""A static tier with a knowledge base: over real sockets, streamed and not, by message and language; and from manifests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.fallbackpolicy import KnowledgeMatch
from backstop.api.knowledge import read_knowledge_base
from backstop.api.record import RevisionRecord
from backstop.gateway.compilation import compile_revision
from backstop.gateway.knowledge import LOOKED_AT, StaticAnswers, question_in
from backstop.gateway.manifests import read_record, record_from_manifests
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Fault, Rule

from .harness import Gateway, Gateways, Got, Model, TrafficApi, make_record, model_tier, state
from .test_manifests import policy, prompt, written

BASE = """
locale: en
entries:
- keywords: [opening hours, Öffnungszeiten]
  answers: {en: From nine to five., de: Von neun bis fünf., pt-BR: Das nove às cinco.}
- patterns: ["cancel* subscription*"]
  answer: "Here: https://shop.example/cancel"
defaults: {de: Das wissen wir gerade nicht.}
"""
CONFIG_MAP: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "kb", "namespace": "shop"},
    "data": {"answers.yaml": BASE},
}


def knowing_tier(**static: Any) -> dict[str, Any]:
    return {"name": "static", "static": {"default": "Not now.", "knowledgeBaseRef": {"name": "kb", "key": "answers.yaml"}} | static}


def knowing_record(*tiers: dict[str, Any], text: str = BASE, prompt_text: str = "Be kind.", **static: Any) -> RevisionRecord:
    return make_record([*tiers, knowing_tier(**static)], prompt=prompt_text, contents={"static": text})


def asking(text: object, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


async def ask(gateway: Gateway, body: Mapping[str, Any], *, languages: str = "") -> Got:
    headers = {"Accept-Language": languages} if languages else {}
    return await gateway.post(json.dumps({"model": "any", **body}).encode(), headers=headers)


ASKED = [
    ("What are your opening hours?", "", "From nine to five."),
    ("What are your opening hours?", "de-CH, en;q=0.5", "Von neun bis fünf."),
    ("Öffnungszeiten", "fr", "From nine to five."),
    ("opening hours", "pt-br", "Das nove às cinco."),
    ("opening hours", "pt", "From nine to five."),
    ("Cancel my subscription", "de", "Here: https://shop.example/cancel"),
    ("What is love?", "", "Not now."),
    ("Was ist Liebe?", "de", "Das wissen wir gerade nicht."),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_message_is_answered_in_the_callers_language(gateways: Gateways, stream: bool) -> None:
    gateway = await gateways.start(knowing_record())
    for text, languages, answer in ASKED:
        got = await ask(gateway, asking(text, stream=stream), languages=languages)
        assert (got.status, got.text, got.said("tier")) == (200, answer, "static")
        if stream:
            assert got.is_done
            assert {event["model"] for event in got.events} == {"backstop/static"}
        else:
            assert (got.json["model"], got.json["usage"]["total_tokens"]) == ("backstop/static", 0)


def test_where_no_entry_fits_a_caller_of_another_language_gets_the_default_in_the_knowledge_bases_own() -> None:
    written = "locale: en\nentries:\n- {keywords: [a], answer: A.}\ndefaults: {de: Später., en: Later.}\n"
    answers = StaticAnswers(read_knowledge_base(written), match=KnowledgeMatch.KEYWORD, default="Not now.")
    assert [answers.answer("?", languages=languages) for languages in ("", "fr", "de-AT", "fr, de;q=0.5")] == [
        "Later.",
        "Later.",
        "Später.",
        "Später.",
    ]


async def test_what_counts_is_the_callers_last_message_alone(gateways: Gateways) -> None:
    gateway = await gateways.start(knowing_record(prompt_text="Tell them our opening hours."))
    conversation = [
        {"role": "user", "content": "opening hours"},
        {"role": "assistant", "content": "opening hours"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Cancel"},
                {"type": "image_url", "image_url": {"url": "data:,opening hours"}},
                {"type": "text", "text": "my subscription"},
            ],
        },
        {"role": "assistant", "content": "opening hours"},
    ]
    assert (await ask(gateway, {"messages": conversation})).text == "Here: https://shop.example/cancel"
    assert (await ask(gateway, {"messages": [{"role": "system", "content": "opening hours"}]})).text == "Not now."


async def test_a_model_answers_first_and_the_knowledge_base_when_it_fails(gateways: Gateways, model: Model) -> None:
    gateway = await gateways.start(knowing_record(model_tier(model.url, firstTokenMilliseconds=2000)))
    assert (await ask(gateway, asking("opening hours"))).text == "All is well."
    model.script(Rule(fault=Fault.MALFORMED))
    got = await ask(gateway, asking("opening hours"))
    assert (got.text, got.said("reason")) == ("From nine to five.", "MalformedAnswer")


async def test_exact_takes_a_message_that_says_nothing_else(gateways: Gateways) -> None:
    gateway = await gateways.start(knowing_record(match="Exact"))
    assert (await ask(gateway, asking("Opening hours!"))).text == "From nine to five."
    assert (await ask(gateway, asking("your opening hours"))).text == "Not now."


async def test_a_canary_behind_the_entry_knows_the_callers_language(gateways: Gateways, api: TrafficApi) -> None:
    stable, canary = knowing_record(), knowing_record(text=BASE.replace("bis fünf", "bis sechs"))
    assert stable.revision != canary.revision
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1000))
    behind = await gateways.start(canary, api=api)
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(1)
    await behind.acts_on(1)
    got = await ask(entry, asking("opening hours"), languages="de")
    assert (got.said("track"), got.text) == ("canary", "Von neun bis sechs.")


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        {},
        [],
        [7, None, {"type": "text"}, {"type": "text", "text": 7}, {"text": "x"}],
        [[]],
        "\ud800",
        [{"type": "text", "text": "\ud800"}],
    ],
)
async def test_a_message_without_text_gets_the_default(gateways: Gateways, content: object) -> None:
    gateway = await gateways.start(knowing_record())
    assert (await ask(gateway, asking(content))).text == "Not now."


PARTS = st.lists(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(["text", "image_url"]), "text": st.text() | st.integers()}) | st.none()
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"])}, optional={"content": st.text() | st.none() | PARTS | st.integers()}
    ),
    max_size=4,
)


def question_as_meant(messages: list[dict[str, Any]]) -> str:
    users = [message for message in messages if message["role"] == "user"]
    content = users[-1].get("content") if users else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return "\n".join(text for text in texts if isinstance(text, str) and text)
    return content if isinstance(content, str) else ""


@given(MESSAGES, st.booleans())
def test_a_question_is_the_text_of_the_last_user_message(messages: list[dict[str, Any]], ascii_only: bool) -> None:
    spelled = [json.dumps(message, ensure_ascii=ascii_only).encode(errors="surrogatepass") for message in messages]
    assert question_in(spelled).split() == question_as_meant(messages).split()


def test_of_a_very_long_message_both_ends_are_looked_at() -> None:
    text = "a" * LOOKED_AT + "b" * 10_000_000 + "c" * LOOKED_AT
    assert question_in([json.dumps({"role": "user", "content": text}).encode()]) == "a" * LOOKED_AT + "\n" + "c" * LOOKED_AT


def test_the_manifests_may_hold_the_knowledge_base(tmp_path: Path) -> None:
    unrelated = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}, "data": {"a": "b"}}
    asked = policy("support", "shop", chain=[knowing_tier()])
    record, _, _ = record_from_manifests([written(tmp_path, CONFIG_MAP, asked, prompt("shop", text="Shop."), unrelated)], policy=None)
    assert record.contents == {"static": BASE}
    file = tmp_path / "revision.json"
    file.write_text(record.model_dump_json(exclude_defaults=True))
    assert read_record(file) == record
    other = CONFIG_MAP | {"data": {"answers.yaml": BASE + "# changed\n"}}
    changed, _, _ = record_from_manifests([written(tmp_path, other, asked, prompt("shop", text="Shop."))], policy=None)
    assert changed.revision != record.revision


FIELD = "`spec.chain[0].static.knowledgeBaseRef`"
UNFIT = [
    (
        None,
        f"FallbackPolicy `support`: {FIELD} names the ConfigMap `kb`, which no file has in namespace `shop`; give a file with it",
    ),
    (
        CONFIG_MAP | {"data": {"answers.yml": BASE}},
        f"ConfigMap `kb`: `data` has no text under `answers.yaml`, which {FIELD} names; correct one of them",
    ),
    (
        CONFIG_MAP | {"data": {"answers.yaml": "entries:\n- {keywords: [a], answer: x}\n- {keywords: [b]}"}},
        "ConfigMap `kb`: `data`, `answers.yaml`: `entries[1]` has neither `answer` nor `answers`; set one of them",
    ),
    (
        CONFIG_MAP | {"data": {"answers.yaml": "entries:\n- {keywords: [a], answer: half a \ud83d}"}},
        "ConfigMap `kb`: `data`, `answers.yaml`: line 2: half of a character that is written in two halves (U+D83D); write all of it",
    ),
]


@pytest.mark.parametrize(("config_map", "sentence"), UNFIT)
def test_manifests_without_a_good_one_are_refused_in_a_sentence(tmp_path: Path, config_map: dict[str, Any] | None, sentence: str) -> None:
    objects = [policy("support", "shop", chain=[knowing_tier()]), prompt("shop", text="Shop."), *([config_map] if config_map else [])]
    file = written(tmp_path, *objects)
    with pytest.raises(ConfigurationError) as refused:
        record_from_manifests([file], policy=None)
    assert str(refused.value) == f"{file}: {sentence}"


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({}, "is not in the record's `contents`; let the operator write the record"),
        ({"static": "entries: []"}, "cannot be used: `entries` must have at least 1 element"),
    ],
)
def test_a_record_that_no_operator_would_write_is_refused_at_the_start(contents: dict[str, str], sentence: str) -> None:
    record = knowing_record().model_copy(update={"contents": contents})
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(record, environment={})
    assert str(refused.value) == f"the knowledge base `answers.yaml` of ConfigMap `kb` {sentence}"


def test_a_sample_as_it_is_documented_is_a_good_one() -> None:
    sample = Path(__file__).parents[2] / "manifests" / "samples" / "support-knowledge.yaml"
    record, _, _ = record_from_manifests([sample], policy=None)
    assert [d["kind"] for d in yaml.safe_load_all(sample.read_text())].count("ConfigMap") == 1
    assert set(record.contents) == {record.chain[-1].name}
