"""What rules may say, and what is refused before they serve."""

import json
from typing import Any

import pytest

from backstop.api.ruleset import MOST_PATTERNS, MOST_REPEATS, RulesError, RuleSet, facts, read_rules


def written(*conditions: str) -> str:
    return json.dumps({"entries": [{"when": condition, "answer": "Yes."} for condition in conditions]})


def about(text: str = "", **more: Any) -> dict[str, Any]:
    return facts(text=text, locale="de-at", variables={"plan": "gold"}, headers={"x-shop": "vienna"}, **more)


def comes_to(rules: RuleSet, given: dict[str, Any]) -> list[object]:
    activation = rules.conditions.Activation(given)
    return [rule.when.eval(activation).value() for rule in rules.rules]


def test_conditions_read_text_variables_headers_and_locale() -> None:
    rules = read_rules(
        written(
            "request.text.matches('(?i)opening hours')",
            "request.folded.contains('strasse')",
            "request.variables.plan == 'gold' && request.headers['x-shop'] != 'linz'",
            "request.locale.startsWith('de')",
            "request.text == ''",
        )
    )
    assert comes_to(rules, about("OPENING Hours, Lange STRAẞE 5?")) == [True, True, True, True, False]


def test_a_text_that_cel_has_no_spelling_for_is_still_a_text() -> None:
    rules = read_rules(written("request.text.contains('after')"))
    assert comes_to(rules, about("before \ud800 and \x00 after")) == [True]


def test_what_is_not_there_is_an_error_of_the_condition_alone() -> None:
    (found,) = comes_to(read_rules(written("request.variables.nobody == ''")), about())
    assert "nobody" in str(found)


REFUSED = [
    ("request.txt == 'a'", "`entries[0].when`: line 1, column 8: undeclared reference to 'request.txt'"),
    ("request.text", "`entries[0].when` is of type string, and a condition is true or false; compare it with something"),
    ("request.text == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
    ("1 +", "Syntax error"),
    ("'a' == 'b' ||\n request.text", "line 1, column 12: found no matching overload for '_||_' applied to '(bool, string)'"),
    ("[1, 2].all(x, x > 0)", "undeclared reference to 'x'"),
    ("request.text.matches('(')", "`entries[0].when`: invalid regular expression: missing ): ("),
    ("request.text.matches(request.folded)", "`matches` takes a pattern that is written out"),
    ("request.text.matches('a' + request.text)", "`matches` takes a pattern that is written out"),
    ("matches(request.text, 'a')", "`matches` takes a pattern that is written out"),
    ("request.text.matches('''a''')", "three quotes"),
    ("request.text.matches('" + "a" * 129 + "')", "a pattern has 129 characters, and may have 128; shorten it"),
    ("request.text.matches('(a{0,9}b){8}')", f"the counts of a pattern's repetitions come to more than {MOST_REPEATS}"),
    (r"request.text.matches('\\pL+')", "`\\p` and `\\P` are not offered in patterns"),
    ("request.text == '" + "a" * 1024 + "'", "`entries[0].when`"),
    ("(" * 40 + "true" + ")" * 40, "recursion limit"),
]


@pytest.mark.parametrize(("condition", "sentence"), REFUSED)
def test_what_cannot_be_used_is_refused_in_a_sentence(condition: str, sentence: str) -> None:
    with pytest.raises(RulesError) as refused:
        read_rules(written(condition))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_text_that_looks_like_a_call_is_a_text() -> None:
    assert len(read_rules(written("request.text == \"x.matches('(')\" || request.text == r'\\d' // .matches(\n")).rules) == 1


def test_patterns_are_counted_over_all_rules() -> None:
    pattern = "request.text.matches('a')"
    assert len(read_rules(written(*[pattern] * MOST_PATTERNS)).rules) == MOST_PATTERNS
    with pytest.raises(RulesError, match=f"use `matches` {MOST_PATTERNS + 1} times"):
        read_rules(written(*[pattern] * MOST_PATTERNS, pattern))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a", "it is no map"),
        ("entries: []", "`entries` must have at least 1 element"),
        ("entries: [{when: 'true'}]", "`entries[0].answer` is missing"),
        ("entries: [{when: 'true', answer: a, then: b}]", "`entries[0].then`"),
        ("entries: [", "not valid YAML"),
        (f"entries: [{{when: 'true', answer: {'a' * 300_000}}}]", "more than 256 KiB"),
        ("entries: [{when: 'true', answer: \"\ud800\"}]", "line 1: half of a character"),
    ],
)
def test_a_document_of_another_shape_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(RulesError) as refused:
        read_rules(text)
    assert sentence in str(refused.value)
