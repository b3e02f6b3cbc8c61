"""What the scorers see in an answer, and what they leave to others. Expected shares are counted by hand."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstop.api.metricnames import QualityLabel
from backstop.api.quality import PersonalKind, Quality
from backstop.gateway.quality.grounds import Grounds, grounds_of
from backstop.gateway.quality.patterns import PatternScorer
from backstop.gateway.quality.scorers import confidence, is_json, lexical, numbers_and_links, refusal, repetition, truncation
from backstop.gateway.quality.settings import BuiltIn, compile_quality
from backstop.gateway.quality.verdict import FAILED, NO_VERDICT, PASSED, SKIPPED, Verdict, over_all
from backstop.gateway.quality.written import LONGEST_ANSWER, LONGEST_CONTEXT, Sampled, Written, read

from .steps import taken

PASS, FAIL, SKIP = QualityLabel.PASS, QualityLabel.FAIL, QualityLabel.SKIP
SHOP = "Our bakery in Harbour Street opens on weekdays from 10:45 until 19.30. Delivery costs 1,250.50 kronor; see https://Shop.example/delivery/."


def written(answer: str, *context: str, **fields: Any) -> Written:
    return Written(answer=answer, context=context, **fields)


def told(verdict: Verdict) -> tuple[QualityLabel, Any]:
    return verdict.label, verdict.score


def grounds(*context: str) -> Grounds:
    return taken(grounds_of(context))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("It opens at 10:45 and closes at 19.30.", Verdict(PASS, 1.0)),
        ("It opens at 10.45 and closes at 19:30, see shop.example/delivery.", Verdict(PASS, 1.0)),
        ("Delivery costs 1250.5 kronor.", Verdict(PASS, 1.0)),
        ("Delivery costs 1.250,50 kronor.", Verdict(PASS, 1.0)),
        ("Delivery costs 1'250.50 or 1\u00a0250,50.", Verdict(PASS, 1.0)),
        ("Delivery costs 1,260.50 kronor, from 10:45 on.", Verdict(FAIL, 0.5)),
        ("See https://shop.example/delivery or http://www.shop.example", Verdict(PASS, 1.0)),
        ("See (https://shop.example/returns).", Verdict(FAIL, 0.0)),
        ("1. Come in.\n2) Pay.\n 3. Take one of our 9 loaves.", Verdict(PASS, 1.0)),
        ("It is open on weekdays.", Verdict(PASS, 1.0)),
        ("Model B12 of 2019.", Verdict(FAIL, 0.0)),
        ("Since 2019-05-08.", Verdict(FAIL, 0.0)),
    ],
)
def test_figures_and_links_are_found_however_they_are_written(answer: str, verdict: Verdict) -> None:
    assert numbers_and_links(written(answer), grounds=grounds(SHOP), fail_below=1.0) == verdict


def test_a_figure_is_known_from_any_message_and_from_inside_a_link() -> None:
    known = grounds("Order 4711", "https://shop.example/orders/2024-0815")
    assert numbers_and_links(written("Orders 4711 and 0815 of 2024"), grounds=known, fail_below=1.0) == Verdict(PASS, 1.0)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        # open-ing as open-s; bakery, weekdays, harbour: 4 of open, bakery, weekday, harbour, street.
        ("Our bakeries open on weekdays in Harbour Street", Verdict(PASS, 1.0)),
        ("Unicorns graze quietly beside seven golden rivers", Verdict(FAIL, 0.0)),
        ("The bakery opens whenever dragons allow", Verdict(PASS, 0.4)),
        ("The bakery opens never whenever dragons allow", Verdict(FAIL, 1 / 3)),
        ("It is open", SKIPPED),
        ("I don\u2019t know when dragons and unicorns graze beside golden rivers", SKIPPED),
    ],
)
def test_words_are_compared_by_how_they_begin(answer: str, verdict: Verdict) -> None:
    context = "Our bakery in Harbour Street opens on weekdays; bread costs little and delivery takes hours until evening comes"
    assert lexical(written(answer), grounds=grounds(context), fail_below=0.4) == verdict


def test_words_of_scripts_without_spaces_are_pairs_of_signs() -> None:
    context = "営業時間は平日の十時から十九時までです。日曜日は休みます。"
    assert lexical(written("平日の十時から営業します"), grounds=grounds(context), fail_below=0.4).label is PASS
    assert lexical(written("猫耳少女図書館員募集中"), grounds=grounds(context), fail_below=0.4) == Verdict(FAIL, 0.0)


def test_what_an_answer_has_from_where_is_not_known_without_its_request_or_with_next_to_none() -> None:
    answer = written("Unicorns graze quietly beside 77 golden rivers")
    assert lexical(answer, grounds=None, fail_below=0.4) == SKIPPED
    assert lexical(answer, grounds=grounds("Where do they graze?"), fail_below=0.4) == SKIPPED
    assert numbers_and_links(answer, grounds=None, fail_below=1.0) == SKIPPED


def test_confidence_is_the_geometric_mean_of_the_models_own_probabilities() -> None:
    unsure = written("x", certainties=(math.log(0.9), math.log(0.1)))
    assert told(confidence(unsure, fail_below=0.5)) == (FAIL, pytest.approx(0.3))
    assert told(confidence(written("x", certainties=(0.0, math.log(0.25))), fail_below=0.5)) == (PASS, pytest.approx(0.5))
    assert confidence(written("x"), fail_below=0.5) == SKIPPED
    assert confidence(written("x", certainties=(800.0,)), fail_below=0.5) == Verdict(PASS, 1.0), "what no probability has is none too large"


@pytest.mark.parametrize(
    ("answer", "fields", "verdict"),
    [
        ("I\u2019m sorry, I can\u2019t help with that.", {}, FAILED),
        ("Es tut mir leid, das geht nicht.", {}, FAILED),
        ("", {"refused": True}, FAILED),
        ("", {"finish": "content_filter"}, FAILED),
        ("We open at ten.", {}, PASSED),
        ("Cats, I cannotate, are fine.", {}, PASSED),
        ("Fine. " * 50 + "I cannot", {}, PASSED),
    ],
)
def test_a_refusal_is_told_by_its_field_or_its_first_words(answer: str, fields: dict[str, Any], verdict: Verdict) -> None:
    assert refusal(written(answer, **fields)) == verdict


def test_a_model_that_goes_round_in_circles_repeats_runs_of_words() -> None:
    # 40 words, four of them new: 37 runs, of which four are different.
    assert told(repetition(written("once upon a time " * 10), fail_below=0.5)) == (FAIL, pytest.approx(4 / 37))
    assert repetition(written(" ".join(f"w{n}" for n in range(40))), fail_below=0.5) == Verdict(PASS, 1.0)
    assert repetition(written("no no no"), fail_below=0.5) == SKIPPED


@pytest.mark.parametrize(
    ("finish", "verdict"), [("length", FAILED), ("stop", PASSED), ("tool_calls", PASSED), ("content_filter", SKIPPED), (None, SKIPPED)]
)
def test_an_answer_is_cut_that_ended_for_its_length(finish: str | None, verdict: Verdict) -> None:
    assert truncation(written("x", finish=finish)) == verdict


@pytest.mark.parametrize(
    ("answer", "fields", "verdict"),
    [
        ('{"hours": [10, 19.5]}', {}, PASSED),
        ('```json\n{"hours": 10}\n```', {}, FAILED),
        ('{"hours": 10', {}, FAILED),
        ("[1]", {}, FAILED),
        ("[" * 8000, {}, FAILED),
        ("Ten.", {"wants_json": False}, SKIPPED),
        ('{"hours": 10', {"finish": "length"}, SKIPPED),
        ('{"hours": 10', {"is_cut": True}, SKIPPED),
    ],
)
def test_json_is_told_where_it_was_asked_for_and_is_there_as_a_whole(answer: str, fields: dict[str, Any], verdict: Verdict) -> None:
    assert is_json(written(answer, **({"wants_json": True, "finish": "stop"} | fields))) == verdict


HOURS = '{"properties": {"hours": {"type": "array", "items": {"type": "number"}}}, "required": ["hours"]}'


def shaped(definition: str, **fields: Any) -> BuiltIn:
    declared = {"name": "shape", "type": "JSONSchema", "jsonSchema": {"definition": definition, **fields}}
    (scorer,) = compile_quality(Quality.model_validate({"scorers": [declared]}), authorizations={}, authorities={}, about={}).scorers
    assert isinstance(scorer, BuiltIn)
    return scorer


@pytest.mark.parametrize(
    ("answer", "fields", "verdict"),
    [
        ('{"hours": [10, 19.5]}', {}, PASSED),
        (' {"hours": [], "more": null}\n', {}, PASSED),
        ('{"hours": ["ten"]}', {}, FAILED),
        ("[1]", {}, PASSED),  # the schema says nothing of what is no object
        ("null", {}, PASSED),
        ('```json\n{"hours": [10]}\n```', {}, FAILED),
        ('Here it is: {"hours": [10]}', {}, FAILED),
        ('{"hours": [NaN]}', {}, FAILED),
        ('{"hours": [10]', {}, FAILED),
        ("[" * 8000, {}, FAILED),
        ("Ten.", {"wants_json": False}, SKIPPED),
        ('{"hours": 10}', {"finish": "length"}, SKIPPED),
        ('{"hours": 10}', {"finish": "tool_calls"}, SKIPPED),
        ('{"hours": 10}', {"is_cut": True}, SKIPPED),
    ],
)
def test_a_shape_is_told_of_answers_that_are_there_as_a_whole(answer: str, fields: dict[str, Any], verdict: Verdict) -> None:
    said = written(answer, **({"wants_json": True, "finish": "stop"} | fields))
    assert shaped(HOURS).judge(said, None) == verdict
    everywhere = FAILED if not said.wants_json else verdict
    assert shaped(HOURS, appliesTo="AllRequests").judge(said, None) == everywhere
    assert not shaped(HOURS).grounding


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Write to jane.doe+shop@mail.example.com.", FAILED),
        ("Write to help@shop.example.", PASSED),  # stands in the request
        ("Call +46 (0)8 123 45 67 89.", FAILED),
        ("Call 0800-555 0199.", PASSED),
        ("Order 100200300.", PASSED),
        ("Card 4111 1111 1111 1111.", FAILED),
        ("Card 4111 1111 1111 1112.", PASSED),
        ("Pay to GB82 WEST 1234 5698 7654 32.", FAILED),
        ("Pay to GB83 WEST 1234 5698 7654 32.", PASSED),
        ("Buy at ACME-Rival!", FAILED),
        ("Acme has rivals.", PASSED),
    ],
)
def test_what_an_answer_must_not_hold_is_found_and_what_its_request_holds_is_no_secret(answer: str, verdict: Verdict) -> None:
    scorer = PatternScorer(personal=list(PersonalKind), terms=["acme rival"])
    assert scorer.judge(written(answer, "Our address is help@shop.example, or 0800 5550199.")) == verdict


@pytest.mark.parametrize(
    ("verdicts", "label"),
    [
        ([PASSED, FAILED], FAIL),
        ([PASSED, SKIPPED], PASS),
        ([SKIPPED, SKIPPED], SKIP),
        ([FAILED, NO_VERDICT], QualityLabel.ERROR),
        ([PASSED, NO_VERDICT], QualityLabel.ERROR),
    ],
)
def test_an_answer_counts_once_and_for_nothing_while_a_scorer_gives_no_verdict(verdicts: list[Verdict], label: QualityLabel) -> None:
    assert over_all(verdicts) is label


def chunk(text: str, **choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}, **choice}]}).encode() + b"\r\n\r\n"


def test_a_stream_is_read_as_the_answer_that_it_was_wherever_it_was_cut() -> None:
    raw = (
        chunk("Ten, ")
        + b": a comment\n\n"
        + chunk("or 10:45.", logprobs={"content": [{"logprob": -0.5}, {}]})
        + chunk("", finish_reason="stop")
    )
    other = b'data: {"choices":[{"index":1,"delta":{"content":"Never."}}]}\n\ndata: [DONE]\n\n'
    messages = b'[{"role":"user","content":"When?"},{"role":"assistant","content":"77?"},{"role":"tool","content":"{}"}]'
    for size in (1, 7, 10_000):
        events = tuple((raw + other)[start : start + size] for start in range(0, len(raw + other), size))
        assert taken(read(Sampled(messages=messages, events=events))) == Written(
            answer="Ten, or 10:45.", context=("When?", "{}"), question="When?", finish="stop", certainties=(-0.5,)
        )


def test_what_is_too_long_is_cut_and_what_it_was_asked_with_is_then_not_known() -> None:
    message = [{"role": "user", "content": "x" * (LONGEST_CONTEXT + 1)}]
    body = {"choices": [{"message": {"content": "y " * LONGEST_ANSWER}, "finish_reason": "stop"}]}
    found = taken(read(Sampled(messages=json.dumps(message).encode(), body=json.dumps(body).encode())))
    assert found is not None
    assert (len(found.answer), found.is_cut, found.context) == (LONGEST_ANSWER, True, None)
    assert taken(read(Sampled(messages=None, body=b'{"choices": [{"message": {"content": "77"}}]}'))) == Written(answer="77", context=None)


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(["length", "stop", None]))
@settings(max_examples=50, deadline=None)
def test_every_text_has_a_verdict_and_every_score_is_a_share(answer: str, context: str, finish: str | None) -> None:
    known, said = grounds(context), written(answer, context, finish=finish)
    declared = [
        {"name": kind.lower(), "type": kind}
        for kind in ("Lexical", "NumbersAndLinks", "Confidence", "Refusal", "Repetition", "Truncation", "JSON")
    ]
    rules = {"name": "rules", "type": "Patterns", "patterns": {"personal": list(PersonalKind), "terms": ["a", "0"]}}
    shape = {"name": "shape", "type": "JSONSchema", "jsonSchema": {"definition": '{"items": {"$ref": "#"}}', "appliesTo": "AllRequests"}}
    quality = [Quality.model_validate({"scorers": scorers}) for scorers in (declared, [rules, shape])]
    for scorer in (s for q in quality for s in compile_quality(q, authorizations={}, authorities={}, about={}).scorers):
        assert isinstance(scorer, BuiltIn)
        score = scorer.judge(said, known).score
        assert score is None or 0 <= score <= 1


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_what_is_no_answer_or_no_messages_is_read_as_nothing(one: bytes, other: bytes) -> None:
    event = b'data: {"choices":[{"delta":{"content":' + one + b"}}]}\n\n"
    for messages in (one, b"[" + one + b"]", b'[{"role":"user","content":' + other + b"}]"):
        for sampled in (Sampled(messages=messages, body=other or b"x"), Sampled(messages=messages, events=(event, other))):
            found = taken(read(sampled))
            assert found is None or found.answer
