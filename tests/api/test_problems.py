"""What the author of a refused manifest reads."""

import datetime
from typing import Any

import pytest

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.problems import InputError, parse_strictly


def _policy(**changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "promptVersion": "p-1",
        "latencyBudgetMilliseconds": 400,
        "chain": [
            {
                "name": "primary",
                "model": {"baseURL": "http://llm/v1", "name": "m"},
                "timeouts": {"firstTokenMilliseconds": 300},
            },
            {"name": "static", "static": {"default": "Later."}},
        ],
    }
    return good | changes


def _tier(**changes: Any) -> dict[str, Any]:
    return {"name": "primary", "model": {"baseURL": "http://llm/v1", "name": "m"}} | changes


CHAIN_REQUIRED = "`spec.chain`: required, but not with `spec.serving.workload`, which answers by itself"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"latencyBudgetMs": 4, **_policy()}, "`spec.latencyBudgetMs` is not a known field; take it out or correct its name"),
        (_policy(latencyBudgetMs=None), "`spec.latencyBudgetMs` is not a known field; take it out or correct its name"),
        (_policy(canary={"steps": [None, {"weight": 100}]}), "`spec.canary.steps[0]` must be an object, not `null`"),
        (_policy(chain=None), CHAIN_REQUIRED),
        ({k: v for k, v in _policy().items() if k != "chain"}, CHAIN_REQUIRED),
        (_policy(chain=[{"name": "primary", "model": {"baseURL": "http://m/v1"}}]), "`spec.chain[0].model.name` is missing; set it"),
        (
            _policy(latencyBudgetMilliseconds="400"),
            "`spec.latencyBudgetMilliseconds` must be a whole number, not a string; write it without quotes",
        ),
        *(
            (
                _policy(latencyBudgetMilliseconds=text),
                "`spec.latencyBudgetMilliseconds` must be a whole number, not a string; write digits alone, without a unit",
            )
            for text in ("abc", "400ms", "0.4", "", "\u0664")
        ),
        (_policy(latencyBudgetMilliseconds=0), "`spec.latencyBudgetMilliseconds` must be at least 1"),
        (_policy(chain="x"), "`spec.chain` must be a list, not a string"),
        (_policy(chain=[]), "`spec.chain` must have at least 1 element"),
        (_policy(chain=[7]), "`spec.chain[0]` must be an object, not a number"),
        (
            _policy(canary={"steps": [{"weight": 50}, {"weight": 5}, {"weight": 100}]}),
            "`spec.canary.steps`: weights must increase",
        ),
        (_policy(canary={"steps": [{"weight": 50}]}), "`spec.canary.steps`: the last weight must be 100"),
        (_policy(canary={"steps": [{"weight": 101}]}), "`spec.canary.steps[0].weight` must be at most 100"),
        (
            _policy(chain=[_tier(), _tier(name="both", static={"default": "x"})]),
            "`spec.chain`: each tier has exactly one of `model`, `cache`, `ruleEngine`, `human` and `static` (at `spec.chain[1]`)",
        ),
        (
            _policy(slos=[{"name": "e", "indicator": "ErrorRate", "maxPercent": 1}]),
            "`spec.slos[0].maxPercent` must be a string, not a number; put it in quotes",
        ),
        (
            _policy(slos=[{"name": "e", "indicator": "Speed", "maxPercent": "1"}]),
            (
                "`spec.slos[0].indicator` must be 'Latency', 'ErrorRate', 'FallbackRate', 'TokensPerRequest', 'CostPerRequest', "
                "'HallucinationRate' or 'NegativeFeedbackRate'"
            ),
        ),
        (None, "`spec` must be an object, not `null`"),
    ],
)
def test_a_refused_value_is_said_in_one_sentence(value: object, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_strictly(FallbackPolicySpec, value, prefix="spec")
    assert str(refused.value) == sentence


def test_a_good_value_is_parsed() -> None:
    assert parse_strictly(FallbackPolicySpec, _policy(), prefix="spec").chain[0].name == "primary"


def test_a_refused_value_is_never_shown() -> None:
    with pytest.raises(InputError) as refused:
        parse_strictly(FallbackPolicySpec, _policy(chain=[_tier(model={"baseURL": "http://sk-secret@llm", "name": "m"})]), prefix="spec")
    assert "sk-secret" not in str(refused.value)
    assert "`spec.chain[0].model.baseURL`" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "prefix", "path"),
    [
        ({"promptVersion": datetime.date(2026, 1, 1)}, "spec", "spec.promptVersion"),
        ({"chain": [{"name": "a"}, {"name": datetime.date(2026, 1, 1)}]}, "spec", "spec.chain[1].name"),
        ({"gatewayImage": datetime.date(2026, 1, 1)}, "", "gatewayImage"),
        ({"chain": [], datetime.date(2026, 1, 1): "x"}, "", "2026-01-01"),
        (datetime.date(2026, 1, 1), "spec", "spec"),
    ],
)
def test_a_bare_date_is_refused_with_its_place_and_the_way_out(value: object, prefix: str, path: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_strictly(FallbackPolicySpec, value, prefix=prefix)
    assert str(refused.value) == f"`{path}` is of a type that JSON does not have, such as a bare date; put it in quotes"


@pytest.mark.parametrize(("prefix", "what"), [("spec", "`spec`"), ("", "the document")])
def test_a_document_that_holds_itself_is_refused(prefix: str, what: str) -> None:
    endless: dict[str, Any] = {}
    endless["chain"] = [endless]
    with pytest.raises(InputError) as refused:
        parse_strictly(FallbackPolicySpec, endless, prefix=prefix)
    assert str(refused.value) == f"{what} holds itself, by a YAML alias; write it out"


def test_a_field_that_is_null_is_a_field_that_is_not_set() -> None:
    nulls = _policy(slos=None, canary={"steps": None}, chain=[_tier(static=None, timeouts={"totalSeconds": None})])
    assert parse_strictly(FallbackPolicySpec, nulls, prefix="spec") == parse_strictly(
        FallbackPolicySpec, _policy(chain=[_tier(timeouts={})]), prefix="spec"
    )
