"""A tier with a rule engine, over real sockets: the first condition that holds answers, and the next tier where none does."""

from pathlib import Path
from typing import Any

import pytest

from backstop.api.record import RevisionRecord
from backstop.gateway.compilation import compile_revision
from backstop.gateway.manifests import record_from_manifests
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Fault, Rule

from .harness import NOBODY, Gateways, Model, TrafficApi, make_record, model_tier, state, static_tier
from .test_knowledge import ask, asking
from .test_manifests import policy, prompt, written

RULES = """
entries:
- when: request.variables.nobody == 'x'          # an error, wherever it is asked
  answer: Never.
- when: request.text.matches('(?i)opening hours') && request.locale.startsWith('de')
  answer: Von neun bis fünf.
- when: request.folded.contains('opening hours')
  answer: From nine to five.
- when: request.variables.plan == 'gold' && request.headers['x-shop'] == 'vienna'
  answer: Call us at any time.
"""


def rules_tier(**more: Any) -> dict[str, Any]:
    return {"name": "rules", "ruleEngine": {"rulesRef": {"name": "rules", "key": "rules.yaml"}, "headers": ["X-Shop"]} | more}


def ruled(*, first: str = NOBODY, text: str = RULES, after: tuple[dict[str, Any], ...] = (static_tier(),)) -> RevisionRecord:
    plan = {"name": "plan", "required": False}
    chain = [model_tier(first, firstTokenMilliseconds=2000), rules_tier(), *after]
    return make_record(chain, prompt="Plan: {{plan}}.", variables=[plan], contents={"rules": text})


@pytest.mark.parametrize("stream", [False, True])
async def test_w61_the_first_rule_that_holds_answers_and_the_next_tier_where_none_does(gateways: Gateways, stream: bool) -> None:
    gateway = await gateways.start(ruled())
    for text, languages, answer, model in [
        ("What are your OPENING hours?", "de-AT, en", "Von neun bis fünf.", "backstop/rules"),
        ("What are your OPENING hours?", "en, de", "From nine to five.", "backstop/rules"),
        ("What is love?", "", "Not now.", "backstop/static"),
    ]:
        got = await ask(gateway, asking(text, stream=stream), languages=languages)
        assert (got.status, got.text, got.said("model"), got.said("reason")) == (200, answer, model, "DependencyFailure")
        if stream:
            assert got.is_done
            assert {event["model"] for event in got.events} == {model}
        else:
            assert (got.json["model"], got.json["usage"]["total_tokens"]) == (model, 0)


async def test_w61_an_error_in_a_rule_is_a_miss_and_counted(gateways: Gateways) -> None:
    gateway = await gateways.start(ruled())
    await ask(gateway, asking("opening hours"))
    await ask(gateway, asking("love"))
    counted = [await gateway.total("backstop_rules_total", tier="rules", result=r) for r in ("answered", "missed", "failed")]
    assert counted == [1, 1, 2]


async def test_rules_read_variables_and_the_headers_that_are_named(gateways: Gateways, api: TrafficApi) -> None:
    stable, canary = ruled(), ruled(text=RULES.replace("at any time", "by day"))
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1000))
    behind = await gateways.start(canary, api=api)
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(1)
    await behind.acts_on(1)
    body, shop = asking("?", metadata={"plan": "gold"}), {"X-Shop": "vienna"}
    assert (await entry.chat(headers=shop, **body)).text == "Call us by day.", "forwarded to the canary"
    assert (await entry.chat(headers={"X-Shop": "linz"}, **body)).text == "Not now."
    assert (await entry.chat(**body)).text == "Not now."
    assert (await entry.chat(headers=shop, **asking("?"))).text == "Not now."


async def test_a_model_that_answers_is_not_overruled_and_one_that_fails_is_replaced(gateways: Gateways, model: Model) -> None:
    gateway = await gateways.start(ruled(first=model.url))
    assert (await ask(gateway, asking("opening hours"))).text == "All is well."
    model.script(Rule(fault=Fault.MALFORMED))
    got = await ask(gateway, asking("opening hours"))
    assert (got.text, got.said("tier"), got.said("reason")) == ("From nine to five.", "rules", "MalformedAnswer")


async def test_where_no_rule_holds_and_nobody_is_left_the_first_failure_is_told(gateways: Gateways) -> None:
    got = await ask(await gateways.start(ruled(after=())), asking("love"))
    assert (got.status, got.json["error"]["code"]) == (502, "DependencyFailure")


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({}, "are not in the record's `contents`; let the operator write the record"),
        (
            {"rules": "entries: [{when: request.txt == '', answer: a}]"},
            "cannot be used: `entries[0].when`: line 1, column 8: undeclared reference to 'request.txt'",
        ),
    ],
)
def test_rules_that_cannot_be_compiled_are_refused_at_the_start(contents: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(ruled().model_copy(update={"contents": contents}), environment={})
    assert str(refused.value) == f"the rules `rules.yaml` of ConfigMap `rules` {sentence}"


def test_manifests_with_rules_that_cannot_be_compiled_are_refused_in_a_sentence(tmp_path: Path) -> None:
    chain = [model_tier("m"), rules_tier()]
    rules = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rules", "namespace": "shop"}}
    bad = rules | {"data": {"rules.yaml": "entries: [{when: request.text, answer: a}]"}}
    file = written(tmp_path, policy("support", "shop", chain=chain), prompt("shop", text="Shop."), bad)
    with pytest.raises(ConfigurationError) as refused:
        record_from_manifests([file], policy=None)
    assert str(refused.value) == (
        f"{file}: ConfigMap `rules`: `data`, `rules.yaml`: `entries[0].when` is of type string, and a condition is true or false; "
        "compare it with something"
    )


def test_the_sample_with_rules_people_and_jinja_is_a_good_one() -> None:
    sample = Path(__file__).parents[2] / "manifests" / "samples" / "support-handed-on.yaml"
    record, _, _ = record_from_manifests([sample], policy=None)
    revision = compile_revision(record, environment={"BACKSTOP_WEBHOOK_SECRET_2": "sixteen characters"})
    assert revision.models == ("large", "backstop/rules", "backstop/human", "backstop/static")
